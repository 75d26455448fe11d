//! The client's side: asking a primary for its SOA record, and fetching a zone from it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateward_zone::{Name, Rcode, Record, Rtype, Soa};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::pace::Pace;
use super::unix_seconds;
use crate::transfer::{Incoming, Limits, Received};
use crate::tsig::{Key, sign_request};
use crate::wire::{CLASS_IN, Header, Reader, Writer, flags, read_question};

/// How long a primary may take to answer a datagram, and how often it is asked.
const UDP_WAIT: Duration = Duration::from_secs(3);
const UDP_TRIES: usize = 3;
/// How long a primary may take to accept a connection, and between two messages of a transfer.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
const MESSAGE_WAIT: Duration = Duration::from_secs(30);

/// A number that others cannot guess: the keys of the standard library's hash are random, and differ with every call.
pub(super) fn random() -> u16 {
    (RandomState::new().build_hasher().finish() >> 24) as u16
}

/// The serial that a primary has for a zone.
///
/// # Errors
/// What went wrong, as text.
pub(super) async fn serial_at(primary: SocketAddr, zone: &Name, key: Option<&Arc<Key>>) -> Result<u32, String> {
    for _ in 0..UDP_TRIES {
        match timeout(UDP_WAIT, ask_over_udp(primary, zone, key)).await {
            Ok(Ok(Some(serial))) => return Ok(serial),
            // Cut short, or of unknown origin: a stream has more room and is less easily joined.
            Ok(Ok(None)) => break,
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    // Silence over UDP may be a firewall's.
    timeout(MESSAGE_WAIT, ask_over_tcp(primary, zone, key)).await.map_err(|_| "no answer in time".to_owned())?
}

fn soa_query(zone: &Name) -> Vec<u8> {
    let mut writer = Writer::new(random(), 0, 512);
    writer.question(zone, Rtype::SOA, CLASS_IN);
    writer.finish()
}

async fn ask_over_udp(primary: SocketAddr, zone: &Name, key: Option<&Arc<Key>>) -> Result<Option<u32>, String> {
    let any: SocketAddr =
        if primary.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(shown)?;
    socket.connect(primary).await.map_err(shown)?;
    let mut query = soa_query(zone);
    let session = key.map(|key| sign_request(key, &mut query, unix_seconds()));
    socket.send(&query).await.map_err(shown)?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await.map_err(shown)?;
        let answer = &buffer[..len];
        // Others may send here too: what does not fit is not the answer.
        if answer.get(..2) != query.get(..2) {
            continue;
        }
        if session.as_ref().is_some_and(|session| session.clone().verify(answer, unix_seconds()).is_err()) {
            // Anybody may have sent it. Whether the primary means it is told on a stream.
            return Ok(None);
        }
        return serial_in(answer, &query, zone);
    }
}

async fn ask_over_tcp(primary: SocketAddr, zone: &Name, key: Option<&Arc<Key>>) -> Result<u32, String> {
    let mut query = soa_query(zone);
    let session = key.map(|key| sign_request(key, &mut query, unix_seconds()));
    let mut stream = connect(primary).await?;
    write_message(&mut stream, &query).await?;
    let answer = read_message(&mut stream).await?;
    if let Some(mut session) = session {
        session.verify(&answer, unix_seconds()).map_err(shown)?;
    }
    serial_in(&answer, &query, zone)?.ok_or_else(|| "the answer is cut short".to_owned())
}

/// The serial in an answer; `None` when it is cut short.
fn serial_in(answer: &[u8], query: &[u8], zone: &Name) -> Result<Option<u32>, String> {
    let header = Header::read(answer).map_err(shown)?;
    let asked = Header::read(query).map_err(shown)?;
    let question = read_question(answer).map_err(shown)?;
    if header.id != asked.id || !header.is_answer() || question.name != *zone || question.rtype != Rtype::SOA {
        return Err("the answer is to another question".to_owned());
    }
    if header.rcode() != 0 {
        return Err(format!("the primary answers {}", Rcode::masked_from_int(header.rcode())));
    }
    if header.flags & flags::TC != 0 {
        return Ok(None);
    }
    if header.flags & flags::AA == 0 {
        return Err("the primary has no authority over the zone".to_owned());
    }
    let mut reader = Reader::new(answer);
    reader.question().map_err(shown)?;
    for _ in 0..header.counts[1] {
        let record = reader.record().map_err(shown)?;
        if record.rtype == Rtype::SOA && record.owner == *zone {
            let soa = Soa::read(&record.rdata(answer).map_err(shown)?);
            return soa.map(|soa| Some(soa.serial)).map_err(|_| "the SOA record is malformed".to_owned());
        }
    }
    Err("the answer has no SOA record".to_owned())
}

/// Fetches a zone, or what changed since the version with the SOA record `have`.
///
/// # Errors
/// What went wrong, as text.
pub(super) async fn fetch(
    primary: SocketAddr,
    zone: &Name,
    have: Option<&Record>,
    key: Option<&Arc<Key>>,
    limits: Limits,
) -> Result<Received, String> {
    let mut stream = connect(primary).await?;
    let (request, mut incoming) = Incoming::request(zone, have, random(), key, limits, unix_seconds());
    write_message(&mut stream, &request).await?;
    let mut pace = Pace::since(Instant::now());
    loop {
        let (still, late) = (Instant::now() + MESSAGE_WAIT, pace.deadline());
        let message = timeout_at(still.min(late), read_message(&mut stream)).await;
        let message = message.map_err(|_| {
            if still < late { "the transfer stands still" } else { "the transfer is too slow" }.to_owned()
        })??;
        pace.passed(message.len());
        if let Some(received) = incoming.take(&message, unix_seconds()).map_err(shown)? {
            return Ok(received);
        }
    }
}

async fn connect(primary: SocketAddr) -> Result<TcpStream, String> {
    let stream = timeout(CONNECT_WAIT, TcpStream::connect(primary)).await;
    let stream = stream.map_err(|_| "no connection in time".to_owned())?.map_err(shown)?;
    stream.set_nodelay(true).map_err(shown)?;
    Ok(stream)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> Result<(), String> {
    let len = u16::try_from(message.len()).map_err(shown)?;
    stream.write_all(&[&len.to_be_bytes()[..], message].concat()).await.map_err(shown)
}

async fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let len = stream.read_u16().await.map_err(shown)?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await.map_err(shown)?;
    Ok(message)
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn shown(error: impl ToString) -> String {
    error.to_string()
}
