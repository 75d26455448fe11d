//! Response heads from upstreams (RFC 9112 sections 4 and 6): laxer than requests in what cannot be misread,
//! as strict in what frames the body. An error here becomes a 502.

use super::fields::{ConnectionOptions, Known, content_length, known, transfer_encoding};
use super::{BodyFraming, FIELDS_MAX, HeadError, HeadLimits, Parsed, ResponseHead, Version};
use super::{diagnose, has_bare_lf, scan};
use crate::Method;
use crate::headers::Name;
use std::mem::MaybeUninit;

const CONTENT_LENGTH: Name<'static> = Name::new("Content-Length");

/// Parse a response head at the start of `buf` into `head`. `method` is the request's: it decides the framing.
/// Interim (1xx) responses are returned like any other, with `BodyFraming::None`.
///
/// `Content-Length` has been removed from `head.headers` where it does not say how long a body is: beside
/// Transfer-Encoding, and in 1xx and 204 responses. Repeats of one value have become one field.
///
/// # Errors
/// The first rule the head breaks; the upstream connection must not be used again.
pub fn parse_response_head(
    buf: &[u8],
    limits: &HeadLimits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Parsed, HeadError> {
    parse(buf, limits, method, head, true)
}

/// [`parse_response_head`], for comparison without the short way.
pub(crate) fn parse_thoroughly(
    buf: &[u8],
    limits: &HeadLimits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Parsed, HeadError> {
    parse(buf, limits, method, head, false)
}

fn parse(
    buf: &[u8],
    limits: &HeadLimits,
    method: &Method,
    head: &mut ResponseHead,
    short: bool,
) -> Result<Parsed, HeadError> {
    let bytes = &buf[..buf.len().min(limits.head_bytes)];
    // httparse would skip empty lines; before a response they are left-overs of something else.
    if bytes.first().is_some_and(|byte| *byte != b'H') {
        return Err(HeadError::StatusLine);
    }
    let plain = if short { read_plain(bytes, limits, method, head) } else { None };
    match plain {
        Some(length) => Ok(Parsed::Complete(length)),
        None => read_any(bytes, buf.len() >= limits.head_bytes, limits, method, head),
    }
}

/// The short way: the length of a head that is plainly well-formed.
fn read_plain(bytes: &[u8], limits: &HeadLimits, method: &Method, head: &mut ResponseHead) -> Option<usize> {
    let length = read_plain_fields(bytes, limits, method, head);
    if length.is_none() {
        head.headers.clear();
    }
    length
}

fn read_plain_fields(bytes: &[u8], limits: &HeadLimits, method: &Method, head: &mut ResponseHead) -> Option<usize> {
    let mut section = bytes;
    let (minor, status, reason) = scan::status_line(&mut section)?;
    let mut notes = Notes::default();
    begin(minor, status, reason, head).ok()?;
    let (mut left, mut at) = (limits.fields.min(FIELDS_MAX), 0);
    loop {
        match scan::line(section, at)? {
            (scan::Line::Field { name, value, places }, next) => {
                left = left.checked_sub(1)?;
                let hash = head.headers.note(name, &places);
                notes.read(hash, name, value, head.version).ok()?;
                at = next;
            }
            (scan::Line::End, next) => {
                head.headers.store(&section[..at]);
                settle(&notes, method, head);
                return Some(bytes.len() - section.len() + next);
            }
        }
    }
}

/// The long way, for what is wrong, unusual or incomplete. `full`: the head may not grow any more.
#[cold]
#[inline(never)]
fn read_any(
    bytes: &[u8],
    full: bool,
    limits: &HeadLimits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Parsed, HeadError> {
    let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let slots = &mut storage[..limits.fields.min(FIELDS_MAX)];
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if has_bare_lf(bytes) => return Err(HeadError::BareLf),
        Ok(httparse::Status::Partial) if full => return Err(HeadError::HeadTooLarge),
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partial),
        Err(complaint) => return Err(diagnose::response(bytes, complaint)),
    };
    if has_bare_lf(&bytes[..length]) {
        return Err(HeadError::BareLf);
    }
    let (Some(minor), Some(status)) = (parsed.version, parsed.code) else {
        return Err(HeadError::StatusLine);
    };
    begin(minor, status, parsed.reason.unwrap_or_default().as_bytes(), head)?;
    let mut notes = Notes::default();
    for field in parsed.headers.iter() {
        let name = field.name.as_bytes();
        let hash = head.headers.push(name, field.value);
        notes.read(hash, name, field.value, head.version)?;
    }
    settle(&notes, method, head);
    Ok(Parsed::Complete(length))
}

/// Take over the status line, and clear the rest of `head`.
fn begin(minor: u8, status: u16, reason: &[u8], head: &mut ResponseHead) -> Result<(), HeadError> {
    if status < 100 {
        return Err(HeadError::StatusLine);
    }
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    head.status = status;
    // The reason is the last response's more often than not.
    if head.reason.as_bytes() != reason {
        head.reason.clear();
        head.reason.push_str(str::from_utf8(reason).map_err(|_| HeadError::StatusLine)?);
    }
    head.headers.clear();
    Ok(())
}

#[derive(Default)]
struct Notes {
    length: Option<u64>,
    /// Content-Length stood on several lines or as a list, all of one value.
    length_repeated: bool,
    chunked: bool,
    connection: ConnectionOptions,
}

impl Notes {
    /// Note a field when it is known. `hash` is its name's.
    fn read(&mut self, hash: u32, name: &[u8], value: &[u8], version: Version) -> Result<(), HeadError> {
        match known(hash, name) {
            Some(Known::ContentLength) => self.note_length(value)?,
            Some(Known::TransferEncoding) => self.note_encoding(value, version)?,
            Some(Known::Connection) => self.connection.note(value),
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 section 6.3 lets a recipient take a list of one repeated value as that value.
    fn note_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for item in value.split(|byte| *byte == b',') {
            let length = content_length(item.trim_ascii())?;
            match self.length {
                Some(earlier) if earlier != length => return Err(HeadError::RepeatedContentLength),
                Some(_) => self.length_repeated = true,
                None => self.length = Some(length),
            }
        }
        Ok(())
    }

    fn note_encoding(&mut self, value: &[u8], version: Version) -> Result<(), HeadError> {
        if version == Version::Http10 {
            return Err(HeadError::EncodingInHttp10);
        }
        if self.chunked {
            return Err(HeadError::BadTransferEncoding);
        }
        transfer_encoding(value)?;
        self.chunked = true;
        Ok(())
    }
}

/// Body delimitation in the order of RFC 9112 section 6.3, and whether the connection outlives the response.
fn settle(notes: &Notes, method: &Method, head: &mut ResponseHead) {
    head.keep_alive = notes.connection.persists(head.version == Version::Http11);
    let tunnel = head.status == 101 || (*method == Method::Connect && (200..300).contains(&head.status));
    let never_has_body = head.status < 200 || head.status == 204;
    if never_has_body || (notes.chunked && notes.length.is_some()) {
        head.headers.remove(CONTENT_LENGTH);
    } else if let (true, Some(length)) = (notes.length_repeated, notes.length) {
        head.headers.set(CONTENT_LENGTH.as_str(), length.to_string());
    }
    // Two lengths, or a length where there is no body: what follows on the connection may not be a head.
    let length_is_doubtful = notes.chunked && notes.length.is_some();
    let body_is_doubtful = never_has_body && (notes.chunked || notes.length.is_some_and(|length| length > 0));
    if length_is_doubtful || body_is_doubtful {
        head.keep_alive = false;
    }
    head.framing = if tunnel || never_has_body || head.status == 304 || *method == Method::Head {
        BodyFraming::None
    } else if notes.chunked {
        BodyFraming::Chunked
    } else {
        notes.length.map_or(BodyFraming::UntilClose, BodyFraming::Length)
    };
    if tunnel || head.framing == BodyFraming::UntilClose {
        head.keep_alive = false;
    }
}
