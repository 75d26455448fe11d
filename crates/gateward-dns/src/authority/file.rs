//! A zone file that people changed or removed while its zone is served: read beside the zone's turn, judged within it.
//!
//! Reading takes time, and meanwhile others change the zone, or write its file. So what was read carries how the file looked, and counts only
//! if the file still looks so when the zone's turn has come. Otherwise, and when the change could not be made for now, it is looked at again.

use std::io;
use std::time::SystemTime;

use gateward_zone::{Name, Problem, ZoneText, ZoneView};
use tokio::sync::oneshot;

use super::line::{Kind, Line, State};
use super::load::{Loaded, file_name, panicked, unreadable};
use super::proposal::{Actor, Applied, Base, Door, Edit, Proposal, Refused};
use super::{Authority, Happened, problem, text};
use crate::folder::{Included, Stamp, read_stamped};

/// What to do about a zone file after a first look.
enum Look {
    Done(Loaded),
    Read,
}

/// A zone file that was read.
pub(super) struct Candidate {
    /// How it looked; `None` when it was not there.
    stamp: Option<Stamp>,
    includes: Vec<Included>,
    /// What it says, and its text.
    content: Result<(ZoneText, Vec<u8>), Vec<Problem>>,
}

impl State {
    /// The zone file that looks like that was taken, or refused for good.
    fn judged(&mut self, stamp: Option<Stamp>, includes: &[Included]) {
        self.seen = stamp;
        self.includes = includes.to_vec();
        self.is_unjudged = false;
    }
}

impl Authority {
    /// Looks at a zone's files again, and takes what changed. Waits for the zone's turn.
    pub fn reload(&self, origin: &Name) -> Loaded {
        let look = self.in_turn_blocking(origin, Authority::first_look);
        match look.unwrap_or_else(|| Look::Done(Loaded::default())) {
            Look::Done(loaded) => loaded,
            Look::Read => {
                let candidate = self.read_candidate(origin);
                let judged =
                    self.in_turn_blocking(origin, |authority, line, state| authority.judge(line, state, candidate));
                judged.unwrap_or_default()
            }
        }
    }

