//! Questions to one name server: UDP, and TCP when the answer is cut short or nothing comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use domain::base::iana::Class;
use domain::base::message::RecordSection;
use domain::base::rdata::ComposeRecordData;
use domain::base::record::ParsedRecord;
use domain::base::{Message, MessageBuilder, ParsedName, ToName};
use domain::rdata::AllRecordData;
use gateward_zone::{Name, Rcode, Rdata, Record, Rtype};

/// Octets of a UDP answer that are asked for (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;
/// How often a question is sent over UDP.
const TRIES: usize = 2;

/// How questions are asked.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// How long one try may take.
    pub timeout: Duration,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) rcode: Rcode,
    /// The server speaks for the zone.
    pub(crate) aa: bool,
    /// The answer came over TCP, because it did not fit or did not come over UDP.
    pub(crate) tcp: bool,
    pub(crate) answer: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

impl Default for Client {
    fn default() -> Self {
        Client { timeout: Duration::from_secs(2) }
    }
}

impl Client {
    /// Asks `server`; text for the user when there is no answer.
    pub(crate) fn ask(&self, server: SocketAddr, name: &Name, rtype: Rtype) -> Result<Reply, String> {
        let id = message_id();
        let query = query(id, name, rtype)?;
        match self.over_udp(server, &query, id) {
            Ok(Some(reply)) => read(&reply, false),
            // Cut short.
            Ok(None) => self.over_tcp(server, &query, id),
            Err(udp) => self.over_tcp(server, &query, id).map_err(|tcp| format!("UDP: {udp}; TCP: {tcp}")),
        }
    }

    /// Asks over TCP only.
    pub(crate) fn ask_tcp(&self, server: SocketAddr, name: &Name, rtype: Rtype) -> Result<Reply, String> {
        let id = message_id();
        self.over_tcp(server, &query(id, name, rtype)?, id)
    }

    /// A whole answer, or `None` if it is cut short.
    fn over_udp(&self, server: SocketAddr, query: &[u8], id: u16) -> Result<Option<Vec<u8>>, String> {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).map_err(|error| error.to_string())?;
        // Answers of others do not arrive on a connected socket.
        socket.connect(server).map_err(|error| error.to_string())?;
        let mut last = "no answer".to_owned();
        for _ in 0..TRIES {
            if let Err(error) = socket.send(query) {
                last = error.to_string();
                continue;
            }
            match receive(&socket, query, id, Instant::now() + self.timeout) {
                Ok(reply) if is_truncated(&reply) => return Ok(None),
                Ok(reply) => return Ok(Some(reply)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn over_tcp(&self, server: SocketAddr, query: &[u8], id: u16) -> Result<Reply, String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect_timeout(&server, self.timeout).map_err(failed)?;
        stream.set_read_timeout(Some(self.timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(self.timeout)).map_err(failed)?;
        let len = u16::try_from(query.len()).map_err(|_| "the question is too long".to_owned())?;
        stream.write_all(&[&len.to_be_bytes(), query].concat()).map_err(failed)?;
        let mut len = [0; 2];
        stream.read_exact(&mut len).map_err(failed)?;
        let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut reply).map_err(failed)?;
        if !answers(&reply, query, id) {
            return Err("the answer is to another question".to_owned());
        }
        read(&reply, true)
    }
}

fn receive(socket: &UdpSocket, query: &[u8], id: u16, until: Instant) -> Result<Vec<u8>, String> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        let left = left.ok_or("no answer in time")?;
        socket.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return Err("no answer in time".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        };
        if answers(&buffer[..len], query, id) {
            return Ok(buffer[..len].to_vec());
        }
    }
}

/// Whether a message is the answer to this query: its id and its question.
fn answers(reply: &[u8], query: &[u8], id: u16) -> bool {
    let question = |message: &[u8]| {
        let message = Message::from_octets(message.to_vec()).ok()?;
        let question = message.sole_question().ok()?;
        Some((question.qname().to_vec(), question.qtype()))
    };
    let header = Message::from_octets(reply).map(|message| message.header());
    header.is_ok_and(|header| header.id() == id && header.qr()) && question(reply) == question(query)
}

fn is_truncated(reply: &[u8]) -> bool {
    Message::from_octets(reply).is_ok_and(|message| message.header().tc())
}

fn query(id: u16, name: &Name, rtype: Rtype) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let name = domain::base::Name::from_octets(name.as_wire().to_vec()).map_err(|error| failed(&error))?;
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(id);
    let mut message = message.question();
    message.push((&name, rtype, Class::IN)).map_err(|error| failed(&error))?;
    let mut message = message.additional();
    message
        .opt(|opt| {
            opt.set_udp_payload_size(UDP_PAYLOAD);
            Ok(())
        })
        .map_err(|error| failed(&error))?;
    Ok(message.finish())
}

fn read(octets: &[u8], tcp: bool) -> Result<Reply, String> {
    let message = Message::from_octets(octets).map_err(malformed)?;
    let (_, answer, authority, additional) = message.sections().map_err(malformed)?;
    Ok(Reply {
        rcode: message.header().rcode(),
        aa: message.header().aa(),
        tcp,
        answer: section(answer)?,
        authority: section(authority)?,
        additional: section(additional)?,
    })
}

fn malformed(what: impl std::fmt::Display) -> String {
    format!("the answer is malformed: {what}")
}

/// The records of a section; OPT is none.
fn section(section: RecordSection<'_, &[u8]>) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    for record in section {
        let record = record.map_err(malformed)?;
        if record.rtype() != Rtype::OPT {
            records.push(owned(&record)?);
        }
    }
    Ok(records)
}

fn owned(record: &ParsedRecord<'_, &[u8]>) -> Result<Record, String> {
    let (rtype, ttl) = (record.rtype(), record.ttl().as_secs());
    let owner = Name::from_wire(record.owner().to_vec().as_slice()).map_err(malformed)?.0;
    let record = record.to_any_record::<AllRecordData<&[u8], ParsedName<&[u8]>>>().map_err(malformed)?;
    let mut wire = Vec::new();
    record.data().compose_rdata(&mut wire).map_err(malformed)?;
    Ok(Record { owner, rtype, ttl, rdata: Rdata::from_wire(wire) })
}

/// Answers are told apart by question and, for those that come late, by id. Guessing it is of no use: the socket is
/// connected, and what is asked is public.
fn message_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
