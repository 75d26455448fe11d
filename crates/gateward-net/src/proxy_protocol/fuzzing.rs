//! The properties that fuzzing checks: the fuzz target, the replay of the committed corpus and the property tests call
//! the same code. Panics when a property does not hold. Not part of the API.

use super::{Header, Malformed, Parsed, V2_MAX, parse};

/// Any bytes: bounded; no prefix contradicts the whole; what follows a header changes nothing; a header survives being
/// written.
pub fn proxy_protocol(data: &[u8]) {
    let outcome = parse(data);
    for length in 0..data.len().min(V2_MAX + 1) {
        let prefix = parse(&data[..length]);
        match &prefix {
            Ok(Parsed::Partial) => {
                assert!(length < V2_MAX, "{length} bytes and still no decision");
            }
            decided => {
                assert_eq!(decided, &outcome, "after {length} bytes");
                break;
            }
        }
    }
    if let Ok(Parsed::Complete(header, length)) = outcome {
        let mut changed = data[..length].to_vec();
        changed.extend_from_slice(b"PROXY \r\n\r\n\0\r\nQUIT\n");
        assert_eq!(parse(&changed), Ok(Parsed::Complete(header.clone(), length)), "bytes after the header");
        survives(&header);
    }
}

/// A header is the same after being written and parsed.
pub fn survives(header: &Header) {
    let mut written = Vec::new();
    header.write(&mut written);
    let parsed: Result<Parsed, Malformed> = parse(&written);
    assert_eq!(parsed, Ok(Parsed::Complete(Box::new(header.clone()), written.len())));
}
