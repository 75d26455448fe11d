//! A zone from its files: zone file, journal, policy, good copy. What does not fit together is said, and the last good version served.
//!
//! A zone file that was edited or removed while the server was down is no different from one that is while it runs: the last good version is
//! served first, and the edit is proposed as a change of it, with all rules (`file`).

use std::io;
use std::sync::{Arc, PoisonError};

use gateward_zone::{Name, Problem, Rtype, ZoneText, ZoneView, is_newer, with_serial};

use super::kept::Kept;
use super::line::{Kind, Line, State};
use super::proposal::Refused;
use super::turn::conflict;
use super::{Authority, copies, digest, plan, problem, text};
use crate::folder::{Included, Stamp, read_stamped, remove_durably};
use crate::journal::{Delta, History, Journal, JournalError, position};
use crate::store::{Zone, ZoneError};

/// What came of looking at a zone's files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Everything that is wrong; the version before is served, if there is one.
    pub problems: Vec<Problem>,
    /// Files that the zone file includes.
    pub includes: Vec<Included>,
    /// There is more to take over: the zone has to be looked at again.
    pub again: bool,
}

/// A zone that was read, and is not served yet.
pub struct Prepared(Arc<Line>);

/// A journal with its steps.
type Steps = (Journal, Vec<Delta>);

impl Authority {
    /// Reads a zone from its files at the start, before anybody else asks for it. Nothing is served yet.
    #[must_use]
    pub fn prepare(&self, origin: &Name) -> (Prepared, Loaded) {
        let (mut state, mut loaded) = (State::new(), Loaded::default());
        let line = Line::new(origin.clone(), self.first_info(origin), State::new());
        let read = std::panic::AssertUnwindSafe(|| {
            self.take_policy(&line, &mut state, self.read_policy(origin));
            self.read(&line, &mut state, &mut loaded);
        });
        if std::panic::catch_unwind(read).is_err() {
            state = State::new();
            state.bad_file = vec![panicked(origin)];
            loaded.problems.extend(state.bad_file.iter().cloned());
            Authority::show(&line, &state);
        }
        loaded.problems.extend(state.bad_policy.iter().cloned());
        loaded.again |= state.is_unjudged;
        *line.state() = state;
        (Prepared(Arc::new(line)), loaded)
    }

    /// Serves zones that were read.
    pub fn adopt(&self, prepared: Vec<Prepared>) {
        let mut zones = Vec::with_capacity(prepared.len());
        for Prepared(line) in &prepared {
            let state = line.state();
            match &state.zone {
                Some(zone) => zones.push(zone.clone()),
                None if line.info.load().is_here => self.zones.put_empty(&line.origin),
                // What was left of a removed zone is put away.
                None => {}
            }
        }
        self.zones.put_all(zones);
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        let here = prepared.into_iter().filter(|Prepared(line)| line.info.load().is_here);
        lines.extend(here.map(|Prepared(line)| (line.origin.clone(), line)));
    }

    /// The zone as its files say it, or the last good version where they cannot or must not be used as they are. The file of a copy is nobody's to
    /// edit: it is written anew then, and nothing is left to be judged.
    pub(super) fn read(&self, line: &Line, state: &mut State, loaded: &mut Loaded) {
        let origin = &line.origin;
        let is_copy = line.info.load().kind != Kind::Primary;
        let file = if is_copy { self.read_copy(origin, state) } else { self.read_file(origin, state, loaded) };
        let is_lost = !matches!(file, Ok(Some(_)));
        if self.folder.removal_file(origin).exists() {
            self.settle_removal(origin, state, matches!(file, Ok(None)));
        }
        match (file, Journal::open(&self.folder.journal_file(origin))) {
            (file, Err(error)) => self.read_damaged(origin, state, loaded, file, &error),
            (Ok(None), Ok(journal)) => self.miss_file(origin, state, journal),
            (Ok(Some(zone)), Ok(None)) if is_copy => take_as_it_is(state, loaded, zone),
            (Ok(Some(zone)), Ok(None)) => self.hold_against_copy(origin, state, loaded, zone),
            (Ok(Some(zone)), Ok(Some(journal))) => self.hold_against_journal(line, state, loaded, zone, journal),
            (Err(problems), Ok(journal)) => {
                state.bad_file = problems;
                self.fall_back(origin, state, journal);
                let served = state.zone.as_ref().map(|zone| zone.serial());
                tracing::error!(zone = %origin, ?served, "the zone file cannot be used; the last good version is served, if there is one");
            }
        }
        loaded.problems.extend(state.damaged.iter().chain(&state.bad_file).cloned());
        if is_copy && (is_lost || state.is_unjudged) {
            if is_lost && state.zone.is_some() && state.bad_file.is_empty() {
                loaded.problems.push(copies::edited(&file_name(origin, self)));
            }
            return self.mend_copy(line, state, loaded);
        }
        state.is_unjudged &= state.zone.is_some();
        if state.is_unjudged {
            // Nobody has decided about it: nothing may overwrite it.
            state.seen = None;
        }
        if state.zone.is_none() && state.bad_file.is_empty() && !loaded.problems.is_empty() {
            state.bad_file.clone_from(&loaded.problems);
        }
        Authority::show(line, state);
    }

