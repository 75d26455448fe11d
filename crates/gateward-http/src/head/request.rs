//! Request heads (RFC 9112 sections 2 to 6): what a client may send, and what it means for the connection.

use super::fields::{ConnectionOptions, Known, content_length, known, transfer_encoding};
use super::target::{Target, authority, split};
use super::{BodyFraming, FIELDS_MAX, HeadError, HeadLimits, METHOD_BYTES_MAX, Parsed, RequestHead, Version};
use super::{diagnose, has_bare_lf, scan};
use crate::Method;
use crate::method::is_token_byte;
use std::mem::MaybeUninit;

/// Parse a request head at the start of `buf` into `head`.
///
/// One empty line before the request line is skipped (RFC 9112 section 2.2) and counted in the length
/// answered. After `Partial` or an error `head` holds nothing of use.
///
/// # Errors
/// The first rule the head breaks. Faults are reported as soon as the bytes show them, bounds as soon as they
/// are exceeded, even before the head is complete. The connection must be closed after an error.
pub fn parse_request_head(buf: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<Parsed, HeadError> {
    parse(buf, limits, head, true)
}

/// [`parse_request_head`], for comparison without the short way.
pub(crate) fn parse_thoroughly(buf: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<Parsed, HeadError> {
    parse(buf, limits, head, false)
}

fn parse(buf: &[u8], limits: &HeadLimits, head: &mut RequestHead, short: bool) -> Result<Parsed, HeadError> {
    let window = &buf[..buf.len().min(limits.head_bytes)];
    let skipped = if window.starts_with(b"\r\n") { 2 } else { 0 };
    let bytes = &window[skipped..];
    match bytes {
        // A lone CR may be the first half of the empty line.
        [] | [b'\r'] if buf.len() < limits.head_bytes => return Ok(Parsed::Partial),
        [b'\r' | b'\n', ..] => return Err(if skipped > 0 { HeadError::EmptyLines } else { leading_break(bytes) }),
        [b' ' | b'\t', ..] => return Err(HeadError::LeadingSpace),
        _ => {}
    }
    let plain = if short { read_plain(bytes, limits, head) } else { None };
    Ok(
        match plain.map_or_else(
            || read_any(bytes, buf.len() >= limits.head_bytes, limits, head),
            |it| Ok(Parsed::Complete(it)),
        )? {
            Parsed::Complete(length) => Parsed::Complete(skipped + length),
            Parsed::Partial => Parsed::Partial,
        },
    )
}

/// The short way: the length of a head that is plainly well-formed.
fn read_plain(bytes: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Option<usize> {
    let length = read_plain_fields(bytes, limits, head);
    if length.is_none() {
        head.headers.clear();
    }
    length
}

fn read_plain_fields(bytes: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Option<usize> {
    let mut section = bytes;
    let (method, target, minor) = scan::request_line(&mut section)?;
    // The method is the one of the last request more often than not.
    if head.method.as_str().as_bytes() != method {
        head.method = Method::parse(str::from_utf8(method).ok()?)?;
    }
    let mut notes = Notes::default();
    let target = begin(str::from_utf8(target).ok()?, minor, limits, head).ok()?;
    let (mut left, mut at) = (limits.fields.min(FIELDS_MAX), 0);
    loop {
        match scan::line(section, at)? {
            (scan::Line::Field { name, value, places }, next) => {
                left = left.checked_sub(1)?;
                let hash = head.headers.note(name, &places);
                notes.read(hash, name, value).ok()?;
                at = next;
            }
            (scan::Line::End, next) => {
                head.headers.store(&section[..at]);
                settle(target, &notes, head).ok()?;
                return Some(bytes.len() - section.len() + next);
            }
        }
    }
}

/// The long way, for what is wrong, unusual or incomplete. `full`: the head may not grow any more.
#[cold]
#[inline(never)]
fn read_any(bytes: &[u8], full: bool, limits: &HeadLimits, head: &mut RequestHead) -> Result<Parsed, HeadError> {
    let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let slots = &mut storage[..limits.fields.min(FIELDS_MAX)];
    let length = match parsed.parse_with_uninit_headers(bytes, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return check_partial(bytes, full, limits),
        Err(complaint) => return Err(refusal(bytes, complaint, limits)),
    };
    if has_bare_lf(&bytes[..length]) {
        return Err(HeadError::BareLf);
    }
    // httparse sets all three in a complete request.
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::RequestLine);
    };
    let mut notes = Notes::default();
    head.method = Method::parse(method).ok_or(HeadError::RequestLine)?;
    let target = begin(target, minor, limits, head)?;
    for field in parsed.headers.iter() {
        let name = field.name.as_bytes();
        let hash = head.headers.push(name, field.value);
        notes.read(hash, name, field.value)?;
    }
    settle(target, &notes, head)?;
    Ok(Parsed::Complete(length))
}

/// `bytes` starts with CR or LF and is not an empty line.
fn leading_break(bytes: &[u8]) -> HeadError {
    if bytes[0] == b'\n' { HeadError::BareLf } else { HeadError::BareCr }
}

/// What can be said of a head whose end has not come. `full`: it may not grow any more.
fn check_partial(bytes: &[u8], full: bool, limits: &HeadLimits) -> Result<Parsed, HeadError> {
    if has_bare_lf(bytes) {
        return Err(HeadError::BareLf);
    }
    check_request_line_bounds(bytes, limits)?;
    if full { Err(HeadError::HeadTooLarge) } else { Ok(Parsed::Partial) }
}

/// A bound that is exceeded wins over the fault that cutting the bytes there shows.
fn refusal(bytes: &[u8], complaint: httparse::Error, limits: &HeadLimits) -> HeadError {
    match check_request_line_bounds(bytes, limits) {
        Err(bound) => bound,
        Ok(()) => diagnose::request(bytes, complaint),
    }
}

/// The bounds on method and target, as far as they have arrived.
fn check_request_line_bounds(bytes: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
    let line = memchr::memchr2(b'\r', b'\n', bytes).map_or(bytes, |end| &bytes[..end]);
    let method_len = memchr::memchr(b' ', line).unwrap_or(line.len());
    if method_len > METHOD_BYTES_MAX {
        // What is no method at all, such as the first bytes of TLS, is malformed rather than not implemented.
        let method = line[..METHOD_BYTES_MAX].iter().all(|byte| is_token_byte(*byte));
        return Err(if method { HeadError::MethodTooLong } else { HeadError::RequestLine });
    }
    let target = line.get(method_len + 1..).unwrap_or_default();
    let target_len = memchr::memchr(b' ', target).unwrap_or(target.len());
    if target_len > limits.target_bytes { Err(HeadError::TargetTooLong) } else { Ok(()) }
}

/// Check the request line, take over what needs nothing else, and clear the rest of `head`, whose method is set.
fn begin<'a>(target: &'a str, minor: u8, limits: &HeadLimits, head: &mut RequestHead) -> Result<Target<'a>, HeadError> {
    if head.method.as_str().len() > METHOD_BYTES_MAX {
        return Err(HeadError::MethodTooLong);
    }
    if target.len() > limits.target_bytes {
        return Err(HeadError::TargetTooLong);
    }
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    head.headers.clear();
    split(&head.method, target)
}

