//! Taking a zone away.
//!
//! The zone file goes first, and with it the zone. A mark that is written before tells the next start that what is left is to be swept up, and is
//! not a zone whose file was lost.

use std::io;
use std::time::SystemTime;

use gateward_zone::{Name, Problem, RecordSet, Rtype, ZoneView, rdata, render_zone};

use super::guard::Asked;
use super::line::{Line, State};
use super::proposal::{Actor, Base, Refused};
use super::turn::{compare, is_made_here};
use super::{Authority, Happened, audit, problem};
use crate::folder::{PUBLIC, Stamp, make_folder, move_durably, remove_durably, write_durably};
use crate::store::Zone;

impl Authority {
    /// Takes a zone away. Its last version stays as `.versions/ORIGIN/deleted.zone`.
    ///
    /// # Errors
    /// [`Refused`]: it is still served.
    pub async fn remove(&self, origin: &Name, base: Base, actor: Actor, force: Option<String>) -> Result<(), Refused> {
        self.must_know(origin)?;
        let work = move |authority: &Authority, line: &Line, state: &mut State| {
            let now = SystemTime::now();
            authority.take_away(line, state, base, &actor, force.as_deref(), now)
        };
        self.ask_in_turn(origin, work).await
    }

    /// Takes the zone away or says why not, in the audit log and in the counters, too.
    pub(super) fn take_away(
        &self,
        line: &Line,
        state: &mut State,
        base: Base,
        actor: &Actor,
        force: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Refused> {
        let removed = self.try_take_away(line, state, base, actor, force, now);
        self.told(line, actor, removed, now)
    }

    fn try_take_away(
        &self,
        line: &Line,
        state: &mut State,
        base: Base,
        actor: &Actor,
        force: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Refused> {
        let zone = state.zone.clone().ok_or_else(|| Refused::NoZone(line.origin.clone()))?;
        compare(line, Some(zone.serial()), base)?;
        let remedy = "take it away at its primary; or leave the flag away that asks for it, and remove its files";
        is_made_here(line, actor.door, remedy)?;
        let policy = line.info.load().policy.clone();
        let asked = Asked { policy: &policy, zone: &line.origin, actor, force, now };
        let allowed = asked.remove(&zone, self.relatives(&line.origin))?;
        self.store_removal(line, state, &zone).map_err(Refused::failed)?;
        self.let_go(line, state);
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
        let origin = &line.origin;
        let (file, mark) = (self.folder.zone_file(origin), self.folder.removal_file(origin));
        make_folder(&self.folder.versions_dir(origin))?;
        write_durably(&self.folder.deleted_file(origin), render_zone(zone).as_bytes(), PUBLIC)?;
        write_durably(&mark, b"", PUBLIC)?;
        let is_known = Stamp::of(&file).is_none_or(|stamp| state.seen == Some(stamp));
        let gone = if is_known {
            remove_durably(&file)
        } else {
            tracing::warn!(zone = %origin, "the zone file was edited at the same time; the edit is kept as deleted.edited.zone in .versions");
            self.put_edit_away(origin)
        };
        if let Err(error) = gone {
            remove_durably(&mark)?;
            return Err(error);
        }
        // From here on the zone is gone; what is left of it is swept up, now or at the next start.
        if let Err(error) = self.sweep_removed(origin, state) {
            tracing::warn!(zone = %origin, %error, "files of the removed zone are left over");
        }
        Ok(())
    }

    /// Puts away a zone file that somebody else wrote, before its zone goes.
    pub(super) fn put_edit_away(&self, origin: &Name) -> io::Result<()> {
        let dir = self.folder.versions_dir(origin);
        make_folder(&dir)?;
        move_durably(&self.folder.zone_file(origin), &dir.join("deleted.edited.zone")).map(drop)
    }

    /// Puts away what is left of a zone whose file is gone.
    pub(super) fn sweep_removed(&self, origin: &Name, state: &mut State) -> io::Result<()> {
        let dir = self.folder.versions_dir(origin);
        state.history.set_aside(&dir, &self.folder.journal_file(origin))?;
        remove_durably(&self.folder.good_file(origin))?;
        move_durably(&self.folder.policy_file(origin), &dir.join("deleted.policy.yaml"))?;
        move_durably(&self.folder.lease_file(origin), &dir.join("deleted.leases"))?;
        remove_durably(&self.folder.removal_file(origin))
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
