//! A mistake in a declaration.

use std::fmt;

use serde::Serialize;

/// What is wrong in `domain.yaml`, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Where in the structure: `environments.prod.regions.us-east-1.services.api.runtime`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// `LINE:COLUMN: PATH: MESSAGE`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}
