//! The hash of a name, made label by label from the right, so that one pass over a name hashes all names above it too.
//!
//! Both maps of the store use it: zones by origin, names within a zone. Nobody outside decides what is in these maps but
//! those who may change zones, so no secret goes into it; the maps stay correct, only slower, where hashes collide.

/// The root's hash, from which every other follows.
pub(crate) const ROOT: u64 = 0x9e37_79b9_7f4a_7c15;

const FACTOR: u64 = 0xa076_1d64_78bd_642f;

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
    starts[..count].iter().rev().fold(ROOT, |hash, start| {
        let start = usize::from(*start);
        child(hash, &wire[start + 1..start + 1 + usize::from(wire[start])])
    })
}
