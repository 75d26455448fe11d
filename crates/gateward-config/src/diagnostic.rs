//! What is wrong with a file, where, and what to do; collected, never thrown one at a time.
//!
//! Every problem of a file is reported in one go, so that a user fixes the file in one go. Values of secret
//! fields never enter a message.

use crate::limits;
use gateward_yaml::{Path, Position};
use serde::Serialize;
use std::fmt;

/// Whether a file can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, but not all of it does what it seems to.
    Warning,
}

/// The entity a problem belongs to, as far as the file identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EntityRef {
    /// `services`, `routes`, ...
    pub kind: String,
    /// The name (username, key name, ...) given in the file. Never a secret.
    pub name: Option<String>,
    /// The id given in the file.
    pub id: Option<String>,
    /// The tags given in the file: tools find their own objects by them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the file can still be used.
    pub severity: Severity,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Where in the structure: `services[2].routes[0].paths[1]`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The entity it belongs to.
    pub entity: Option<EntityRef>,
}

/// Where an entity stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Where in the structure: `services[2].routes[0]`.
    pub path: String,
    /// The entity.
    pub entity: EntityRef,
}

impl Place {
    /// A problem of the entity that shows only when it is put to use.
    pub fn error(&self, message: String) -> Diagnostic {
        self.problem(Severity::Error, message)
    }

    /// Likewise, with which the file is used all the same.
    pub fn warning(&self, message: String) -> Diagnostic {
        self.problem(Severity::Warning, message)
    }

    fn problem(&self, severity: Severity, message: String) -> Diagnostic {
        let Self { line, column, path, entity } = self;
        Diagnostic { severity, line: *line, column: *column, path: path.clone(), message, entity: Some(entity.clone()) }
    }
}

impl fmt::Display for Diagnostic {
    /// `line:column: path: message`, with `warning: ` before the message of a warning.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        if self.severity == Severity::Warning {
            formatter.write_str("warning: ")?;
        }
        formatter.write_str(&self.message)
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    errors_dropped: usize,
    warnings_dropped: usize,
}

impl Report {
    pub(crate) fn error(&mut self, at: Position, path: &Path<'_>, message: String, entity: Option<&EntityRef>) {
        if self.errors.len() >= limits::DIAGNOSTICS {
            self.errors_dropped += 1;
            return;
        }
        self.errors.push(diagnostic(Severity::Error, at, path, message, entity));
    }

    pub(crate) fn warning(&mut self, at: Position, path: &Path<'_>, message: String, entity: Option<&EntityRef>) {
        if self.warnings.len() >= limits::DIAGNOSTICS {
            self.warnings_dropped += 1;
            return;
        }
        self.warnings.push(diagnostic(Severity::Warning, at, path, message, entity));
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether further errors are only counted, so that their texts need no effort.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= limits::DIAGNOSTICS
    }

    /// Errors seen, kept or only counted.
    pub(crate) fn error_count(&self) -> usize {
        self.errors.len() + self.errors_dropped
    }

    /// Everything, in the order of the file.
    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        let mut all = self.errors;
        all.append(&mut self.warnings);
        all.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        for (severity, dropped) in [(Severity::Error, self.errors_dropped), (Severity::Warning, self.warnings_dropped)]
        {
            if dropped > 0 {
                let message = format!("and {dropped} more like these; fix the ones above and check again");
                let last = all.last().map_or_else(Position::default, |d| Position { line: d.line, column: d.column });
                all.push(diagnostic(severity, last, &Path::Text(""), message, None));
            }
        }
        all
    }
}

fn diagnostic(
    severity: Severity,
    at: Position,
    path: &Path<'_>,
    message: String,
    entity: Option<&EntityRef>,
) -> Diagnostic {
    Diagnostic { severity, line: at.line, column: at.column, path: path.to_string(), message, entity: entity.cloned() }
}
