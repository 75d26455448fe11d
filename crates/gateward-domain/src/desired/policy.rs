//! The policy file of a zone.

use crate::declaration::{Declaration, Zone};

/// The file's text.
pub(super) fn text(_declaration: &Declaration, zone: &Zone) -> String {
    format!("owner: {}\n", zone.owner)
}
