//! A journal file as it is read: from which version of the zone it starts, and where each step stands in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::delta::Delta;
use super::{JournalError, frame};
use crate::folder::read_bounded;

/// The version of a zone that a journal starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Its serial.
    pub serial: u32,
    /// The digest of its content.
    pub digest: u128,
}

/// A step, without what changed.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The serial before.
    pub from: u32,
    /// The serial after.
    pub to: u32,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who did it.
    pub actor: Arc<str>,
    /// Records that came.
    pub added: u32,
    /// Records that went.
    pub removed: u32,
    /// The digest of the zone afterwards.
    pub digest: u128,
    at: u64,
    len: u32,
}

/// A journal file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) nonce: u32,
    pub(super) base: Base,
    pub(super) entries: Vec<Entry>,
}

/// Kinds of frames.
const BASE: u8 = 0;
const STEPS: u8 = 1;

impl Segment {
    /// Reads a file: the segment, its steps, and where its last whole frame ends. `None` when nothing in it was ever acknowledged.
    pub(super) fn read(path: &Path) -> Result<Option<(Self, Vec<Delta>, usize)>, JournalError> {
        let octets = match read_bounded(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| JournalError::Io(path.to_owned(), error))?,
        };
        let damaged = |offset: usize| JournalError::Damaged { file: path.to_owned(), offset };
        let Some(nonce) = frame::nonce(&octets) else {
            let is_torn = octets.len() < frame::FILE_HEAD && frame::MAGIC.starts_with(&octets[..octets.len().min(8)]);
            return if is_torn { Ok(None) } else { Err(damaged(0)) };
        };
        let frames = frame::scan(nonce, &octets).map_err(damaged)?;
        let Some((first, rest)) = frames.contents.split_first() else { return Ok(None) };
        let base = read_base(&octets[first.clone()]).ok_or_else(|| damaged(first.start))?;
        let mut segment = Segment { path: path.to_owned(), nonce, base, entries: Vec::new() };
        let mut deltas = Vec::new();
        for range in rest {
            let steps = read_steps(&octets, range.clone()).ok_or_else(|| damaged(range.start))?;
            for (delta, place) in steps {
                // Steps follow one another, or the file was put together by somebody else.
                if segment.last() != delta.from {
                    return Err(damaged(place.start));
                }
                segment.push(&delta, place);
                deltas.push(delta);
            }
        }
        Ok(Some((segment, deltas, frames.end)))
    }

    /// The serial after its last step.
    pub(super) fn last(&self) -> u32 {
        self.entries.last().map_or(self.base.serial, |entry| entry.to)
    }

    /// What its last step led to.
    pub(super) fn last_state(&self) -> Base {
        self.entries.last().map_or(self.base, |entry| Base { serial: entry.to, digest: entry.digest })
    }

    fn push(&mut self, delta: &Delta, place: std::ops::Range<usize>) {
        let (added, removed) = delta.counts();
        let actor = match self.entries.last() {
            // The same few do most of it.
            Some(last) if *last.actor == *delta.actor => last.actor.clone(),
            _ => delta.actor.as_str().into(),
        };
        self.entries.push(Entry {
            from: delta.from,
            to: delta.to,
            time_ms: delta.time_ms,
            actor,
            added,
            removed,
            digest: delta.digest,
            at: place.start as u64,
            len: u32::try_from(place.len()).expect("a frame is bounded"),
        });
    }

    /// Notes steps that were written in a frame at `frame` of the file.
    pub(super) fn note(&mut self, deltas: &[Delta], places: Vec<std::ops::Range<usize>>, frame: u64) {
        let start = frame::content_at(usize::try_from(frame).expect("files fit into memory"));
        for (delta, place) in deltas.iter().zip(places) {
            self.push(delta, start + place.start..start + place.end);
        }
    }

    /// The step with that number, read from the file.
    pub(super) fn delta(&self, file: &File, index: usize) -> Result<Delta, JournalError> {
        let entry = &self.entries[index];
        let mut octets = vec![0; usize::try_from(entry.len).expect("it was in memory once")];
        file.read_exact_at(&mut octets, entry.at).map_err(|error| JournalError::Io(self.path.clone(), error))?;
        Delta::read(&octets).ok_or_else(|| JournalError::Damaged {
            file: self.path.clone(),
            offset: usize::try_from(entry.at).unwrap_or(usize::MAX),
        })
    }
}

/// The first frame's content.
pub(super) fn base_content(base: Base) -> Vec<u8> {
    let mut content = vec![BASE];
    content.extend(base.serial.to_le_bytes());
    content.extend(base.digest.to_le_bytes());
    content
}

fn read_base(content: &[u8]) -> Option<Base> {
    let (kind, rest) = content.split_first()?;
    let (serial, digest) = rest.split_at_checked(4)?;
    (*kind == BASE).then_some(())?;
    Some(Base {
        serial: u32::from_le_bytes(serial.try_into().ok()?),
        digest: u128::from_le_bytes(digest.try_into().ok()?),
    })
}

/// A frame's content for steps, and where each step stands in it.
pub(super) fn steps_content(deltas: &[Delta]) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut content = vec![STEPS];
    let mut places = Vec::with_capacity(deltas.len());
    for delta in deltas {
        let head = content.len();
        content.extend([0; 4]);
        delta.put(&mut content);
        let start = head + 4;
        let len = u32::try_from(content.len() - start).unwrap_or(u32::MAX);
        content[head..start].copy_from_slice(&len.to_le_bytes());
        places.push(start..content.len());
    }
    (content, places)
}

fn read_steps(octets: &[u8], range: std::ops::Range<usize>) -> Option<Vec<(Delta, std::ops::Range<usize>)>> {
    let mut steps = Vec::new();
    (*octets.get(range.start)? == STEPS).then_some(())?;
    let mut at = range.start + 1;
    while at < range.end {
        let len = octets.get(at..at + 4)?;
        let len = usize::try_from(u32::from_le_bytes(len.try_into().ok()?)).ok()?;
        let place = at + 4..(at + 4).checked_add(len).filter(|end| *end <= range.end)?;
        at = place.end;
        steps.push((Delta::read(&octets[place.clone()])?, place));
    }
    Some(steps)
}
