//! The servers on sockets: datagrams, streams, TLS; many queries at once; clients that do odd things.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use domain::base::iana::Rtype;
use gateward_dns::cookies::CookieKeys;
use gateward_dns::server::{Options, Server, Shared, slow, stats};
use support::{question, read, settings, zone};

const ZONE: &str = "@ 60 SOA ns h 1 1 1 1 1\n@ 60 NS ns\nns 60 A 192.0.2.53\nwww 60 A 192.0.2.1\n*.wild 60 TXT \"x\"\n";

struct Running {
    server: Server,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

impl Running {
    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    fn metric(&self, line: &str) -> u64 {
        let text = stats::render(self.server.stats());
        let line =
            text.lines().find_map(|full| full.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in\n{text}"));
        line.trim().parse().expect("a number")
    }
}

fn start(listen: &str, change: impl FnOnce(&mut Options)) -> Running {
    start_with(listen, slow::Nothing, change)
}

fn start_with(listen: &str, slow: impl slow::Slow, change: impl FnOnce(&mut Options)) -> Running {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let shared = Arc::new(Shared::new(settings(), CookieKeys::new([1; 16], None)));
    shared.zones.put(zone("example.com", ZONE));
    let mut options = Options { listen: vec![listen.parse().expect("an address")], workers: 2, ..Options::default() };
    change(&mut options);
    let entered = runtime.enter();
    let server =
        Server::start(Arc::clone(&shared), &options, &(Arc::new(slow) as Arc<dyn slow::Slow>)).expect("a server");
    drop(entered);
    Running { server, shared, _runtime: runtime }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat()
}

fn unframe(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).expect("a whole message");
    Some(message)
}

fn udp(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if address.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" }).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    socket.connect(address).expect("loopback");
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 4096];
    let len = socket.recv(&mut answer).expect("an answer");
    answer.truncate(len);
    answer
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream
}

