//! Answers: a function of a query and the zones. No clock, no socket, no allocation.
//!
//! [`respond`] reads a message and writes its answer into a buffer; what it cannot decide alone (updates, transfers, signed
//! messages, notifications) it gives back as [`Verdict::Elsewhere`].

mod cut;
mod edns;
mod fill;
mod lookup;
mod writer;

use std::net::IpAddr;
use std::time::Duration;

use arc_swap::Guard;
use gateward_zone::Rtype;

use crate::cookies::{Cookie, CookieKeys};
use crate::hash;
use crate::message::{self, AA, CD, Edns, HEADER, Malformed, OPT, QR, Question, RD, Request, TC};
use crate::store::{QNAME_AT, Slot, ZoneMap};
pub(crate) use cut::{refuse, slip};
use edns::Extra;
use fill::Filled;
use writer::Writer;

/// How long a stream may be idle (RFC 7766, 6.2.3): what servers do, and what answers tell those who ask (RFC 7828).
pub(crate) const STREAM_IDLE: Duration = Duration::from_secs(30);

/// How a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream in the clear.
    Tcp,
    /// A stream over TLS (RFC 7858).
    Tls,
}

/// What an operator decides about answers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most octets of an answer over UDP, whatever the asker can take.
    pub udp_payload: u16,
    /// The identity told in NSID and `id.server`; empty tells none.
    pub identity: Vec<u8>,
    /// What `version.bind` is answered with; empty refuses.
    pub version: Vec<u8>,
    /// Whether askers over UDP must show a valid cookie or use TCP (BADCOOKIE).
    pub require_cookies: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { udp_payload: 1232, identity: Vec::new(), version: Vec::new(), require_cookies: false }
    }
}

/// What an answer is made from.
pub struct Context<'a> {
    /// The zones.
    pub zones: &'a ZoneMap,
    /// What the operator decided.
    pub settings: &'a Settings,
    /// Keys of server cookies.
    pub cookies: &'a CookieKeys,
    /// Seconds since 1970.
    pub now: u64,
    /// Who asks.
    pub client: IpAddr,
    /// How the message came.
    pub transport: Transport,
    /// Octets of the longest message to leave free: for a signature that is put behind the answer.
    pub room: usize,
}

/// What kind of answer a query got: for counting and limiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// Records.
    Answer,
    /// The name exists, the type does not.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// Another server is responsible.
    Referral,
    /// Anything that went wrong.
    Error,
}

/// An answer that was written.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Octets of the message.
    pub len: usize,
    /// Where its question ends.
    pub question_end: usize,
    /// Where its OPT record begins, which is the last one; its end where there is none.
    pub opt_at: usize,
    /// Its response code, extended bits included.
    pub rcode: u16,
    /// Its kind.
    pub kind: Kind,
    /// Number of the zone it came from.
    pub zone: Option<u32>,
    /// Queries per second that the server answers for that zone; 0 is no limit.
    pub zone_limit: u32,
    /// Whether it was cut short.
    pub truncated: bool,
    /// The type that was asked for; 0 without a question.
    pub qtype: u16,
    /// Whether the asker showed a valid cookie: it is who it says.
    pub known_client: bool,
    /// A hash of what the answer is about, the same for all answers that a flood would bring: for limiting.
    pub subject: u64,
}

/// What is to be done with a message.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing is sent.
    Silent,
    /// The answer is in the buffer.
    Reply(Reply),
    /// An update, transfer, notification or signed message.
    Elsewhere,
}

/// Response codes (RFC 1035, 2136, 6891, 7873).
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const YXDOMAIN: u16 = 6;
    pub(crate) const BADVERS: u16 = 16;
    pub(crate) const BADCOOKIE: u16 = 23;
}

/// Extended errors (RFC 8914).
pub(crate) mod extended {
    pub(crate) const NOT_AUTHORITATIVE: u16 = 20;
    pub(crate) const NOT_SUPPORTED: u16 = 21;
    pub(crate) const INVALID_DATA: u16 = 24;
}

const QUERY: u8 = 0;
const NOTIFY: u8 = 4;
const UPDATE: u8 = 5;

const CLASS_IN: u16 = 1;
const CLASS_CHAOS: u16 = 3;
const CLASS_ANY: u16 = 255;
const TKEY: u16 = 249;
const IXFR: u16 = 251;
const AXFR: u16 = 252;
const MAILB: u16 = 253;
const MAILA: u16 = 254;

/// Answers one message into `out`, which holds 65,535 octets for streams and at least 1,232 for datagrams.
#[inline]
pub fn respond(context: &Context<'_>, octets: &[u8], out: &mut [u8]) -> Verdict {
    let opcode = match message::opcode(octets) {
        None => return Verdict::Silent,
        Some(opcode @ (QUERY | NOTIFY | UPDATE)) => opcode,
        // What follows the header has the form of its operation (RFC 8490, 5.4), which is not known here.
        Some(_) => return Verdict::Reply(header_only(octets, rcode::NOTIMP, out)),
    };
    let request = match message::parse(octets) {
        Ok(request) => request,
        Err(Malformed::Silent) => return Verdict::Silent,
        Err(Malformed::Format) => return Verdict::Reply(header_only(octets, rcode::FORMERR, out)),
    };
    if opcode != QUERY || request.signed {
        return Verdict::Elsewhere;
    }
    match query(context, &request, out) {
        Some(reply) => Verdict::Reply(reply),
        None => Verdict::Elsewhere,
    }
}

