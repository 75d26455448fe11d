//! Frames: what a journal is made of, and telling a torn end from damage.
//!
//! A frame is a mark, a length, a checksum and octets; one frame is written and synced before anything in it is acknowledged. So a frame
//! that is not whole and has no whole frame behind it was never acknowledged: a crash tore it. One with a whole frame behind it was, and
//! the file is damaged. The checksum begins with a number drawn for each file, so that no data in a frame can pass for a frame.

use crc32fast::Hasher;

/// Begins a file.
pub(super) const MAGIC: &[u8; 8] = b"GWDNSJ1\n";
/// Octets of a file's head: the magic and the number drawn for it.
pub(super) const FILE_HEAD: usize = 12;
const MARK: [u8; 4] = *b"\xf7Gw\xfe";
/// Octets before a frame's content.
const HEAD: usize = 12;
/// Longest content.
pub(super) const MAX_CONTENT: usize = 1 << 30;

/// A file's head.
pub(super) fn file_head(nonce: u32) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend(nonce.to_le_bytes());
    head
}

/// The number in a file's head; `None` when it does not begin a journal.
pub(super) fn nonce(octets: &[u8]) -> Option<u32> {
    let number = octets.get(MAGIC.len()..FILE_HEAD)?;
    octets.starts_with(MAGIC).then(|| u32::from_le_bytes(number.try_into().expect("four octets")))
}

/// Appends a frame.
pub(super) fn put(nonce: u32, content: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(content.len()).expect("frames are bounded by MAX_CONTENT");
    out.extend(MARK);
    out.extend(len.to_le_bytes());
    out.extend(checksum(nonce, content).to_le_bytes());
    out.extend(content);
}

/// Where a frame's content begins behind the frame's own beginning.
pub(super) const fn content_at(frame: usize) -> usize {
    frame + HEAD
}

fn checksum(nonce: u32, content: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(nonce);
    hasher.update(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// Where each content is.
    pub(super) contents: Vec<std::ops::Range<usize>>,
    /// Where the last whole frame ends: what is behind it is torn.
    pub(super) end: usize,
}

/// Finds the frames of a file whose head was read.
///
/// # Errors
/// Where a frame is damaged that has whole ones behind it.
pub(super) fn scan(nonce: u32, octets: &[u8]) -> Result<Frames, usize> {
    let mut frames = Frames { contents: Vec::new(), end: FILE_HEAD };
    while let Some(content) = whole(nonce, octets, frames.end) {
        frames.end = content.end;
        frames.contents.push(content);
    }
    let mut at = frames.end;
    while let Some(next) = memchr::memmem::find(octets.get(at..).unwrap_or_default(), &MARK) {
        if whole(nonce, octets, at + next).is_some() {
            return Err(frames.end);
        }
        at += next + 1;
    }
    Ok(frames)
}

fn whole(nonce: u32, octets: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let head = octets.get(at..at + HEAD)?;
    let number = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().expect("four octets"));
    let start = at + HEAD;
    let range = start..start.checked_add(usize::try_from(number(4)).ok()?)?;
    let content = octets.get(range.clone())?;
    (head.starts_with(&MARK) && content.len() <= MAX_CONTENT && checksum(nonce, content) == number(8)).then_some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(contents: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut octets = file_head(7);
        let mut ends = vec![octets.len()];
        for content in contents {
            put(7, content, &mut octets);
            ends.push(octets.len());
        }
        (octets, ends)
    }

    #[test]
    fn a_frame_within_a_frame_is_data() {
        let (inner, _) = file(&[b"forged".to_vec()]);
        // Even with the mark and a right length: the number of the file is not known outside.
        let mut other = Vec::new();
        put(8, b"forged", &mut other);
        let (mut octets, ends) = file(&[b"a".to_vec(), other, b"b".to_vec()]);
        octets.truncate(ends[2] - 1);
        assert_eq!(scan(7, &octets).map(|frames| frames.end), Ok(ends[1]));
        assert_eq!(nonce(&inner), Some(7));
        assert_eq!(nonce(b"GWDNSJ"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a crash leaves of the last write, what was written before is read.
        #[test]
        fn a_torn_end_costs_what_was_torn(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6),
            keep in 0.0..1.0_f64,
            garbage in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let (octets, ends) = file(&contents);
            let last = ends[ends.len() - 2];
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small file")]
            let cut = last + ((octets.len() - last) as f64 * keep) as usize;
            let mut torn = octets[..cut].to_vec();
            torn.extend(&garbage);
            let frames = scan(7, &torn).expect("nothing is damaged");
            prop_assert!(frames.end == last || torn[..] == octets[..]);
            prop_assert_eq!(frames.contents.len(), ends.iter().filter(|end| **end <= frames.end).count() - 1);
        }

        /// One bit wrong in a frame that has others behind it is found, with its place.
        #[test]
        fn damage_in_the_middle_is_told(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 2..6),
            place in any::<proptest::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let (mut octets, ends) = file(&contents);
            let last = ends[ends.len() - 2];
            let at = FILE_HEAD + place.index(last - FILE_HEAD);
            octets[at] ^= 1 << bit;
            let damaged = *ends.iter().rfind(|end| **end <= at).expect("the head ends before it");
            prop_assert_eq!(scan(7, &octets), Err(damaged));
        }
    }
}
