//! Keys and certificates as texts (RFC 7468): the one place that reads and writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateward_config::pem_blocks;

/// Characters on a line.
const LINE: usize = 64;

/// `der` as a text.
pub(crate) fn write(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(LINE) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// What is in `text`, by labels.
pub(crate) fn read(text: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let text = str::from_utf8(text).map_err(|_| "not in PEM: it is not text".to_owned())?;
    pem_blocks(text).ok_or_else(|| "a broken block of PEM".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let all: Vec<u8> = (0..=255).collect();
        for length in [1, 47, 48, 49, 96, 256] {
            let text = write("CERTIFICATE", &all[..length]) + &write("PUBLIC KEY", &all[..1]);
            assert!(text.lines().all(|line| line.len() <= LINE && !line.is_empty()), "{text}");
            let blocks = read(text.as_bytes()).unwrap();
            assert_eq!(blocks[0], ("CERTIFICATE".to_owned(), all[..length].to_vec()));
            assert_eq!(blocks[1], ("PUBLIC KEY".to_owned(), vec![0]));
        }
        assert!(read(b"\xff").is_err() && read(b"-----BEGIN X-----\n!\n-----END X-----").is_err());
        assert_eq!(read(b"no PEM"), Ok(Vec::new()));
    }
}
