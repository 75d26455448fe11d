//! A DNS server that says what a test tells it to, over UDP and TCP, and counts what it is asked.
//!
//! Every change takes effect with the next query. Names are absolute, without the dot at the end.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::wait::pause;

/// How long a thread waits before it looks whether the server is stopped.
const LOOK: Duration = Duration::from_millis(50);
/// Aliases followed in one answer.
const ALIASES: usize = 8;

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Aliases.
    Cname,
    /// Hosts with ports.
    Srv,
}

impl Kind {
    fn of(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::A,
            28 => Self::Aaaa,
            5 => Self::Cname,
            33 => Self::Srv,
            _ => return None,
        })
    }

    fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Cname => 5,
            Self::Srv => 33,
        }
    }
}

/// What the server does with queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// Answers.
    #[default]
    Answer,
    /// Says nothing.
    Silence,
    /// Answers with this code: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    Code(u8),
    /// Answers, later.
    Delay(Duration),
    /// Over UDP, says only that the answer is too long.
    Truncate,
}

/// A server on a free port of 127.0.0.1; it ends when it is dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stopped: AtomicBool,
}

/// What is asked for.
type Key = (String, Kind);

#[derive(Debug, Default)]
struct State {
    /// Time to live, and the data of each.
    records: HashMap<Key, (u32, Vec<Vec<u8>>)>,
    manner: Manner,
    manners: HashMap<Key, Manner>,
    udp: HashMap<Key, usize>,
    tcp: HashMap<Key, usize>,
}

impl DnsServer {
    /// Starts one that knows nothing: every name does not exist.
    ///
    /// # Panics
    /// When there are no free ports.
    #[must_use]
    pub fn start() -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        udp.set_read_timeout(Some(LOOK)).expect("a time-out can be set");
        tcp.set_nonblocking(true).expect("a socket can be made non-blocking");
        let (for_udp, for_tcp) = (shared.clone(), shared.clone());
        thread::spawn(move || serve_udp(&udp, &for_udp));
        thread::spawn(move || serve_tcp(&tcp, &for_tcp));
        Self { address, shared }
    }

    /// Where it listens, with both protocols.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Has these A and AAAA records, instead of earlier ones.
    pub fn addresses(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let addresses: Vec<IpAddr> =
            addresses.iter().map(|text| text.parse().expect("the test gives addresses")).collect();
        let of = |wanted: fn(&IpAddr) -> bool| -> Vec<Vec<u8>> {
            let octets = |ip: &IpAddr| match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            addresses.iter().filter(|ip| wanted(ip)).map(octets).collect()
        };
        self.put(name, Kind::A, ttl, of(IpAddr::is_ipv4));
        self.put(name, Kind::Aaaa, ttl, of(IpAddr::is_ipv6));
    }

    /// Has these SRV records (priority, weight, port, target), instead of earlier ones.
    pub fn services(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let data = services.iter().map(|(priority, weight, port, target)| {
            let mut data = Vec::new();
            for number in [priority, weight, port] {
                data.extend(number.to_be_bytes());
            }
            data.extend(encode_name(target));
            data
        });
        self.put(name, Kind::Srv, ttl, data.collect());
    }

    /// Makes `name` an alias of `target`.
    pub fn alias(&self, name: &str, ttl: u32, target: &str) {
        self.put(name, Kind::Cname, ttl, vec![encode_name(target)]);
    }

    /// Has no records of `name` any more: it does not exist.
    pub fn remove(&self, name: &str) {
        self.state().records.retain(|(other, _), _| other != name);
    }

    /// Does this with all queries from now on.
    pub fn behave(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// Does this with queries for one name and kind.
    pub fn behave_for(&self, name: &str, kind: Kind, manner: Manner) {
        self.state().manners.insert((name.to_owned(), kind), manner);
    }

    /// Queries for a name and kind so far, over both protocols.
    pub fn queries(&self, name: &str, kind: Kind) -> usize {
        let state = self.state();
        let of = |counts: &HashMap<Key, usize>| counts.get(&(name.to_owned(), kind)).copied().unwrap_or(0);
        of(&state.udp) + of(&state.tcp)
    }

    /// Those of them that came over TCP.
    pub fn queries_over_tcp(&self, name: &str, kind: Kind) -> usize {
        self.state().tcp.get(&(name.to_owned(), kind)).copied().unwrap_or(0)
    }

    fn put(&self, name: &str, kind: Kind, ttl: u32, data: Vec<Vec<u8>>) {
        let mut state = self.state();
        if data.is_empty() {
            state.records.remove(&(name.to_owned(), kind));
        } else {
            state.records.insert((name.to_owned(), kind), (ttl, data));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The answer to `query`, when it is to be given; `None`: none.
    fn answer(&self, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let question = Question::parse(query)?;
        let manner = {
            let mut state = self.state();
            let key = (question.name.clone(), question.kind?);
            let counts = if over_tcp { &mut state.tcp } else { &mut state.udp };
            *counts.entry(key.clone()).or_default() += 1;
            state.manners.get(&key).copied().unwrap_or(state.manner)
        };
        match manner {
            Manner::Silence => return None,
            Manner::Code(code) => return Some(question.reply(code, false, &[])),
            Manner::Truncate if !over_tcp => return Some(question.reply(0, true, &[])),
            Manner::Delay(delay) => pause(delay),
            Manner::Answer | Manner::Truncate => {}
        }
        let state = self.state();
        let (mut name, mut answers) = (question.name.clone(), Vec::new());
        for _ in 0..ALIASES {
            if let Some((ttl, data)) = state.records.get(&(name.clone(), question.kind?)) {
                answers.extend(data.iter().map(|data| record(&name, question.kind, *ttl, data)));
                break;
            }
            let Some((ttl, data)) = state.records.get(&(name.clone(), Kind::Cname)) else { break };
            answers.push(record(&name, Some(Kind::Cname), *ttl, &data[0]));
            name = decode_name(&data[0])?.0;
        }
        let exists = !answers.is_empty() || state.records.keys().any(|(other, _)| *other == question.name);
        Some(question.reply(if exists { 0 } else { 3 }, false, &answers))
    }
}

/// A UDP and a TCP socket on one free port.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are free ports");
        let address = udp.local_addr().expect("a bound socket has an address");
        if let Ok(tcp) = TcpListener::bind(address) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both protocols");
}

fn serve_udp(socket: &UdpSocket, shared: &Arc<Shared>) {
    let mut query = [0; 4096];
    while !shared.is_stopped() {
        let Ok((length, peer)) = socket.recv_from(&mut query) else { continue };
        let (query, shared) = (query[..length].to_vec(), shared.clone());
        let Ok(socket) = socket.try_clone() else { continue };
        // A delayed answer must not delay others.
        thread::spawn(move || {
            if let Some(answer) = shared.answer(&query, false) {
                let _ = socket.send_to(&answer, peer);
            }
        });
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_stopped() {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = shared.clone();
                thread::spawn(move || serve_stream(stream, &shared));
            }
            Err(_) => pause(LOOK / 10),
        }
    }
}

