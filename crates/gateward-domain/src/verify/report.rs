//! What was found, as a table and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::declaration::{Level, Zone};

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The root of the declaration.
    pub root: String,
    /// Each thing that was looked at; zones in the order of the declaration.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The zone's apex.
    pub zone: String,
    /// Where the zone stands.
    pub level: Level,
    /// `authoritative`, `tcp`, `ns`, `serials`, `delegation`, `glue` or `service`.
    pub check: &'static str,
    /// The server that was asked, or the name that was looked up.
    pub subject: String,
    /// How it went.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As declared.
    Ok,
    /// Not wrong, but perhaps not what is meant.
    Warning,
    /// It could not be seen: nothing is known of it, which is not enough.
    Unknown,
    /// Wrong.
    Failed,
}

impl Verification {
    /// Whether everything was seen, and nothing failed.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.checks.iter().all(|check| matches!(check.outcome, Outcome::Ok | Outcome::Warning))
    }

    /// A table; the columns are as wide as what is in them.
    #[must_use]
    pub fn to_text(&self) -> String {
        let rows: Vec<[&str; 5]> = std::iter::once(["RESULT", "ZONE", "CHECK", "SUBJECT", "DETAIL"])
            .chain(
                self.checks
                    .iter()
                    .map(|check| [check.outcome.as_str(), &check.zone, check.check, &check.subject, &check.detail]),
            )
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            line.push_str(row[4]);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let count = |outcome| self.checks.iter().filter(|check| check.outcome == outcome).count();
        let (right, warnings, failed) = (count(Outcome::Ok), count(Outcome::Warning), count(Outcome::Failed));
        let unknown = count(Outcome::Unknown);
        let _ =
            writeln!(text, "\n{}: {right} right, {warnings} warnings, {unknown} unknown, {failed} wrong", self.root);
        text
    }
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Unknown => "UNKNOWN",
            Outcome::Failed => "FAILED",
        }
    }
}

/// The checks of one zone while they are made.
pub(super) struct Checks {
    zone: String,
    level: Level,
    list: Vec<Check>,
}

/// What a delegation is called until it was looked up behind the server's answers.
pub(super) const HIDDEN: &str = "hidden delegation";

impl Checks {
    pub(super) fn new(zone: &Zone) -> Self {
        Checks { zone: zone.origin.to_string(), level: zone.level, list: Vec::new() }
    }

    pub(super) fn right(&mut self, check: &'static str, subject: &str, detail: String) {
        self.add(check, subject, Outcome::Ok, detail);
    }

    pub(super) fn doubtful(&mut self, check: &'static str, subject: &str, detail: String) {
        self.add(check, subject, Outcome::Warning, detail);
    }

    pub(super) fn unseen(&mut self, check: &'static str, subject: &str, detail: String) {
        self.add(check, subject, Outcome::Unknown, detail);
    }

    /// The server also has the zone that the delegation leads to, and answers from that one.
    pub(super) fn hidden(&mut self, subject: &str) {
        self.add(HIDDEN, subject, Outcome::Unknown, String::new());
    }

    pub(super) fn wrong(&mut self, check: &'static str, subject: &str, detail: String) {
        self.add(check, subject, Outcome::Failed, detail);
    }

    pub(super) fn into_list(self) -> Vec<Check> {
        self.list
    }

    fn add(&mut self, check: &'static str, subject: &str, outcome: Outcome, detail: String) {
        let (zone, level, subject) = (self.zone.clone(), self.level, subject.to_owned());
        self.list.push(Check { zone, level, check, subject, outcome, detail });
    }
}
