//! Reading: header, names with pointers, questions, records. Every step is bounded by the message's length.

use gateward_zone::{Name, Rtype};
use std::ops::Range;

use super::{HEADER_LEN, WireError, flags};

/// The fixed part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Chosen by who asks, repeated by who answers.
    pub id: u16,
    /// Bits as in [`flags`].
    pub flags: u16,
    /// Entries in the four sections: question (zone), answer (prerequisite), authority (update), additional.
    pub counts: [u16; 4],
}

impl Header {
    /// The header of `message`.
    ///
    /// # Errors
    /// [`WireError::Short`] below 12 octets.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        let octets = message.get(..HEADER_LEN).ok_or(WireError::Short)?;
        let field = |index: usize| u16::from_be_bytes([octets[index * 2], octets[index * 2 + 1]]);
        Ok(Header { id: field(0), flags: field(1), counts: [field(2), field(3), field(4), field(5)] })
    }

    /// The kind of message.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        ((self.flags & flags::OPCODE) >> flags::OPCODE_SHIFT) as u8
    }

    /// The response code, without its extension in an OPT record.
    #[must_use]
    pub fn rcode(&self) -> u8 {
        (self.flags & flags::RCODE) as u8
    }

    /// Whether it is an answer.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.flags & flags::QR != 0
    }
}

/// An entry of the question section (of an update: the zone section).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked for.
    pub name: Name,
    /// The type, or a type of questions only.
    pub rtype: Rtype,
    /// The class.
    pub class: u16,
}

/// A record as it stands in a message; its data is still compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Where in the message it begins.
    pub start: usize,
    /// The name it stands at.
    pub owner: Name,
    /// Its type.
    pub rtype: Rtype,
    /// Its class.
    pub class: u16,
    /// Seconds to live.
    pub ttl: u32,
    /// Where in the message its data stands.
    pub data: Range<usize>,
}

/// Walks over a message from the header on.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Stands before the question section.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Reader { message, at: HEADER_LEN }
    }

    /// The next entry of the question section.
    ///
    /// # Errors
    /// [`WireError`] when there is none.
    pub fn question(&mut self) -> Result<Question, WireError> {
        let name = self.name()?;
        Ok(Question { name, rtype: Rtype::from_int(self.short()?), class: self.short()? })
    }

    /// The next record of the other sections.
    ///
    /// # Errors
    /// [`WireError`] when there is none.
    pub fn record(&mut self) -> Result<RawRecord, WireError> {
        let start = self.at;
        let owner = self.name()?;
        let rtype = Rtype::from_int(self.short()?);
        let class = self.short()?;
        let ttl = u32::from(self.short()?) << 16 | u32::from(self.short()?);
        let len = usize::from(self.short()?);
        let data = self.at..self.at + len;
        if data.end > self.message.len() {
            return Err(WireError::Short);
        }
        self.at = data.end;
        Ok(RawRecord { start, owner, rtype, class, ttl, data })
    }

    /// That nothing follows.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn end(&self) -> Result<(), WireError> {
        if self.at == self.message.len() { Ok(()) } else { Err(WireError::Trailing) }
    }

    /// The message that is read.
    #[must_use]
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    fn name(&mut self) -> Result<Name, WireError> {
        let (name, end) = name_at(self.message, self.at)?;
        self.at = end;
        Ok(name)
    }

    fn short(&mut self) -> Result<u16, WireError> {
        let octets = self.message.get(self.at..self.at + 2).ok_or(WireError::Short)?;
        self.at += 2;
        Ok(u16::from_be_bytes([octets[0], octets[1]]))
    }
}

/// The one question of a message (RFC 9619).
///
/// # Errors
/// [`WireError`] when there is none, or more than one.
pub fn read_question(message: &[u8]) -> Result<Question, WireError> {
    if Header::read(message)?.counts[0] != 1 {
        return Err(WireError::Questions);
    }
    Reader::new(message).question()
}

/// The name at `at`, its pointers followed, and where what stands after it begins.
///
/// # Errors
/// [`WireError::Name`]: a pointer must point before the labels it stands behind, so that no chain of them can be a loop.
pub(crate) fn name_at(message: &[u8], at: usize) -> Result<(Name, usize), WireError> {
    let mut wire = [0_u8; gateward_zone::MAX_NAME_LEN];
    let (mut len, mut cursor, mut fragment) = (0, at, at);
    let mut end = None;
    loop {
        let octet = usize::from(*message.get(cursor).ok_or(WireError::Short)?);
        match octet {
            0..=63 => {
                let label = message.get(cursor..=cursor + octet).ok_or(WireError::Short)?;
                wire.get_mut(len..len + label.len()).ok_or(WireError::Name)?.copy_from_slice(label);
                len += label.len();
                cursor += label.len();
                if octet == 0 {
                    break;
                }
            }
            0xc0.. => {
                let low = usize::from(*message.get(cursor + 1).ok_or(WireError::Short)?);
                end.get_or_insert(cursor + 2);
                cursor = (octet & 0x3f) << 8 | low;
                if cursor >= fragment || cursor < HEADER_LEN {
                    return Err(WireError::Name);
                }
                fragment = cursor;
            }
            _ => return Err(WireError::Name),
        }
    }
    let (name, _) = Name::from_wire(&wire[..len]).map_err(|_| WireError::Name)?;
    Ok((name, end.unwrap_or(cursor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(message: &[u8], at: usize) -> Result<(String, usize), WireError> {
        name_at(message, at).map(|(name, end)| (name.to_string(), end))
    }

    /// RFC 1035, 4.1.4, and its misuses: forward pointers, loops, pointers into the header, other label types.
    #[test]
    fn names_follow_pointers_backwards_only() {
        let mut message = vec![0; HEADER_LEN];
        message.extend_from_slice(b"\x03WWW\x07example\x03com\0");
        message.extend_from_slice(b"\x03ftp\xc0\x10\xc0\x1d");
        assert_eq!(at(&message, 12), Ok(("www.example.com.".to_owned(), 29)));
        assert_eq!(at(&message, 29), Ok(("ftp.example.com.".to_owned(), 35)));
        assert_eq!(at(&message, 35), Ok(("ftp.example.com.".to_owned(), 37)));
        let malformed: [(&[u8], WireError); 7] = [
            (b"\xc0\x0c", WireError::Name),
            (b"\xc0\x0e", WireError::Name),
            (b"\x01a\xc0\x0c", WireError::Name),
            (b"\xc0\x00", WireError::Name),
            (b"\x40a\0", WireError::Name),
            (b"\x03ab", WireError::Short),
            (b"\xc0", WireError::Short),
        ];
        for (octets, error) in malformed {
            let mut message = vec![0; HEADER_LEN];
            message.extend_from_slice(octets);
            assert_eq!(at(&message, HEADER_LEN), Err(error), "{octets:?}");
        }
    }

    #[test]
    fn names_above_255_octets_are_refused() {
        let mut message = vec![0; HEADER_LEN];
        for _ in 0..5 {
            message.push(63);
            message.extend([b'a'; 63]);
        }
        message.push(0);
        assert_eq!(at(&message, HEADER_LEN), Err(WireError::Name));
    }
}