/// Until the client goes, with a length before each message.
fn serve_stream(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        if let Some(answer) = shared.answer(&query, true) {
            let length = u16::try_from(answer.len()).ok()?;
            stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).ok()?;
        }
    }
}

/// What is asked.
struct Question {
    id: [u8; 2],
    name: String,
    /// `None`: a kind this server knows nothing of.
    kind: Option<Kind>,
    /// As it came.
    bytes: Vec<u8>,
}

impl Question {
    fn parse(query: &[u8]) -> Option<Self> {
        let rest = query.get(12..)?;
        let (name, length) = decode_name(rest)?;
        let kind = u16::from_be_bytes([*rest.get(length)?, *rest.get(length + 1)?]);
        let bytes = rest.get(..length + 4)?.to_vec();
        Some(Self { id: [query[0], query[1]], name, kind: Kind::of(kind), bytes })
    }

    fn reply(&self, code: u8, truncated: bool, answers: &[Vec<u8>]) -> Vec<u8> {
        // A response, with authority, recursion desired and available.
        let flags = [0x85 | if truncated { 2 } else { 0 }, 0x80 | code];
        let count = u16::try_from(answers.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut reply = [&self.id[..], &flags, &[0, 1], &count, &[0; 4], &self.bytes].concat();
        answers.iter().for_each(|answer| reply.extend(answer));
        reply
    }
}

fn record(name: &str, kind: Option<Kind>, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = encode_name(name);
    record.extend(kind.map_or(0, Kind::code).to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    record.extend(data);
    record
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("labels of tests are short"));
        out.extend(label.bytes());
    }
    out.push(0);
    out
}

/// A name in lower case, and how many bytes it takes.
fn decode_name(bytes: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = bytes.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}