/// The header of an update and nothing else: anybody can send that.
fn update(id: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[5 << 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()
}

fn with_id(id: u16, name: &str, qtype: Rtype) -> Vec<u8> {
    let mut wire = question(name, qtype).wire();
    wire[..2].copy_from_slice(&id.to_be_bytes());
    wire
}

#[test]
fn datagrams_are_answered_and_counted() {
    let running = start("127.0.0.1:0", |_| {});
    let socket = udp(running.address());
    let mut seen = [false; 300];
    // More than one batch at once, less than a socket holds.
    for round in 0..3 {
        for id in round * 100..(round + 1) * 100_u16 {
            let name = if id.is_multiple_of(3) { "nope.example.com" } else { "www.example.com" };
            socket.send(&with_id(id, name, Rtype::A)).expect("sent");
        }
        for _ in 0..100 {
            let answer = receive(&socket);
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            assert_eq!(read(&answer).rcode, if id.is_multiple_of(3) { 3 } else { 0 });
            seen[usize::from(id)] = true;
        }
    }
    assert!(seen.iter().all(|seen| *seen));
    assert_eq!(running.metric("gateward_dns_queries_total{transport=\"udp\"}"), 300);
    assert_eq!(running.metric("gateward_dns_responses_total{rcode=\"NXDOMAIN\"}"), 100);
    assert_eq!(running.metric("gateward_dns_answers_total{kind=\"answer\"}"), 200);
    socket.send(b"junk").expect("sent");
    socket.send(&with_id(7, "www.example.com", Rtype::A)).expect("sent");
    assert_eq!(receive(&socket)[..2], [0, 7]);
}

#[test]
fn a_socket_for_all_addresses_answers_from_the_one_that_was_asked() {
    for (listen, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1")] {
        let running = start(listen, |_| {});
        let port = running.address().port();
        // A connected socket takes answers from that address only.
        let socket = udp(SocketAddr::new(asked.parse().expect("an address"), port));
        socket.send(&with_id(9, "www.example.com", Rtype::A)).expect("sent");
        assert_eq!(read(&receive(&socket)).answer, ["www.example.com. 60 A 192.0.2.1"]);
        // So do answers that are not made by the worker.
        socket.send(&update(10)).expect("sent");
        assert_eq!(receive(&socket)[..2], [0, 10], "{asked}");
    }
}

#[test]
fn a_change_is_served_at_the_next_query() {
    let running = start("127.0.0.1:0", |_| {});
    let socket = udp(running.address());
    for number in 0..100_u16 {
        running.shared.zones.put(zone("example.com", &format!("{ZONE}n{number} 60 A 192.0.2.9\n")));
        socket.send(&with_id(number, &format!("n{number}.example.com"), Rtype::A)).expect("sent");
        assert_eq!(read(&receive(&socket)).answer.len(), 1, "{number}");
        let new = format!("z{number}.test");
        running.shared.zones.put(zone(&new, ZONE));
        socket.send(&with_id(number, &format!("www.{new}"), Rtype::A)).expect("sent");
        assert_eq!(read(&receive(&socket)).answer.len(), 1, "{new}");
    }
}

/// RFC 7766, 6.2.1.1 and 8: many queries without waiting, in any pieces.
#[test]
fn rfc7766_streams() {
    let running = start("127.0.0.1:0", |_| {});
    let mut stream = connect(running.address());
    let all: Vec<u8> = (0..200).flat_map(|id| framed(&with_id(id, "www.example.com", Rtype::A))).collect();
    stream.write_all(&all).expect("sent");
    for id in 0..200_u16 {
        assert_eq!(unframe(&mut stream).expect("an answer")[..2], id.to_be_bytes());
    }
    // Octet by octet, the length split too.
    stream.set_nodelay(true).expect("set");
    for octet in framed(&with_id(900, "any.wild.example.com", Rtype::TXT)) {
        stream.write_all(&[octet]).expect("sent");
    }
    assert_eq!(read(&unframe(&mut stream).expect("an answer")).answer, ["any.wild.example.com. 60 TXT \"x\""]);
    // Half-closed: what was asked is still answered, then the connection ends.
    stream.write_all(&framed(&with_id(901, "www.example.com", Rtype::A))).expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut down");
    assert!(unframe(&mut stream).is_some());
    assert!(unframe(&mut stream).is_none());
    assert_eq!(running.metric("gateward_dns_queries_total{transport=\"tcp\"}"), 202);
}

#[test]
fn what_is_served_elsewhere_is_answered_on_the_same_connection() {
    let running = start("127.0.0.1:0", |_| {});
    let mut stream = connect(running.address());
    let mut update = with_id(1, "example.com", Rtype::SOA);
    update[2] = 5 << 3;
    stream
        .write_all(
            &[
                framed(&update),
                framed(&with_id(2, "www.example.com", Rtype::A)),
                framed(&with_id(3, "example.com", Rtype::AXFR)),
            ]
            .concat(),
        )
        .expect("sent");
    let mut answers: Vec<(u8, u8)> =
        (0..3).map(|_| unframe(&mut stream).expect("an answer")).map(|answer| (answer[1], answer[3] & 15)).collect();
    answers.sort_unstable();
    assert_eq!(answers, [(1, 4), (2, 0), (3, 5)], "NOTIMP, NOERROR, REFUSED");
    let socket = udp(running.address());
    socket.send(&update).expect("sent");
    assert_eq!(receive(&socket)[3] & 15, 4);
}

#[test]
fn a_message_that_is_none_ends_the_connection() {
    let running = start("127.0.0.1:0", |_| {});
    let mut stream = connect(running.address());
    let before = [with_id(1, "www.example.com", Rtype::A), update(2), with_id(3, "www.example.com", Rtype::A)];
    let before: Vec<u8> = before.iter().flat_map(|message| framed(message)).collect();
    stream.write_all(&[before, framed(b"short")].concat()).expect("sent");
    // What was asked before is still answered.
    let mut answered: Vec<u8> = (0..3).map(|_| unframe(&mut stream).expect("an answer")[1]).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    assert!(unframe(&mut stream).is_none());
    assert_eq!(running.metric("gateward_dns_dropped_total{reason=\"malformed\"}"), 1);
}

/// Serves messages with an odd number at once, and others when it is told to.
struct Gate(Arc<tokio::sync::Semaphore>);

impl slow::Slow for Gate {
    fn serve(&self, ask: slow::Ask) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let gate = Arc::clone(&self.0);
        Box::pin(async move {
            if ask.octets[1].is_multiple_of(2) {
                gate.acquire().await.expect("never closed").forget();
            }
            // Whoever asked may be gone.
            let _ = ask.answers.send(ask.octets).await;
        })
    }
}

#[test]
fn one_connection_cannot_hold_up_what_others_ask() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let running = start_with("127.0.0.1:0", Gate(Arc::clone(&gate)), |_| {});
    let mut flood = connect(running.address());
    let all: Vec<u8> = (0..3000).flat_map(|_| framed(&update(2))).collect();
    flood.write_all(&all).expect("sent");
    let mut other = connect(running.address());
    other.write_all(&framed(&update(1))).expect("sent");
    assert_eq!(unframe(&mut other).expect("an answer")[..2], [0, 1]);
    // Every message of the flood gets its answer in the end.
    gate.add_permits(3000);
    for _ in 0..3000 {
        assert_eq!(unframe(&mut flood).expect("an answer")[..2], [0, 2]);
    }
    assert_eq!(running.metric("gateward_dns_exchanges_total{opcode=\"update\"}"), 3001);
}

