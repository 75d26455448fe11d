//! Messages as lists of records: what updates, transfers, notifications and signatures read and write.
//!
//! Questions and their answers do not come through here; they have a path of their own that does not allocate. This one may, and
//! is made for whole sections: it reads every record, and writes as many as fit, with names compressed.

mod data;
mod read;
mod write;

pub use read::{Header, Question, RawRecord, Reader, read_question};
pub use write::{Section, Writer};

pub(crate) use read::name_at;

use gateward_zone::Rtype;

/// Octets of a message's header.
pub const HEADER_LEN: usize = 12;
/// Longest message (its length travels in two octets over TCP).
pub const MAX_MESSAGE: usize = 65_535;

/// Class IN.
pub const CLASS_IN: u16 = 1;
/// Class NONE (RFC 2136, 1.3).
pub const CLASS_NONE: u16 = 254;
/// Class ANY.
pub const CLASS_ANY: u16 = 255;

/// Header bits.
pub mod flags {
    /// It is an answer.
    pub const QR: u16 = 0x8000;
    /// The answer is authoritative.
    pub const AA: u16 = 0x0400;
    /// The answer is cut short.
    pub const TC: u16 = 0x0200;
    /// The four bits of the opcode.
    pub const OPCODE: u16 = 0x7800;
    /// Where the opcode begins.
    pub const OPCODE_SHIFT: u16 = 11;
    /// The four bits of the response code.
    pub const RCODE: u16 = 0x000f;
}

/// A message, or a part of it, that does not have the form it should have (RFC 1035, 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends within a field.
    #[error("the message ends within a field")]
    Short,
    /// A name with a pointer that does not point backwards, an unknown kind of label, or too many octets.
    #[error("a name in the message is malformed")]
    Name,
    /// Data that does not have the form of its type.
    #[error("the data of a {0} record is malformed")]
    Data(Rtype),
    /// Octets after the last section.
    #[error("the message goes on after its last record")]
    Trailing,
    /// More than one question, or none.
    #[error("the message has not one question")]
    Questions,
    /// A record that exists once at most stands twice, or not where it has to stand.
    #[error("a {0} record stands where it may not")]
    Misplaced(Rtype),
}

/// Whether a type names no data: questions and updates use it, zones do not hold it (RFC 6895, 3.1).
#[must_use]
pub fn is_meta(rtype: Rtype) -> bool {
    let value = rtype.to_int();
    value == 0 || value == Rtype::OPT.to_int() || (128..=255).contains(&value)
}
