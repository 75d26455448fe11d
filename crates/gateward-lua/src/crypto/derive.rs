//! Keys made of passwords and of other keys.

use super::digest::digest;
use aws_lc_rs::hkdf::{self, KeyType, Prk, Salt};
use aws_lc_rs::pbkdf2;
use std::num::NonZeroU32;

/// Most bytes of a derived key.
const LENGTH: usize = 4096;
/// Most rounds of a digest for one key: a call may not take a worker longer.
const ROUNDS: usize = 100_000;

/// A length that HKDF fills.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn bounded(length: usize) -> Result<(), String> {
    if length == 0 || length > LENGTH {
        return Err(format!("a derived key has 1 to {LENGTH} bytes, not {length}"));
    }
    Ok(())
}

fn rounds_bounded(rounds: usize, blocks: usize) -> Result<(), String> {
    if rounds == 0 || rounds.saturating_mul(blocks) > ROUNDS {
        return Err(format!(
            "{rounds} rounds for each of {blocks} blocks: 1 to {ROUNDS} in all are taken, as they hold a worker"
        ));
    }
    Ok(())
}

/// PBKDF2 (RFC 8018) with HMAC of `digest`.
pub(crate) fn pbkdf2(
    digest: &str,
    password: &[u8],
    salt: &[u8],
    rounds: usize,
    length: usize,
) -> Result<Vec<u8>, String> {
    let (algorithm, block) = match digest {
        "sha1" => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
        "sha256" => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        "sha384" => (pbkdf2::PBKDF2_HMAC_SHA384, 48),
        "sha512" => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        _ => return Err(format!("PBKDF2 with {digest} is not there; it is with sha1, sha256, sha384 and sha512")),
    };
    bounded(length)?;
    rounds_bounded(rounds, length.div_ceil(block))?;
    let rounds = u32::try_from(rounds).ok().and_then(NonZeroU32::new).ok_or("no number of rounds")?;
    let mut key = vec![0; length];
    pbkdf2::derive(algorithm, rounds, salt, password, &mut key);
    Ok(key)
}

/// HKDF (RFC 5869) with HMAC of `digest`; `extracted` when `secret` is a pseudorandom key already.
pub(crate) fn hkdf(
    digest: &str,
    secret: &[u8],
    salt: &[u8],
    info: &[u8],
    length: usize,
    extracted: bool,
) -> Result<Vec<u8>, String> {
    let algorithm = match digest {
        "sha1" => hkdf::HKDF_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hkdf::HKDF_SHA256,
        "sha384" => hkdf::HKDF_SHA384,
        "sha512" => hkdf::HKDF_SHA512,
        _ => return Err(format!("HKDF with {digest} is not there; it is with sha1, sha256, sha384 and sha512")),
    };
    bounded(length)?;
    let prk =
        if extracted { Prk::new_less_safe(algorithm, secret) } else { Salt::new(algorithm, salt).extract(secret) };
    let mut key = vec![0; length];
    let failed = |_| format!("HKDF with {digest} does not make {length} bytes of this");
    prk.expand(&[info], Length(length)).and_then(|okm| okm.fill(&mut key)).map_err(failed)?;
    Ok(key)
}

/// What OpenSSL's `EVP_BytesToKey` makes of a password: digests of each digest and the password, one behind the other.
pub(crate) fn chained(
    name: &str,
    password: &[u8],
    salt: &[u8],
    rounds: usize,
    length: usize,
) -> Result<Vec<u8>, String> {
    let unknown = || format!("the digest {name} is not there");
    bounded(length)?;
    let block = digest(name, b"").ok_or_else(unknown)?.len();
    rounds_bounded(rounds, length.div_ceil(block))?;
    let mut key = Vec::with_capacity(length + block);
    let mut last = Vec::new();
    while key.len() < length {
        last = digest(name, &[last.as_slice(), password, salt].concat()).ok_or_else(unknown)?;
        for _ in 1..rounds {
            last = digest(name, &last).ok_or_else(unknown)?;
        }
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    Ok(key)
}
