//! A zone from its files: zone file, journal, policy. What does not fit together is said, and the last good version served.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use gateward_zone::policy::Policy;
use gateward_zone::{Name, Problem, Rtype, ZoneText, ZoneView, is_newer, parse_zone, with_serial};

use super::line::{Info, Line, State};
use super::proposal::{Actor, Base, Door, Edit, Proposal, Refused};
use super::turn::conflict;
use super::{Authority, Happened, digest, plan, problem, text};
use crate::folder::read_bounded;
use crate::journal::{Delta, History, Journal, JournalError, position};
use crate::store::Zone;

/// What came of looking at a zone's files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Everything that is wrong; the version before is served, if there is one.
    pub problems: Vec<Problem>,
    /// Files that the zone file includes.
    pub includes: Vec<PathBuf>,
}

/// A zone that was read, and is not served yet.
pub struct Prepared(Arc<Line>);

/// What to do about a zone file after a first look.
enum Look {
    Done(Loaded),
    Read,
}

impl Authority {
    /// Reads a zone from its files at the start, before anybody else asks for it. Nothing is served yet.
    #[must_use]
    pub fn prepare(&self, origin: &Name) -> (Prepared, Loaded) {
        let (mut state, mut loaded) = (State::new(), Loaded::default());
        let line = Line::new(origin.clone(), Info::default(), State::new());
        self.take_policy(&line, &mut state, self.read_policy(origin));
        let read = std::panic::AssertUnwindSafe(|| self.read(&line, &mut state, &mut loaded));
        if std::panic::catch_unwind(read).is_err() {
            state = State::new();
            state.bad_file = vec![problem(
                "internal",
                format!("reading the zone {origin} ended in a panic"),
                "report it with the zone file",
            )];
            loaded.problems.extend(state.bad_file.iter().cloned());
            Authority::show(&line, &state);
        }
        loaded.problems.extend(state.bad_policy.iter().cloned());
        *line.state() = state;
        (Prepared(Arc::new(line)), loaded)
    }

    /// Serves zones that were read.
    pub fn adopt(&self, prepared: Vec<Prepared>) {
        let mut zones = Vec::with_capacity(prepared.len());
        for Prepared(line) in &prepared {
            match &line.state().zone {
                Some(zone) => zones.push(zone.clone()),
                None => self.zones.put_empty(&line.origin),
            }
        }
        self.zones.put_all(zones);
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.extend(prepared.into_iter().map(|Prepared(line)| (line.origin.clone(), line)));
    }

    /// Looks at a zone's files again, and takes what changed. Waits for the zone's turn.
    pub fn reload(&self, origin: &Name) -> Loaded {
        let look = self.in_turn_blocking(origin, Authority::first_look);
        match look.unwrap_or_else(|| Look::Done(Loaded::default())) {
            Look::Done(loaded) => loaded,
            Look::Read => self.take_file(origin),
        }
    }

    /// Policy and absence of the zone file; the whole zone when nothing good is served.
    fn first_look(&self, line: &Line, state: &mut State) -> Look {
        let mut loaded = Loaded::default();
        self.take_policy(line, state, self.read_policy(&line.origin));
        loaded.problems.extend(state.bad_policy.iter().cloned());
        if state.zone.is_some() && state.damaged.is_empty() {
            if self.folder.zone_file(&line.origin).exists() {
                return Look::Read;
            }
            let (actor, now) = (Actor::new(Door::File, file_name(&line.origin, self)), SystemTime::now());
            if let Err(error) = self.take_away(line, state, Base::Any, &actor, None, now) {
                self.audit.refusal(line, &actor, &error, now);
                let message = format!("the zone file is gone, but the zone stays: {error}");
                let remedy = "put the zone file back, or delete the zone by the API";
                state.bad_file = vec![problem("zone-file-gone", message, remedy)];
                Authority::show(line, state);
                loaded.problems.extend(state.bad_file.iter().cloned());
            }
            return Look::Done(loaded);
        }
        let was_known = state.zone.is_some() || !state.damaged.is_empty();
        state.damaged.clear();
        state.bad_file.clear();
        self.read(line, state, &mut loaded);
        match &state.zone {
            Some(zone) => {
                self.zones.put(zone.clone());
                self.tell(&line.origin, Happened::Added(zone.serial()));
                if state.bad_file.is_empty() && state.damaged.is_empty() {
                    self.keep_good(zone);
                }
            }
            None if was_known || !state.bad_file.is_empty() => self.zones.put_empty(&line.origin),
            None => _ = self.zones.remove(&line.origin),
        }
        Look::Done(loaded)
    }

