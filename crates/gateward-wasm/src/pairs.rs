//! The language in which maps of fields cross the border between host and guest.
//!
//! A map is a count, then the lengths of every name and value, then the bytes, each followed by a NUL; numbers are
//! 32 bits, little-endian. An empty map is nothing at all, or one zero byte. Source: proxy-wasm/spec v0.2.1,
//! "Serialization". Reading is strict, because what is read comes from a guest: lengths must fit, NULs must be
//! where they belong, and nothing may follow.

/// Most pairs of one map, as in Envoy's host (`limits.h` of proxy-wasm-cpp-host).
pub const MAX_PAIRS: usize = 1024;

/// Most bytes of one serialised map, likewise.
pub const MAX_BYTES: usize = 1 << 20;

/// Why bytes are no map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PairsError {
    /// The bytes end before the last pair, or go on behind it.
    #[error("the lengths of the pairs do not add up to the size of the map")]
    Size,
    /// A name or value is not followed by a NUL.
    #[error("a name or value is not followed by a NUL")]
    Terminator,
    /// More than [`MAX_PAIRS`] pairs or [`MAX_BYTES`] bytes.
    #[error("more than {MAX_PAIRS} pairs or {MAX_BYTES} bytes")]
    TooLarge,
}

/// A map whose form was checked; iterating it copies nothing.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a> {
    lengths: &'a [u8],
    data: &'a [u8],
}

/// Check `bytes` and give access to the pairs in them.
///
/// # Errors
/// The bytes are no map, or a map beyond the limits.
pub fn parse(bytes: &[u8]) -> Result<Pairs<'_>, PairsError> {
    if bytes.is_empty() || bytes == [0] {
        return Ok(Pairs { lengths: &[], data: &[] });
    }
    if bytes.len() > MAX_BYTES {
        return Err(PairsError::TooLarge);
    }
    let (count, rest) = bytes.split_first_chunk::<4>().ok_or(PairsError::Size)?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > MAX_PAIRS {
        return Err(PairsError::TooLarge);
    }
    let (lengths, data) = rest.split_at_checked(count * 8).ok_or(PairsError::Size)?;
    let mut left = data;
    for length in lengths.as_chunks::<4>().0 {
        let length = u32::from_le_bytes(*length) as usize;
        let (_, after) = left.split_at_checked(length).ok_or(PairsError::Size)?;
        let (terminator, after) = after.split_first().ok_or(PairsError::Size)?;
        if *terminator != 0 {
            return Err(PairsError::Terminator);
        }
        left = after;
    }
    if left.is_empty() { Ok(Pairs { lengths, data }) } else { Err(PairsError::Size) }
}

impl<'a> Pairs<'a> {
    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.lengths.len() / 8
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The value of the first pair of this name, which must be given in small letters.
    pub fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter { lengths: self.lengths.as_chunks::<4>().0, data: self.data }
    }
}

/// Iterator over the pairs of a checked map.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    lengths: &'a [[u8; 4]],
    data: &'a [u8],
}

impl<'a> Iter<'a> {
    fn part(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.lengths.split_first()?;
        self.lengths = rest;
        let (part, after) = self.data.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.data = after.split_first()?.1;
        Some(part)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.part()?, self.part()?))
    }
}

/// Writes a map in two passes over its pairs: lengths first, then bytes.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    count: usize,
    bytes: usize,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        Self { out, start, count: 0, bytes: 4 }
    }

    /// First pass: a pair of these lengths will come.
    pub fn announce(&mut self, name: &[u8], value: &[u8]) {
        self.count += 1;
        self.bytes += 10 + name.len() + value.len();
        self.out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }

    /// Between the passes: how many pairs there are. With none the map is nothing.
    pub fn count(&mut self) -> usize {
        if self.count == 0 {
            self.out.truncate(self.start);
        } else {
            self.out[self.start..self.start + 4].copy_from_slice(&(self.count as u32).to_le_bytes());
        }
        self.count
    }

    /// Second pass: the pair itself. Names are written in small letters, as guests expect them.
    pub fn pair(&mut self, name: &[u8], value: &[u8]) {
        let from = self.out.len();
        self.out.extend_from_slice(name);
        self.out[from..].make_ascii_lowercase();
        self.out.push(0);
        self.out.extend_from_slice(value);
        self.out.push(0);
    }
}

/// The serialised map of these pairs.
pub fn to_bytes<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    for (name, value) in pairs.clone() {
        writer.announce(name, value);
    }
    if writer.count() > 0 {
        for (name, value) in pairs {
            writer.pair(name, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: Result<&[(&str, &str)], PairsError>) {
        let parsed = parse(bytes).map(|pairs| pairs.into_iter().collect::<Vec<_>>());
        let expected = expected
            .map(|pairs| pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect::<Vec<_>>());
        assert_eq!(parsed, expected, "{bytes:?}");
    }

    #[test]
    fn the_example_of_the_specification() {
        let bytes = b"\x02\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0a\x001\0b\x0022\0";
        check(bytes, Ok(&[("a", "1"), ("b", "22")]));
        let pairs = [(&b"A"[..], &b"1"[..]), (b"b", b"22")];
        assert_eq!(to_bytes(pairs.into_iter()), bytes);
    }

    #[test]
    fn empty_maps_have_three_forms() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\0"] {
            check(bytes, Ok(&[]));
        }
        assert_eq!(to_bytes(std::iter::empty()), b"");
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        check(b"\x01", Err(PairsError::Size));
        check(b"\x01\0\0\0", Err(PairsError::Size));
        check(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001", Err(PairsError::Size));
        check(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001\0x", Err(PairsError::Size));
        check(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0ab1\0", Err(PairsError::Terminator));
        check(b"\x01\0\0\0\xff\xff\xff\xff\x01\0\0\0a\x001\0", Err(PairsError::Size));
        check(b"\x01\x04\0\0", Err(PairsError::TooLarge));
        check(&vec![0; MAX_BYTES + 1], Err(PairsError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            pairs in proptest::collection::vec(("[a-z-]{0,9}", proptest::collection::vec(any::<u8>(), 0..9)), 0..9),
        ) {
            let wanted = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
            let bytes = to_bytes(wanted.clone());
            let read = parse(&bytes).unwrap();
            prop_assert_eq!(read.len(), pairs.len());
            prop_assert!(read.into_iter().eq(wanted));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0u8..4, 0..64)) {
            if let Ok(pairs) = parse(&bytes) {
                prop_assert_eq!(pairs.into_iter().count(), pairs.len());
            }
        }
    }
}
