//! The TSIG record: found at the end of a message, taken off it, put there (RFC 8945, 4.2), and what of it is authenticated (4.3).

use gateward_zone::{Name, Rtype};

use super::mac::Code;
use crate::wire::{CLASS_ANY, HEADER_LEN, Header, RawRecord, Reader, WireError, name_at};

/// What the record says went wrong (RFC 8945, 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The code is not that of the key.
    #[error(
        "BADSIG: the authentication code is wrong; the secrets of the two sides differ, or the message was changed"
    )]
    BadSig,
    /// The key, or this algorithm for it, is not known.
    #[error("BADKEY: no such key with this algorithm")]
    BadKey,
    /// The clocks differ by more than the fudge.
    #[error("BADTIME: the clocks of the two sides differ by more than is allowed")]
    BadTime,
    /// The code is cut shorter than this side accepts.
    #[error("BADTRUNC: the authentication code is cut too short")]
    BadTrunc,
    /// Another value.
    #[error("TSIG error {0}")]
    Other(u16),
}

impl Error {
    pub(super) fn code(self) -> u16 {
        match self {
            Error::BadSig => 16,
            Error::BadKey => 17,
            Error::BadTime => 18,
            Error::BadTrunc => 22,
            Error::Other(code) => code,
        }
    }

    pub(super) fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => None,
            16 => Some(Error::BadSig),
            17 => Some(Error::BadKey),
            18 => Some(Error::BadTime),
            22 => Some(Error::BadTrunc),
            _ => Some(Error::Other(code)),
        }
    }
}

/// What of a TSIG record is authenticated together with the message: its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variables {
    pub(super) key: Name,
    pub(super) algorithm: Name,
    /// Seconds since 1970, 48 bits.
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) error: Option<Error>,
    pub(super) other: Vec<u8>,
}

impl Variables {
    /// Puts them into a code: all of them, or only the times in later messages of an answer (RFC 8945, 4.3.3 and 5.3.1).
    pub(super) fn digest(&self, code: &mut Code, only_times: bool) {
        if !only_times {
            code.update(self.key.as_wire());
            code.update(&CLASS_ANY.to_be_bytes());
            code.update(&[0; 4]);
            code.update(self.algorithm.as_wire());
        }
        code.update(&self.time.to_be_bytes()[2..]);
        code.update(&self.fudge.to_be_bytes());
        if !only_times {
            code.update(&self.error.map_or(0, Error::code).to_be_bytes());
            code.update(&len_of(&self.other));
            code.update(&self.other);
        }
    }

    /// Appends the record to a message and counts it.
    pub(super) fn append(&self, message: &mut Vec<u8>, mac: &[u8], original_id: u16) {
        message.extend_from_slice(self.key.as_wire());
        message.extend(Rtype::TSIG.to_int().to_be_bytes());
        message.extend(CLASS_ANY.to_be_bytes());
        message.extend([0; 4]);
        let len = self.algorithm.as_wire().len() + 16 + mac.len() + self.other.len();
        message.extend(u16::try_from(len).expect("a name, a code and a time").to_be_bytes());
        message.extend_from_slice(self.algorithm.as_wire());
        message.extend(&self.time.to_be_bytes()[2..]);
        message.extend(self.fudge.to_be_bytes());
        message.extend(len_of(mac));
        message.extend_from_slice(mac);
        message.extend(original_id.to_be_bytes());
        message.extend(self.error.map_or(0, Error::code).to_be_bytes());
        message.extend(len_of(&self.other));
        message.extend_from_slice(&self.other);
        let additional = u16::from_be_bytes([message[10], message[11]]) + 1;
        message[10..12].copy_from_slice(&additional.to_be_bytes());
    }
}

fn len_of(octets: &[u8]) -> [u8; 2] {
    u16::try_from(octets.len()).expect("it came out of a record").to_be_bytes()
}

/// A TSIG record of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it begins: the message without it is so long.
    pub(super) start: usize,
    pub(super) variables: Variables,
    pub(super) mac: Vec<u8>,
    pub(super) original_id: u16,
}

impl Found {
    /// The TSIG record of `message`: the last one of the additional section, or none.
    ///
    /// # Errors
    /// [`WireError`]: the message is malformed, or has such a record elsewhere or twice (RFC 8945, 5.1).
    pub(super) fn read(message: &[u8]) -> Result<Option<Self>, WireError> {
        let header = Header::read(message)?;
        let mut reader = Reader::new(message);
        for _ in 0..header.counts[0] {
            reader.question()?;
        }
        let records: usize = header.counts[1..].iter().map(|count| usize::from(*count)).sum();
        for left in (0..records).rev() {
            let record = reader.record()?;
            if record.rtype == Rtype::TSIG {
                if left != 0 || header.counts[3] == 0 {
                    return Err(WireError::Misplaced(Rtype::TSIG));
                }
                reader.end()?;
                return Found::parse(message, record).map(Some);
            }
        }
        Ok(None)
    }

    fn parse(message: &[u8], record: RawRecord) -> Result<Self, WireError> {
        let malformed = WireError::Data(Rtype::TSIG);
        if record.class != CLASS_ANY || record.ttl != 0 {
            return Err(malformed);
        }
        let (algorithm, at) = name_at(message, record.data.start)?;
        let mut rest = message.get(at..record.data.end).ok_or(malformed)?;
        let mut take = |len: usize| {
            let (part, tail) = rest.split_at_checked(len)?;
            rest = tail;
            Some(part)
        };
        let mut fields = || {
            let time = take(6)?.iter().fold(0, |time, octet| time << 8 | u64::from(*octet));
            let fudge = short(take(2)?);
            let mac_len = short(take(2)?);
            let mac = take(usize::from(mac_len))?.to_vec();
            let original_id = short(take(2)?);
            let error = Error::from_code(short(take(2)?));
            let other_len = short(take(2)?);
            let other = take(usize::from(other_len))?.to_vec();
            Some((time, fudge, mac, original_id, error, other))
        };
        let (time, fudge, mac, original_id, error, other) = fields().ok_or(malformed)?;
        if !rest.is_empty() {
            return Err(malformed);
        }
        let variables = Variables { key: record.owner, algorithm, time, fudge, error, other };
        Ok(Found { start: record.start, variables, mac, original_id })
    }

    /// Puts the message as it was before the record came to it into a code.
    pub(super) fn digest_message(&self, code: &mut Code, message: &[u8]) {
        let additional = u16::from_be_bytes([message[10], message[11]]) - 1;
        code.update(&self.original_id.to_be_bytes());
        code.update(&message[2..10]);
        code.update(&additional.to_be_bytes());
        code.update(&message[HEADER_LEN..self.start]);
    }

    /// Whether the times of both sides are no further apart than the sender allows.
    pub(super) fn is_in_time(&self, now: u64) -> bool {
        self.variables.time.abs_diff(now) <= u64::from(self.variables.fudge)
    }
}

fn short(octets: &[u8]) -> u16 {
    u16::from_be_bytes([octets[0], octets[1]])
}
