//! Handshakes and streams between our own server and client: certificates by name and kind, client certificates,
//! resumption, protocols, ends of streams, and the pool's view of idle sessions.

use super::{
    Certificates, ClientOptions, ClientVerify, Context, HandshakeError, Identity, KeyPair, Offer, TlsError, TlsSettings,
};
use crate::{Peer, Pool, PoolSettings, Stream, TlsPeer, UpstreamConnection};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An authority and what it signs.
struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn pair(&self, name: &str) -> Arc<KeyPair> {
        let (cert, key) = self.sign(name, &PKCS_ECDSA_P256_SHA256);
        Arc::new(KeyPair::parse(&cert, &key, None).unwrap())
    }

    fn options(&self) -> ClientOptions {
        ClientOptions { verify: Some(true), authorities: Some(vec![self.pem.clone()]), ..ClientOptions::default() }
    }
}

/// A file that is removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gateward-tls-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn context(settings: TlsSettings) -> Context {
    Context::new(settings).unwrap()
}

/// Connect a client with `options` for `name` to a server with `certificates`.
async fn connect(
    server: &Context,
    certificates: Certificates,
    client: &Context,
    options: ClientOptions,
    name: &str,
) -> (Result<Stream, HandshakeError>, std::io::Result<Stream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = server.server(certificates).unwrap();
    let client = client.client(options).unwrap();
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        Stream::accept_tls(&server, tcp, true).await.map_err(|(_, error)| error)
    };
    let connect = async { Stream::connect(address).await?.into_tls(&client, address.ip(), name).await };
    tokio::join!(accept, connect)
}

fn named(pairs: &[(&str, Arc<KeyPair>)]) -> Certificates {
    let mut certificates = Certificates::default();
    pairs.iter().for_each(|(name, pair)| certificates.insert(name, pair.clone()));
    certificates
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let authority = Authority::new();
    let context = context(TlsSettings::default());
    for (asked, trusted) in [("www.a.test", true), ("api.a.test", true), ("other.test", false)] {
        let certificates =
            named(&[("www.a.test", authority.pair("www.a.test")), ("*.a.test", authority.pair("api.a.test"))]);
        let (server, client) = connect(&context, certificates, &context, authority.options(), asked).await;
        assert_eq!(client.is_ok(), trusted, "{asked}: {client:?}");
        if trusted {
            let server = server.unwrap();
            let facts = server.tls().unwrap();
            assert_eq!((facts.version, facts.sni.as_deref()), ("TLSv1.3", Some(asked)));
            assert_eq!(server.alpn(), Some(&b"http/1.1"[..]), "upstreams are asked for HTTP/1.1 only");
        } else {
            // The client takes the default certificate for what it is.
            assert_eq!(server.unwrap_err().reason, "tls_refused_by_peer");
        }
    }
}

