//! Whom a gRPC callout is for: a name, or Envoy's `config.core.v3.GrpcService` in protobuf, as its SDKs for C++ and Go send it.
//!
//! Of the message only what this gateway can do is read: `envoy_grpc.cluster_name` and `authority`, or
//! `google_grpc.target_uri`, and `initial_metadata`. Its timeout is that of the call.

use crate::callout::Fields;
use gateward_http::protobuf;

/// What the message says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct GrpcService {
    pub(crate) name: String,
    pub(crate) authority: Option<String>,
    pub(crate) metadata: Fields,
}

impl GrpcService {
    /// `None`: it is no such message, or names nobody.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let mut service = Self::default();
        let text = |bytes: &[u8]| Some(str::from_utf8(bytes).ok()?.to_owned());
        let mut input = message;
        while let Some((number, field)) = protobuf::field(&mut input)? {
            match number {
                // EnvoyGrpc, GoogleGrpc
                1 | 2 => {
                    let mut inner = field.bytes()?;
                    while let Some((inner_number, value)) = protobuf::field(&mut inner)? {
                        match (number, inner_number) {
                            (_, 1) => service.name = text(value.bytes()?)?,
                            (1, 2) => service.authority = Some(text(value.bytes()?)?).filter(|it| !it.is_empty()),
                            _ => {}
                        }
                    }
                }
                // repeated HeaderValue
                5 => {
                    let (mut name, mut value) = (Vec::new(), Vec::new());
                    let mut inner = field.bytes()?;
                    while let Some((inner_number, part)) = protobuf::field(&mut inner)? {
                        match inner_number {
                            1 => name = part.bytes()?.to_ascii_lowercase(),
                            2 | 3 => value = part.bytes()?.to_vec(),
                            _ => {}
                        }
                    }
                    service.metadata.push((name, value));
                }
                _ => {}
            }
        }
        (!service.name.is_empty()).then_some(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, value.len() as u8][..], value].concat()
    }

    #[test]
    fn envoys_message_is_understood() {
        let envoy = bytes(1, &[bytes(1, b"auth"), bytes(2, b"auth.test")].concat());
        let timeout = bytes(3, &[8, 5]);
        let metadata = bytes(5, &[bytes(1, b"X-Key"), bytes(2, b"value")].concat());
        let service = GrpcService::parse(&[envoy, timeout, metadata].concat()).unwrap();
        assert_eq!((service.name.as_str(), service.authority.as_deref()), ("auth", Some("auth.test")));
        assert_eq!(service.metadata, [(b"x-key".to_vec(), b"value".to_vec())]);
        let google = bytes(2, &[bytes(1, b"a.test:443"), bytes(4, b"prefix")].concat());
        assert_eq!(GrpcService::parse(&google).unwrap().name, "a.test:443");
    }

    #[test]
    fn nonsense_is_no_message() {
        for message in [
            &b""[..],
            b"auth",
            &bytes(1, b""),
            &bytes(1, &[0x0a, 9]),
            &[0x0a],
            &[0x08, 1],
            &bytes(1, &bytes(1, b"\xff")),
        ] {
            assert_eq!(GrpcService::parse(message), None, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_is_too_odd(message in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = GrpcService::parse(&message);
        }
    }
}
