//! Keys made of passwords and of other keys.

use super::digest::{digest, hmac};
use aws_lc_rs::pbkdf2;
use std::num::NonZeroU32;

/// Most bytes of a derived key.
const LENGTH: usize = 4096;
/// Most digests for one key: a call may not take a worker longer.
pub(crate) const HERE: usize = 100_000;
/// Likewise beside the workers; with SHA-512 that is some ten seconds.
pub(crate) const BESIDE: usize = 10_000_000;
/// Blocks of a digest's size that HKDF makes at most (RFC 5869 section 2.3).
const BLOCKS: usize = 255;
/// Most bytes of what an HKDF key is for: every block is a digest of it.
const INFO: usize = 64 << 10;

fn bounded(length: usize) -> Result<(), String> {
    if length == 0 || length > LENGTH {
        return Err(format!("a derived key has 1 to {LENGTH} bytes, not {length}"));
    }
    Ok(())
}

fn rounds_bounded(rounds: usize, blocks: usize, most: usize) -> Result<(), String> {
    if rounds == 0 || rounds.saturating_mul(blocks) > most {
        let why = if most == HERE && rounds > 0 { " in a phase that cannot wait, as they hold the worker" } else { "" };
        return Err(format!("{rounds} rounds for each of {blocks} blocks: 1 to {most} in all are taken{why}"));
    }
    Ok(())
}

/// PBKDF2 (RFC 8018) with HMAC of `digest`, of which there are `most` at most.
pub(crate) fn pbkdf2(
    digest: &str,
    password: &[u8],
    salt: &[u8],
    rounds: usize,
    length: usize,
    most: usize,
) -> Result<Vec<u8>, String> {
    let (algorithm, block) = match digest {
        "sha1" => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
        "sha256" => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        "sha384" => (pbkdf2::PBKDF2_HMAC_SHA384, 48),
        "sha512" => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        _ => return Err(format!("PBKDF2 with {digest} is not there; it is with sha1, sha256, sha384 and sha512")),
    };
    bounded(length)?;
    rounds_bounded(rounds, length.div_ceil(block), most)?;
    let rounds = u32::try_from(rounds).ok().and_then(NonZeroU32::new).ok_or("no number of rounds")?;
    let mut key = vec![0; length];
    pbkdf2::derive(algorithm, rounds, salt, password, &mut key);
    Ok(key)
}

/// HKDF (RFC 5869) with HMAC of `digest`; `extracted` when `secret` is a pseudorandom key already, of any length. The library's own
/// panics where such a key is longer than its longest digest.
pub(crate) fn hkdf(
    digest: &str,
    secret: &[u8],
    salt: &[u8],
    info: &[u8],
    length: usize,
    extracted: bool,
) -> Result<Vec<u8>, String> {
    let unknown = || format!("HKDF with {digest} is not there");
    super::bounded(secret)?;
    super::bounded(salt)?;
    if info.len() > INFO {
        return Err(format!("what a key is for has {INFO} bytes at most"));
    }
    let extract = || hmac(digest, salt, secret).ok_or_else(unknown);
    let prk = if extracted { secret.to_vec() } else { extract()? };
    let block = hmac(digest, b"", b"").ok_or_else(unknown)?.len();
    bounded(length)?;
    if length > BLOCKS * block {
        return Err(format!("HKDF with {digest} makes {} bytes at most, not {length}", BLOCKS * block));
    }
    let mut key = Vec::with_capacity(length + block);
    let mut last = Vec::new();
    for number in 1..=u8::MAX {
        if key.len() >= length {
            break;
        }
        last = hmac(digest, &prk, &[&last, info, &[number]].concat()).ok_or_else(unknown)?;
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    Ok(key)
}

/// What OpenSSL's `EVP_BytesToKey` makes of a password: digests of each digest and the password, one behind the other.
pub(crate) fn chained(
    name: &str,
    password: &[u8],
    salt: &[u8],
    rounds: usize,
    length: usize,
    most: usize,
) -> Result<Vec<u8>, String> {
    let unknown = || format!("the digest {name} is not there");
    bounded(length)?;
    let block = digest(name, b"").ok_or_else(unknown)?.len();
    rounds_bounded(rounds, length.div_ceil(block), most)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hkdf_is_that_of_the_rfc() {
        // RFC 5869, A.2 (long), A.4 (SHA-1), A.3 (without salt and info).
        let run = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
        let okm = hkdf("sha256", &run(0, 0x4f), &run(0x60, 0xaf), &run(0xb0, 0xff), 82, false).unwrap();
        assert_eq!(
            hex(&okm),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b83\
             67793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        );
        let okm = hkdf("sha1", &[11; 11], &run(0, 12), &run(0xf0, 0xf9), 42, false).unwrap();
        assert_eq!(hex(&okm), "085a01ea1b10f36933068b56efa5ad81a4f14b822f5b091568a9cdd4f155fda2c22e422478d305f3f896");
        let okm = hkdf("sha256", &[11; 22], b"", b"", 42, false).unwrap();
        assert_eq!(hex(&okm), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    }

    #[test]
    fn what_hkdf_does_not_make_is_an_error() {
        let of = |digest: &str, secret: usize, info: usize, length: usize| {
            hkdf(digest, &vec![1; secret], b"salt", &vec![2; info], length, true)
        };
        // Keys that are longer than a digest are keys, too.
        for secret in [0, 1, 64, 65, 1000] {
            assert_eq!(of("sha512", secret, 300, 100).unwrap().len(), 100);
        }
        assert_eq!(of("md5", 16, 0, 255 * 16).unwrap().len(), 4080);
        assert!(of("md5", 16, 0, 255 * 16 + 1).unwrap_err().contains("4080 bytes at most"));
        for length in [0, LENGTH + 1, usize::MAX] {
            assert!(of("sha256", 32, 0, length).is_err(), "{length}");
        }
        assert!(of("sha256", 32, INFO + 1, 32).is_err());
        assert!(of("sha3", 32, 0, 32).unwrap_err().contains("not there"));
    }

    #[test]
    fn lengths_and_rounds_are_bounded() {
        for most in [HERE, BESIDE] {
            for (rounds, length) in [(0, 16), (1, 0), (1, usize::MAX), (usize::MAX, 16), (most, 64), (1, LENGTH + 1)] {
                assert!(pbkdf2("sha256", b"p", b"s", rounds, length, most).is_err(), "{rounds} {length}");
                assert!(chained("md5", b"p", b"s", rounds, length, most).is_err(), "{rounds} {length}");
            }
        }
    }
}
