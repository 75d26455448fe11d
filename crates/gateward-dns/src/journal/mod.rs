//! The journal of a zone: every acknowledged change since its zone file was written, in the order in which they were made.
//!
//! A change is appended and synced before it is acknowledged; changes that wait together share one sync. The journal names the
//! version it starts from by a digest of its content, and each step names the digest it leads to: so the zone file may be any of these
//! versions, and a crash at any moment of rewriting the file or turning the journal over leaves a pair that fits. When it is long, the zone file
//! is written anew and the journal becomes part of the [`History`].

mod delta;
mod frame;
mod history;
mod segment;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::folder::{PUBLIC, sync_folder};

pub use delta::Delta;
pub use history::History;
use segment::Segment;
pub use segment::{Base, Entry};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system says no.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, #[source] io::Error),
    /// A part that was acknowledged cannot be read.
    #[error("{}: damaged at octet {offset}: changes that were acknowledged cannot be read", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the damage begins.
        offset: usize,
    },
    /// A write failed and could not be taken back.
    #[error("{path}: an earlier write failed; the zone file has to be written anew first", path = .0.display())]
    Broken(PathBuf),
    /// More than one frame can hold.
    #[error("the change is too large: {0} octets")]
    TooLarge(usize),
}

/// A journal that is open for appending.
#[derive(Debug)]
pub struct Journal {
    segment: Segment,
    file: File,
    end: u64,
    /// What is behind `end` is unknown: a write failed, and cutting it off failed too.
    is_broken: bool,
}

impl Journal {
    /// A new journal that starts from `base`; one that was there is replaced.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn create(path: &Path, base: Base) -> Result<Self, JournalError> {
        let failed = |error| JournalError::Io(path.to_owned(), error);
        let nonce = rand_nonce();
        let mut octets = frame::file_head(nonce);
        frame::put(nonce, &segment::base_content(base), &mut octets);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(PUBLIC)
            .open(path)
            .map_err(failed)?;
        file.write_all_at(&octets, 0).and_then(|()| file.sync_all()).map_err(failed)?;
        sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        let segment = Segment { path: path.to_owned(), nonce, base, entries: Vec::new() };
        Ok(Journal { segment, file, end: octets.len() as u64, is_broken: false })
    }

    /// Opens the journal at `path` and reads its steps. `None` when there is none, or nothing in it was acknowledged.
    ///
    /// A torn end is cut off.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when something else than the end cannot be read.
    pub fn open(path: &Path) -> Result<Option<(Self, Vec<Delta>)>, JournalError> {
        let Some((segment, deltas, end)) = Segment::read(path)? else { return Ok(None) };
        let failed = |error| JournalError::Io(path.to_owned(), error);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length > end as u64 {
            tracing::warn!(
                file = %path.display(), octets = length - end as u64,
                "the journal's end was torn by a crash and is cut off; nothing of it was acknowledged"
            );
            file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Ok(Some((Journal { segment, file, end: end as u64, is_broken: false }, deltas)))
    }

    /// Appends steps, all of them durable when it returns.
    ///
    /// # Errors
    /// None of them is there.
    pub fn append(&mut self, deltas: &[Delta]) -> Result<(), JournalError> {
        if self.is_broken {
            return Err(JournalError::Broken(self.segment.path.clone()));
        }
        let (content, places) = segment::steps_content(deltas);
        if content.len() > frame::MAX_CONTENT {
            return Err(JournalError::TooLarge(content.len()));
        }
        let mut octets = Vec::with_capacity(content.len() + 16);
        frame::put(self.segment.nonce, &content, &mut octets);
        let written = self.file.write_all_at(&octets, self.end).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // After a failed sync nobody knows what is on disk; without the frame it does not matter.
            self.is_broken = self.file.set_len(self.end).and_then(|()| self.file.sync_all()).is_err();
            return Err(JournalError::Io(self.segment.path.clone(), error));
        }
        self.segment.note(deltas, places, self.end);
        self.end += octets.len() as u64;
        Ok(())
    }

    /// Whether nothing can be appended any more, because a write failed and could not be taken back.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Octets of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// The version its last step led to.
    #[must_use]
    pub fn state(&self) -> Base {
        self.segment.last_state()
    }

    /// The version it starts from.
    #[must_use]
    pub fn base(&self) -> Base {
        self.segment.base
    }

    /// Its steps.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.segment.entries
    }
}

/// How many steps lead from the start to the version with `digest`; `None` when no step does. The latest such version counts.
#[must_use]
pub fn position(base: Base, deltas: &[Delta], digest: u128) -> Option<usize> {
    match deltas.iter().rposition(|delta| delta.digest == digest) {
        Some(index) => Some(index + 1),
        None => (base.digest == digest).then_some(0),
    }
}

/// A number that data inside a journal cannot foresee.
fn rand_nonce() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let number = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(number >> 32).expect("the upper half has 32 bits")
}

#[cfg(test)]
mod tests;
