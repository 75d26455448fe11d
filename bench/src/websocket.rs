//! As much of WebSocket (RFC 6455) as the measured messages need: the handshake, and frames of up to 125 bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Bytes of a measured message.
pub const MESSAGE_BYTES: usize = 64;
/// The key of every handshake: any 16 bytes will do.
pub const KEY: &str = "Z2F0ZXdhcmQgYmVuY2ghIQ==";
/// What the accepting side appends to the key (RFC 6455, 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// FIN and the opcode of a binary message (RFC 6455, 5.2).
const FINAL_BINARY: u8 = 0x82;
/// The bit that says: masked.
const MASKED: u8 = 0x80;
/// The longest payload whose length is one byte.
const SHORT: usize = 125;

/// `Sec-WebSocket-Accept` for a key.
pub fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{MAGIC}")))
}

/// A frame that a client sends (`mask`), or a server.
pub fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    assert!(payload.len() <= SHORT, "measured messages are short");
    let mut frame = vec![FINAL_BINARY, payload.len() as u8];
    match mask {
        Some(mask) => {
            frame[1] |= MASKED;
            frame.extend_from_slice(&mask);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        None => frame.extend_from_slice(payload),
    }
    frame
}

/// The first frame in `bytes`.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// It is not all there.
    Partial,
    /// Neither a whole binary message nor short: these programs do not speak of it.
    Other,
    /// Its payload, still masked, with the mask and its length on the wire.
    Message(&'a [u8], Option<[u8; 4]>, usize),
}

/// Looks at the beginning of `bytes`.
pub fn first(bytes: &[u8]) -> Frame<'_> {
    let [kind, length, rest @ ..] = bytes else { return Frame::Partial };
    let count = usize::from(length & !MASKED);
    if *kind != FINAL_BINARY || count > SHORT {
        return Frame::Other;
    }
    let (mask, payload) = match (length & MASKED != 0, rest) {
        (true, [a, b, c, d, payload @ ..]) => (Some([*a, *b, *c, *d]), payload),
        (true, _) => return Frame::Partial,
        (false, payload) => (None, payload),
    };
    let head = bytes.len() - payload.len();
    payload.get(..count).map_or(Frame::Partial, |payload| Frame::Message(payload, mask, head + count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_s_example_of_a_key() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_come_back() {
        let mask = Some([1, 2, 3, 4]);
        for mask in [mask, None] {
            let mut bytes = frame(b"hello", mask);
            let length = bytes.len();
            bytes.extend_from_slice(b"next");
            let Frame::Message(payload, found, used) = first(&bytes) else { panic!("{bytes:?}") };
            assert_eq!((found, used), (mask, length));
            let masks = mask.unwrap_or_default();
            let plain: Vec<u8> = payload.iter().zip(masks.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(plain, b"hello");
            for end in 0..length {
                assert_eq!(first(&bytes[..end]), Frame::Partial, "{end}");
            }
        }
        assert_eq!(first(&[0x88, 0]), Frame::Other, "close");
        assert_eq!(first(&[FINAL_BINARY, 126]), Frame::Other, "a longer message");
    }
}