    /// The zone file's records; `Ok(None)` when there is no file.
    fn read_file(
        &self,
        origin: &Name,
        state: &mut State,
        loaded: &mut Loaded,
    ) -> Result<Option<ZoneText>, Vec<Problem>> {
        let (path, name) = (self.folder.zone_file(origin), file_name(origin, self));
        state.seen = Stamp::of(&path);
        state.includes.clear();
        let text = match read_stamped(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(vec![unreadable(&name, &error)]),
            Ok((text, stamp)) => {
                state.seen = Some(stamp);
                text
            }
        };
        let (zone, includes) = match text::parse(&text, origin, &name, &self.folder) {
            Ok(parsed) => (Ok(Some(parsed.zone)), parsed.includes),
            Err((problems, includes)) => (Err(problems.into_iter().filter(Problem::is_error).collect()), includes),
        };
        state.includes.clone_from(&includes);
        loaded.includes = includes;
        zone
    }

    /// What was acknowledged cannot be read: the zone file is better than nothing, and the good copy better than no zone file.
    fn read_damaged(
        &self,
        origin: &Name,
        state: &mut State,
        loaded: &mut Loaded,
        file: Result<Option<ZoneText>, Vec<Problem>>,
        error: &JournalError,
    ) {
        state.damaged = vec![damage(error)];
        state.digest = None;
        match file {
            Ok(Some(zone)) => state.zone = taken(build(zone), loaded),
            Ok(None) => state.zone = self.recall(origin, None).map(|last| last.zone),
            Err(problems) => state.bad_file = problems,
        }
    }

    /// There is no zone file. A zone that was served until now is judged as it is, whatever else is gone.
    fn miss_file(&self, origin: &Name, state: &mut State, journal: Option<Steps>) {
        state.is_unjudged = state.zone.is_some();
        if !self.folder.good_file(origin).exists() && journal.is_none() {
            (state.history, state.digest) = (History::default(), None);
            return;
        }
        match self.recall(origin, journal.as_ref()) {
            Some(last) => {
                tracing::error!(
                    zone = %origin, serial = last.zone.serial(),
                    "the zone file is gone; the zone is made from the good copy and the journal, until it is decided whether it may go"
                );
                state.take_last(last);
                state.is_unjudged = true;
                state.history = History::new(journal.map(|(journal, _)| journal));
            }
            None => {
                tracing::error!(
                    zone = %origin,
                    "there are changes of a zone in the journal, but neither its zone file nor a good copy; they are put away in .versions"
                );
                let (dir, journal) = (self.folder.versions_dir(origin), self.folder.journal_file(origin));
                if let Err(error) = state.history.set_aside(&dir, &journal) {
                    tracing::warn!(zone = %origin, %error, "a journal without its zone cannot be put away");
                }
            }
        }
    }

    /// A zone file without a journal: as it was when the good copy was made, or edited since.
    fn hold_against_copy(&self, origin: &Name, state: &mut State, loaded: &mut Loaded, zone: ZoneText) {
        let (digest, stated) = (digest::of_zone(&zone), zone.serial());
        let kept = self.kept(origin);
        let is_whole = kept == Some(Kept { digest, serial: stated, steps: 0, version: stated });
        let last = if is_whole { None } else { self.recall(origin, None) };
        let Some(last) = last else {
            if !is_whole && self.folder.good_file(origin).exists() {
                tracing::error!(zone = %origin, "the good copy cannot be used; the zone file counts, and no guardrail was asked");
            }
            return take_as_it_is(state, loaded, zone);
        };
        state.is_unjudged = (last.kept.digest, last.kept.serial) != (digest, stated);
        state.take_last(last);
        self.say_edited(origin, state, stated);
    }

