//! A plan as a file: its checksum covers every octet of its content, so that what was reviewed is what is applied.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FORMAT, Plan};
use crate::error::Error;

/// Octets of a plan file that are read at most.
const MAX_OCTETS: usize = 256 << 20;

/// A plan and its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// `sha256:` and 64 hexadecimal digits, over the canonical form of the plan.
    pub checksum: String,
    /// The plan.
    pub plan: Plan,
}

impl Document {
    /// A plan with its checksum.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Document { checksum: checksum(&plan), plan }
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plan is texts, numbers and lists of these");
        text.push('\n');
        text
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// [`Error::BadPlan`]: it is no plan, or its content does not have its checksum.
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadPlan { reason };
        if text.len() > MAX_OCTETS {
            return Err(bad(format!("larger than {} MiB", MAX_OCTETS >> 20)));
        }
        let document: Document = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        if document.plan.format != FORMAT {
            let format = gateward_yaml::quote(&document.plan.format);
            return Err(bad(format!("its format is '{format}'; this program reads {FORMAT}")));
        }
        let found = checksum(&document.plan);
        if found != document.checksum {
            return Err(bad(format!("its content has the checksum {found}: it was changed after it was made")));
        }
        Ok(document)
    }
}

/// SHA-256 of the plan's canonical form: JSON without white space, fields in the order of their declaration.
fn checksum(plan: &Plan) -> String {
    let canonical = serde_json::to_vec(plan).expect("a plan is texts, numbers and lists of these");
    Sha256::digest(canonical).iter().fold("sha256:".to_owned(), |mut text, octet| {
        use std::fmt::Write;
        write!(text, "{octet:02x}").expect("strings take everything");
        text
    })
}
