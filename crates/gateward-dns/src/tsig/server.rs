//! The server's side: a request is verified, its answers are signed.

use std::sync::Arc;

use gateward_zone::Rcode;

use super::FUDGE_SECONDS;
use super::key::{Key, Keys};
use super::mac::Code;
use super::record::{Error, Found, Variables};
use crate::wire::{HEADER_LEN, Header, Reader, WireError, flags};

/// A request whose signature is right.
#[derive(Debug, Clone)]
pub struct Signed {
    key: Arc<Key>,
    mac: Vec<u8>,
    len: usize,
    original_id: u16,
}

impl Signed {
    /// The key it was signed with.
    #[must_use]
    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// The message without its signature. It keeps the number that it came with, because its answer goes back the same way: whoever passed
    /// it on under another number than its signer's puts that one back (RFC 8945, 5.3.2).
    #[must_use]
    pub fn unsigned(&self, message: &[u8]) -> Vec<u8> {
        let mut octets = message[..self.len].to_vec();
        let additional = u16::from_be_bytes([octets[10], octets[11]]) - 1;
        octets[10..12].copy_from_slice(&additional.to_be_bytes());
        octets
    }

    /// What signs the answer.
    #[must_use]
    pub fn signer(self) -> Signer {
        Signer { key: self.key, prior: self.mac, original_id: self.original_id, is_first: true }
    }
}

/// A request that gets no answer to what it asks.
#[derive(Debug)]
pub enum Rejected {
    /// It is malformed: FORMERR (RFC 8945, 5.1 and 5.2.2.1).
    Malformed(WireError),
    /// It is not authentic, or not in time: NOTAUTH.
    Refused(Box<Refusal>),
}

/// Why a request is refused, with what its answer needs.
#[derive(Debug)]
pub struct Refusal {
    error: Error,
    found: Found,
    /// What signs the answer; an answer about a wrong key or code is not signed (RFC 8945, 5.3.2).
    key: Option<Arc<Key>>,
}

impl Refusal {
    /// What is wrong.
    #[must_use]
    pub fn error(&self) -> Error {
        self.error
    }

    /// The name of the key that the request names.
    #[must_use]
    pub fn key_name(&self) -> &gateward_zone::Name {
        &self.found.variables.key
    }

    /// The answer to `request`: NOTAUTH, with the error in a TSIG record (RFC 8945, 5.2.1 to 5.2.4).
    #[must_use]
    pub fn answer(&self, request: &[u8], now: u64) -> Vec<u8> {
        let mut message = error_head(request, Rcode::NOTAUTH);
        let mut variables = Variables {
            error: Some(self.error),
            fudge: FUDGE_SECONDS,
            other: Vec::new(),
            ..self.found.variables.clone()
        };
        let Some(key) = &self.key else {
            variables.append(&mut message, &[], self.found.original_id);
            return message;
        };
        if self.error == Error::BadTime {
            // The request's time goes back, so that its sender accepts the signature, and the server's beside it.
            variables.other = now.to_be_bytes()[2..].to_vec();
        } else {
            variables.time = now;
        }
        let mut code = Code::new(key);
        code.chain(&self.found.mac);
        digest_as_asked(&mut code, &message, self.found.original_id);
        variables.digest(&mut code, false);
        variables.append(&mut message, &code.finish(), self.found.original_id);
        message
    }
}

/// Puts an answer into a code under the number that its request was signed with (RFC 8945, 4.3.2).
fn digest_as_asked(code: &mut Code, message: &[u8], original_id: u16) {
    code.update(&original_id.to_be_bytes());
    code.update(&message[2..]);
}

/// Header and question of an answer that carries nothing but a response code.
fn error_head(request: &[u8], rcode: Rcode) -> Vec<u8> {
    let mut message = request[..HEADER_LEN].to_vec();
    let bits = u16::from_be_bytes([message[2], message[3]]);
    let bits = flags::QR | bits & (flags::OPCODE | 0x0100) | u16::from(rcode.to_int());
    message[2..4].copy_from_slice(&bits.to_be_bytes());
    message[4..].fill(0);
    if Header::read(request).is_ok_and(|header| header.counts[0] == 1)
        && let Ok(question) = Reader::new(request).question()
    {
        message[5] = 1;
        message.extend_from_slice(question.name.as_wire());
        message.extend(question.rtype.to_int().to_be_bytes());
        message.extend(question.class.to_be_bytes());
    }
    message
}

/// Verifies a request (RFC 8945, 5.2: key, code, time, length of the code, in this order). `None`: it is not signed.
///
/// `now` is in seconds since 1970.
///
/// # Errors
/// [`Rejected`]: it is malformed or must be refused.
pub fn verify_request(message: &[u8], keys: &Keys, now: u64) -> Result<Option<Signed>, Rejected> {
    let Some(found) = Found::read(message).map_err(Rejected::Malformed)? else { return Ok(None) };
    let key = keys.find(&found.variables.key).filter(|key| key.algorithm().name() == found.variables.algorithm);
    let refused = |error, found, key| Rejected::Refused(Box::new(Refusal { error, found, key }));
    let Some(key) = key.cloned() else { return Err(refused(Error::BadKey, found, None)) };
    let algorithm = key.algorithm();
    if found.mac.len() > algorithm.mac_len() || found.mac.len() < algorithm.shortest_mac() {
        return Err(Rejected::Malformed(WireError::Data(gateward_zone::Rtype::TSIG)));
    }
    let mut code = Code::new(&key);
    found.digest_message(&mut code, message);
    found.variables.digest(&mut code, false);
    if !code.matches(&found.mac) {
        return Err(refused(Error::BadSig, found, None));
    }
    if !found.is_in_time(now) {
        return Err(refused(Error::BadTime, found, Some(key)));
    }
    if found.mac.len() < key.shortest_mac() {
        return Err(refused(Error::BadTrunc, found, Some(key)));
    }
    Ok(Some(Signed { key, mac: found.mac, len: found.start, original_id: found.original_id }))
}

/// Signs the messages of an answer, each chained to the one before (RFC 8945, 5.3 and 5.3.1).
#[derive(Debug, Clone)]
pub struct Signer {
    key: Arc<Key>,
    prior: Vec<u8>,
    /// The number that the request was signed with.
    original_id: u16,
    is_first: bool,
}

impl Signer {
    /// Octets it adds to a message, at most.
    #[must_use]
    pub fn signature_len(&self) -> usize {
        self.key.signature_len()
    }

    /// Signs the next message. Nothing may be added to it after.
    pub fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        let mut code = Code::new(&self.key);
        code.chain(&self.prior);
        digest_as_asked(&mut code, message, self.original_id);
        let variables = Variables {
            key: self.key.name().clone(),
            algorithm: self.key.algorithm().name(),
            time: now,
            fudge: FUDGE_SECONDS,
            error: None,
            other: Vec::new(),
        };
        variables.digest(&mut code, !self.is_first);
        self.prior = code.finish();
        self.is_first = false;
        variables.append(message, &self.prior, self.original_id);
    }
}
