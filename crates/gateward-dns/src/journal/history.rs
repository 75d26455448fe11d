//! What became of a zone: the steps of its journal and of those before it, for transfers of differences and for going back.
//!
//! Journals that were turned over are kept as they are, as long as the newer ones have fewer than the wanted number of steps. They are
//! read when somebody asks.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::delta::Delta;
use super::segment::{Base, Entry, Segment};
use super::{Journal, JournalError};
use crate::folder::{make_folder, move_durably, sweep};

/// Steps of a zone, the newest in a journal that is open.
#[derive(Debug, Default)]
pub struct History {
    /// The journal; `None` when nothing changed since the zone file was written.
    pub journal: Option<Journal>,
    /// Journals before it, the oldest first; `None` until they are read.
    older: Option<VecDeque<Segment>>,
}

impl History {
    /// A history that ends with `journal`.
    #[must_use]
    pub fn new(journal: Option<Journal>) -> Self {
        History { journal, older: None }
    }

    /// Makes the journal part of the past: it moves into `dir`, where as many of the older ones are kept as are needed for `keep` steps.
    ///
    /// # Errors
    /// It is where it was.
    pub fn turn_over(&mut self, dir: &Path, keep: usize) -> Result<(), JournalError> {
        let Some(base) = self.journal.as_ref().map(Journal::base) else { return Ok(()) };
        self.load(dir, base);
        let failed = |error| JournalError::Io(dir.to_owned(), error);
        make_folder(dir).map_err(failed)?;
        sweep(dir);
        let number = numbers(dir).map_err(failed)?.last().map_or(1, |last| last + 1);
        let path = segment_path(dir, number);
        let older = self.older.get_or_insert_default();
        if let Some(mut journal) = self.journal.take() {
            let moved = move_durably(&journal.segment.path, &path);
            // It may have moved although that is not durable yet.
            if !path.exists() {
                self.journal = Some(journal);
                return moved.map(drop).map_err(failed);
            }
            journal.segment.path = path;
            older.push_back(journal.segment);
            moved.map_err(failed)?;
        }
        let mut steps: usize = older.iter().map(|segment| segment.entries.len()).sum();
        while let Some(oldest) = older.front().filter(|oldest| steps - oldest.entries.len() >= keep) {
            steps -= oldest.entries.len();
            // One that stays is in nobody's way.
            let _ = fs::remove_file(&oldest.path);
            older.pop_front();
        }
        Ok(())
    }

    /// Forgets the past, which does not lead to the present any more: the journal moves away, where people find it.
    ///
    /// # Errors
    /// It is where it was.
    pub fn set_aside(&mut self, dir: &Path, journal_file: &Path) -> io::Result<()> {
        self.journal = None;
        self.older = Some(VecDeque::new());
        make_folder(dir)?;
        for number in numbers(dir)? {
            fs::remove_file(segment_path(dir, number))?;
        }
        move_durably(journal_file, &dir.join("set-aside.journal")).map(drop)
    }

    /// All steps that lead to `now`, the oldest first.
    pub fn entries(&mut self, dir: &Path, now: Base) -> Vec<Entry> {
        let base = self.journal.as_ref().map_or(now, Journal::base);
        self.load(dir, base);
        let older = self.older.iter().flatten().flat_map(|segment| &segment.entries);
        older.chain(self.journal.iter().flat_map(Journal::entries)).cloned().collect()
    }

    /// The steps from the version `from` to `now`, if it is known and they have at most `max_changes` records together.
    ///
    /// # Errors
    /// A journal cannot be read any more.
    pub fn differences(
        &mut self,
        dir: &Path,
        now: Base,
        from: u32,
        max_changes: u64,
    ) -> Result<Option<Vec<Delta>>, JournalError> {
        let entries = self.entries(dir, now);
        let Some(start) = entries.iter().rposition(|entry| entry.from == from) else { return Ok(None) };
        let changes: u64 = entries[start..].iter().map(|entry| u64::from(entry.added) + u64::from(entry.removed)).sum();
        if changes > max_changes {
            return Ok(None);
        }
        let mut deltas = Vec::with_capacity(entries.len() - start);
        let mut skip = start;
        for segment in self.older.iter().flatten() {
            let wanted = skip.min(segment.entries.len())..segment.entries.len();
            skip -= wanted.start;
            if !wanted.is_empty() {
                let file = File::open(&segment.path).map_err(|error| JournalError::Io(segment.path.clone(), error))?;
                for index in wanted {
                    deltas.push(segment.delta(&file, index)?);
                }
            }
        }
        if let Some(journal) = &self.journal {
            for index in skip..journal.segment.entries.len() {
                deltas.push(journal.segment.delta(&journal.file, index)?);
            }
        }
        Ok(Some(deltas))
    }

    /// Reads the older journals that lead to `base`.
    fn load(&mut self, dir: &Path, base: Base) {
        if self.older.is_some() {
            return;
        }
        let mut older = VecDeque::new();
        let mut next = base;
        for number in numbers(dir).unwrap_or_default().into_iter().rev() {
            let path = segment_path(dir, number);
            match Segment::read(&path) {
                Ok(Some((segment, _, _))) if segment.last_state() == next => {
                    next = segment.base;
                    older.push_front(segment);
                }
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "versions before this file are not available");
                    break;
                }
            }
        }
        self.older = Some(older);
    }
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.journal"))
}

/// The numbers of the journals in a folder, in their order.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".journal")?.parse::<u64>().ok();
    let mut numbers: Vec<u64> = files.filter_map(|file| number(file.ok()?.file_name())).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
