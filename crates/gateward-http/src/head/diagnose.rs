//! Names the fault in a head that httparse refused.
//!
//! Runs only on refused heads, so it favours plainness: it walks the lines again and reports the first rule
//! broken. It never turns a refusal into an acceptance; when it finds nothing it falls back to the part of
//! the head httparse complained about.

use super::{HeadError, METHOD_BYTES_MAX};
use crate::headers::{is_valid_name, is_valid_value};
use crate::method::is_token_byte;

/// The rule a request head breaks, given httparse's complaint.
pub(super) fn request(bytes: &[u8], complaint: httparse::Error) -> HeadError {
    match complaint {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::HeaderName => fields(bytes).unwrap_or(HeadError::FieldName),
        httparse::Error::HeaderValue => fields(bytes).unwrap_or(HeadError::FieldValue),
        httparse::Error::NewLine => request_line(bytes).or_else(|| fields(bytes)).unwrap_or(HeadError::BareCr),
        httparse::Error::Token | httparse::Error::Version | httparse::Error::Status => {
            request_line(bytes).unwrap_or(HeadError::RequestLine)
        }
    }
}

/// The rule a response head breaks, given httparse's complaint.
pub(super) fn response(bytes: &[u8], complaint: httparse::Error) -> HeadError {
    match complaint {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::HeaderName => fields(bytes).unwrap_or(HeadError::FieldName),
        httparse::Error::HeaderValue => fields(bytes).unwrap_or(HeadError::FieldValue),
        httparse::Error::Version => version(bytes.split(|byte| matches!(byte, b' ' | b'\r')).next().unwrap_or(bytes)),
        httparse::Error::NewLine => fields(bytes).unwrap_or(HeadError::StatusLine),
        httparse::Error::Token | httparse::Error::Status => HeadError::StatusLine,
    }
}

/// The first fault of the request line, if it has one.
fn request_line(bytes: &[u8]) -> Option<HeadError> {
    let (line, ended) = match memchr::memchr(b'\n', bytes) {
        Some(end) => (&bytes[..end], true),
        None => (bytes, false),
    };
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Some(HeadError::LeadingSpace);
    }
    let line = match (line.strip_suffix(b"\r"), ended) {
        (Some(line), _) => line,
        (None, true) => return Some(HeadError::BareLf),
        (None, false) => line,
    };
    if line.contains(&b'\r') {
        return Some(HeadError::BareCr);
    }
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    if method.is_empty() || !method.iter().all(|byte| is_token_byte(*byte)) {
        return Some(HeadError::RequestLine);
    }
    if method.len() > METHOD_BYTES_MAX {
        return Some(HeadError::MethodTooLong);
    }
    let target = parts.next().unwrap_or_default();
    let Some(version_text) = parts.next() else {
        // A target that runs into the end of the line: the request line of HTTP/0.9.
        let plain = !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic());
        return Some(if plain && ended { HeadError::Http09 } else { target_fault(target) });
    };
    if target.is_empty() {
        return Some(HeadError::RequestLine);
    }
    if !target.iter().all(|byte| byte.is_ascii_graphic()) {
        return Some(target_fault(target));
    }
    match version_text {
        b"HTTP/1.0" | b"HTTP/1.1" => None,
        text if text.contains(&b' ') || text.contains(&b'\t') => Some(HeadError::RequestLine),
        text => Some(version(text)),
    }
}

/// A tab is a misplaced separator; any other byte is a fault of the target itself.
fn target_fault(target: &[u8]) -> HeadError {
    if target.is_empty() || target.contains(&b'\t') { HeadError::RequestLine } else { HeadError::BadTarget }
}

/// `text` is not a supported version: malformed, or a major version that is not ours.
fn version(text: &[u8]) -> HeadError {
    match text {
        [b'H', b'T', b'T', b'P', b'/', major, rest @ ..] if major.is_ascii_digit() && *major != b'1' => match rest {
            // The end may not have arrived yet.
            [] | [b'.'] => HeadError::UnsupportedVersion,
            [b'.', minor] if minor.is_ascii_digit() => HeadError::UnsupportedVersion,
            _ => HeadError::BadVersion,
        },
        _ => HeadError::BadVersion,
    }
}

/// The first fault in the lines after the start line, if there is one.
fn fields(bytes: &[u8]) -> Option<HeadError> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.next();
    lines.enumerate().take_while(|(_, line)| *line != b"\r\n").find_map(|(index, line)| field_line(index, line))
}

fn field_line(index: usize, line: &[u8]) -> Option<HeadError> {
    if matches!(line[0], b' ' | b'\t') {
        return Some(if index == 0 { HeadError::LeadingSpace } else { HeadError::ObsFold });
    }
    let content = match line.strip_suffix(b"\n") {
        Some(line) => match line.strip_suffix(b"\r") {
            Some(content) => content,
            None => return Some(HeadError::BareLf),
        },
        None => line.strip_suffix(b"\r").unwrap_or(line),
    };
    if content.contains(&b'\r') {
        return Some(HeadError::BareCr);
    }
    let (name, value) = match memchr::memchr(b':', content) {
        Some(colon) => (&content[..colon], &content[colon + 1..]),
        None => (content, &[][..]),
    };
    if matches!(name.last(), Some(b' ' | b'\t')) && is_valid_name(name.trim_ascii_end()) {
        return Some(HeadError::SpaceBeforeColon);
    }
    if !is_valid_name(name) {
        return Some(HeadError::FieldName);
    }
    (!is_valid_value(value)).then_some(HeadError::FieldValue)
}
