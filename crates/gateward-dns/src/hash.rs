//! The hash of a name, made label by label from the right, so that one pass over a name hashes all names above it too.
//!
//! Both maps of the store use it, zones by origin and names within a zone, and compare names where hashes agree: collisions make
//! them slower, never wrong. So that nobody who may add names can choose many that collide, the root's hash is random
//! for each process; no hash leaves the process. Two other uses go by the hash alone, because they can bear a collision: a chain of
//! CNAMEs that seems to come back to a name ends there, and answers about two names seem to be about one to the rate limit.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

static ROOT: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

const FACTOR: u64 = 0xa076_1d64_78bd_642f;

/// The root's hash, from which every other follows.
#[inline]
pub(crate) fn root() -> u64 {
    *ROOT
}

/// The hash of `label` (in lower case) put before a name whose hash is `parent`.
#[inline]
pub(crate) fn child(parent: u64, label: &[u8]) -> u64 {
    let mut hash = parent.wrapping_add((label.len() as u64) << 56);
    let mut chunks = label.chunks_exact(8);
    for chunk in &mut chunks {
        hash = fold(hash, u64::from_le_bytes(chunk.try_into().expect("chunks are of eight octets")));
    }
    fold(hash, tail(chunks.remainder()))
}

/// Up to seven octets as a number, without a call to copy memory.
#[inline]
fn tail(octets: &[u8]) -> u64 {
    octets.iter().rev().fold(0, |word, octet| (word << 8) | u64::from(*octet))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
fn fold(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(FACTOR);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of a whole name in uncompressed lower-case wire format.
pub(crate) fn name(wire: &[u8]) -> u64 {
    let mut starts = [0_u8; 128];
    let (mut at, mut count) = (0, 0);
    while wire[at] != 0 {
        starts[count] = u8::try_from(at).expect("a name is at most 255 octets");
        count += 1;
        at += 1 + usize::from(wire[at]);
    }
    starts[..count].iter().rev().fold(root(), |hash, start| {
        let start = usize::from(*start);
        child(hash, &wire[start + 1..start + 1 + usize::from(wire[start])])
    })
}