    /// Zone file and journal: the file is one of the versions that are known, or somebody edited it meanwhile.
    fn hold_against_journal(
        &self,
        line: &Line,
        state: &mut State,
        loaded: &mut Loaded,
        zone: ZoneText,
        (journal, deltas): Steps,
    ) {
        let origin = &line.origin;
        let (digest, stated, last) = (digest::of_zone(&zone), zone.serial(), journal.state().serial);
        if let Some(at) = position(journal.base(), &deltas, digest) {
            let known = if at == 0 { journal.base().serial } else { deltas[at - 1].to };
            // With a serial above all others it is to be the last word.
            state.is_unjudged = is_newer(stated, last);
            state.zone = taken(replay(zone, &journal, &deltas, at), loaded);
            state.unmerged = (deltas.len() - at) as u64;
            state.file_serial = Some(if state.is_unjudged { known } else { stated });
            state.file_digest = Some(digest);
            state.digest = Some(journal.state().digest);
            state.history = History::new(Some(journal));
            if state.unmerged > 0 && !state.is_unjudged {
                tracing::info!(zone = %origin, file = stated, journal = last, changes = state.unmerged, "the journal is ahead of the zone file and counts");
            }
            return self.say_edited(origin, state, stated);
        }
        let steps = (journal, deltas);
        if let Some(found) = self.recall(origin, Some(&steps)) {
            state.is_unjudged = (found.kept.digest, found.kept.serial) != (digest, stated);
            state.take_last(found);
            state.history = History::new(Some(steps.0));
            return self.say_edited(origin, state, stated);
        }
        if is_newer(stated, last) {
            tracing::error!(
                zone = %origin, file = stated, journal = last,
                "the zone file was edited and has a higher serial than the journal; without a good copy no guardrail could be asked. The \
                 file counts, and the journal is put away in .versions"
            );
            let (dir, file) = (self.folder.versions_dir(origin), self.folder.journal_file(origin));
            if let Err(error) = state.history.set_aside(&dir, &file) {
                let message = format!("the journal cannot be put away: {error}");
                state.damaged = vec![problem("journal", message, "look at the disk, then send SIGHUP")];
            }
            state.file_serial = Some(stated);
            state.zone = taken(build(zone), loaded);
        } else {
            state.bad_file = vec![conflict(stated, last, steps.1.len() as u64)];
            state.history = History::new(Some(steps.0));
        }
    }

    fn say_edited(&self, origin: &Name, state: &State, stated: u32) {
        if state.is_unjudged {
            let last = state.zone.as_ref().map(|zone| zone.serial());
            tracing::warn!(
                zone = %origin, file = stated, ?last,
                "the zone file was edited while nobody looked; it is judged as a change of the last good version"
            );
        }
    }

    /// The zone file cannot be used: the copy from when it could, with the journal.
    fn fall_back(&self, origin: &Name, state: &mut State, journal: Option<Steps>) {
        if let Some(last) = self.recall(origin, journal.as_ref()) {
            state.take_last(last);
        }
        state.history = History::new(journal.map(|(journal, _)| journal));
    }

    /// A removal was under way when the server ended: it is finished where the zone file is gone, and did not happen otherwise.
    fn settle_removal(&self, origin: &Name, state: &mut State, is_gone: bool) {
        let settled = if is_gone {
            tracing::warn!(zone = %origin, "the zone was being removed when the server ended; what is left of it is put away");
            self.sweep_removed(origin, state)
        } else {
            tracing::warn!(zone = %origin, "the zone was about to be removed when the server ended; it is still there");
            remove_durably(&self.folder.removal_file(origin))
        };
        if let Err(error) = settled {
            tracing::warn!(zone = %origin, %error, "files of a removed zone are left over");
        }
    }
}

/// A version that the journal knows, and the steps behind it.
pub(super) fn replay(zone: ZoneText, journal: &Journal, deltas: &[Delta], at: usize) -> Result<Arc<Zone>, ZoneError> {
    let origin = zone.origin().clone();
    let serial = if at == 0 { journal.base().serial } else { deltas[at - 1].to };
    let mut records = zone.into_records();
    for record in records.iter_mut().filter(|record| record.rtype == Rtype::SOA) {
        record.rdata = with_serial(&record.rdata, serial).unwrap_or_else(|| record.rdata.clone());
    }
    let changes: Vec<_> = deltas[at..].iter().flat_map(|delta| &delta.changes).cloned().collect();
    let zone = Zone::build(&origin, records)?;
    if changes.is_empty() { Ok(Arc::new(zone)) } else { zone.with(&changes).map(Arc::new) }
}

/// Nothing is known that a zone file could be held against.
fn take_as_it_is(state: &mut State, loaded: &mut Loaded, zone: ZoneText) {
    state.file_serial = Some(zone.serial());
    state.digest = Some(digest::of_zone(&zone));
    state.zone = taken(build(zone), loaded);
}

pub(super) fn build(zone: ZoneText) -> Result<Arc<Zone>, ZoneError> {
    let origin = zone.origin().clone();
    Zone::build(&origin, zone.into_records()).map(Arc::new)
}

fn taken(built: Result<Arc<Zone>, ZoneError>, loaded: &mut Loaded) -> Option<Arc<Zone>> {
    built
        .inspect_err(|error| {
            if let Refused::Rules(problems) = plan::refused(error) {
                loaded.problems.extend(problems);
            }
        })
        .ok()
}

pub(super) fn file_name(origin: &Name, authority: &Authority) -> String {
    let path = authority.folder.zone_file(origin);
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(super) fn panicked(origin: &Name) -> Problem {
    problem("internal", format!("reading the zone {origin} ended in a panic"), "report it with the zone file")
}

pub(super) fn unreadable(file: &str, error: &io::Error) -> Problem {
    problem("unreadable", format!("{file} cannot be read: {error}"), "give the server's user the right to read it")
}

fn damage(error: &JournalError) -> Problem {
    problem(
        "journal",
        error.to_string(),
        "bring the file back from a backup and send SIGHUP; or move it away and send SIGHUP to go on with the zone file, without the changes \
         that were acknowledged since it was written",
    )
}