/// What follows from all fields together.
fn settle(target: Target<'_>, notes: &Notes<'_>, head: &mut RequestHead) -> Result<(), HeadError> {
    settle_target(target, notes, head)?;
    settle_framing(notes, head)?;
    settle_connection(notes, head)
}

/// What the fields of one request said, by field.
#[derive(Default)]
pub(super) struct Notes<'a> {
    /// One bit per [`Known`] field that has been seen.
    seen: u32,
    pub(super) host: Option<&'a [u8]>,
    pub(super) length: Option<&'a [u8]>,
    encoding: Option<&'a [u8]>,
    pub(super) expect: Option<&'a [u8]>,
    upgrade: bool,
    connection: ConnectionOptions,
}

impl<'a> Notes<'a> {
    /// Note a field when it is known. `hash` is its name's.
    pub(super) fn read(&mut self, hash: u32, name: &[u8], value: &'a [u8]) -> Result<(), HeadError> {
        known(hash, name).map_or(Ok(()), |field| self.note(field, value))
    }

    fn note(&mut self, field: Known, value: &'a [u8]) -> Result<(), HeadError> {
        match field {
            // Lists may stand on several lines (RFC 9110 section 5.3).
            Known::Connection => {
                self.connection.note(value);
                return Ok(());
            }
            Known::Upgrade => {
                self.upgrade = true;
                return Ok(());
            }
            Known::Host => self.host = Some(value),
            Known::ContentLength => self.length = Some(value),
            Known::TransferEncoding => self.encoding = Some(value),
            Known::Expect => self.expect = Some(value),
            _ => {}
        }
        let bit = 1_u32 << field as u8;
        if self.seen & bit != 0 {
            return Err(match field {
                Known::Host => HeadError::RepeatedHost,
                Known::ContentLength => HeadError::RepeatedContentLength,
                Known::TransferEncoding => HeadError::BadTransferEncoding,
                _ => HeadError::RepeatedField,
            });
        }
        self.seen |= bit;
        Ok(())
    }
}

