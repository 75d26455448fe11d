//! The audit log on disk: who changed what, and who was refused and why. Its form is `gateward_zone::audit`'s.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use gateward_zone::audit::{AuditEntry, GENESIS, append, verify};
use gateward_zone::{Change, Name};
use serde_json::Value;

use super::guard::principal;
use super::line::Line;
use super::proposal::{Actor, Refused};
use super::turn::{Accepted, millis};
use crate::folder::PRIVATE;

/// Octets at the end of the log in which its last line is looked for; a line shows at most 64 KiB of a change.
const TAIL: u64 = 1 << 20;

/// A log that is appended to.
pub struct AuditLog {
    path: PathBuf,
    end: Mutex<End>,
}

struct End {
    file: File,
    hash: String,
}

impl AuditLog {
    /// Opens the log and finds its end.
    ///
    /// # Errors
    /// It cannot be opened, or its last line is not one of a log.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(PRIVATE).open(path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        // A line without its end was torn by a crash.
        let whole = tail.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            file.set_len(from + whole as u64)?;
        }
        let hash = match tail[..whole].rsplit(|octet| *octet == b'\n').nth(1) {
            None => GENESIS.to_owned(),
            Some(line) => last_hash(line).ok_or_else(|| {
                let file = path.display();
                let text =
                    format!("{file}: the last line is not one of an audit log; move the file away to begin a new one");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?,
        };
        Ok(AuditLog { path: path.to_owned(), end: Mutex::new(End { file, hash }) })
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
        refused.diff = problems.iter().map(|problem| format!("! {}: {}\n", problem.rule, problem.message)).collect();
        self.append(&[refused]);
    }

    /// Notes something that is no change of records; `text` says what.
    pub(crate) fn note(&self, origin: &Name, actor: &Actor, action: &'static str, text: String) {
        let mut noted = entry(SystemTime::now(), actor, origin, action, &[]);
        noted.diff = text;
        self.append(&[noted]);
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
        match end.file.write_all(text.as_bytes()) {
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
    entry
}

/// The hash of a line that is whole.
fn last_hash(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    let previous = serde_json::from_str::<Value>(text).ok()?["previous"].as_str()?.to_owned();
    verify(&previous, [text]).ok()
}
