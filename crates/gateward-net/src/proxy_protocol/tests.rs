//! Tests of the codec: the specification's lines, AWS's bytes, and any header there is.

use super::fuzzing::{proxy_protocol, survives};
use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[track_caller]
fn check(bytes: &[u8], expected: Result<Option<(&str, &str)>, Malformed>) {
    let inet = |parsed| match parsed {
        Parsed::Complete(header, _) => match header.addresses {
            Addresses::Inet { source, destination, .. } => Some((source.to_string(), destination.to_string())),
            _ => None,
        },
        other => panic!("{other:?}"),
    };
    let found = parse(bytes).map(inet);
    let found = found.as_ref().map(|found| found.as_ref().map(|(from, to)| (from.as_str(), to.as_str())));
    assert_eq!(found, expected.as_ref().map(|expected| *expected), "{:?}", String::from_utf8_lossy(bytes));
}

/// A binary header with this command, family and rest.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend_from_slice(&[command, family]);
    bytes.extend_from_slice(&(rest.len() as u16).to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

const TCP4: [u8; 12] = [10, 0, 0, 1, 10, 0, 0, 2, 0x04, 0xD2, 0x01, 0xBB];

fn with_entries(entries: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[&TCP4[..], entries].concat())
}

#[test]
fn lines() {
    check(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 65535\r\n", Ok(Some(("1.2.3.4:9", "5.6.7.8:65535"))));
    check(b"PROXY TCP6 2001:db8::1 ::1 0 80\r\nGET", Ok(Some(("[2001:db8::1]:0", "[::1]:80"))));
    check(b"PROXY UNKNOWN\r\n", Ok(None));
    check(b"PROXY UNKNOWN ffff::1 what ever\r\n", Ok(None));
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16));
    check(long.as_bytes(), Ok(None));
    for wrong in [
        "PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10 11\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 09 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +9 1\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 9 1\r\n",
        "PROXY TCP4 ::1 ::1 9 1\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 9 1\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 9 1\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 9 1\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWN\u{1}\r\n",
    ] {
        check(wrong.as_bytes(), Err(Malformed::Line));
    }
    for wrong in ["PROXY TCP4 1.2.3.4\rX".to_owned(), format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 15))] {
        check(wrong.as_bytes(), Err(Malformed::LineEnd));
    }
}

#[test]
fn binary_headers() {
    check(&with_entries(&[]), Ok(Some(("10.0.0.1:1234", "10.0.0.2:443"))));
    check(&binary(0x21, 0x12, &TCP4), Ok(Some(("10.0.0.1:1234", "10.0.0.2:443"))));
    check(&binary(0x21, 0x21, &[[0; 34].as_slice(), &[0, 80]].concat()), Ok(Some(("[::]:0", "[::]:80"))));
    check(&binary(0x21, 0x31, &[b'/'; 216]), Ok(None));
    check(&binary(0x21, 0x00, &[1, 2, 3]), Ok(None));
    // What a LOCAL header says is discarded, whatever it is.
    check(&binary(0x20, 0x00, &[]), Ok(None));
    check(&binary(0x20, 0xFF, &[1, 2]), Ok(None));
    check(&binary(0x22, 0x11, &TCP4), Err(Malformed::Command));
    check(&binary(0x11, 0x11, &TCP4), Err(Malformed::Command));
    check(&binary(0x21, 0x41, &TCP4), Err(Malformed::Family));
    check(&binary(0x21, 0x13, &TCP4), Err(Malformed::Family));
    check(&binary(0x21, 0x10, &TCP4), Err(Malformed::Family));
    check(&binary(0x21, 0x11, &TCP4[..11]), Err(Malformed::Length));
    check(&binary(0x20, 0x00, &[0; 4097]), Err(Malformed::Length));
    // The length alone tells: nobody waits for bytes that would be too many.
    check(&binary(0x21, 0x11, &[0; 4097])[..16], Err(Malformed::Length));
}

