//! What is served now: the other half that a plan is made from.

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::{Name, Record};

use crate::declaration::Declaration;
use crate::desired::is_marked;
use crate::error::Error;
use crate::provider::Fleet;

/// The zones below a root as the control APIs show them.
#[derive(Debug, Clone, Default)]
pub struct Current {
    /// By the control API that serves them, and by apex.
    pub zones: BTreeMap<(String, Name), CurrentZone>,
    /// Zones below the root that are neither declared nor made by a declaration.
    pub strangers: Vec<Name>,
    /// The keys each control API knows.
    pub keys: BTreeMap<String, BTreeSet<String>>,
}

/// A zone that is served.
#[derive(Debug, Clone)]
pub struct CurrentZone {
    /// Its serial.
    pub serial: u32,
    /// All its records.
    pub records: Vec<Record>,
    /// Its policy file.
    pub policy: Option<String>,
    /// Whether a declaration of the same root made it.
    pub ours: bool,
}

impl Current {
    /// Asks every control API of the declaration.
    ///
    /// # Errors
    /// One of them does not answer: a plan from half the picture would remove what it does not see.
    pub fn read(declaration: &Declaration, fleet: &Fleet<'_>) -> Result<Self, Error> {
        let mut current = Current::default();
        for (control, _) in fleet.iter() {
            for summary in fleet.ask(control, |provider| provider.zones())? {
                if summary.origin.is_in(&declaration.root) {
                    current.take(declaration, fleet, control, &summary.origin)?;
                }
            }
            let keys = fleet.ask(control, |provider| provider.keys())?;
            current.keys.insert(control.to_owned(), keys.into_iter().collect());
        }
        Ok(current)
    }

    fn take(
        &mut self,
        declaration: &Declaration,
        fleet: &Fleet<'_>,
        control: &str,
        origin: &Name,
    ) -> Result<(), Error> {
        // It may have gone since the list was made.
        let Some(served) = fleet.ask(control, |provider| provider.zone(origin))? else { return Ok(()) };
        let ours = is_marked(origin, &declaration.root, &served.records);
        let declared = declaration
            .zone(origin)
            .is_some_and(|zone| declaration.groups.get(&zone.group).is_some_and(|group| group.control == control));
        if !ours && !declared {
            self.strangers.push(origin.clone());
            return Ok(());
        }
        let policy = fleet.ask(control, |provider| provider.policy(origin))?;
        let zone = CurrentZone { serial: served.serial, records: served.records, policy, ours };
        self.zones.insert((control.to_owned(), origin.clone()), zone);
        Ok(())
    }
}
