//! The fields that decide framing and connection handling, picked out while a head's fields are stored.
//!
//! One pass: the hash that [`Headers`](crate::Headers) computes for every name anyway selects the handful of
//! names that matter here, so that an ordinary field costs one `match` on an integer.

use super::HeadError;
use crate::headers::{hash_name, same_name};

/// Fields that have a meaning to the codec, or that may stand only once in a request.
///
/// The second group is the singleton fields clients send (RFC 9110 section 5.3): two of them mean that two
/// readers may pick different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    Upgrade,
    Authorization,
    ProxyAuthorization,
    ContentType,
    ContentRange,
    ContentLocation,
    Range,
    IfRange,
    IfModifiedSince,
    IfUnmodifiedSince,
    MaxForwards,
    UserAgent,
    Referer,
    Origin,
    From,
    Date,
}

/// Makes the match from hashes to fields, so that a name is written once. Two names with one hash would be an
/// unreachable pattern, which the compiler reports.
macro_rules! known_fields {
    ($($text:literal => $field:ident),+ $(,)?) => {
        /// The known field called `name`, whose hash is `hash`.
        pub(super) fn known(hash: u32, name: &[u8]) -> Option<Known> {
            let (field, text) = match hash {
                $(hash if hash == const { hash_name($text.as_bytes()) } => (Known::$field, $text),)+
                _ => return None,
            };
            same_name(name, text.as_bytes(), true).then_some(field)
        }
    };
}

known_fields! {
    "host" => Host,
    "content-length" => ContentLength,
    "transfer-encoding" => TransferEncoding,
    "connection" => Connection,
    "expect" => Expect,
    "upgrade" => Upgrade,
    "authorization" => Authorization,
    "proxy-authorization" => ProxyAuthorization,
    "content-type" => ContentType,
    "content-range" => ContentRange,
    "content-location" => ContentLocation,
    "range" => Range,
    "if-range" => IfRange,
    "if-modified-since" => IfModifiedSince,
    "if-unmodified-since" => IfUnmodifiedSince,
    "max-forwards" => MaxForwards,
    "user-agent" => UserAgent,
    "referer" => Referer,
    "origin" => Origin,
    "from" => From,
    "date" => Date,
}

/// What the options of all Connection fields of a message say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

impl ConnectionOptions {
    pub(super) fn note(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    /// Whether the connection persists after a message of this version (RFC 9112 section 9.3).
    pub(super) fn persists(self, http11: bool) -> bool {
        !self.close && (http11 || self.keep_alive)
    }
}

/// The one number of a Content-Length value: 1*DIGIT within 64 bits, nothing else (RFC 9110 section 8.6).
pub(super) fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() {
        return Err(HeadError::BadContentLength);
    }
    value
        .iter()
        .try_fold(0_u64, |length, byte| {
            if !byte.is_ascii_digit() {
                return None;
            }
            length.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
        })
        .ok_or(HeadError::BadContentLength)
}

/// Accepts a Transfer-Encoding value that is exactly `chunked`, in any case. A well-formed list that names a
/// coding we do not have is "not implemented"; everything else is malformed (RFC 9112 section 6.1).
pub(super) fn transfer_encoding(value: &[u8]) -> Result<(), HeadError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut unknown = false;
    let mut last_is_chunked = false;
    let mut chunked_count = 0;
    for coding in value.split(|byte| *byte == b',') {
        let coding = coding.trim_ascii();
        if !crate::headers::is_valid_name(coding) || coding.eq_ignore_ascii_case(b"identity") {
            return Err(HeadError::BadTransferEncoding);
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked_count += usize::from(last_is_chunked);
        unknown |= !last_is_chunked;
    }
    let chunked_misplaced = chunked_count > 1 || (chunked_count == 1 && !last_is_chunked);
    Err(if unknown && !chunked_misplaced { HeadError::UnknownTransferCoding } else { HeadError::BadTransferEncoding })
}
