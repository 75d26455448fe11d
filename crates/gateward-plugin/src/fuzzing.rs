//! The properties that fuzzing checks: the fuzz target, the replay of the committed corpus and the property tests call
//! the same code. Panics when a property does not hold. Not part of the API.

use crate::native::grpc_web::{decode_text, encode_text, write_trailers};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateward_http::Headers;

/// gRPC-Web: a text decodes as its groups of four do one by one, content survives being sent as text in any pieces, and
/// a frame of trailers says how long it is and holds them all.
pub fn grpc_web(data: &[u8]) {
    assert_eq!(decode_text(data), decode_by_groups(data.trim_ascii()));
    let whole = STANDARD.encode(data);
    for piece_len in [data.len().max(1), 1, 2, 7] {
        let (mut rest, mut text) = (Vec::new(), Vec::new());
        for piece in data.chunks(piece_len) {
            let mut piece = piece.to_vec();
            encode_text(&mut rest, &mut piece, false);
            assert!(rest.len() < 3, "{} bytes held back", rest.len());
            text.extend(piece);
        }
        let mut last = Vec::new();
        encode_text(&mut rest, &mut last, true);
        text.extend(last);
        assert_eq!(String::from_utf8_lossy(&text), whole, "pieces of {piece_len}");
    }
    assert_eq!(decode_text(whole.as_bytes()).as_deref(), Some(data));
    trailers(data);
}

/// A frame of the fields that the lines of `data` are.
fn trailers(data: &[u8]) {
    let mut headers = Headers::default();
    let mut lines = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (String::from_utf8_lossy(&line[..colon]), line[colon + 1..].trim_ascii());
        if headers.add(&name, value) {
            lines.push([name.to_ascii_lowercase().as_bytes(), b":", value].concat());
        }
    }
    let mut out = b"before".to_vec();
    write_trailers(&headers, &mut out);
    let frame = out.strip_prefix(b"before").expect("what was there stays");
    let (head, text) = frame.split_at(5);
    assert_eq!((head[0], &head[1..]), (0x80, &(text.len() as u32).to_be_bytes()[..]));
    let text = text.strip_suffix(b"\r\n").map_or(&b""[..], |text| text);
    let written: Vec<_> = text.split(|byte| *byte == b'\r').map(|line| line.trim_ascii().to_vec()).collect();
    assert_eq!(written, if lines.is_empty() { vec![Vec::new()] } else { lines });
}

/// Each group of four characters by itself.
fn decode_by_groups(text: &[u8]) -> Option<Vec<u8>> {
    let groups: Option<Vec<Vec<u8>>> = text.chunks(4).map(|group| STANDARD.decode(group).ok()).collect();
    groups.map(|groups| groups.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_corpus_passes() {
        gateward_testkit::corpus("grpc_web", 10).for_each(|input| grpc_web(&input));
    }

    proptest! {
        #[test]
        fn any_bytes_pass(bytes in vec(any::<u8>(), 0..200)) {
            grpc_web(&bytes);
        }

        #[test]
        fn any_text_passes(text in "[A-D/+= :\n]{0,40}") {
            grpc_web(text.as_bytes());
        }
    }
}