    /// Policy and absence of the zone file; the whole zone when nothing good is served.
    fn first_look(&self, line: &Line, state: &mut State) -> Look {
        let mut loaded = Loaded::default();
        self.take_policy(line, state, self.read_policy(&line.origin));
        loaded.problems.extend(state.bad_policy.iter().cloned());
        if state.zone.is_none() || !state.damaged.is_empty() {
            self.read_again(line, state, &mut loaded);
            if !state.is_unjudged {
                return Look::Done(loaded);
            }
        }
        if line.info.load().kind != Kind::Primary {
            self.look_at_copy(line, state, &mut loaded);
            return Look::Done(loaded);
        }
        match std::fs::metadata(self.folder.zone_file(&line.origin)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.judge_absence(line, state, &mut loaded);
                Look::Done(loaded)
            }
            // One that cannot be looked at cannot be read, which is said then.
            _ => Look::Read,
        }
    }

    /// The zone from its files, when it was not served or could not be changed.
    fn read_again(&self, line: &Line, state: &mut State, loaded: &mut Loaded) {
        state.damaged.clear();
        state.bad_file.clear();
        state.is_unjudged = false;
        self.read(line, state, loaded);
        let is_copy = line.info.load().kind != Kind::Primary;
        match &state.zone {
            // It expired, or has not come yet: what brings it into service is its primary's word.
            Some(_) if is_copy && self.zone(&line.origin).is_none() => self.zones.put_empty(&line.origin),
            Some(zone) => {
                self.zones.put(zone.clone());
                self.tell(&line.origin, Happened::Added(zone.serial()));
                if state.bad_file.is_empty() && state.damaged.is_empty() && !state.is_unjudged {
                    self.refresh_good(&line.origin, state);
                }
            }
            None if is_copy || state.is_here() => self.zones.put_empty(&line.origin),
            None => _ = self.zones.remove(&line.origin),
        }
    }

    /// The zone file is gone: so is the zone, unless something speaks against it.
    fn judge_absence(&self, line: &Line, state: &mut State, loaded: &mut Loaded) {
        let (actor, now) = (Actor::new(Door::File, file_name(&line.origin, self)), SystemTime::now());
        state.is_unjudged = false;
        if let Err(error) = self.take_away(line, state, Base::Any, &actor, None, now) {
            let message = format!("the zone file is gone, but the zone stays: {error}");
            let remedy = "put the zone file back, or delete the zone by the API";
            state.bad_file = vec![problem("zone-file-gone", message, remedy)];
            Authority::show(line, state);
            loaded.problems.extend(state.bad_file.iter().cloned());
            // What a rule says, it would say again; a full disk may have room the next time.
            loaded.again = !matches!(error, Refused::Rules(_));
            // Until then nothing else on disk may be what is served.
            self.refresh_good(&line.origin, state);
        }
    }

    pub(super) fn read_candidate(&self, origin: &Name) -> Candidate {
        let (path, name) = (self.folder.zone_file(origin), file_name(origin, self));
        let (text, stamp) = match read_stamped(&path) {
            Ok(read) => read,
            Err(error) => {
                let stamp = Stamp::of(&path);
                return Candidate { stamp, includes: Vec::new(), content: Err(vec![unreadable(&name, &error)]) };
            }
        };
        let parse = std::panic::AssertUnwindSafe(|| text::parse(&text, origin, &name, &self.folder));
        let (includes, content) = match std::panic::catch_unwind(parse) {
            Ok(Ok(parsed)) => (parsed.includes, Ok((parsed.zone, text))),
            Ok(Err((problems, includes))) => (includes, Err(problems)),
            Err(_) => (Vec::new(), Err(vec![panicked(origin)])),
        };
        Candidate { stamp: Some(stamp), includes, content }
    }

    /// Makes the change that a zone file asks for, or says why not.
    pub(super) fn judge(&self, line: &Line, state: &mut State, candidate: Candidate) -> Loaded {
        let Candidate { stamp, includes, content } = candidate;
        let mut loaded = Loaded { includes, ..Loaded::default() };
        let is_as_read = stamp.is_some() && Stamp::of(&self.folder.zone_file(&line.origin)) == stamp;
        if !is_as_read || state.zone.is_none() || !state.damaged.is_empty() {
            loaded.again = true;
            return loaded;
        }
        let parts = loaded.includes.clone();
        let propose = |(zone, text)| self.propose(line, state, zone, text, parts);
        let outcome = content.map_err(Refused::Rules).and_then(propose);
        match outcome {
            Ok(_) => {
                state.judged(stamp, &loaded.includes);
                state.bad_file.clear();
                self.refresh_good(&line.origin, state);
            }
            Err(Refused::Rules(problems)) => {
                state.judged(stamp, &loaded.includes);
                state.bad_file = problems.iter().filter(|problem| problem.is_error()).cloned().collect();
                loaded.problems.extend(problems);
            }
            Err(error) => {
                let remedy = "it is tried again; look at the disk and at the log if this stays";
                state.bad_file = vec![problem("not-stored", error.to_string(), remedy)];
                loaded.problems.extend(state.bad_file.iter().cloned());
                loaded.again = true;
            }
        }
        Authority::show(line, state);
        loaded
    }

    /// The change that a zone file asks for, within the zone's turn.
    fn propose(
        &self,
        line: &Line,
        state: &mut State,
        zone: ZoneText,
        text: Vec<u8>,
        includes: Vec<Included>,
    ) -> Result<Applied, Refused> {
        let actor = Actor::new(Door::File, file_name(&line.origin, self));
        let mut proposal = Proposal::new(line.origin.clone(), Edit::Replace(Box::new(zone)), actor);
        (proposal.text, proposal.includes) = (Some(text), includes);
        let (reply, mut answer) = oneshot::channel();
        self.make(line, state, vec![(proposal, reply)]);
        answer.try_recv().unwrap_or_else(|_| Err(super::lost()))
    }
}
