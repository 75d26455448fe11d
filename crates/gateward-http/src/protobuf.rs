//! The wire format of protobuf messages, as far as it is read here: fields one by one
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A variable-length integer.
    Number(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no message that is read here has a use for.
    Fixed,
}

impl<'a> Value<'a> {
    /// What it holds, if that is bytes.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) | Self::Fixed => None,
        }
    }
}

/// Take a field from the front: its number and value. The inner `None` is the end, the outer one nonsense.
pub fn field<'a>(input: &mut &'a [u8]) -> Option<Option<(u64, Value<'a>)>> {
    if input.is_empty() {
        return Some(None);
    }
    let key = varint(input)?;
    let value = match key & 7 {
        0 => Value::Number(varint(input)?),
        1 => {
            *input = input.get(8..)?;
            Value::Fixed
        }
        2 => {
            let length = usize::try_from(varint(input)?).ok()?;
            let (bytes, rest) = input.split_at_checked(length)?;
            *input = rest;
            Value::Bytes(bytes)
        }
        5 => {
            *input = input.get(4..)?;
            Value::Fixed
        }
        _ => return None,
    };
    (key >> 3 > 0).then_some(Some((key >> 3, value)))
}

/// Take a variable-length integer from the front.
fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_one_by_one() {
        let message = [8, 0xac, 2, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut input = &message[..];
        assert_eq!(field(&mut input), Some(Some((1, Value::Number(300)))));
        assert_eq!(field(&mut input), Some(Some((2, Value::Bytes(b"hi")))));
        assert_eq!(field(&mut input), Some(Some((3, Value::Fixed))));
        assert_eq!(field(&mut input), Some(Some((4, Value::Fixed))));
        assert_eq!(field(&mut input), Some(None));
        for nonsense in [&[0x80][..], &[0x12, 3, b'h'], &[0x0b], &[0, 1], &[0x1d, 1], &[0xff; 11]] {
            assert_eq!(field(&mut &*nonsense), None, "{nonsense:?}");
        }
    }
}