    /// Proposes what the zone file says.
    fn take_file(&self, origin: &Name) -> Loaded {
        let (path, name) = (self.folder.zone_file(origin), file_name(origin, self));
        let mut loaded = Loaded::default();
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) => {
                loaded.problems.push(unreadable(&name, &error));
                return self.refuse_file(origin, loaded);
            }
        };
        match text::parse(&text, origin, &name, &self.folder) {
            Err((problems, includes)) => {
                loaded = Loaded { problems, includes };
                self.refuse_file(origin, loaded)
            }
            Ok(parsed) => {
                loaded.includes = parsed.includes;
                let edit = Edit::Replace(Box::new(parsed.zone));
                let mut proposal = Proposal::new(origin.clone(), edit, Actor::new(Door::File, name));
                proposal.text = Some(text);
                match self.apply_blocking(proposal) {
                    Ok(_) => {
                        self.in_turn_blocking(origin, |authority, line, state| {
                            state.bad_file.clear();
                            Authority::show(line, state);
                            state.zone.iter().for_each(|zone| authority.keep_good(zone));
                        });
                        loaded
                    }
                    Err(Refused::Rules(problems)) => {
                        loaded.problems.extend(problems);
                        self.refuse_file(origin, loaded)
                    }
                    Err(error) => {
                        let remedy = "look at the disk and at the log, then send SIGHUP";
                        loaded.problems.push(problem("not-stored", error.to_string(), remedy));
                        loaded
                    }
                }
            }
        }
    }

    /// The zone goes on as it is, and shows what is wrong with its file.
    fn refuse_file(&self, origin: &Name, loaded: Loaded) -> Loaded {
        let problems: Vec<Problem> = loaded.problems.iter().filter(|problem| problem.is_error()).cloned().collect();
        self.in_turn_blocking(origin, move |_, line, state| {
            state.bad_file = problems;
            Authority::show(line, state);
        });
        loaded
    }

    /// Keeps a copy of the zone as it is, unless there is a newer one than its zone file.
    pub fn keep_good_copy(&self, origin: &Name) {
        let Some(zone) = self.zone(origin) else { return };
        let modified = |path: PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let (copy, file) = (modified(self.folder.good_file(origin)), modified(self.folder.zone_file(origin)));
        let is_fresh = matches!((copy, file), (Ok(copy), Ok(file)) if copy >= file);
        if !is_fresh && self.info(origin).is_some_and(|info| info.problems.is_empty()) {
            self.keep_good(&zone);
        }
    }

    fn read_policy(&self, origin: &Name) -> Result<Policy, Vec<Problem>> {
        let path = self.folder.policy_file(origin);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match read_bounded(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Policy::default()),
            Err(error) => Err(vec![unreadable(&name, &error)]),
            Ok(text) => Policy::from_yaml(&text, origin, &name),
        }
    }

    /// The zone as its files say it.
    fn read(&self, line: &Line, state: &mut State, loaded: &mut Loaded) {
        let origin = &line.origin;
        let file = self.read_file(origin, loaded);
        let journal = Journal::open(&self.folder.journal_file(origin));
        match (file, journal) {
            (Ok(None), _) => {
                // A journal without its zone is of a zone that was removed.
                let (dir, journal) = (self.folder.versions_dir(origin), self.folder.journal_file(origin));
                if journal.exists()
                    && let Err(error) = state.history.set_aside(&dir, &journal)
                {
                    tracing::warn!(zone = %origin, %error, "a journal without its zone cannot be put away");
                }
            }
            (Ok(Some(zone)), Ok(None)) => {
                state.file_serial = Some(zone.serial());
                state.zone = build(zone, loaded);
            }
            (Ok(Some(zone)), Ok(Some((journal, deltas)))) => self.join(line, state, loaded, zone, (journal, deltas)),
            (Ok(Some(zone)), Err(error)) => {
                state.damaged = vec![damage(&error)];
                state.zone = build(zone, loaded);
            }
            (Err(problems), journal) => {
                state.bad_file = problems;
                self.fall_back(origin, state, loaded, journal);
            }
        }
        loaded.problems.extend(state.damaged.iter().chain(&state.bad_file).cloned());
        if state.zone.is_none() && state.bad_file.is_empty() && !loaded.problems.is_empty() {
            state.bad_file.clone_from(&loaded.problems);
        }
        Authority::show(line, state);
    }

    /// The zone file's records; `Ok(None)` when there is no file.
    fn read_file(&self, origin: &Name, loaded: &mut Loaded) -> Result<Option<ZoneText>, Vec<Problem>> {
        let name = file_name(origin, self);
        let text = match read_bounded(&self.folder.zone_file(origin)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(vec![unreadable(&name, &error)]),
            Ok(text) => text,
        };
        match text::parse(&text, origin, &name, &self.folder) {
            Ok(parsed) => {
                loaded.includes = parsed.includes;
                Ok(Some(parsed.zone))
            }
            Err((problems, includes)) => {
                loaded.includes = includes;
                Err(problems.into_iter().filter(Problem::is_error).collect())
            }
        }
    }

    /// Zone file and journal: the file is one of the versions that the journal knows, or somebody edited it meanwhile.
    fn join(
        &self,
        line: &Line,
        state: &mut State,
        loaded: &mut Loaded,
        zone: ZoneText,
        (journal, deltas): (Journal, Vec<Delta>),
    ) {
        let (digest, stated, last) = (digest::of_zone(&zone), zone.serial(), journal.state().serial);
        if let Some(at) = position(journal.base(), &deltas, digest) {
            state.zone = replay(zone, &journal, &deltas, at, loaded);
            state.unmerged = (deltas.len() - at) as u64;
            state.file_serial = Some(stated);
            state.file_digest = Some(digest);
            state.digest = Some(journal.state().digest);
            state.history = History::new(Some(journal));
        } else if is_newer(stated, last) {
            tracing::warn!(
                zone = %line.origin, file = stated, journal = last,
                "the zone file was edited and has a higher serial than the journal; the file counts, and the journal is put away in .versions"
            );
            let (dir, file) = (self.folder.versions_dir(&line.origin), self.folder.journal_file(&line.origin));
            if let Err(error) = state.history.set_aside(&dir, &file) {
                state.damaged = vec![problem(
                    "journal",
                    format!("the journal cannot be put away: {error}"),
                    "look at the disk, then send SIGHUP",
                )];
            }
            state.file_serial = Some(stated);
            state.zone = build(zone, loaded);
        } else {
            state.bad_file = vec![conflict(stated, last, deltas.len() as u64)];
            self.fall_back(&line.origin, state, loaded, Ok(Some((journal, deltas))));
        }
    }

    /// The zone file cannot be used: the copy from when it could, with the journal.
    fn fall_back(
        &self,
        origin: &Name,
        state: &mut State,
        loaded: &mut Loaded,
        journal: Result<Option<(Journal, Vec<Delta>)>, JournalError>,
    ) {
        let text = read_bounded(&self.folder.good_file(origin)).ok();
        let copy = text.and_then(|text| parse_zone(&text, origin, "good.zone", &|_| Err(String::new())).ok());
        match (copy, journal) {
            (_, Err(error)) => state.damaged = vec![damage(&error)],
            (None, Ok(journal)) => state.history = History::new(journal.map(|(journal, _)| journal)),
            (Some(copy), Ok(None)) => state.zone = build(copy, loaded),
            (Some(copy), Ok(Some((journal, deltas)))) => {
                if let Some(at) = position(journal.base(), &deltas, digest::of_zone(&copy)) {
                    state.zone = replay(copy, &journal, &deltas, at, loaded);
                    state.unmerged = deltas.len() as u64;
                    state.digest = Some(journal.state().digest);
                }
                state.history = History::new(Some(journal));
            }
        }
        let served = state.zone.as_ref().map(|zone| zone.serial());
        tracing::error!(zone = %origin, ?served, "the zone file cannot be used; the last good version is served, if there is one");
    }
}

