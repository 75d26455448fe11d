//! The outer form of PEM texts (RFC 7468): labels and base64, not what is inside.

use base64::Engine;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Whether `text` has at least one block and every block's label is one of those wanted.
pub fn is_pem(text: &str, label: impl Fn(&str) -> bool) -> bool {
    pem_blocks(text).is_some_and(|blocks| !blocks.is_empty() && blocks.iter().any(|(name, _)| label(name)))
}

/// Hex SHA-256 of the one certificate in `text`, as Kong fills `cert_digest`.
pub(crate) fn digest(text: &str) -> Result<String, String> {
    let blocks = pem_blocks(text).unwrap_or_default();
    match blocks.as_slice() {
        [(label, der)] if label == "CERTIFICATE" => {
            Ok(Sha256::digest(der).iter().fold(String::new(), |mut hex, byte| {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            }))
        }
        [] | [_] => Err("not a certificate in PEM form (-----BEGIN CERTIFICATE-----)".to_owned()),
        _ => Err("holds more than one certificate; write each as an entity of its own".to_owned()),
    }
}

/// (label, content) of each block in `text`; `None` when one is broken.
pub fn pem_blocks(text: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----")?;
        let (body, after) = after.split_once(&format!("-----END {label}-----"))?;
        // Headers of encrypted keys (`Proc-Type: ...`) end with an empty line.
        let base64_text = if body.contains(':') { body.split_once("\n\n")?.1 } else { body };
        let base64_text: String = base64_text.chars().filter(|c| !c.is_whitespace()).collect();
        let content = base64::engine::general_purpose::STANDARD.decode(base64_text).ok()?;
        if content.is_empty() {
            return None;
        }
        blocks.push((label.to_owned(), content));
        rest = after;
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_form() {
        let good = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";
        assert!(is_pem(good, |label| label == "CERTIFICATE"));
        assert!(!is_pem(good, |label| label.ends_with("PRIVATE KEY")));
        assert_eq!(digest(good).as_deref(), Ok("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
        assert!(digest(&good.repeat(2)).is_err());
        for bad in ["", "x", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "-----BEGIN X"] {
            assert!(!is_pem(bad, |_| true), "{bad}");
        }
    }
}
