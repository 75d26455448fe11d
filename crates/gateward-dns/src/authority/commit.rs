//! Making changes durable and serving them: journal, zone file, and the order of the two.
//!
//! A change of a zone that is there is durable with its journal's sync; the zone file follows when it can. A new zone is
//! durable with its zone file. At every moment the zone file or the good copy (`kept`) is one of the versions that the journal knows, so that a
//! crash between any two steps loses nothing.
//!
//! A zone file that looks different from when it was judged last, or includes a file that does, holds an edit of a person. It is never
//! overwritten: a change goes into the journal alone then, and what the edit means is decided when it is judged. The files of copies (`copies`)
//! are the server's alone.

use std::sync::Arc;
use std::time::SystemTime;

use gateward_zone::{ZoneView, render_zone};

use super::line::{Kind, Line, State};
use super::proposal::{Door, Refused};
use super::turn::{Accepted, millis};
use super::{Authority, copies, digest, text};
use crate::folder::{Included, PUBLIC, Stamp, remove_durably, replace_durably};
use crate::journal::{Base, Delta, Journal, JournalError};
use crate::store::Zone;

/// Octets of a journal for each record of its zone, from which on the zone file is written anew: about what a record takes in it.
const JOURNAL_BYTES_PER_RECORD: u64 = 64;

impl State {
    /// The version that is served, with its digest, which is made when nobody needed it before.
    pub(super) fn position(&mut self) -> Option<Base> {
        let zone = self.zone.as_ref()?;
        let digest = *self.digest.get_or_insert_with(|| digest::of_zone(&**zone));
        Some(Base { serial: zone.serial(), digest })
    }

    /// The zone file's content is the version `zone`, and it says `serial`.
    fn merged(&mut self, zone: &Zone, serial: Option<u32>) {
        self.unmerged = 0;
        self.file_serial = serial.or(Some(zone.serial()));
        self.file_digest = None;
        self.bad_file.clear();
    }

    /// Whether a zone file that looks like that may be replaced: what is in it is known. One that is gone has nothing to lose.
    /// That of a copy is the server's alone.
    fn may_replace(&self, line: &Line, stamp: Option<Stamp>) -> bool {
        stamp.is_none() || self.is_as_seen(stamp) || line.info.load().kind != Kind::Primary
    }

    /// Whether a zone file that looks like that is the one that was judged or written last, and all that it includes, too: an edit of a part that
    /// nobody judged yet would be lost with the line that includes it.
    fn is_as_seen(&self, stamp: Option<Stamp>) -> bool {
        stamp == self.seen && self.includes.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// The zone file was written, and looks like that.
    fn wrote(&mut self, stamp: Stamp, includes: Vec<Included>) {
        self.seen = Some(stamp);
        self.includes = includes;
    }
}

impl Authority {
    /// Stores and serves what was accepted.
    ///
    /// # Errors
    /// Nothing of it was stored.
    pub(super) fn commit(
        &self,
        line: &Line,
        state: &mut State,
        accepted: &mut Vec<Accepted>,
        now: SystemTime,
    ) -> Result<(), Refused> {
        let Some(first) = accepted.first() else { return Ok(()) };
        let is_fresh = state.zone.is_none() || !state.damaged.is_empty();
        let rest = if is_fresh {
            self.start_anew(line, state, first)?;
            &accepted[1..]
        } else {
            &accepted[..]
        };
        if let Err(error) = self.append(line, state, rest, now) {
            let failed = Refused::failed(error);
            if !is_fresh {
                return Err(failed);
            }
            // The first one is stored all the same.
            for good in accepted.drain(1..) {
                self.counts.bad(&failed);
                let _ = good.reply.map(|reply| reply.send(Err(failed.clone())));
            }
        }
        if let Some(last) = accepted.last() {
            state.zone = Some(last.next.clone());
            self.zones.put(last.next.clone());
        }
        // Who hears of a change looks at what is shown.
        Authority::show(line, state);
        self.tell_changes(line, accepted);
        Ok(())
    }

    /// A zone that was not there, or whose files were beyond repair, starts with its zone file.
    fn start_anew(&self, line: &Line, state: &mut State, first: &Accepted) -> Result<(), Refused> {
        let (path, dir) = (self.folder.zone_file(&line.origin), self.folder.versions_dir(&line.origin));
        let failed =
            |path: &std::path::Path, error| Refused::Failed(JournalError::Io(path.to_owned(), error).to_string());
        let (content, includes) = self.file_text(line, first);
        let written = replace_durably(&path, &content, PUBLIC, |stamp| state.may_replace(line, stamp));
        let Some(stamp) = written.map_err(|error| failed(&path, error))? else {
            let message = format!("there is a zone file of {} that the server has not read yet", line.origin);
            return Err(Refused::rule(
                "unread-file",
                message,
                "wait until it is read, at most half a minute, and try again",
            ));
        };
        state.wrote(stamp, includes);
        // A zone that was here before under that name is forgotten: its removal, which this one would be taken for, and its last good version,
        // which this one would be held against. Then the journal: until it is away, it says that something is wrong.
        for old in [self.folder.removal_file(&line.origin), self.folder.good_file(&line.origin)] {
            remove_durably(&old).map_err(|error| failed(&old, error))?;
        }
        let journal = self.folder.journal_file(&line.origin);
        state.history.set_aside(&dir, &journal).map_err(|error| failed(&journal, error))?;
        state.damaged.clear();
        state.digest = None;
        state.zone = Some(first.next.clone());
        state.merged(&first.next, None);
        state.lacks_copy = true;
        Ok(())
    }

