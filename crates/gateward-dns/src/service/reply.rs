//! Answers of a response code and perhaps a reason.

use gateward_zone::{Name, Rcode, Rtype};

use crate::answer::Transport;
use crate::wire::{Header, MAX_MESSAGE, Reader, Section, Writer, flags, read_question};

/// Extended error of what policy or form forbids (RFC 8914, 4.19).
const PROHIBITED: u16 = 18;
/// Option code of extended errors.
const EXTENDED_ERROR: u16 = 15;
/// Longest reason.
const MAX_REASON: usize = 256;
/// Octets of an OPT record without options, and of an extended error without its text.
const OPT_LEN: usize = 11;
const ERROR_LEN: usize = 6;
/// What every asker can take in a datagram (RFC 1035, 4.2.1).
const LEAST_PAYLOAD: u16 = 512;

/// How long an answer may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// The most octets that this side takes and sends in a datagram.
    pub(super) payload: u16,
    /// How the answer goes out.
    pub(super) transport: Transport,
    /// What its signature adds.
    pub(super) signature: usize,
}

impl Room {
    /// The octets before the signature, for an asker who announced `theirs`.
    fn octets(self, theirs: Option<u16>) -> usize {
        let whole = match self.transport {
            Transport::Udp => usize::from(theirs.unwrap_or(LEAST_PAYLOAD).max(LEAST_PAYLOAD).min(self.payload)),
            Transport::Tcp | Transport::Tls => MAX_MESSAGE,
        };
        whole.saturating_sub(self.signature)
    }
}

/// Header and question of `request` with a response code; the reason goes into an extended error if the request has EDNS, as far as there is
/// room.
pub(super) fn reply(request: &[u8], rcode: Rcode, reason: Option<&str>, room: Room) -> Vec<u8> {
    let Ok(header) = Header::read(request) else { return Vec::new() };
    // Answers to updates and notices say nothing of authority or recursion (RFC 2136, 3.8); RD is copied for queries.
    let kept = header.flags & (flags::OPCODE | if header.opcode() == 0 { 0x0100 } else { 0 });
    let theirs = edns_payload(request, &header);
    let octets = room.octets(theirs);
    let mut writer = Writer::new(header.id, flags::QR | kept | u16::from(rcode.to_int()), octets);
    if let Ok(question) = read_question(request) {
        writer.question(&question.name, question.rtype, question.class);
    }
    if theirs.is_some() {
        let left = octets.saturating_sub(writer.len() + OPT_LEN + ERROR_LEN);
        let option = reason.filter(|_| left > 0).map(|reason| extended_error(reason, left)).unwrap_or_default();
        // Where a signature takes all the room, the answer is one without EDNS.
        let _ = writer.record(Section::Additional, &Name::root(), Rtype::OPT, room.payload, 0, &option);
    }
    writer.finish()
}

fn extended_error(reason: &str, left: usize) -> Vec<u8> {
    let mut end = reason.len().min(MAX_REASON).min(left);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let text = &reason.as_bytes()[..end];
    let len = u16::try_from(text.len() + 2).expect("it was cut");
    [&EXTENDED_ERROR.to_be_bytes()[..], &len.to_be_bytes(), &PROHIBITED.to_be_bytes(), text].concat()
}

/// What the asker can take in a datagram; `None` without EDNS.
fn edns_payload(request: &[u8], header: &Header) -> Option<u16> {
    let mut reader = Reader::new(request);
    (0..header.counts[0]).all(|_| reader.question().is_ok()).then_some(())?;
    let records: u32 = header.counts[1..].iter().map(|count| u32::from(*count)).sum();
    let mut records = (0..records).map_while(|_| reader.record().ok());
    records.find(|record| record.rtype == Rtype::OPT).map(|record| record.class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(edns: Option<u16>) -> Vec<u8> {
        let mut writer = Writer::new(7, 5 << flags::OPCODE_SHIFT, 512);
        writer.question(&"example.com".parse().expect("a name"), Rtype::SOA, 1);
        if let Some(payload) = edns {
            assert!(writer.record(Section::Additional, &Name::root(), Rtype::OPT, payload, 0, &[]));
        }
        writer.finish()
    }

    fn refused(edns: Option<u16>, transport: Transport, signature: usize) -> Vec<u8> {
        let room = Room { payload: 1400, transport, signature };
        reply(&request(edns), Rcode::REFUSED, Some(&"ä".repeat(200)), room)
    }

    #[test]
    fn reasons_go_to_those_who_speak_edns() {
        let plain = refused(None, Transport::Udp, 0);
        assert_eq!(&plain[..12], &[0, 7, 0xa8, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
        let answer = refused(Some(1232), Transport::Udp, 0);
        let mut reader = Reader::new(&answer);
        reader.question().expect("a question");
        let option = reader.record().expect("an OPT record");
        assert_eq!((option.rtype, option.class), (Rtype::OPT, 1400), "what is configured is announced");
        assert_eq!(answer[option.data.clone()][..6], [0, 15, 1, 2, 0, 18]);
        assert_eq!(std::str::from_utf8(&answer[option.data][6..]), Ok(&*"ä".repeat(128)));
        let room = Room { payload: 1232, transport: Transport::Udp, signature: 0 };
        assert!(reply(&[0; 3], Rcode::REFUSED, None, room).is_empty());
    }

    #[test]
    fn datagrams_are_no_longer_than_the_asker_can_take() {
        for signature in [0, 200, 450, 500, 600] {
            let answer = refused(Some(0), Transport::Udp, signature);
            let bare = refused(None, Transport::Udp, signature).len();
            assert!(answer.len() == bare || answer.len() + signature <= 512, "{signature}: {}", answer.len());
            assert_eq!(refused(Some(0), Transport::Tcp, signature).len(), bare + OPT_LEN + ERROR_LEN + MAX_REASON);
        }
    }
}
