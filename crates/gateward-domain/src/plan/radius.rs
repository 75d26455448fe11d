//! What a plan touches, counted: who would notice if it were wrong.

use std::collections::BTreeSet;

use gateward_zone::Name;
use serde::{Deserialize, Serialize};

/// What changes touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radius {
    /// Zones with a change.
    pub zones: usize,
    /// Names with a change.
    pub names: usize,
    /// Records that come.
    pub added: usize,
    /// Records that go.
    pub removed: usize,
    /// Environments with a change, sorted.
    pub environments: Vec<String>,
    /// Regions with a change, as `ENVIRONMENT/REGION`, sorted.
    pub regions: Vec<String>,
    /// Teams whose names change, sorted.
    pub owners: Vec<String>,
}

/// Counts while a plan is made.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) names: BTreeSet<Name>,
    pub(super) added: usize,
    pub(super) removed: usize,
    pub(super) environments: BTreeSet<String>,
    pub(super) regions: BTreeSet<String>,
    pub(super) owners: BTreeSet<String>,
}

impl Counter {
    pub(super) fn radius(&self, zones: usize) -> Radius {
        let listed = |set: &BTreeSet<String>| set.iter().cloned().collect();
        Radius {
            zones,
            names: self.names.len(),
            added: self.added,
            removed: self.removed,
            environments: listed(&self.environments),
            regions: listed(&self.regions),
            owners: listed(&self.owners),
        }
    }

    pub(super) fn add(&mut self, other: &Counter) {
        self.names.extend(other.names.iter().cloned());
        self.added += other.added;
        self.removed += other.removed;
        self.environments.extend(other.environments.iter().cloned());
        self.regions.extend(other.regions.iter().cloned());
        self.owners.extend(other.owners.iter().cloned());
    }
}
