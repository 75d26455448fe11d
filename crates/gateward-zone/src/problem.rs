//! What is wrong in a zone, and where: one shape for syntax errors, lint findings and what the control API answers.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// How much a problem weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The zone is refused.
    Error,
    /// The zone is served; somebody should look.
    Warning,
}

/// A finding in a zone file or a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The zone file; empty when the records came from elsewhere.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub file: Arc<str>,
    /// The line, from 1; 0 when there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: u32,
    /// The rule that is broken: a word such as `syntax` or `cname-and-other-data`.
    pub rule: &'static str,
    /// Whether the zone can be served all the same.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(line: &u32) -> bool {
    *line == 0
}

impl Problem {
    /// Whether the zone must be refused for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `FILE:LINE: error: MESSAGE (RULE); REMEDY`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.is_empty(), self.line) {
            (true, _) => {}
            (false, 0) => write!(f, "{}: ", self.file)?,
            (false, line) => write!(f, "{}:{line}: ", self.file)?,
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {} ({})", self.message, self.rule)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}
