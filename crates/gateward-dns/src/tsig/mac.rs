//! The authentication code of a key's algorithm, piece by piece.

use hmac::{Hmac, KeyInit as _, Mac as _};

use super::key::{Algorithm, Key};

/// A code being computed.
#[derive(Clone)]
pub(super) enum Code {
    Md5(Hmac<md5::Md5>),
    Sha1(Hmac<sha1::Sha1>),
    Sha224(Hmac<sha2::Sha224>),
    Sha256(Hmac<sha2::Sha256>),
    Sha384(Box<Hmac<sha2::Sha384>>),
    Sha512(Box<Hmac<sha2::Sha512>>),
}

macro_rules! each {
    ($self:expr, $code:ident => $body:expr) => {
        match $self {
            Code::Md5($code) => $body,
            Code::Sha1($code) => $body,
            Code::Sha224($code) => $body,
            Code::Sha256($code) => $body,
            Code::Sha384($code) => $body,
            Code::Sha512($code) => $body,
        }
    };
}

impl Code {
    pub(super) fn new(key: &Key) -> Self {
        let any = "HMAC takes secrets of any length";
        let secret = key.secret();
        match key.algorithm() {
            Algorithm::HmacMd5 => Code::Md5(Hmac::new_from_slice(secret).expect(any)),
            Algorithm::HmacSha1 => Code::Sha1(Hmac::new_from_slice(secret).expect(any)),
            Algorithm::HmacSha224 => Code::Sha224(Hmac::new_from_slice(secret).expect(any)),
            Algorithm::HmacSha256 => Code::Sha256(Hmac::new_from_slice(secret).expect(any)),
            Algorithm::HmacSha384 => Code::Sha384(Box::new(Hmac::new_from_slice(secret).expect(any))),
            Algorithm::HmacSha512 => Code::Sha512(Box::new(Hmac::new_from_slice(secret).expect(any))),
        }
    }

    pub(super) fn update(&mut self, octets: &[u8]) {
        each!(self, code => code.update(octets));
    }

    /// A code that was sent before, with its length: how messages of an exchange are chained (RFC 8945, 5.3).
    pub(super) fn chain(&mut self, mac: &[u8]) {
        let len = u16::try_from(mac.len()).expect("a code has at most 64 octets");
        self.update(&len.to_be_bytes());
        self.update(mac);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Code::Md5(code) => code.finalize().into_bytes().to_vec(),
            Code::Sha1(code) => code.finalize().into_bytes().to_vec(),
            Code::Sha224(code) => code.finalize().into_bytes().to_vec(),
            Code::Sha256(code) => code.finalize().into_bytes().to_vec(),
            Code::Sha384(code) => code.finalize().into_bytes().to_vec(),
            Code::Sha512(code) => code.finalize().into_bytes().to_vec(),
        }
    }

    /// Whether `mac`, perhaps cut short at its right, is this code; takes the same time wherever they differ.
    pub(super) fn matches(self, mac: &[u8]) -> bool {
        match self {
            Code::Md5(code) => code.verify_truncated_left(mac).is_ok(),
            Code::Sha1(code) => code.verify_truncated_left(mac).is_ok(),
            Code::Sha224(code) => code.verify_truncated_left(mac).is_ok(),
            Code::Sha256(code) => code.verify_truncated_left(mac).is_ok(),
            Code::Sha384(code) => code.verify_truncated_left(mac).is_ok(),
            Code::Sha512(code) => code.verify_truncated_left(mac).is_ok(),
        }
    }
}
