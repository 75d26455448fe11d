//! Hellos in every shape: of a real client, cut into records and segments, and broken in every way that is named.

use super::receive::{HelloError, receive};
use super::{ClientHello, HELLO_MAX, Malformed, Parsed, fuzzing, parse};
use crate::tls::{ClientOptions, Context, TlsSettings};
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a real client sends first.
fn real(name: &str) -> Vec<u8> {
    let client = Context::new(TlsSettings::default()).unwrap().client(ClientOptions::default()).unwrap();
    client.hello_for_tests(name)
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(content)].concat()
}

fn long(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &long(&[&[0][..], &long(name)].concat()))
}

/// The message with these extensions; `None`: without any, as before TLS 1.3.
fn message(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0], &long(&[0x13, 1]), &[1, 0]].concat();
    body.extend(extensions.map(long).unwrap_or_default());
    [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

/// The message in records of so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|chunk| [&[22, 3, 1][..], &long(chunk)].concat()).collect()
}

fn complete(name: Option<&str>) -> Result<Parsed, Malformed> {
    Ok(Parsed::Complete(ClientHello { server_name: name.map(str::to_owned) }))
}

#[test]
fn names_are_found() {
    let check = |extensions: Option<&[u8]>, expected: Option<&str>| {
        assert_eq!(parse(&records(&message(extensions), 1 << 14)), complete(expected));
    };
    check(None, None);
    check(Some(&[]), None);
    check(Some(&server_name(b"a.example")), Some("a.example"));
    check(Some(&server_name(b"A.Example.")), Some("a.example"));
    check(
        Some(&[extension(10, &[1, 2, 3]), server_name(b"b.example"), extension(43, &[])].concat()),
        Some("b.example"),
    );
    // Addresses are no names, and other kinds of names are not asked for.
    check(Some(&server_name(b"192.0.2.1")), None);
    check(Some(&server_name(b"2001:db8::1")), None);
    check(Some(&extension(0, &long(&[&[9][..], &long(b"x")].concat()))), None);
}

#[test]
fn a_real_hello_is_read_in_records_of_any_size() {
    let bytes = real("Real.Example");
    assert_eq!(parse(&bytes), complete(Some("real.example")));
    let message = &bytes[5..];
    for size in [1, 2, 3, 4, 5, 100, 511, 1 << 14] {
        let cut = records(message, size);
        assert_eq!(parse(&cut), complete(Some("real.example")), "records of {size}");
        fuzzing::client_hello(&cut);
        let mut longer = cut;
        longer.extend_from_slice(b"more");
        assert_eq!(parse(&longer), complete(Some("real.example")));
    }
}

#[test]
fn what_is_no_hello_is_told_at_once() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x\r\n", &[22, 2], &[0], &[23, 3, 3]] {
        assert_eq!(parse(bytes), Ok(Parsed::NotTls), "{bytes:?}");
    }
    for bytes in [&[][..], &[22], &[22, 3], &[22, 3, 1, 0]] {
        assert_eq!(parse(bytes), Ok(Parsed::Partial), "{bytes:?}");
    }
    let check = |bytes: &[u8], expected| assert_eq!(parse(bytes), Err(expected), "{bytes:?}");
    check(&[22, 3, 1, 0, 0], Malformed::Record);
    check(&[22, 3, 1, 0x40, 1], Malformed::Record);
    check(&[22, 3, 1, 0, 1, 1, 21], Malformed::Record);
    check(&[22, 3, 1, 0, 1, 2], Malformed::Message);
    check(&[22, 3, 1, 0, 4, 1, 0, 0x40, 1], Malformed::TooLong);
    check(&records(&[1, 0, 0, 1, 3], 9), Malformed::Message);
}

#[test]
fn broken_extensions_are_refused() {
    let check = |extensions: &[u8], expected| {
        assert_eq!(parse(&records(&message(Some(extensions)), 1 << 14)), Err(expected), "{extensions:?}");
    };
    check(&[server_name(b"a"), server_name(b"a")].concat(), Malformed::ServerName);
    check(&extension(0, &long(&[&[0][..], &long(b"a"), &[0], &long(b"b")].concat())), Malformed::ServerName);
    for name in [&b""[..], b".", b"a b", b"a\0", b"caf\xc3\xa9", b"a:1", &[b'a'; 256]] {
        check(&server_name(name), Malformed::ServerName);
    }
    check(&extension(0, &[0, 9, 0]), Malformed::Message);
    check(&extension(0, &[0, 0, 0]), Malformed::Message);
    check(&[0, 0, 0], Malformed::Message);
    let mut trailing = message(Some(&[]));
    trailing.push(0);
    trailing[3] += 1;
    assert_eq!(parse(&records(&trailing, 99)), Err(Malformed::Message));
}

#[test]
fn a_hello_without_an_end_is_cut_off() {
    // Three thousand bytes in records of one byte fit, twice as many do not.
    let padded = |bytes: usize| message(Some(&extension(21, &vec![0; bytes])));
    assert_eq!(parse(&records(&padded(3_000), 1)), complete(None));
    let endless = records(&padded(6_000), 1);
    assert_eq!(parse(&endless), Err(Malformed::TooLong));
    assert_eq!(parse(&endless[..HELLO_MAX - 1]), Ok(Parsed::Partial));
}

#[test]
fn the_corpus_holds() {
    gateward_testkit::corpus("client_hello", 8).for_each(|input| fuzzing::client_hello(&input));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::client_hello(&data);
        fuzzing::client_hello(&[&[22, 3, 1][..], &data].concat());
    }

    #[test]
    fn hellos_with_changed_bytes(name in "[a-zA-Z0-9.-]{1,20}", changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), size in 1..600_usize) {
        let extensions = [extension(43, &[2, 3, 4]), server_name(name.as_bytes()), extension(13, &[0, 2, 4, 3])].concat();
        let mut message = message(Some(&extensions));
        for (at, byte) in changes {
            let at = at % message.len();
            message[at] = byte;
        }
        fuzzing::client_hello(&records(&message, size));
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (here, there) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let here = here.unwrap();
    here.set_nodelay(true).unwrap();
    (here, there.unwrap().0)
}

#[tokio::test]
async fn a_hello_is_seen_in_any_pieces_and_stays_whole() {
    let bytes = records(&real("a.example")[5..], 300);
    for piece in [1, 7, 64, 4096] {
        let (mut client, mut server) = pair().await;
        let send = async {
            for piece in bytes.chunks(piece) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let (received, ()) = tokio::join!(receive(&server), send);
        assert_eq!(received.unwrap().server_name.as_deref(), Some("a.example"));
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        assert!(all == bytes, "in pieces of {piece}");
    }
}

#[tokio::test]
async fn an_end_and_another_protocol_are_noticed_and_silence_waits() {
    let (mut client, server) = pair().await;
    client.write_all(&real("a.example")[..50]).await.unwrap();
    let mut receiving = std::pin::pin!(receive(&server));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut receiving).await.is_err());
    client.shutdown().await.unwrap();
    assert!(matches!(receiving.await, Err(HelloError::Closed)));
    let (mut client, server) = pair().await;
    client.write_all(b"PING\r\n").await.unwrap();
    assert!(matches!(receive(&server).await, Err(HelloError::NotTls)));
}
