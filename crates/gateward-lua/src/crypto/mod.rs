//! Digests, keys, signatures and ciphers for plugins, as aws-lc has them. Errors name what is wrong, never what a key or a text holds.

pub(crate) mod cipher;
pub(crate) mod derive;
pub(crate) mod digest;
mod jwk;
pub(crate) mod key;
pub(crate) mod pem;
pub(crate) mod sign;

/// Most bytes that are signed, verified, encrypted or decrypted at once: such work holds the worker.
const INPUT: usize = 16 << 20;

fn bounded(text: &[u8]) -> Result<(), String> {
    if text.len() > INPUT {
        return Err(format!("the text has {} bytes, more than the {INPUT} that are taken at once", text.len()));
    }
    Ok(())
}