/// Target and authority, from the request line and Host.
fn settle_target(target: Target<'_>, notes: &Notes<'_>, head: &mut RequestHead) -> Result<(), HeadError> {
    head.target.clear();
    if let Target::Origin(text) = target
        && notes.host.is_some_and(|host| !host.is_empty() && host == head.authority.as_bytes())
    {
        // The last request's authority, which has been checked, and is the same more often than not.
        head.target.push_str(text);
        return Ok(());
    }
    let host = match notes.host {
        // Checked even where the target replaces it: a client that sends a malformed one is not to be trusted.
        Some(host) => authority(host).ok_or(HeadError::BadHost)?,
        None if head.version == Version::Http11 => return Err(HeadError::MissingHost),
        None => "",
    };
    head.authority.clear();
    let replacement = match target {
        Target::Origin(text) => {
            head.target.push_str(text);
            head.authority.push_str(host);
            return Ok(());
        }
        Target::Absolute(authority, rest) => {
            if !rest.starts_with('/') {
                head.target.push('/');
            }
            head.target.push_str(rest);
            authority
        }
        Target::Authority(authority) => authority,
    };
    head.authority.push_str(replacement);
    head.headers.set("Host", replacement);
    Ok(())
}

/// Body delimitation (RFC 9112 section 6.3): a request without either field has no body.
fn settle_framing(notes: &Notes<'_>, head: &mut RequestHead) -> Result<(), HeadError> {
    head.framing = match (notes.encoding, notes.length) {
        (Some(_), Some(_)) => return Err(HeadError::LengthAndEncoding),
        (Some(_), None) if head.version == Version::Http10 => return Err(HeadError::EncodingInHttp10),
        (Some(encoding), None) => {
            transfer_encoding(encoding)?;
            BodyFraming::Chunked
        }
        (None, Some(length)) => BodyFraming::Length(content_length(length)?),
        (None, None) => BodyFraming::None,
    };
    Ok(())
}

/// Persistence, expectation and upgrade. HTTP/1.0 has neither of the last two (RFC 9110 sections 7.8, 10.1.1).
fn settle_connection(notes: &Notes<'_>, head: &mut RequestHead) -> Result<(), HeadError> {
    let http11 = head.version == Version::Http11;
    if notes.expect.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(HeadError::UnknownExpectation);
    }
    head.keep_alive = notes.connection.persists(http11);
    head.expects_continue = http11 && notes.expect.is_some();
    head.upgrade = http11 && notes.upgrade && notes.connection.upgrade;
    Ok(())
}
