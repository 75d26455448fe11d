//! Which environment a name is in: one that is declared, or one that was.

use std::collections::BTreeSet;

use gateward_zone::Name;

use super::{Plan, RecordPlan};
use crate::declaration::Declaration;

/// The environment that `name` is in; `delegated` when a zone is, or was, at the name of an environment.
pub(super) fn environment_of(declaration: &Declaration, name: &Name, delegated: bool) -> Option<String> {
    let root = &declaration.root;
    let depth = name.label_count().checked_sub(root.label_count() + 1).filter(|_| name.is_in(root))?;
    let label = name.labels().nth(depth)?;
    let apex = root.child(label).ok()?;
    let declared = declaration.zone(&apex).and_then(|zone| zone.environment.clone());
    declared.or_else(|| delegated.then(|| String::from_utf8_lossy(label).into_owned()))
}

/// The environments that a plan touches, from its changes: what a document says of itself is not taken for it.
pub(crate) fn crossed(declaration: &Declaration, plan: &Plan) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = plan.blast_radius.environments.iter().cloned().collect();
    for zone in &plan.zones {
        let origin = zone.origin.parse::<Name>().ok();
        found.extend(origin.and_then(|origin| environment_of(declaration, &origin, true)));
        for RecordPlan { record, .. } in &zone.changes {
            let mut words = record.split_ascii_whitespace();
            let (owner, rtype) = (words.next(), words.nth(2));
            let delegates = rtype == Some("NS") && owner != Some(&zone.origin);
            let owner = owner.and_then(|owner| owner.parse::<Name>().ok());
            found.extend(owner.and_then(|owner| environment_of(declaration, &owner, delegates)));
        }
    }
    found
}
