//! The properties that fuzzing checks: the fuzz target, the replay of the committed corpus and the property tests call
//! the same code. Panics when a property does not hold. Not part of the API.

use super::{HELLO_MAX, Parsed, parse};
use rustls::server::Acceptor;
use std::net::IpAddr;

/// Any bytes: bounded; no prefix contradicts the whole; what rustls takes for a hello is one, with the same name.
pub fn client_hello(data: &[u8]) {
    let outcome = parse(data);
    for length in 0..data.len().min(HELLO_MAX + 1) {
        match parse(&data[..length]) {
            Ok(Parsed::Partial) => assert!(length < HELLO_MAX, "{length} bytes and still no decision"),
            decided => {
                assert_eq!(decided, outcome, "after {length} bytes");
                break;
            }
        }
    }
    if let Some(expected) = reference(data) {
        match outcome {
            Ok(Parsed::Complete(hello)) => assert_eq!(hello.server_name, expected),
            // rustls has another limit.
            other => assert!(data.len() > HELLO_MAX / 2, "{other:?} instead of {expected:?}"),
        }
    }
}

/// What rustls makes of the bytes: the name of the hello, if it is one.
fn reference(data: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = data;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).ok()? == 0 {
            return None;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
            return Some(name.filter(|name| name.parse::<IpAddr>().is_err()));
        }
    }
    None
}