#[test]
fn the_vpc_endpoint_of_an_aws_header() {
    let entry = |value: &[u8]| [&[0xEA, 0, value.len() as u8][..], value].concat();
    let id = |entries: &[u8]| match parse(&with_entries(entries)) {
        Ok(Parsed::Complete(header, _)) => Ok(header.tlvs.vpce_id),
        Err(error) => Err(error),
        Ok(other) => panic!("{other:?}"),
    };
    assert_eq!(id(&entry(b"\x01vpce-08d2bf15fac5001c9")), Ok(Some("vpce-08d2bf15fac5001c9".to_owned())));
    assert_eq!(id(&entry(b"\x02vpce-1")), Ok(None), "another subtype");
    for wrong in [&b"\x01vpce_1"[..], b"\x01vpce-1\n", b"\x01vpce-\xC3\xA4", b""] {
        assert_eq!(id(&entry(wrong)), Err(Malformed::Tlv), "{wrong:?}");
    }
    assert_eq!(id(&[entry(b"\x01a"), entry(b"\x01b")].concat()), Err(Malformed::Tlv), "which one?");
    assert_eq!(id(&[0xEA, 0, 9, 1]), Err(Malformed::Tlv), "longer than the header");
    assert_eq!(id(&[0x04, 0]), Err(Malformed::Tlv), "cut off");
    assert_eq!(id(&[0x04, 0, 2, 7, 7, 0x30, 0, 1, b'n']), Ok(None), "NOOP and others are skipped");
}

#[test]
fn a_checksum_is_checked() {
    let header =
        Header { checksum: true, ..Header::tcp(Version::V2, "[::1]:1".parse().unwrap(), "[::2]:2".parse().unwrap()) };
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    for at in 16..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        let found = parse(&broken);
        assert!(!matches!(found, Ok(Parsed::Complete(header, _)) if header.checksum), "byte {at}");
    }
}

#[test]
fn unknown_beginnings_are_decided_at_once() {
    for bytes in [&b"G"[..], b"PO", b"PROXYX", b"\r\n\r\nG", b"\n", b"\x16"] {
        assert_eq!(parse(bytes), Ok(Parsed::Absent), "{bytes:?}");
    }
    for bytes in [&b""[..], b"P", b"PROXY", b"\r\n\r\n", SIGNATURE] {
        assert_eq!(parse(bytes), Ok(Parsed::Partial), "{bytes:?}");
    }
}

#[test]
fn the_corpus_of_the_fuzzer() {
    gateward_testkit::corpus("proxy_protocol", 20).for_each(|input| proxy_protocol(&input));
}

fn inet() -> impl Strategy<Value = Addresses> {
    let v4 = (any::<([u8; 4], u16)>(), any::<([u8; 4], u16)>(), any::<bool>()).prop_map(|(from, to, datagram)| {
        Addresses::Inet { source: SocketAddr::from(from), destination: SocketAddr::from(to), datagram }
    });
    let v6 = (any::<([u16; 8], u16)>(), any::<([u16; 8], u16)>(), any::<bool>()).prop_map(|(from, to, datagram)| {
        Addresses::Inet { source: SocketAddr::from(from), destination: SocketAddr::from(to), datagram }
    });
    prop_oneof![v4, v6]
}

fn tlvs() -> impl Strategy<Value = Tlvs> {
    let text = || option::of("[a-zA-Z0-9 .-]{0,40}");
    let ssl = (any::<u8>(), any::<u32>(), text(), text(), text()).prop_map(
        |(client, verify, version, common_name, cipher)| Ssl { client, verify, version, common_name, cipher },
    );
    let bytes = |most| option::of(vec(any::<u8>(), 0..most));
    (bytes(40), text(), bytes(128), option::of(ssl), option::of("[a-zA-Z0-9-]{0,30}"), option::of(any::<u32>()))
        .prop_map(|(alpn, authority, unique_id, ssl, vpce_id, azure_link_id)| Tlvs {
            alpn,
            authority,
            unique_id,
            ssl,
            vpce_id,
            azure_link_id,
        })
}

proptest! {
    #[test]
    fn binary_headers_survive(addresses in inet(), tlvs in tlvs(), checksum in any::<bool>(), rest in vec(any::<u8>(), 0..20)) {
        let header = Header { version: Version::V2, command: Command::Proxy, addresses, tlvs, checksum };
        survives(&header);
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        bytes.extend_from_slice(&rest);
        proxy_protocol(&bytes);
    }

    #[test]
    fn lines_survive(addresses in inet()) {
        let Addresses::Inet { source, destination, .. } = addresses else { unreachable!() };
        survives(&Header::tcp(Version::V1, source, destination));
    }

    #[test]
    fn any_bytes_are_judged(start in 0..3_usize, bytes in vec(any::<u8>(), 0..300)) {
        let start: &[u8] = [&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00"][start];
        proxy_protocol(&[start, &bytes].concat());
    }
}