/// A version that the journal knows, and the steps behind it.
fn replay(zone: ZoneText, journal: &Journal, deltas: &[Delta], at: usize, loaded: &mut Loaded) -> Option<Arc<Zone>> {
    let origin = zone.origin().clone();
    let serial = if at == 0 { journal.base().serial } else { deltas[at - 1].to };
    let mut records = zone.into_records();
    for record in records.iter_mut().filter(|record| record.rtype == Rtype::SOA) {
        record.rdata = with_serial(&record.rdata, serial).unwrap_or_else(|| record.rdata.clone());
    }
    let changes: Vec<_> = deltas[at..].iter().flat_map(|delta| &delta.changes).cloned().collect();
    let built =
        Zone::build(&origin, records).and_then(|zone| if changes.is_empty() { Ok(zone) } else { zone.with(&changes) });
    taken(built, loaded)
}

fn build(zone: ZoneText, loaded: &mut Loaded) -> Option<Arc<Zone>> {
    let origin = zone.origin().clone();
    taken(Zone::build(&origin, zone.into_records()), loaded)
}

fn taken(built: Result<Zone, crate::store::ZoneError>, loaded: &mut Loaded) -> Option<Arc<Zone>> {
    match built {
        Ok(zone) => Some(Arc::new(zone)),
        Err(error) => {
            if let Refused::Rules(problems) = plan::refused(&error) {
                loaded.problems.extend(problems);
            }
            None
        }
    }
}

fn file_name(origin: &Name, authority: &Authority) -> String {
    let path = authority.folder.zone_file(origin);
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn unreadable(file: &str, error: &io::Error) -> Problem {
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
