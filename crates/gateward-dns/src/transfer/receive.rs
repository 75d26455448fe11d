//! Transfers in: the messages of an answer become a zone or differences. Strict: what does not have the form of a transfer is an error,
//! and nothing comes out before the last record, which must be authentic when the request was signed.

use std::sync::Arc;

use gateward_zone::{Name, Rcode, Record, Rtype, Soa, is_newer};

use super::difference::Difference;
use super::request::{Kind, write_request};
use crate::tsig::{ClientSession, Key, VerifyError, sign_request};
use crate::wire::{CLASS_IN, Header, RawRecord, Reader, WireError, flags, is_meta};

/// Bounds on a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records of all messages together.
    pub records: usize,
    /// Octets of all messages together.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { records: 20_000_000, bytes: 2 << 30 }
    }
}

/// What a transfer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Nothing: there is no later version.
    Current,
    /// The whole zone, the SOA first.
    Zone(Vec<Record>),
    /// What changed, in order; at least one difference.
    Differences(Vec<Difference>),
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// A message is malformed.
    #[error("a message of the transfer is malformed: {0}")]
    Malformed(#[from] WireError),
    /// The server answered with an error.
    #[error("the server answered the transfer with {0}")]
    Refused(Rcode),
    /// A message is not authentic.
    #[error("{0}")]
    NotAuthentic(#[from] VerifyError),
    /// A message that is no answer to the request.
    #[error("a message of the transfer does not answer the request: {0}")]
    Unrelated(&'static str),
    /// Records that do not come in the order of a transfer.
    #[error("the records of the transfer are out of order: {0}")]
    Order(&'static str),
    /// A record that does not belong into the zone.
    #[error("the transfer has a {1} record of {0}, which does not belong into the zone")]
    Foreign(Name, Rtype),
    /// More than the limits allow.
    #[error("the transfer is larger than {0}")]
    TooMuch(&'static str),
}

/// Where in a transfer a record is.
enum State {
    /// Before the first SOA.
    Start,
    /// After it; the next record tells what kind of transfer it is.
    Opened,
    /// In a whole zone.
    Whole(Vec<Record>),
    /// In a difference, among what goes.
    Removing,
    /// In a difference, among what comes.
    Adding,
    /// After the last SOA.
    Ended(Received),
}

/// A transfer on its way in.
pub struct Incoming {
    zone: Name,
    id: u16,
    kind: Kind,
    session: Option<ClientSession>,
    left: Limits,
    state: State,
    is_first: bool,
    /// The version that is transferred.
    newest: Option<(Record, u32)>,
    differences: Vec<Difference>,
}

impl Incoming {
    /// The message that asks for a transfer, and what takes its answer. `have` is the SOA record of the version that is there:
    /// with it what changed is asked for, without it the whole zone. `now` is in seconds since 1970.
    #[must_use]
    pub fn request(
        zone: &Name,
        have: Option<&Record>,
        id: u16,
        key: Option<&Arc<Key>>,
        limits: Limits,
        now: u64,
    ) -> (Vec<u8>, Self) {
        let serial = have.and_then(|record| Soa::read(&record.rdata).ok()).map(|soa| soa.serial);
        let kind = serial.map_or(Kind::Axfr, |serial| Kind::Ixfr { serial });
        let mut message = write_request(id, zone, kind, have.filter(|_| serial.is_some()));
        let session = key.map(|key| sign_request(key, &mut message, now));
        let incoming = Incoming {
            zone: zone.clone(),
            id,
            kind,
            session,
            left: limits,
            state: State::Start,
            is_first: true,
            newest: None,
            differences: Vec::new(),
        };
        (message, incoming)
    }

    /// Takes the next message; `Some` with the last one.
    ///
    /// # Errors
    /// [`TransferError`]: the transfer is over, nothing of it may be used.
    pub fn take(&mut self, message: &[u8], now: u64) -> Result<Option<Received>, TransferError> {
        self.left.bytes =
            self.left.bytes.checked_sub(message.len()).ok_or(TransferError::TooMuch("its limit of octets"))?;
        let header = Header::read(message)?;
        if header.id != self.id || !header.is_answer() || header.opcode() != 0 {
            return Err(TransferError::Unrelated("other number or kind"));
        }
        let is_authentic = self.verify(message, &header, now)?;
        if header.rcode() != 0 {
            return Err(TransferError::Refused(Rcode::masked_from_int(header.rcode())));
        }
        if header.flags & flags::TC != 0 {
            return Err(TransferError::Unrelated("it is cut short"));
        }
        let mut reader = Reader::new(message);
        self.check_question(&mut reader, header.counts[0])?;
        for _ in 0..header.counts[1] {
            self.left.records =
                self.left.records.checked_sub(1).ok_or(TransferError::TooMuch("its limit of records"))?;
            let record = self.record(message, &reader.record()?)?;
            self.step(record)?;
        }
        for _ in 0..u32::from(header.counts[2]) + u32::from(header.counts[3]) {
            reader.record()?;
        }
        reader.end()?;
        self.is_first = false;
        self.settle(is_authentic)
    }

    fn verify(&mut self, message: &[u8], header: &Header, now: u64) -> Result<bool, TransferError> {
        let Some(session) = &mut self.session else { return Ok(true) };
        match session.verify(message, now) {
            // An error without a signature ends the attempt; what it says is of use to whoever reads the log.
            Err(VerifyError::Unsigned) if header.rcode() != 0 => {
                Err(TransferError::Refused(Rcode::masked_from_int(header.rcode())))
            }
            verdict => Ok(verdict?),
        }
    }

    /// The question comes back in the first message, and perhaps in later ones (RFC 5936, 2.2.1).
    fn check_question(&self, reader: &mut Reader<'_>, count: u16) -> Result<(), TransferError> {
        if count > 1 || (count == 0 && self.is_first) {
            return Err(TransferError::Unrelated("it has not one question"));
        }
        if count == 1 {
            let question = reader.question()?;
            if question.name != self.zone || question.rtype != self.kind.rtype() || question.class != CLASS_IN {
                return Err(TransferError::Unrelated("it answers another question"));
            }
        }
        Ok(())
    }

    fn record(&self, message: &[u8], raw: &RawRecord) -> Result<Record, TransferError> {
        let is_stray_soa = raw.rtype == Rtype::SOA && raw.owner != self.zone;
        if raw.class != CLASS_IN || !raw.owner.is_in(&self.zone) || is_meta(raw.rtype) || is_stray_soa {
            return Err(TransferError::Foreign(raw.owner.clone(), raw.rtype));
        }
        let ttl = if raw.ttl > i32::MAX.cast_unsigned() { 0 } else { raw.ttl };
        Ok(Record { owner: raw.owner.clone(), rtype: raw.rtype, ttl, rdata: raw.rdata(message)? })
    }

    /// The next record.
    fn step(&mut self, record: Record) -> Result<(), TransferError> {
        let soa = match record.rtype {
            Rtype::SOA => Some(Soa::read(&record.rdata).map_err(|_| WireError::Data(Rtype::SOA))?.serial),
            _ => None,
        };
        let Some(newest_serial) = self.newest.as_ref().map(|(_, serial)| *serial) else {
            let serial = soa.ok_or(TransferError::Order("the first record is not the SOA"))?;
            self.newest = Some((record, serial));
            self.state = State::Opened;
            return Ok(());
        };
        match (&mut self.state, soa) {
            (State::Start, _) => return Err(TransferError::Order("a record before the SOA")),
            (State::Opened, Some(serial)) if self.kind == (Kind::Ixfr { serial }) && serial != newest_serial => {
                self.begin_difference(record);
            }
            (State::Opened, Some(serial)) if serial == newest_serial => {
                self.state = State::Ended(Received::Zone(self.newest_soa().into_iter().collect()));
            }
            (State::Opened, Some(_)) => return Err(TransferError::Order("the second SOA has another serial")),
            (State::Opened, None) => self.state = State::Whole(self.newest_soa().into_iter().chain([record]).collect()),
            (State::Whole(records), None) => records.push(record),
            (State::Whole(records), Some(serial)) if serial == newest_serial => {
                self.state = State::Ended(Received::Zone(std::mem::take(records)));
            }
            (State::Whole(_), Some(_)) => return Err(TransferError::Order("the last SOA has another serial")),
            (State::Removing, None) => self.last_difference()?.removed.push(record),
            (State::Removing, Some(serial)) => {
                let difference = self.last_difference()?;
                if !is_newer(serial, difference.from_serial()) {
                    return Err(TransferError::Order("a difference leads to an earlier version"));
                }
                difference.to = record;
                self.state = State::Adding;
            }
            (State::Adding, None) => self.last_difference()?.added.push(record),
            (State::Adding, Some(serial)) => {
                if serial != self.last_difference()?.to_serial() {
                    return Err(TransferError::Order("a difference does not begin where the last one ended"));
                }
                if serial == newest_serial {
                    self.state = State::Ended(Received::Differences(std::mem::take(&mut self.differences)));
                } else {
                    self.begin_difference(record);
                }
            }
            (State::Ended(_), _) => return Err(TransferError::Order("a record after the last SOA")),
        }
        Ok(())
    }

    fn newest_soa(&self) -> Option<Record> {
        self.newest.as_ref().map(|(record, _)| record.clone())
    }

    fn begin_difference(&mut self, from: Record) {
        // Where it leads to is known with its second SOA.
        self.differences.push(Difference { to: from.clone(), from, removed: Vec::new(), added: Vec::new() });
        self.state = State::Removing;
    }

    fn last_difference(&mut self) -> Result<&mut Difference, TransferError> {
        self.differences.last_mut().ok_or(TransferError::Order("a record outside a difference"))
    }

    /// What came out, after a message.
    fn settle(&mut self, is_authentic: bool) -> Result<Option<Received>, TransferError> {
        if let (State::Opened, Kind::Ixfr { serial }, Some((_, newest))) = (&self.state, self.kind, &self.newest)
            && !is_newer(*newest, serial)
        {
            self.state = State::Ended(Received::Current);
        }
        if !matches!(self.state, State::Ended(_)) {
            return Ok(None);
        }
        if !is_authentic {
            return Err(TransferError::NotAuthentic(VerifyError::Unsigned));
        }
        match std::mem::replace(&mut self.state, State::Ended(Received::Current)) {
            State::Ended(received) => Ok(Some(received)),
            _ => Ok(None),
        }
    }
}
