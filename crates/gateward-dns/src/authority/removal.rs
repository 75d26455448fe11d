//! Taking a zone away, and changing its policy.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use gateward_zone::policy::Policy;
use gateward_zone::{Name, Problem, RecordSet, Rtype, ZoneView, rdata, render_zone};

use super::guard::Asked;
use super::line::{Info, Kind, Line, State};
use super::proposal::{Actor, Base, PolicyBase, Refused};
use super::{Authority, Happened, audit, problem};
use crate::folder::{PUBLIC, read_bounded, remove_durably, write_durably};
use crate::store::Zone;

impl Authority {
    /// Takes a zone away. Its last version stays as `.versions/ORIGIN/deleted.zone`.
    ///
    /// # Errors
    /// [`Refused`]: it is still served.
    pub async fn remove(&self, origin: &Name, base: Base, actor: Actor, force: Option<String>) -> Result<(), Refused> {
        if self.known(origin).is_none() {
            return Err(Refused::NoZone(origin.clone()));
        }
        let work = move |authority: &Authority, line: &Line, state: &mut State| {
            let now = SystemTime::now();
            let removed = authority.take_away(line, state, base, &actor, force.as_deref(), now);
            if let Err(error) = &removed {
                authority.audit.refusal(line, &actor, error, now);
            }
            removed
        };
        self.in_turn(origin, work).await.unwrap_or_else(|| Err(super::lost()))
    }

