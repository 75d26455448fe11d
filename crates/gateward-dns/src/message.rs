//! A query as it came: header, question, EDNS. Read in one pass, without an allocation, never trusting a length.

use crate::hash;
use crate::store::QNAME_AT;

/// Octets of a message's header (RFC 1035, 4.1.1).
pub const HEADER: usize = 12;

/// Bit of a header's first flag octet: the message is an answer.
pub(crate) const QR: u8 = 0x80;
/// The answer comes from the authority.
pub(crate) const AA: u8 = 0x04;
/// The answer is cut short.
pub(crate) const TC: u8 = 0x02;
/// Recursion is desired; copied into the answer.
pub(crate) const RD: u8 = 0x01;
/// Bit of the second flag octet: checking disabled; copied (RFC 4035, 3.1.6).
pub(crate) const CD: u8 = 0x10;

/// The type OPT (RFC 6891).
pub(crate) const OPT: u16 = 41;
/// The type TSIG (RFC 8945).
const TSIG: u16 = 250;

const OPTION_NSID: u16 = 3;
const OPTION_COOKIE: u16 = 10;
const OPTION_KEEPALIVE: u16 = 11;
const OPTION_PADDING: u16 = 12;

/// A message that asks for something.
pub struct Request<'a> {
    /// The whole message.
    pub octets: &'a [u8],
    /// Its number.
    pub id: [u8; 2],
    /// First octet of the flags.
    pub flags: u8,
    /// Second octet of the flags.
    pub flags2: u8,
    /// The question; `None` where there is none.
    pub question: Option<Question<'a>>,
    /// The OPT record.
    pub edns: Option<Edns<'a>>,
    /// Whether a TSIG record ends the message.
    pub signed: bool,
    /// Records of the answer section, which a query must not have.
    pub answers: u16,
    /// Records of the authority section: IXFR's old version.
    pub authorities: u16,
}

/// What is asked.
pub struct Question<'a> {
    /// Name, type and class as they came.
    pub wire: &'a [u8],
    /// The name that is asked for.
    pub name: Asked,
    /// Whether the name came with letters in upper case.
    pub mixed_case: bool,
    /// The type that is asked for.
    pub qtype: u16,
    /// The class.
    pub qclass: u16,
}

/// A name to look for: in lower case, its labels counted, without memory of its own.
pub struct Asked {
    lower: [u8; 255],
    len: usize,
    /// Where each label starts, from the left; the root's is left out.
    starts: [u8; 128],
    labels: usize,
}

impl Asked {
    /// The root.
    fn new() -> Self {
        Asked { lower: [0; 255], len: 1, starts: [0; 128], labels: 0 }
    }

    /// The name at the start of `wire`, which is well-formed and uncompressed.
    pub(crate) fn from_wire(wire: &[u8]) -> Self {
        let mut asked = Asked::new();
        let mut at = 0;
        while wire[at] != 0 {
            asked.starts[asked.labels] = u8::try_from(at).expect("a name is at most 255 octets");
            asked.labels += 1;
            at += 1 + usize::from(wire[at]);
        }
        asked.len = at + 1;
        asked.lower[..=at].copy_from_slice(&wire[..=at]);
        asked.lower[..at].make_ascii_lowercase();
        asked
    }

    /// The name in lower-case wire format.
    #[inline]
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.lower[..self.len]
    }

    /// Number of labels without the root's.
    #[inline]
    #[must_use]
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// The suffix of the name with `labels` labels.
    #[inline]
    pub(crate) fn suffix(&self, labels: usize) -> &[u8] {
        &self.lower[self.suffix_start(labels)..self.len]
    }

    /// Where the suffix with `labels` labels starts in the name.
    #[inline]
    pub(crate) fn suffix_start(&self, labels: usize) -> usize {
        if labels == 0 { self.len - 1 } else { usize::from(self.starts[self.labels - labels]) }
    }

    /// The hash of the suffix with `labels` labels, from `parent`, the hash of the one with a label less.
    #[inline]
    pub(crate) fn hash_below(&self, parent: u64, labels: usize) -> u64 {
        let start = self.suffix_start(labels);
        hash::child(parent, &self.lower[start + 1..start + 1 + usize::from(self.lower[start])])
    }
}

/// What the OPT record says.
#[derive(Default, Clone, Copy)]
pub struct Edns<'a> {
    /// Version that is asked for.
    pub version: u8,
    /// Octets that the asker can take over UDP, at least 512 (RFC 6891, 6.2.3).
    pub payload: u16,
    /// DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// The cookie option's data.
    pub cookie: Option<&'a [u8]>,
    /// The name server's identity is asked for (RFC 5001).
    pub nsid: bool,
    /// The asker knows edns-tcp-keepalive (RFC 7828).
    pub keepalive: bool,
    /// The asker pads (RFC 7830).
    pub padding: bool,
}

/// Why a message is not answered as a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No answer: it has no header, or is an answer itself.
    Silent,
    /// FORMERR with the header only.
    Format,
}

/// The operation code of a message that asks for something; `None` for what has no header or is an answer itself.
#[inline]
pub(crate) fn opcode(octets: &[u8]) -> Option<u8> {
    (octets.len() >= HEADER && octets[2] & QR == 0).then(|| (octets[2] >> 3) & 15)
}

