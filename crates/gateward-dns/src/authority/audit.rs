//! The audit log on disk: who changed what, and who was refused and why. Its form is `gateward_zone::audit`'s.
//!
//! A line that was not written whole is cut off before the next one is written, so that the chain of hashes never goes on behind it: at the
//! start when a crash tore it, at once or with the next entry when the disk was full.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use gateward_zone::audit::{AuditEntry, GENESIS, MAX_DIFF_BYTES, append, verify};
use gateward_zone::{Change, Name};
use serde_json::Value;

use super::guard::{Allowed, principal};
use super::line::Line;
use super::proposal::{Actor, Refused};
use super::turn::{Accepted, millis};
use crate::folder::PRIVATE;

/// Octets at the end of the log in which its last line is looked for at first; further back when it is longer.
const TAIL: u64 = 1 << 16;
/// Octets of a torn line that the program's log shows.
const SHOWN: usize = 1_024;

/// A log that is appended to.
pub struct AuditLog {
    path: PathBuf,
    end: Mutex<End>,
}

struct End {
    file: File,
    hash: String,
    /// Where the last whole line ends.
    length: u64,
    /// Something may be behind `length`: a write failed, and taking it back failed, too.
    is_torn: bool,
}

impl AuditLog {
    /// Opens the log, finds its end, and cuts off a line that a crash tore.
    ///
    /// # Errors
    /// It cannot be opened, or its last line is not one of a log.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(PRIVATE).open(path)?;
        let (line, torn) = last_lines(&mut file)?;
        let length = file.metadata()?.len() - torn.len() as u64;
        if !torn.is_empty() {
            let shown = String::from_utf8_lossy(&torn[..torn.len().min(SHOWN)]);
            tracing::error!(
                file = %path.display(), octets = torn.len(), torn = %shown,
                "the last line of the audit log was torn by a crash and is cut off; its change is in the zone's journal, if it was made"
            );
            file.set_len(length)?;
            file.sync_all()?;
        }
        let hash = match line {
            None => GENESIS.to_owned(),
            Some(line) => last_hash(&line).ok_or_else(|| {
                let file = path.display();
                let text =
                    format!("{file}: the last line is not one of an audit log; move the file away to begin a new one");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?,
        };
        let end = End { file, hash, length, is_torn: false };
        Ok(AuditLog { path: path.to_owned(), end: Mutex::new(end) })
    }

    /// Notes changes of a zone that were made.
    pub(super) fn changes(&self, line: &Line, accepted: &[Accepted], now: SystemTime) {
        let made = accepted.iter().filter(|good| !good.applied.changes.is_empty());
        let entries = made.map(|good| {
            let action = if good.applied.is_new { "create" } else { good.proposal.action };
            entry(now, &good.proposal.actor, &line.origin, action, &good.applied.changes)
                .serials(good.from, Some(good.applied.serial))
                .forced(&good.allowed.overridden, good.allowed.force.as_ref())
        });
        self.append(&entries.collect::<Vec<_>>());
    }

    /// Notes that a change was refused for its content.
    pub(super) fn refusal(&self, line: &Line, actor: &Actor, error: &Refused, now: SystemTime) {
        let Refused::Rules(problems) = error else { return };
        let mut refused = entry(now, actor, &line.origin, "refuse", &[]);
        let reasons = problems.iter().map(|problem| format!("! {}: {}\n", problem.rule, problem.message)).collect();
        refused.diff = shortened(reasons);
        self.append(&[refused]);
    }

    /// Notes something that is no change of records; `text` says what.
    pub(crate) fn note(&self, origin: &Name, actor: &Actor, action: &'static str, text: String) {
        let mut noted = entry(SystemTime::now(), actor, origin, action, &[]);
        noted.diff = shortened(text);
        self.append(&[noted]);
    }

    /// Notes that the policy of a zone was replaced.
    pub(super) fn policy(&self, line: &Line, actor: &Actor, text: &[u8], allowed: &Allowed, now: SystemTime) {
        let mut noted = entry(now, actor, &line.origin, "policy", &[]);
        noted.changes = gateward_zone::policy::digest(&line.origin, text);
        noted.diff = shortened(String::from_utf8_lossy(text).into_owned());
        self.append(&[noted.forced(&allowed.overridden, allowed.force.as_ref())]);
    }

    pub(super) fn append(&self, entries: &[AuditEntry]) {
        if entries.is_empty() {
            return;
        }
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut hash, mut text) = (end.hash.clone(), String::new());
        for entry in entries {
            let line = append(&hash, entry);
            text.push_str(&line.line);
            text.push('\n');
            hash = line.hash;
        }
        match end.write(text.as_bytes()) {
            Ok(()) => end.hash = hash,
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, lost = text, "the audit log cannot be written");
            }
        }
    }

    /// Lines behind number `after` (the first has 1), of one zone or of all, with their numbers; at most `most`.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn read(&self, origin: Option<&Name>, after: u64, most: usize) -> io::Result<Vec<(u64, Value)>> {
        let wanted = origin.map(|origin| format!("\"zone\":{}", Value::from(origin.to_string())));
        let mut found = Vec::new();
        for (number, line) in (1..).zip(BufReader::new(File::open(&self.path)?).lines()) {
            let line = line?;
            if number > after && wanted.as_ref().is_none_or(|wanted| line.contains(wanted)) {
                found.extend(serde_json::from_str(&line).ok().map(|entry| (number, entry)));
            }
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }
}

