//! The properties that fuzzing checks: the fuzz target, the replay of the committed corpus and the property tests call
//! the same code. Panics when a property does not hold. Not part of the API.

use crate::health::serving_status;

/// Answers of a gRPC health service: read as a plain reading does, cut short they are none, and fields of later versions
/// of the message change nothing.
pub fn grpc_health(data: &[u8]) {
    let status = serving_status(data);
    assert_eq!(status, read_plainly(data));
    let Some(status) = status else { return };
    for length in 0..data.len() {
        assert_eq!(serving_status(&data[..length]), None, "cut to {length} bytes");
    }
    for field in [&[0x10, 7][..], &[0x19, 1, 2, 3, 4, 5, 6, 7, 8], &[0x22, 1, 0xFF], &[0x2D, 1, 2, 3, 4]] {
        let message = [&data[5..], field].concat();
        assert_eq!(serving_status(&framed(&message)), Some(status), "with {field:?}");
    }
}

/// A message of gRPC that is not compressed.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// Field by field at a position, with numbers that cannot overflow.
fn read_plainly(data: &[u8]) -> Option<u64> {
    let message = data.get(5..)?;
    if data != framed(message) {
        return None;
    }
    let (mut at, mut status) = (0, 0);
    while at < message.len() {
        let key = number(message, &mut at)?;
        if key / 8 == 0 {
            // No field has this number (https://protobuf.dev/programming-guides/proto3/#assigning).
            return None;
        }
        let end = match key % 8 {
            0 => {
                let value = number(message, &mut at)?;
                if key / 8 == 1 {
                    status = value;
                }
                at as u128
            }
            1 => at as u128 + 8,
            2 => u128::from(number(message, &mut at)?) + at as u128,
            5 => at as u128 + 4,
            _ => return None,
        };
        at = usize::try_from(end).ok().filter(|end| *end <= message.len())?;
    }
    Some(status)
}

/// The number at `at`: groups of seven bits, the lowest first, at most ten; bits beyond 64 are dropped, as protobuf's own
/// readers do.
fn number(message: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0_u128;
    for index in 0..10 {
        let byte = *message.get(*at)?;
        *at += 1;
        number += u128::from(byte % 128) << (7 * index);
        if byte < 128 {
            return Some(number as u64);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_corpus_passes() {
        let (mut count, mut serving) = (0, 0);
        for data in gateward_testkit::corpus("grpc_health", 10) {
            grpc_health(&data);
            serving += usize::from(serving_status(&data) == Some(1));
            count += 1;
        }
        assert!((1..count).contains(&serving), "{serving} of {count}");
    }

    proptest! {
        #[test]
        fn any_message_passes(message in vec(any::<u8>(), 0..40)) {
            grpc_health(&framed(&message));
        }

        #[test]
        fn likely_messages_pass(message in vec(prop_oneof![0..3_u8, 8..14_u8, 0x10..0x14_u8, 0x80..0x83_u8], 0..16)) {
            grpc_health(&framed(&message));
        }

        #[test]
        fn any_bytes_pass(bytes in vec(any::<u8>(), 0..40)) {
            grpc_health(&bytes);
        }
    }
}
