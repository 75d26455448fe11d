//! What a plan is about: everything, or one environment with what it needs above it.

use std::collections::BTreeSet;

use gateward_zone::{Name, Record, Rtype};

use super::Options;
use crate::current::Current;
use crate::declaration::Declaration;
use crate::desired::Desired;
use crate::error::Error;

/// What a plan may touch.
pub(super) struct Scope<'a> {
    declaration: &'a Declaration,
    /// The apex of the environment that it is narrowed to.
    only: Option<Name>,
    /// The root, if it is not there yet: without it nothing leads to the environment.
    above: Option<Name>,
}

impl<'a> Scope<'a> {
    /// What `options` say.
    ///
    /// # Errors
    /// There is no such environment, or its delegation has no place yet.
    pub(super) fn new(
        declaration: &'a Declaration,
        desired: &Desired,
        current: &Current,
        options: &Options,
    ) -> Result<Self, Error> {
        let Some(name) = &options.environment else {
            return Ok(Scope { declaration, only: None, above: None });
        };
        let only = Some(apex(declaration, name)?);
        let root = &declaration.root;
        let control = desired.zone(root).map(|zone| &zone.control);
        let copies: Vec<&String> = current.zones.keys().filter(|(_, one)| one == root).map(|(at, _)| at).collect();
        match control {
            Some(control) if !copies.is_empty() && !copies.contains(&control) => {
                Err(Error::RootMoves { root: root.clone(), to: control.clone() })
            }
            _ => Ok(Scope { declaration, only, above: copies.is_empty().then(|| root.clone()) }),
        }
    }

    /// Whether a zone as a whole is in it: that it is there, its policy, its keys.
    pub(super) fn has_zone(&self, origin: &Name) -> bool {
        self.only.as_ref().is_none_or(|only| origin.is_in(only)) || self.above.as_ref() == Some(origin)
    }

    /// The root, when it is made for the sake of an environment.
    pub(super) fn made_above(&self) -> Option<&Name> {
        self.above.as_ref()
    }

    /// Whether a record of a zone is in it.
    pub(super) fn has_record(&self, zone: &Name, owner: &Name) -> bool {
        let Some(only) = &self.only else { return true };
        owner.is_in(only) || self.above.as_ref() == Some(zone) && !self.is_elsewhere(owner)
    }

    /// Names of the servers that delegations in it lead to: their addresses are in it, whoever they belong to.
    pub(super) fn servers(&self, zone: &Name, target: &BTreeSet<Record>) -> BTreeSet<Vec<u8>> {
        if self.only.is_none() {
            return BTreeSet::new();
        }
        let delegations =
            target.iter().filter(|record| record.rtype == Rtype::NS && self.has_record(zone, &record.owner));
        delegations.map(|record| record.rdata.as_wire().to_vec()).collect()
    }

    /// Whether a name is in another environment.
    fn is_elsewhere(&self, owner: &Name) -> bool {
        self.declaration.zones.iter().any(|zone| zone.environment.is_some() && owner.is_in(&zone.origin))
    }
}

/// The apex of an environment.
fn apex(declaration: &Declaration, name: &str) -> Result<Name, Error> {
    let apex = declaration.root.child(name.as_bytes()).ok();
    if let Some(apex) = apex.filter(|apex| declaration.zone(apex).is_some_and(|zone| zone.environment.is_some())) {
        return Ok(apex);
    }
    let mut known: Vec<String> = declaration.zones.iter().filter_map(|zone| zone.environment.clone()).collect();
    known.dedup();
    Err(Error::NoEnvironment { name: name.to_owned(), known })
}
