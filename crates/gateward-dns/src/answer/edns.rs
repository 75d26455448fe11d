//! The OPT record of an answer (RFC 6891) with its options, and what of an answer it takes.

use super::{Context, STREAM_IDLE, Transport};
use crate::message::Edns;

const NSID: u16 = 3;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;
const EXTENDED_ERROR: u16 = 15;

/// Octets of a record without options: owner, type, payload, code and flags, length.
const HEAD: usize = 11;
/// Octets of an option before its data.
const OPTION_HEAD: usize = 4;
/// Octets that encrypted answers are padded to a multiple of (RFC 8467, 4.1).
const BLOCK: usize = 468;

/// What is said about a query beside its records.
pub(super) struct Extra {
    pub(super) cookie: Option<[u8; 24]>,
    pub(super) error: Option<u16>,
}

/// Octets that the record takes of an answer. An extended error and padding are put where there is room left.
#[inline]
pub(super) fn room(context: &Context<'_>, edns: Option<&Edns<'_>>, extra: &Extra) -> usize {
    let Some(edns) = edns else { return 0 };
    let nsid = if edns.nsid { identity(context).map_or(0, |identity| OPTION_HEAD + identity.len()) } else { 0 };
    let cookie = extra.cookie.map_or(0, |cookie| OPTION_HEAD + cookie.len());
    let keepalive = if edns.keepalive && context.transport != Transport::Udp { OPTION_HEAD + 2 } else { 0 };
    HEAD + nsid + cookie + keepalive
}

/// Writes the record at `at`; returns where it ends. Options that would end behind `limit` are left out.
pub(super) fn put(
    context: &Context<'_>,
    edns: &Edns<'_>,
    extra: &Extra,
    rcode: u16,
    out: &mut [u8],
    at: usize,
    limit: usize,
) -> usize {
    let payload = context.settings.udp_payload.to_be_bytes();
    let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
    out[at..at + 9].copy_from_slice(&[0, 0, 41, payload[0], payload[1], (rcode >> 4) as u8, 0, dnssec_ok, 0]);
    let start = at + HEAD;
    let mut options = Options { out, end: start, limit };
    if let Some(cookie) = &extra.cookie {
        options.put(COOKIE, cookie);
    }
    if edns.nsid
        && let Some(identity) = identity(context)
    {
        options.put(NSID, identity);
    }
    if edns.keepalive && context.transport != Transport::Udp {
        // In units of 100 milliseconds (RFC 7828, 3.1).
        let units = u16::try_from(STREAM_IDLE.as_millis() / 100).unwrap_or(u16::MAX);
        options.put(KEEPALIVE, &units.to_be_bytes());
    }
    if let Some(code) = extra.error {
        options.put(EXTENDED_ERROR, &code.to_be_bytes());
    }
    if edns.padding && context.transport == Transport::Tls {
        let zeros = [0; BLOCK];
        let length = (BLOCK - (options.end + OPTION_HEAD) % BLOCK) % BLOCK;
        options.put(PADDING, &zeros[..length]);
    }
    let end = options.end;
    out[at + 9..start].copy_from_slice(&u16::try_from(end - start).unwrap_or_default().to_be_bytes());
    end
}

/// What NSID tells, if anything.
fn identity<'a>(context: &Context<'a>) -> Option<&'a [u8]> {
    let identity = &context.settings.identity;
    (!identity.is_empty()).then(|| &identity[..identity.len().min(255)])
}

/// Options on their way into the message.
struct Options<'a> {
    out: &'a mut [u8],
    end: usize,
    limit: usize,
}

impl Options<'_> {
    /// Puts an option; leaves it out when there is no room.
    fn put(&mut self, code: u16, data: &[u8]) {
        let (start, end) = (self.end + OPTION_HEAD, self.end + OPTION_HEAD + data.len());
        let Ok(length) = u16::try_from(data.len()) else { return };
        if end > self.limit.min(self.out.len()) {
            return;
        }
        self.out[start - 4..start - 2].copy_from_slice(&code.to_be_bytes());
        self.out[start - 2..start].copy_from_slice(&length.to_be_bytes());
        self.out[start..end].copy_from_slice(data);
        self.end = end;
    }
}