#[tokio::test]
async fn everything_passes_both_ways_at_once() {
    const BYTES: usize = 4 << 20;
    let authority = Authority::new();
    let context = context(TlsSettings::default());
    let certificates = named(&[("*", authority.pair("a.test"))]);
    let (server, client) = connect(&context, certificates, &context, authority.options(), "a.test").await;
    let (server, client) = (server.unwrap(), client.unwrap());
    let data: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
    let send = async |stream: &Stream| {
        (&mut &*stream).write_all(&data).await.unwrap();
        stream.finish().unwrap();
    };
    let receive = async |stream: &Stream| {
        let mut got = Vec::new();
        stream.readable().await.unwrap();
        (&mut &*stream).read_to_end(&mut got).await.unwrap();
        assert!(got == data);
    };
    tokio::join!(send(&server), receive(&server), send(&client), receive(&client));
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error_and_content_in_hand_is_readable() {
    let authority = Authority::new();
    let context = context(TlsSettings::default());
    let certificates = named(&[("*", authority.pair("a.test"))]);
    let (server, client) = connect(&context, certificates, &context, authority.options(), "a.test").await;
    let (server, client) = (server.unwrap(), client.unwrap());
    server.write(b"abcdef").await.unwrap();
    let mut buf = [0; 2];
    for expected in [b"ab", b"cd", b"ef"] {
        // After the first read the rest is within rustls: no socket would tell.
        client.readable().await.unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 2);
        assert_eq!(&buf, expected);
    }
    drop(server);
    assert_eq!(client.read(&mut buf).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn sessions_are_resumed_whatever_the_configuration() {
    let authority = Authority::new();
    let context = context(TlsSettings::default());
    // A plan holds its clients; the one that follows finds them there.
    let _plan = context.client(authority.options()).unwrap();
    let mut resumed = Vec::new();
    for _ in 0..3 {
        let certificates = named(&[("*", authority.pair("a.test"))]);
        let (server, client) = connect(&context, certificates, &context, authority.options(), "a.test").await;
        let (server, client) = (server.unwrap(), client.unwrap());
        server.write(b"x").await.unwrap();
        client.read(&mut [0; 8]).await.unwrap();
        resumed.push(server.tls().unwrap().resumed);
    }
    assert_eq!(resumed, [false, true, true]);
}

#[tokio::test]
async fn the_other_end_chooses_from_what_is_offered() {
    let authority = Authority::new();
    let context = context(TlsSettings::default());
    let client = context.client(authority.options()).unwrap();
    let agreed = async |offer, http2| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = context.server(named(&[("*", authority.pair("a.test"))])).unwrap();
        let accept = async { Stream::accept_tls(&server, listener.accept().await.unwrap().0, http2).await.is_ok() };
        let stream = Stream::connect(address).await.unwrap();
        let negotiate = stream.negotiate_tls(&client, address.ip(), "a.test", offer);
        let (accepted, stream) = tokio::join!(accept, negotiate);
        assert_eq!(accepted, stream.is_ok());
        stream.map(|stream| String::from_utf8(stream.alpn().unwrap().to_vec()).unwrap()).map_err(|error| error.kind())
    };
    for (offer, http2, expected) in [
        (Offer::Http1, true, Ok("http/1.1")),
        (Offer::Either, true, Ok("h2")),
        (Offer::Either, false, Ok("http/1.1")),
        (Offer::Http2, true, Ok("h2")),
        (Offer::Http2, false, Err(std::io::ErrorKind::Unsupported)),
    ] {
        assert_eq!(agreed(offer, http2).await, expected.map(str::to_owned), "{offer:?} {http2}");
    }
}

#[tokio::test]
async fn tls_1_2_gets_the_certificate_it_can_verify() {
    let authority = Authority::new();
    let ((cert, key), (cert_alt, key_alt)) =
        (authority.sign("a.test", &PKCS_RSA_SHA256), authority.sign("a.test", &PKCS_ECDSA_P256_SHA256));
    let pair = Arc::new(KeyPair::parse(&cert, &key, Some((&cert_alt, &key_alt))).unwrap());
    for (suite, tls13) in [
        ("ECDHE-RSA-AES128-GCM-SHA256", false),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", false),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", true),
    ] {
        let settings = TlsSettings { tls13, suites: vec![suite.to_owned()], ..TlsSettings::default() };
        let (server, client) = connect(
            &context(settings),
            named(&[("*", pair.clone())]),
            &context(TlsSettings::default()),
            authority.options(),
            "a.test",
        )
        .await;
        client.unwrap();
        let server = server.unwrap();
        let facts = server.tls().unwrap();
        match tls13 {
            true => assert_eq!(facts.version, "TLSv1.3"),
            false => assert_eq!((facts.version, facts.cipher), ("TLSv1.2", suite)),
        }
    }
}