    pub(super) fn take_away(
        &self,
        line: &Line,
        state: &mut State,
        base: Base,
        actor: &Actor,
        force: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Refused> {
        let zone = state.zone.clone().ok_or_else(|| Refused::NoZone(line.origin.clone()))?;
        if let Base::Serial(wanted) = base
            && wanted != zone.serial()
        {
            return Err(Refused::Base { served: zone.serial(), wanted: Some(wanted) });
        }
        if line.info.load().kind != Kind::Primary && !actor.door.is_copy() {
            let message = format!("{} is a copy of what its primary serves", line.origin);
            return Err(Refused::rule(
                "copy",
                message,
                "take it away at its primary, or from the list of secondary zones",
            ));
        }
        let policy = line.info.load().policy.clone();
        let asked = Asked { policy: &policy, zone: &line.origin, actor, force, now };
        let allowed = asked.remove(&zone, self.relatives(&line.origin))?;
        self.store_removal(line, state, &zone).map_err(|error| Refused::Failed(error.to_string()))?;
        self.zones.remove(&line.origin);
        *state = State::new();
        line.info.store(Arc::new(Info::default()));
        self.tell(&line.origin, Happened::Removed);
        let gone = gateward_zone::diff::removal(&*zone);
        let entry = audit::entry(now, actor, &line.origin, "delete", &gone).serials(Some(zone.serial()), None);
        self.audit.append(&[entry.forced(&allowed.overridden, allowed.force.as_ref())]);
        Ok(())
    }

    /// Zones that need this one: a parent that still delegates to it here, and zones here that it delegates to.
    fn relatives(&self, origin: &Name) -> Vec<Problem> {
        let map = self.zones.map();
        let mut found = Vec::new();
        let parent = origin.parent().and_then(|above| map.closest(&above).cloned());
        if let Some(parent) = parent.and_then(|slot| slot.zone())
            && let Some(delegation) = parent.set(origin, Rtype::NS)
            && is_here(&delegation, &parent, origin, map.slot(origin).and_then(|slot| slot.zone()).as_deref())
        {
            let message = format!("{} still delegates to {origin}", parent.origin());
            found.push(problem(
                "still-delegated",
                message,
                "remove the NS records of the delegation from the parent first",
            ));
        }
        let zone = map.slot(origin).and_then(|slot| slot.zone());
        let delegates = |to: &Name| zone.as_ref().is_some_and(|zone| zone.set(to, Rtype::NS).is_some());
        let below = |slot: &Name| slot != origin && slot.is_in(origin);
        let child = map.slots().find(|slot| below(slot.origin()) && delegates(slot.origin()));
        if let Some(child) = child {
            let message = format!("{} is served here and lies below {origin}", child.origin());
            found.push(problem("child-zones", message, "remove the zones below first, or the delegations to them"));
        }
        found
    }

    fn store_removal(&self, line: &Line, state: &mut State, zone: &Zone) -> io::Result<()> {
        let dir = self.folder.versions_dir(&line.origin);
        fs::create_dir_all(&dir)?;
        write_durably(&dir.join("deleted.zone"), render_zone(zone).as_bytes(), PUBLIC)?;
        remove_durably(&self.folder.zone_file(&line.origin))?;
        // From here on the zone is gone; what is left of it is swept up, or lies where nobody looks.
        let swept = state
            .history
            .set_aside(&dir, &self.folder.journal_file(&line.origin))
            .and_then(|()| remove_durably(&self.folder.good_file(&line.origin)))
            .and_then(|()| match fs::rename(self.folder.policy_file(&line.origin), dir.join("deleted.policy.yaml")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                moved => moved,
            });
        if let Err(error) = swept {
            tracing::warn!(zone = %line.origin, %error, "files of the removed zone are left over");
        }
        Ok(())
    }

    /// Replaces the policy of a zone by the text of a policy file, if the old one is what the change was made for.
    ///
    /// # Errors
    /// [`Refused`]: there is no such zone, its policy is another, or the text is not a policy; the old one stays.
    pub async fn put_policy(
        &self,
        origin: &Name,
        text: Vec<u8>,
        base: PolicyBase,
        actor: Actor,
    ) -> Result<(), Refused> {
        if self.known(origin).is_none() {
            return Err(Refused::NoZone(origin.clone()));
        }
        let work = move |authority: &Authority, line: &Line, state: &mut State| {
            if state.zone.is_none() {
                return Err(Refused::NoZone(line.origin.clone()));
            }
            let file = authority.folder.policy_file(&line.origin);
            if base != PolicyBase::Any && !base.is_met(policy_file(&file)?.as_deref()) {
                return Err(Refused::PolicyBase);
            }
            let policy = Policy::from_yaml(&text, &line.origin, "policy").map_err(Refused::Rules)?;
            write_durably(&file, &text, PUBLIC).map_err(|error| Refused::Failed(error.to_string()))?;
            authority.take_policy(line, state, Ok(policy));
            authority.audit.note(&line.origin, &actor, "policy", String::from_utf8_lossy(&text).into_owned());
            Ok(())
        };
        self.in_turn(origin, work).await.unwrap_or_else(|| Err(super::lost()))
    }

    /// A policy that was read holds from now on. Where it cannot be read, the old one goes on, and nothing may be changed.
    pub(super) fn take_policy(&self, line: &Line, state: &mut State, policy: Result<Policy, Vec<Problem>>) {
        match policy {
            Ok(policy) => {
                state.bad_policy.clear();
                if *line.info.load().policy != policy {
                    let policy = Arc::new(policy);
                    line.info.rcu(|info| Info { policy: policy.clone(), ..Info::clone(info) });
                    self.tell(&line.origin, Happened::Policy);
                }
            }
            Err(problems) => {
                problems.iter().for_each(|problem| tracing::error!(zone = %line.origin, "{problem}"));
                state.bad_policy = problems;
            }
        }
        Authority::show(line, state);
    }
}

/// Whether a delegation leads to this server: it names servers of the parent, which is served here, or those that the zone
/// itself names. One that names others only is of a zone that moved away; its copy here is needed by nobody.
fn is_here(delegation: &RecordSet, parent: &Zone, origin: &Name, zone: Option<&Zone>) -> bool {
    let targets = |set: &RecordSet| -> Vec<Vec<u8>> {
        set.data.iter().map(|data| rdata::canonical(Rtype::NS, data.as_wire()).into_owned()).collect()
    };
    let apexes = [parent.set(parent.origin(), Rtype::NS), zone.and_then(|zone| zone.set(origin, Rtype::NS))];
    let here: Vec<Vec<u8>> = apexes.iter().flatten().flat_map(targets).collect();
    targets(delegation).iter().any(|target| here.contains(target))
}

/// The policy file; `None` if there is none.
fn policy_file(path: &Path) -> Result<Option<Vec<u8>>, Refused> {
    match read_bounded(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Refused::Failed(format!("{}: {error}", path.display()))),
    }
}