#[test]
fn a_connection_waits_for_its_own_messages_before_it_ends() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let running = start_with("127.0.0.1:0", Gate(Arc::clone(&gate)), |_| {});
    let mut stream = connect(running.address());
    stream.write_all(&[framed(&update(2)), framed(&update(1))].concat()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(unframe(&mut stream).expect("an answer")[..2], [0, 1], "as they are ready");
    gate.add_permits(1);
    assert_eq!(unframe(&mut stream).expect("an answer")[..2], [0, 2]);
    assert!(unframe(&mut stream).is_none());
}

#[test]
fn connections_end_with_the_server() {
    let running = start("127.0.0.1:0", |_| {});
    let mut stream = connect(running.address());
    stream.write_all(&framed(&with_id(1, "www.example.com", Rtype::A))).expect("sent");
    assert!(unframe(&mut stream).is_some());
    let Running { server, _runtime: runtime, .. } = running;
    drop(server);
    // Closed or reset, but not left open: a time-out is another error.
    let end = stream.read(&mut [0; 1]);
    assert!(
        matches!(&end, Ok(0)) || end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{end:?}"
    );
    drop(runtime);
}

/// RFC 7858, with a client that is another implementation in the end-to-end tests; here the library's own.
#[test]
fn rfc7858_dns_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["ns.example.com".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let running = start("127.0.0.1:0", |options| {
        options.tls = Some((vec!["127.0.0.1:0".parse().expect("an address")], Arc::new(config)));
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let client =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let name = "ns.example.com".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(Arc::new(client), name).expect("a client");
    let socket = TcpStream::connect(running.server.tls_addresses()[0]).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let padded = support::Question { options: vec![(12, vec![0; 4])], ..question("www.example.com", Rtype::A) };
    stream.write_all(&framed(&padded.wire())).expect("sent");
    let answer = unframe(&mut stream).expect("an answer");
    assert_eq!((read(&answer).answer.len(), answer.len() % 468), (1, 0));
    assert_eq!(running.metric("gateward_dns_queries_total{transport=\"tls\"}"), 1);
}

#[test]
fn floods_are_limited_but_for_those_who_show_who_they_are() {
    let running = start("127.0.0.1:0", |options| (options.workers, options.rate_limit, options.slip) = (1, 20, 2));
    let socket = udp(running.address());
    for id in 0..200 {
        socket.send(&with_id(id, "www.example.com", Rtype::A)).expect("sent");
    }
    socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a time-out");
    let (mut whole, mut cut) = (0, 0);
    let mut answer = [0; 512];
    while let Ok(len) = socket.recv(&mut answer) {
        let answer = read(&answer[..len]);
        if answer.flags.contains(&"tc") {
            cut += 1;
        } else {
            whole += 1;
        }
        assert!(!answer.flags.contains(&"tc") || answer.answer.is_empty());
        assert_eq!(answer.options, Some(Vec::new()), "OPT survives");
        assert_eq!(answer.question, with_id(1, "www.example.com", Rtype::A)[12..33]);
    }
    // The flood may cross into a second or two.
    assert!((20..=60).contains(&whole), "{whole} whole answers");
    assert!((60..=100).contains(&cut), "{cut} cut ones");
    assert!(running.metric("gateward_dns_dropped_total{reason=\"rate_limited\"}") >= 60);
    // Over TCP nobody is limited.
    let mut stream = connect(running.address());
    stream.write_all(&framed(&with_id(1, "www.example.com", Rtype::A))).expect("sent");
    assert_eq!(read(&unframe(&mut stream).expect("an answer")).answer.len(), 1);
}

#[test]
fn a_limit_is_shared_by_the_workers() {
    let running = start("127.0.0.1:0", |options| (options.workers, options.rate_limit, options.slip) = (4, 20, 0));
    let socket = udp(running.address());
    for id in 0..200 {
        socket.send(&with_id(id, "www.example.com", Rtype::A)).expect("sent");
    }
    // Answered by the same worker, behind all of these, and not limited with them.
    socket.send(&with_id(999, "nope.example.com", Rtype::A)).expect("sent");
    let answers =
        std::iter::from_fn(|| Some(receive(&socket))).take_while(|answer| answer[..2] != 999_u16.to_be_bytes());
    let answers = answers.count();
    // One port leads to one worker, which has five a second; the flood may cross into the next one.
    assert!((5..20).contains(&answers), "{answers}");
}

#[test]
fn messages_that_are_served_elsewhere_are_limited_too() {
    let running = start("127.0.0.1:0", |options| (options.workers, options.rate_limit, options.slip) = (1, 20, 2));
    let socket = udp(running.address());
    for id in 0..200 {
        socket.send(&update(id)).expect("sent");
    }
    let counts = || {
        let limited = running.metric("gateward_dns_dropped_total{reason=\"rate_limited\"}");
        (running.metric("gateward_dns_exchanges_total{opcode=\"update\"}"), limited)
    };
    let began = std::time::Instant::now();
    while counts().0 + counts().1 < 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", counts());
        std::thread::yield_now();
    }
    let (served, limited) = counts();
    // The flood may cross into a second or two.
    assert!((20..=60).contains(&served), "{served} served, {limited} limited");
    for _ in 0..served {
        assert_eq!(receive(&socket)[3] & 15, 4);
    }
}

#[test]
fn a_zone_is_held_to_its_share_over_tcp_too() {
    let running = start("127.0.0.1:0", |_| {});
    running.shared.zones.map().slot(&support::name("example.com")).expect("served").set_limit_qps(10);
    let mut stream = connect(running.address());
    let query = with_id(7, "www.example.com", Rtype::A);
    stream.write_all(&framed(&query).repeat(200)).expect("sent");
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..200 {
        let answer = read(&unframe(&mut stream).expect("an answer"));
        assert_eq!(answer.question, query[12..33]);
        match (answer.rcode, answer.answer.len(), &answer.flags[..], answer.options) {
            (0, 1, ["aa"], Some(_)) => whole += 1,
            (5, 0, [], Some(_)) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(whole >= 10 && refused > 0, "{whole}, {refused}");
    assert_eq!(running.metric("gateward_dns_dropped_total{reason=\"zone_quota\"}"), refused);
    assert_eq!(running.metric("gateward_dns_queries_total{transport=\"tcp\"}"), whole);
}

#[test]
fn a_flooded_zone_is_held_to_its_share() {
    let running = start("127.0.0.1:0", |options| options.workers = 1);
    running.shared.zones.put(zone("flooded.test", ZONE));
    running.shared.zones.map().slot(&support::name("flooded.test")).expect("served").set_limit_qps(50);
    let socket = udp(running.address());
    for id in 0..500 {
        socket.send(&with_id(id, "www.flooded.test", Rtype::A)).expect("sent");
    }
    for id in 0..100 {
        socket.send(&with_id(id, "www.example.com", Rtype::A)).expect("sent");
    }
    socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a time-out");
    let (mut flooded, mut other) = (0, 0);
    let mut answer = [0; 512];
    while let Ok(len) = socket.recv(&mut answer) {
        if read(&answer[..len]).answer[0].contains("flooded") { flooded += 1 } else { other += 1 }
    }
    assert_eq!(other, 100);
    assert!((50..=150).contains(&flooded), "{flooded}");
}

#[test]
fn the_query_log_has_a_line_per_query() {
    let file = tempfile();
    let log = gateward_dns::server::log::QueryLog::start(Box::new(std::fs::File::create(&file).expect("a file")), 1);
    let running = start("127.0.0.1:0", |options| options.log = Some(log));
    let socket = udp(running.address());
    socket.send(&with_id(1, "NOPE.example.com", Rtype::AAAA)).expect("sent");
    let over_udp = receive(&socket).len();
    let mut stream = connect(running.address());
    stream.write_all(&framed(&with_id(2, "www.example.com", Rtype::A))).expect("sent");
    let over_tcp = unframe(&mut stream).expect("an answer").len();
    let mut text = String::new();
    for _ in 0..200 {
        text = std::fs::read_to_string(&file).expect("the log");
        if text.lines().count() == 2 && text.ends_with('\n') {
            break;
        }
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        // Nothing comes: this is a way to wait.
        let _ = socket.recv(&mut [0; 512]);
    }
    for line in [
        format!(r#""transport":"udp","name":"nope.example.com.","type":"AAAA","rcode":3,"bytes":{over_udp}}}"#),
        format!(r#""transport":"tcp","name":"www.example.com.","type":"A","rcode":0,"bytes":{over_tcp}}}"#),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert_eq!(running.metric("gateward_dns_query_log_dropped_total"), 0);
    std::fs::remove_file(file).expect("removed");
}

fn tempfile() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("gateward-query-log-{}", std::process::id()))
}