/// Reads a message.
///
/// # Errors
/// [`Malformed`]: whether to say nothing or FORMERR.
pub fn parse(octets: &[u8]) -> Result<Request<'_>, Malformed> {
    if opcode(octets).is_none() {
        return Err(Malformed::Silent);
    }
    let count = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let (questions, answers, authorities, additional) = (count(4), count(6), count(8), count(10));
    let mut request = Request {
        octets,
        id: [octets[0], octets[1]],
        flags: octets[2],
        flags2: octets[3],
        question: None,
        edns: None,
        signed: false,
        answers,
        authorities,
    };
    let mut at = HEADER;
    // RFC 9619: a QUERY has at most one question.
    match questions {
        0 => {}
        1 => {
            let question = parse_question(octets).ok_or(Malformed::Format)?;
            at += question.wire.len();
            request.question = Some(question);
        }
        _ => return Err(Malformed::Format),
    }
    for _ in 0..u32::from(answers) + u32::from(authorities) {
        at = skip_record(octets, at).ok_or(Malformed::Format)?.end;
    }
    for index in 1..=additional {
        let record = skip_record(octets, at).ok_or(Malformed::Format)?;
        match record.rtype {
            // Only one, and at the root (RFC 6891, 6.1.1).
            OPT if request.edns.is_some() || octets[at] != 0 => return Err(Malformed::Format),
            OPT => request.edns = Some(parse_edns(octets, &record).ok_or(Malformed::Format)?),
            TSIG if index != additional => return Err(Malformed::Format),
            TSIG => request.signed = true,
            _ => {}
        }
        at = record.end;
    }
    // Octets behind the last record belong to nothing.
    if at == octets.len() { Ok(request) } else { Err(Malformed::Format) }
}

fn parse_question(octets: &[u8]) -> Option<Question<'_>> {
    let mut name = Asked::new();
    let mut mixed_case = false;
    let mut at = QNAME_AT;
    loop {
        let len = usize::from(*octets.get(at)?);
        if len == 0 {
            break;
        }
        // No pointers: there is nothing before a question that one could lead to.
        if len > 63 || at + 1 + len + 1 - QNAME_AT > 255 {
            return None;
        }
        let label = octets.get(at + 1..at + 1 + len)?;
        let start = at - QNAME_AT;
        name.starts[name.labels] = u8::try_from(start).ok()?;
        name.labels += 1;
        name.lower[start] = octets[at];
        for (to, from) in name.lower[start + 1..].iter_mut().zip(label) {
            mixed_case |= from.is_ascii_uppercase();
            *to = from.to_ascii_lowercase();
        }
        at += 1 + len;
    }
    let end = at + 5;
    let tail = octets.get(at + 1..end)?;
    name.len = at + 1 - QNAME_AT;
    Some(Question {
        wire: &octets[QNAME_AT..end],
        name,
        mixed_case,
        qtype: u16::from_be_bytes([tail[0], tail[1]]),
        qclass: u16::from_be_bytes([tail[2], tail[3]]),
    })
}

/// A record that is passed over.
struct Skipped {
    rtype: u16,
    /// Class and TTL, where OPT keeps other things.
    class: u16,
    ttl: u32,
    data: std::ops::Range<usize>,
    end: usize,
}

fn skip_record(octets: &[u8], at: usize) -> Option<Skipped> {
    let mut at = at;
    loop {
        match usize::from(*octets.get(at)?) {
            0 => {
                at += 1;
                break;
            }
            0xc0.. => {
                at += 2;
                break;
            }
            64.. => return None,
            len => at += 1 + len,
        }
    }
    let head = octets.get(at..at + 10)?;
    let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
    let data = at + 10..at + 10 + length;
    let end = data.end;
    (end <= octets.len()).then_some(Skipped {
        rtype: u16::from_be_bytes([head[0], head[1]]),
        class: u16::from_be_bytes([head[2], head[3]]),
        ttl: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        data,
        end,
    })
}

fn parse_edns<'a>(octets: &'a [u8], record: &Skipped) -> Option<Edns<'a>> {
    let mut edns = Edns {
        version: record.ttl.to_be_bytes()[1],
        payload: record.class.max(512),
        dnssec_ok: record.ttl & 0x8000 != 0,
        ..Edns::default()
    };
    let mut rest = &octets[record.data.clone()];
    while !rest.is_empty() {
        let (code, length) = (rest.get(..2)?, rest.get(2..4)?);
        let data = rest.get(4..4 + usize::from(u16::from_be_bytes([length[0], length[1]])))?;
        match u16::from_be_bytes([code[0], code[1]]) {
            OPTION_NSID => edns.nsid = true,
            // The first one counts (RFC 7873, 5.2).
            OPTION_COOKIE if edns.cookie.is_none() => edns.cookie = Some(data),
            OPTION_KEEPALIVE => edns.keepalive = true,
            OPTION_PADDING => edns.padding = true,
            _ => {}
        }
        rest = &rest[4 + data.len()..];
    }
    Some(edns)
}
