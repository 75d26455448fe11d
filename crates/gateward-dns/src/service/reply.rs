//! Answers of a response code and perhaps a reason.

use gateward_zone::{Name, Rcode, Rtype};

use crate::wire::{Header, Reader, Section, Writer, flags, read_question};

/// Extended error of what policy or form forbids (RFC 8914, 4.19).
const PROHIBITED: u16 = 18;
/// Option code of extended errors.
const EXTENDED_ERROR: u16 = 15;
/// Longest reason; it has to fit into a datagram beside a signature.
const MAX_REASON: usize = 256;
/// Payload that the OPT record announces.
const PAYLOAD: u16 = 1232;

/// Header and question of `request` with a response code; the reason goes into an extended error if the request has EDNS.
pub(super) fn reply(request: &[u8], rcode: Rcode, reason: Option<&str>) -> Vec<u8> {
    let Ok(header) = Header::read(request) else { return Vec::new() };
    // Answers to updates and notices say nothing of authority or recursion (RFC 2136, 3.8); RD is copied for queries.
    let kept = header.flags & (flags::OPCODE | if header.opcode() == 0 { 0x0100 } else { 0 });
    let mut writer = Writer::new(header.id, flags::QR | kept | u16::from(rcode.to_int()), 1232);
    if let Ok(question) = read_question(request) {
        writer.question(&question.name, question.rtype, question.class);
    }
    if has_edns(request, &header) {
        let option = reason.map(extended_error).unwrap_or_default();
        // Always fits: a question and a short text.
        let _ = writer.record(Section::Additional, &Name::root(), Rtype::OPT, PAYLOAD, 0, &option);
    }
    writer.finish()
}

fn extended_error(reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let text = &reason.as_bytes()[..end];
    let len = u16::try_from(text.len() + 2).expect("it was cut");
    [&EXTENDED_ERROR.to_be_bytes()[..], &len.to_be_bytes(), &PROHIBITED.to_be_bytes(), text].concat()
}

fn has_edns(request: &[u8], header: &Header) -> bool {
    let mut reader = Reader::new(request);
    let questions = (0..header.counts[0]).all(|_| reader.question().is_ok());
    let records: u32 = header.counts[1..].iter().map(|count| u32::from(*count)).sum();
    questions && (0..records).map_while(|_| reader.record().ok()).any(|record| record.rtype == Rtype::OPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_go_to_those_who_speak_edns() {
        let mut writer = Writer::new(7, 5 << flags::OPCODE_SHIFT, 512);
        writer.question(&"example.com".parse().expect("a name"), Rtype::SOA, 1);
        let plain = reply(&writer.finish(), Rcode::REFUSED, Some("because"));
        assert_eq!(&plain[..12], &[0, 7, 0xa8, 5, 0, 1, 0, 0, 0, 0, 0, 0]);

        let mut writer = Writer::new(7, 5 << flags::OPCODE_SHIFT, 512);
        writer.question(&"example.com".parse().expect("a name"), Rtype::SOA, 1);
        assert!(writer.record(Section::Additional, &Name::root(), Rtype::OPT, 1232, 0, &[]));
        let answer = reply(&writer.finish(), Rcode::REFUSED, Some(&"ä".repeat(200)));
        let mut reader = Reader::new(&answer);
        reader.question().expect("a question");
        let option = reader.record().expect("an OPT record");
        assert_eq!(option.rtype, Rtype::OPT);
        assert_eq!(answer[option.data.clone()][..6], [0, 15, 1, 2, 0, 18]);
        assert_eq!(std::str::from_utf8(&answer[option.data][6..]), Ok(&*"ä".repeat(128)));
        assert!(reply(&[0; 3], Rcode::REFUSED, None).is_empty());
    }
}