/// An answer of nothing but a header: what is left when the question cannot be read.
pub(crate) fn header_only(octets: &[u8], rcode: u16, out: &mut [u8]) -> Reply {
    let low = u8::try_from(rcode & 15).expect("four bits");
    out[..HEADER].copy_from_slice(&[
        octets[0],
        octets[1],
        QR | octets[2] & (0x78 | RD),
        octets[3] & CD | low,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    Reply {
        len: HEADER,
        question_end: HEADER,
        opt_at: HEADER,
        rcode,
        kind: Kind::Error,
        zone: None,
        zone_limit: 0,
        truncated: false,
        qtype: 0,
        known_client: false,
        subject: u64::from(rcode),
    }
}

/// Answers a query; `None` for transfers.
fn query(context: &Context<'_>, request: &Request<'_>, out: &mut [u8]) -> Option<Reply> {
    let mut extra = Extra { cookie: None, error: None };
    let mut known_client = context.transport != Transport::Udp;
    let mut refused = None;
    if let Some(edns) = &request.edns {
        if edns.version > 0 {
            refused = Some(rcode::BADVERS);
        } else if let Some(cookie) = edns.cookie {
            match context.cookies.check(cookie, context.client, context.now) {
                Cookie::Malformed => return Some(header_only(request.octets, rcode::FORMERR, out)),
                Cookie::Valid(fresh) => {
                    known_client = true;
                    extra.cookie = Some(fresh);
                }
                Cookie::New(fresh) => extra.cookie = Some(fresh),
            }
        }
    }
    let Some(question) = &request.question else {
        // Only a cookie may be asked for without a question (RFC 7873, 5.4).
        let code = refused.unwrap_or(if extra.cookie.is_some() { rcode::NOERROR } else { rcode::FORMERR });
        return Some(without_question(context, request, &extra, code, out));
    };
    if context.settings.require_cookies && !known_client && refused.is_none() && extra.cookie.is_some() {
        refused = Some(rcode::BADCOOKIE);
    }
    let misplaced = request.answers > 0 || (request.authorities > 0 && question.qtype != IXFR);
    if misplaced || question.qtype == OPT || (question.qtype == AXFR && context.transport == Transport::Udp) {
        refused = Some(rcode::FORMERR);
    }
    if refused.is_none() && matches!(question.qtype, AXFR | IXFR) {
        return None;
    }
    let limit = limit(context, request.edns.as_ref()).min(out.len());
    let room = edns::room(context, request.edns.as_ref(), &extra);
    let mut writer = Writer::new(out, question, limit.saturating_sub(room));
    let answered = match refused {
        Some(code) => Answered::error(code, None),
        None => answer(context, question, &mut writer),
    };
    extra.error = answered.extended;
    let reply = Reply {
        len: 0,
        question_end: QNAME_AT + question.wire.len(),
        opt_at: 0,
        rcode: answered.filled.rcode,
        kind: answered.filled.kind,
        zone: answered.zone.map(|(id, _)| id),
        zone_limit: answered.zone.map_or(0, |(_, limit)| limit),
        truncated: answered.filled.truncated,
        qtype: question.qtype,
        known_client,
        subject: answered.subject,
    };
    Some(finish(context, request, &extra, reply, answered.filled.authoritative, writer, limit))
}

/// How many octets the answer may have.
#[inline]
fn limit(context: &Context<'_>, edns: Option<&Edns<'_>>) -> usize {
    let longest = match (context.transport, edns) {
        (Transport::Udp, None) => 512,
        (Transport::Udp, Some(edns)) => usize::from(edns.payload.min(context.settings.udp_payload).max(512)),
        _ => 65_535,
    };
    longest.saturating_sub(context.room)
}

/// What was found for a question.
struct Answered {
    filled: Filled,
    /// The zone's number and its limit of queries.
    zone: Option<(u32, u32)>,
    extended: Option<u16>,
    subject: u64,
}

impl Answered {
    fn error(rcode: u16, extended: Option<u16>) -> Self {
        Answered { filled: Filled::error(rcode), zone: None, extended, subject: u64::from(rcode) }
    }
}

#[inline]
fn answer(context: &Context<'_>, question: &Question<'_>, writer: &mut Writer<'_>) -> Answered {
    match question.qclass {
        CLASS_IN | CLASS_ANY => {}
        CLASS_CHAOS => return chaos(context, question, writer),
        _ => return Answered::error(rcode::REFUSED, Some(extended::NOT_SUPPORTED)),
    }
    if matches!(question.qtype, TKEY | MAILA | MAILB) {
        return Answered::error(rcode::NOTIMP, Some(extended::NOT_SUPPORTED));
    }
    let Some((slot, labels, origin_hash)) = zone_of(context.zones, question) else {
        return Answered::error(rcode::REFUSED, Some(extended::NOT_AUTHORITATIVE));
    };
    let zone: Guard<_> = slot.current();
    let Some(zone) = zone.as_ref() else {
        return Answered {
            zone: Some((slot.id(), slot.limit_qps())),
            ..Answered::error(rcode::SERVFAIL, Some(extended::INVALID_DATA))
        };
    };
    let mut filled = fill::fill(zone, labels, origin_hash, question, writer, context.transport == Transport::Udp);
    if question.qclass == CLASS_ANY {
        // Who asks for any class cannot be told that there is no more (RFC 1035, 4.1.1 with 1034, 4.3.2 step 3).
        filled.authoritative = false;
    }
    // What a flood of different names has in common is the zone; only names that stand there can be told apart by it.
    let subject = match filled.kind {
        Kind::Answer | Kind::NoData if !filled.made_up => {
            hash::child(origin_hash, &question.name.wire()[..question.name.wire().len().min(64)])
        }
        _ => origin_hash,
    };
    Answered { filled, zone: Some((slot.id(), slot.limit_qps())), extended: None, subject }
}

/// The zone of the longest origin that is a suffix of the name, how many labels that has, and its hash. DS at an apex is asked of the zone above, if that
/// is served here too.
#[inline]
fn zone_of<'m>(zones: &'m ZoneMap, question: &Question<'_>) -> Option<(&'m Slot, usize, u64)> {
    let name = &question.name;
    let most = name.labels().min(zones.max_depth());
    let mut found = None;
    let mut hash = hash::root();
    let ds = question.qtype == Rtype::DS.to_int();
    for labels in 0..=most {
        if labels > 0 {
            hash = name.hash_below(hash, labels);
        }
        if zones.has_depth(labels)
            && !(ds && labels == name.labels() && found.is_some())
            && let Some(slot) = zones.get(hash, name.suffix(labels))
        {
            found = Some((&**slot, labels, hash));
        }
    }
    found
}

/// `version.bind` and `id.server` (RFC 4892).
fn chaos(context: &Context<'_>, question: &Question<'_>, writer: &mut Writer<'_>) -> Answered {
    let text = match question.name.wire() {
        b"\x07version\x04bind\0" | b"\x07version\x06server\0" => &context.settings.version,
        b"\x02id\x06server\0" | b"\x08hostname\x04bind\0" => &context.settings.identity,
        _ => return Answered::error(rcode::REFUSED, None),
    };
    let text = &text[..text.len().min(255)];
    if text.is_empty() || !matches!(question.qtype, 16 | 255) {
        return Answered::error(rcode::REFUSED, None);
    }
    let mut data = [0; 256];
    data[0] = u8::try_from(text.len()).expect("at most 255 octets");
    data[1..=text.len()].copy_from_slice(text);
    let put = writer.put_chaos(&data[..=text.len()]);
    let filled = Filled { truncated: put.is_none(), ..Filled::of(Kind::Answer, rcode::NOERROR) };
    Answered { filled, zone: None, extended: None, subject: 0 }
}

/// An answer to a message that asks nothing.
fn without_question(context: &Context<'_>, request: &Request<'_>, extra: &Extra, code: u16, out: &mut [u8]) -> Reply {
    let reply = Reply {
        kind: if code == rcode::NOERROR { Kind::NoData } else { Kind::Error },
        ..header_only(request.octets, code, out)
    };
    let len = match &request.edns {
        None => reply.len,
        Some(edns) => {
            out[HEADER - 1] = 1;
            edns::put(context, edns, extra, code, out, HEADER, 512)
        }
    };
    Reply { len, ..reply }
}

/// Writes the header and the OPT record.
#[inline]
fn finish(
    context: &Context<'_>,
    request: &Request<'_>,
    extra: &Extra,
    mut reply: Reply,
    authoritative: bool,
    writer: Writer<'_>,
    limit: usize,
) -> Reply {
    let ([answers, authorities, mut additional], len, out) = writer.into_parts();
    if request.edns.is_some() {
        additional += 1;
    }
    let mut flags = QR | request.flags & (0x78 | RD);
    if authoritative {
        flags |= AA;
    }
    if reply.truncated {
        flags |= TC;
    }
    out[..2].copy_from_slice(&request.id);
    out[2] = flags;
    out[3] = request.flags2 & CD | (reply.rcode & 15) as u8;
    out[4..6].copy_from_slice(&[0, 1]);
    out[6..8].copy_from_slice(&answers.to_be_bytes());
    out[8..10].copy_from_slice(&authorities.to_be_bytes());
    out[10..12].copy_from_slice(&additional.to_be_bytes());
    reply.opt_at = len;
    reply.len = match &request.edns {
        None => len,
        Some(edns) => edns::put(context, edns, extra, reply.rcode, out, len, limit),
    };
    reply
}