#[tokio::test]
async fn clients_show_certificates_when_asked() {
    let authority = Authority::new();
    let file = Scratch::new("clients", &authority.pem);
    let shown = |authority: &Authority| {
        let (cert, key) = authority.sign("ann", &PKCS_ECDSA_P256_SHA256);
        Some(Identity { pair: Arc::new(KeyPair::parse(&cert, &key, None).unwrap()), cert })
    };
    let stranger = Authority::new();
    for (verify, identity, expected) in [
        (ClientVerify::Off, shown(&authority), Ok(None)),
        (ClientVerify::Request, None, Ok(None)),
        (ClientVerify::Request, shown(&authority), Ok(Some("CN=ann"))),
        (ClientVerify::Request, shown(&stranger), Err("tls_bad_certificate")),
        (ClientVerify::Require, shown(&authority), Ok(Some("CN=ann"))),
        (ClientVerify::Require, None, Err("tls_no_certificate")),
    ] {
        let settings =
            TlsSettings { client_verify: verify, client_authorities: Some(file.0.clone()), ..TlsSettings::default() };
        let certificates = named(&[("*", authority.pair("a.test"))]);
        let options = ClientOptions { identity, ..authority.options() };
        let client = context(TlsSettings::default());
        let (server, _client) = connect(&context(settings), certificates, &client, options, "a.test").await;
        let subject = server.as_ref().map(|it| it.tls().unwrap().client.as_ref().map(|it| it.subject.as_str()));
        assert_eq!(subject.map_err(|error| error.reason), expected, "{verify:?}");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_told_apart() {
    let server = context(TlsSettings::default()).server(Certificates::default()).unwrap();
    for (sent, reason, cleartext) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "tls_not_tls", true),
        (b"", "tls_closed", false),
        (b"\x16\x03\x01\x00\x05hello", "tls_malformed", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let (_, error) = Stream::accept_tls(&server, listener.accept().await.unwrap().0, false).await.unwrap_err();
        assert_eq!((error.reason, error.cleartext), (reason, cleartext), "{}", error.message);
    }
}

#[test]
fn clients_are_shared_when_their_options_are_the_same_and_only_then() {
    let authority = Authority::new();
    let context = context(TlsSettings::default());
    let id = |options: ClientOptions| context.client(options).unwrap();
    let (strict, again, lenient) = (id(authority.options()), id(authority.options()), id(ClientOptions::default()));
    assert_eq!(strict.id(), again.id());
    assert!(strict.verifies() && !lenient.verifies());
    let deeper = id(ClientOptions { depth: Some(5), ..authority.options() });
    let elsewhere = id(Authority::new().options());
    let ids = [strict.id(), lenient.id(), deeper.id(), elsewhere.id()];
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
}

#[test]
fn what_cannot_be_used_is_named_and_nothing_secret_is_shown() {
    let authority = Authority::new();
    let (cert, key) = authority.sign("a", &PKCS_ECDSA_P256_SHA256);
    let (other_cert, other_key) = authority.sign("a", &PKCS_ECDSA_P256_SHA256);
    let check = |cert: &str, key: &str, alternative: Option<(&str, &str)>, expected: &str| {
        let error = KeyPair::parse(cert, key, alternative).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("MI"), "{error}");
    };
    check("", &key, None, "cert: not a certificate");
    check(&cert.replace('M', "!"), &key, None, "cert: not a certificate");
    check("-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n", &key, None, "cert: not a certificate");
    check(&cert, &cert, None, "key: not a private key");
    check(&cert, "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n", None, "key: not a private key");
    check(
        &cert,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nYWJj\n-----END ENCRYPTED PRIVATE KEY-----\n",
        None,
        "key: not a private key that can be used: it is encrypted",
    );
    check(&cert, &other_key, None, "key: does not belong");
    check(&cert, &key, Some((&other_cert, &other_key)), "cert_alt: of the same kind");
    let file =
        TlsSettings { certificates: vec![("/nowhere.crt".into(), "/nowhere.key".into())], ..TlsSettings::default() };
    assert!(matches!(Context::new(file), Err(TlsError::File { .. })));
    let ask = TlsSettings { client_verify: ClientVerify::Require, ..TlsSettings::default() };
    assert!(matches!(Context::new(ask), Err(TlsError::Settings(_))));
    let none = TlsSettings { tls12: false, tls13: false, ..TlsSettings::default() };
    assert!(Context::new(none).unwrap().server(Certificates::default()).is_err());
}

#[tokio::test]
async fn idle_sessions_are_kept_by_identity_and_dropped_when_they_speak() {
    let authority = Authority::new();
    let context = context(TlsSettings::default());
    let pool = Pool::new(PoolSettings::default());
    let mut kept = Vec::new();
    for (client, speaks) in [(1, false), (1, true), (2, false)] {
        let certificates = named(&[("*", authority.pair("a.test"))]);
        let (server, stream) = connect(&context, certificates, &context, authority.options(), "a.test").await;
        let (server, stream) = (server.unwrap(), Rc::new(stream.unwrap()));
        server.write(b"x").await.unwrap();
        stream.read(&mut [0; 8]).await.unwrap();
        let peer =
            Peer { address: "127.0.0.1:1".parse().unwrap(), tls: Some(TlsPeer { client, name: "a.test".into() }) };
        if speaks {
            server.write(b"y").await.unwrap();
            stream.readable().await.unwrap();
        }
        pool.put(UpstreamConnection { stream, peer, requests: 1, lease: None }, 0);
        kept.push(server);
    }
    let peer = |client, name: &str| Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        tls: Some(TlsPeer { client, name: name.into() }),
    };
    assert!(pool.take(&peer(1, "b.test"), true, 1).0.is_none(), "another name");
    assert!(pool.take(&Peer::from(peer(1, "").address), true, 1).0.is_none(), "in the clear");
    let (taken, discarded) = pool.take(&peer(1, "a.test"), true, 1);
    assert!(taken.is_some() && discarded == 1, "the one that spoke is gone");
    assert!(pool.take(&peer(1, "a.test"), true, 1).0.is_none());
    assert!(pool.take(&peer(2, "a.test"), false, 1).0.is_some());
}
