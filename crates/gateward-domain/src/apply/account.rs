//! What happened to each zone of a plan.

use std::fmt::Write;

use serde::Serialize;

use crate::plan::{Document, Work};

/// The account of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// The plan's checksum.
    pub checksum: String,
    /// The keys.
    pub keys: Vec<KeyAccount>,
    /// The zones, in the plan's order.
    pub zones: Vec<ZoneAccount>,
}

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyAccount {
    /// The control API.
    pub control: String,
    /// Its name.
    pub name: String,
    /// What happened.
    pub state: State,
}

/// What happened to a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ZoneAccount {
    /// Its apex.
    pub origin: String,
    /// The serial it has now; none if it is not there.
    pub serial: Option<u32>,
    /// The steps in their order.
    pub steps: Vec<StepAccount>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepAccount {
    /// `create`, `policy`, `change`, `remove delegations` or `delete`.
    pub step: &'static str,
    /// What became of it.
    pub state: State,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "detail")]
pub enum State {
    /// It was done, now or by an earlier run.
    Done,
    /// It was done but for these records, which would lead to a zone that is not as it should be.
    Partly(String),
    /// The server did not do it.
    Failed(String),
    /// It was not tried.
    Skipped(String),
}

impl Account {
    pub(super) fn new(document: &Document) -> Self {
        let zone = |origin: &String| ZoneAccount { origin: origin.clone(), serial: None, steps: Vec::new() };
        let zones = document.plan.zones.iter().map(|plan| zone(&plan.origin)).collect();
        Account { checksum: document.checksum.clone(), keys: Vec::new(), zones }
    }

    /// Whether everything was done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let steps = self.zones.iter().flat_map(|zone| &zone.steps).map(|step| &step.state);
        steps.chain(self.keys.iter().map(|key| &key.state)).all(|state| *state == State::Done)
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for key in &self.keys {
            let _ = writeln!(text, "key {} at {}: {}", key.name, key.control, key.state);
        }
        for zone in &self.zones {
            let serial = zone.serial.map_or("not there".to_owned(), |serial| format!("serial {serial}"));
            let _ = writeln!(text, "{} ({serial})", zone.origin);
            for step in &zone.steps {
                let _ = writeln!(text, "  {}: {}", step.step, step.state);
            }
        }
        let end = match self.is_complete() {
            true => "everything was applied",
            false => "not everything was applied; apply the same plan again once the cause is gone, or make a new one",
        };
        let _ = writeln!(text, "{end}");
        text
    }
}

impl ZoneAccount {
    /// The step that was not done.
    pub(super) fn broken(&self) -> Option<&StepAccount> {
        self.steps.iter().find(|step| matches!(step.state, State::Failed(_) | State::Skipped(_)))
    }

    pub(super) fn note(&mut self, work: Work, state: State, serial: Option<u32>) {
        self.serial = serial;
        self.steps.push(StepAccount { step: work.as_str(), state });
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Done => f.write_str("done"),
            State::Partly(withheld) => write!(f, "done, but held back: {withheld}"),
            State::Failed(reason) => write!(f, "FAILED: {reason}"),
            State::Skipped(reason) => write!(f, "skipped: {reason}"),
        }
    }
}