    /// Writes steps to the journal, and zone files that came with them.
    fn append(
        &self,
        line: &Line,
        state: &mut State,
        accepted: &[Accepted],
        now: SystemTime,
    ) -> Result<(), JournalError> {
        let Some(base) = state.position() else { return Ok(()) };
        let mut digest = base.digest;
        let mut deltas: Vec<Delta> = Vec::new();
        for good in accepted.iter().filter(|good| !good.applied.changes.is_empty()) {
            digest = digest::after(digest, &good.applied.changes);
            deltas.push(Delta {
                from: good.from.unwrap_or(base.serial),
                to: good.next.serial(),
                time_ms: millis(now),
                actor: good.proposal.actor.to_string(),
                digest,
                changes: good.applied.changes.clone(),
            });
        }
        if !deltas.is_empty() {
            if state.history.journal.as_ref().is_some_and(Journal::is_broken) {
                self.merge(line, state)?;
            }
            if state.history.journal.is_none() {
                state.history.journal = Some(Journal::create(&self.folder.journal_file(&line.origin), base)?);
            }
            if let Some(journal) = &mut state.history.journal {
                journal.append(&deltas)?;
                self.counts.syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            if state.unmerged == 0 {
                state.file_digest = Some(base.digest);
            }
            state.digest = Some(digest);
        }
        let mut deltas = deltas.iter();
        let mut digest = base.digest;
        for good in accepted {
            if !good.applied.changes.is_empty() {
                state.unmerged += 1;
                digest = deltas.next().map_or(digest, |delta| delta.digest);
            }
            self.keep_file(line, state, good, digest);
        }
        Ok(())
    }

    /// The zone file after a change that came as one.
    fn keep_file(&self, line: &Line, state: &mut State, good: &Accepted, digest: u128) {
        let Some(stated) = good.proposal.stated.filter(|_| good.proposal.text.is_some()) else { return };
        if good.proposal.actor.door == Door::File {
            // It is there already, with the serial that it says.
            state.merged(&good.next, Some(stated));
            state.file_digest = Some(digest);
            return;
        }
        let (path, (content, includes)) = (self.folder.zone_file(&line.origin), self.file_text(line, good));
        match replace_durably(&path, &content, PUBLIC, |stamp| state.may_replace(line, stamp)) {
            Ok(Some(stamp)) => {
                state.wrote(stamp, includes);
                state.merged(&good.next, None);
                state.file_digest = Some(digest);
            }
            Ok(None) => tracing::warn!(
                file = %path.display(), actor = %good.proposal.actor,
                "the zone file was edited at the same time and is left as it is; the change is in the journal, and the edit is judged next"
            ),
            Err(error) => tracing::warn!(
                file = %path.display(), %error,
                "the zone file could not be written; the change is in the journal and the file follows later"
            ),
        }
    }

    /// What a zone file says after a change: the text that came with it, with what that includes, or the records.
    fn file_text(&self, line: &Line, good: &Accepted) -> (Vec<u8>, Vec<Included>) {
        let given = good.proposal.text.as_ref();
        let given = given.and_then(|text| text::with_serial_of(text, &line.origin, &good.next, &self.folder));
        if let Some(text) = given {
            return (text, good.proposal.includes.clone());
        }
        let records = match line.info.load().kind {
            Kind::Primary => render_zone(&*good.next).into_bytes(),
            Kind::Secondary | Kind::Catalog => copies::file_text(&good.next),
        };
        (records, Vec::new())
    }

    /// Writes the zone file anew when the journal is long.
    pub(super) fn merge_if_long(&self, line: &Line, state: &mut State) {
        let (Some(journal), Some(zone)) = (&state.history.journal, &state.zone) else { return };
        let bytes = journal.bytes();
        let long = self.options.journal_bytes.max(zone.record_count() as u64 * JOURNAL_BYTES_PER_RECORD);
        if bytes < long.max(state.retry_at_bytes) {
            return;
        }
        match self.merge(line, state) {
            Ok(()) => state.retry_at_bytes = 0,
            Err(error) => {
                state.retry_at_bytes = bytes * 2;
                tracing::warn!(zone = %line.origin, %error, "the journal could not be merged into the zone file; it goes on");
            }
        }
    }

    /// The journal becomes part of the past: the zone file is the version that is served from then on, and so is the good copy. Where somebody is
    /// at work on the zone file, the good copy alone.
    pub(super) fn merge(&self, line: &Line, state: &mut State) -> Result<(), JournalError> {
        let Some(zone) = state.zone.clone() else { return Ok(()) };
        if state.bad_file.is_empty() && (state.unmerged > 0 || state.file_serial != Some(zone.serial())) {
            let path = self.folder.zone_file(&line.origin);
            let (content, is_copy) = match line.info.load().kind {
                Kind::Primary => (rendered(&zone), false),
                Kind::Secondary | Kind::Catalog => (copies::file_text(&zone), true),
            };
            // One that is gone is about to be judged, too; but nobody judges what others make of a copy's.
            let written = replace_durably(&path, &content, PUBLIC, |stamp| is_copy || state.is_as_seen(stamp));
            if let Some(stamp) = written.map_err(|error| JournalError::Io(path, error))? {
                state.wrote(stamp, Vec::new());
                state.merged(&zone, None);
            }
        }
        // Before the journal moves: what the zone is now follows from the copy alone then.
        self.keep_good(state).map_err(|error| JournalError::Io(self.folder.good_file(&line.origin), error))?;
        state.history.turn_over(&self.folder.versions_dir(&line.origin), self.options.versions)
    }
}

fn rendered(zone: &Arc<Zone>) -> Vec<u8> {
    let mut text = String::from(
        "; Written by gateward dns, which merged the changes that were made by API, updates and leases.\n",
    );
    text.push_str(&render_zone(&**zone));
    text.into_bytes()
}
