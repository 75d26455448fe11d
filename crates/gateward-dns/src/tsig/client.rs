//! The client's side: a request is signed, its answers are verified.

use std::sync::Arc;

use super::FUDGE_SECONDS;
use super::key::Key;
use super::mac::Code;
use super::record::{Error, Found, Variables};
use crate::wire::WireError;

/// Messages of an answer that may come without a signature between two that have one (RFC 8945, 5.3.1).
const MAX_UNSIGNED: usize = 99;

/// Why an answer is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is malformed.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// It has no signature where it must have one.
    #[error("the answer is not signed")]
    Unsigned,
    /// It is signed with another key or algorithm.
    #[error("the answer is signed with another key")]
    OtherKey,
    /// The signature is wrong, or too old.
    #[error("the answer's signature was not accepted: {0}")]
    Mine(Error),
    /// The server did not accept the request's signature.
    #[error("the server did not accept the signature: {0}")]
    Peers(Error),
}

/// What verifies the answer to a request.
#[derive(Clone)]
pub struct ClientSession {
    key: Arc<Key>,
    /// The code of the next signature, with everything that came before it.
    code: Code,
    is_first: bool,
    unsigned: usize,
}

impl std::fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientSession").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Signs a request. `now` is in seconds since 1970.
pub fn sign_request(key: &Arc<Key>, message: &mut Vec<u8>, now: u64) -> ClientSession {
    let mut code = Code::new(key);
    code.update(message);
    let variables = Variables {
        key: key.name().clone(),
        algorithm: key.algorithm().name(),
        time: now,
        fudge: FUDGE_SECONDS,
        error: None,
        other: Vec::new(),
    };
    variables.digest(&mut code, false);
    let mac = code.finish();
    let id = u16::from_be_bytes([message[0], message[1]]);
    variables.append(message, &mac, id);
    ClientSession { key: Arc::clone(key), code: chained(key, &mac), is_first: true, unsigned: 0 }
}

fn chained(key: &Key, mac: &[u8]) -> Code {
    let mut code = Code::new(key);
    code.chain(mac);
    code
}

impl ClientSession {
    /// Verifies the next message of the answer. True: it and all before it are authentic. False: it is one that may come
    /// without a signature; what it says counts only once a later call said true.
    ///
    /// # Errors
    /// [`VerifyError`]: nothing of the answer may be used.
    pub fn verify(&mut self, message: &[u8], now: u64) -> Result<bool, VerifyError> {
        let Some(found) = Found::read(message)? else {
            self.unsigned += 1;
            if self.is_first || self.unsigned > MAX_UNSIGNED {
                return Err(VerifyError::Unsigned);
            }
            self.code.update(message);
            return Ok(false);
        };
        if let Some(error) = found.variables.error.filter(|_| found.mac.is_empty()) {
            // Unsigned, so anybody may have sent it: it is a hint for the log and the end of this attempt.
            return Err(VerifyError::Peers(error));
        }
        if found.variables.key != *self.key.name() || found.variables.algorithm != self.key.algorithm().name() {
            return Err(VerifyError::OtherKey);
        }
        if found.mac.len() < self.key.shortest_mac() || found.mac.len() > self.key.algorithm().mac_len() {
            return Err(VerifyError::Mine(Error::BadTrunc));
        }
        let mut code = std::mem::replace(&mut self.code, chained(&self.key, &found.mac));
        found.digest_message(&mut code, message);
        found.variables.digest(&mut code, !self.is_first);
        if !code.matches(&found.mac) {
            return Err(VerifyError::Mine(Error::BadSig));
        }
        if let Some(error) = found.variables.error {
            return Err(VerifyError::Peers(error));
        }
        if !found.is_in_time(now) {
            return Err(VerifyError::Mine(Error::BadTime));
        }
        self.is_first = false;
        self.unsigned = 0;
        Ok(true)
    }
}
