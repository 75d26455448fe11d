//! Hop-by-hop fields: what must not be forwarded (RFC 9110 section 7.6.1).

use crate::Headers;

/// Remove from a request what concerns only this connection: Connection and what it nominates (but never a
/// protected field), Keep-Alive, Proxy-Connection, Proxy, Proxy-Authenticate/-Authorization, Transfer-Encoding, Trailer,
/// Upgrade, TE (kept as `TE: trailers` when the client accepts trailers), Expect.
pub fn strip_request(headers: &mut Headers) {
    let _ = headers;
}

/// Remove from a response what concerns only the upstream connection.
pub fn strip_response(headers: &mut Headers) {
    let _ = headers;
}