impl End {
    /// Appends whole lines, or nothing.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.length)?;
            self.is_torn = false;
        }
        if let Err(error) = self.file.write_all(lines) {
            // Without what was written of it, or not before that is gone, the next line may follow.
            self.is_torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.length += lines.len() as u64;
        Ok(())
    }
}

/// The last whole line, if there is one, and what is behind it.
fn last_lines(file: &mut File) -> io::Result<(Option<Vec<u8>>, Vec<u8>)> {
    let length = file.metadata()?.len();
    let mut wanted = TAIL;
    loop {
        let from = length.saturating_sub(wanted);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        Read::by_ref(file).take(wanted).read_to_end(&mut tail)?;
        let mut breaks = tail.iter().enumerate().rev().filter(|(_, octet)| **octet == b'\n').map(|(at, _)| at);
        let (last, before) = (breaks.next(), breaks.next());
        // The line is whole if the end of the one before is in sight, or the beginning of the file.
        if from == 0 || before.is_some() {
            let line = last.map(|last| tail[before.map_or(0, |before| before + 1)..last].to_vec());
            return Ok((line, tail.split_off(last.map_or(0, |last| last + 1))));
        }
        wanted *= 4;
    }
}

/// A text that fits into a line.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_DIFF_BYTES {
        let more = text.len() - MAX_DIFF_BYTES;
        text.truncate(text.floor_char_boundary(MAX_DIFF_BYTES));
        text.push_str(&format!("... and {more} more octets\n"));
    }
    text
}

/// An entry, with the door as its kind.
pub(super) fn entry(
    now: SystemTime,
    actor: &Actor,
    origin: &Name,
    action: &'static str,
    changes: &[Change],
) -> AuditEntry {
    let seconds = i64::try_from(millis(now) / 1_000).unwrap_or(i64::MAX);
    let mut entry = AuditEntry::new(seconds, &principal(actor), origin, action, changes);
    entry.kind = actor.door.as_str();
    // With the plan that somebody runs.
    entry.actor.clone_from(&actor.name);
    entry
}

/// The hash of a line that is whole.
fn last_hash(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    let previous = serde_json::from_str::<Value>(text).ok()?["previous"].as_str()?.to_owned();
    verify(&previous, [text]).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::authority::Door;

    struct Log(PathBuf);

    impl Log {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gateward-audit-{name}-{}", std::process::id()));
            let _ = fs::remove_file(&path);
            Log(path)
        }

        fn note(log: &AuditLog, text: &str) {
            let origin = "example.com".parse().expect("a name");
            log.note(&origin, &Actor::new(Door::Api, "test"), "policy", text.to_owned());
        }

        /// The number of lines, which follow one another.
        fn verified(&self) -> usize {
            let text = fs::read_to_string(&self.0).expect("it is there");
            verify(GENESIS, text.lines()).expect("an unbroken chain");
            text.lines().count()
        }
    }

    impl Drop for Log {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn wherever_a_crash_tears_the_last_line_the_chain_goes_on_behind_whole_ones() {
        let log = Log::new("torn");
        for text in ["a", "b", "c"] {
            Log::note(&AuditLog::open(&log.0).unwrap(), text);
        }
        let whole = fs::read(&log.0).unwrap();
        let second = whole.iter().enumerate().filter(|(_, octet)| **octet == b'\n').nth(1).unwrap().0 + 1;
        for cut in (0..whole.len()).step_by(7).chain([second, whole.len() - 1]) {
            fs::write(&log.0, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|octet| **octet == b'\n').count();
            Log::note(&AuditLog::open(&log.0).unwrap(), "next");
            assert_eq!(log.verified(), lines + 1, "cut at {cut}");
        }
        fs::write(&log.0, [&whole[..], b"what is no line\n"].concat()).unwrap();
        assert!(AuditLog::open(&log.0).is_err(), "that is not what a crash does");
    }

    #[test]
    fn long_lines_are_bounded_and_found() {
        let log = Log::new("long");
        Log::note(&AuditLog::open(&log.0).unwrap(), &"\u{1}".repeat(1 << 20));
        assert!(fs::metadata(&log.0).unwrap().len() > 4 * TAIL, "a character may take six octets");
        Log::note(&AuditLog::open(&log.0).unwrap(), "next");
        assert_eq!(log.verified(), 2);
    }

    #[test]
    fn a_write_that_failed_in_the_middle_leaves_no_part_of_a_line() {
        let log = Log::new("short");
        let audit = AuditLog::open(&log.0).unwrap();
        Log::note(&audit, "a");
        {
            // As after a full disk: some octets came through, and could not be taken back.
            let mut end = audit.end.lock().unwrap();
            end.file.write_all(b"{\"previous\":\"12").unwrap();
            end.is_torn = true;
        }
        Log::note(&audit, "b");
        assert_eq!(log.verified(), 2);
        // Nothing can be written at all: the next line follows the last one that is there.
        let readable = File::open(&log.0).unwrap();
        let writable = std::mem::replace(&mut audit.end.lock().unwrap().file, readable);
        Log::note(&audit, "lost");
        audit.end.lock().unwrap().file = writable;
        Log::note(&audit, "c");
        assert_eq!(log.verified(), 3);
    }
}
