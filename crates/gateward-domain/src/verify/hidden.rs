//! Delegations that no query shows: a server that has the zone too answers from it (RFC 1034, 4.3.2), so what the parent says
//! is read from the control API of the parent's primary. Where that cannot be had, nothing is known of the delegation.

use std::collections::BTreeMap;

use gateward_zone::{Name, Record, Rtype};

use super::delegation::glue_of;
use super::report::{Check, HIDDEN, Outcome};
use super::same_servers;
use crate::declaration::{Declaration, Zone};
use crate::provider::Fleet;

/// Replaces the hidden delegations among `checks` by what the control APIs say of them.
pub(super) fn look(declaration: &Declaration, fleet: &Fleet<'_>, checks: Vec<Check>) -> Vec<Check> {
    let mut parents = BTreeMap::new();
    checks
        .into_iter()
        .map(|check| if check.check == HIDDEN { found(declaration, fleet, &mut parents, check) } else { check })
        .collect()
}

fn found(
    declaration: &Declaration,
    fleet: &Fleet<'_>,
    parents: &mut BTreeMap<Name, Result<Vec<Record>, String>>,
    check: Check,
) -> Check {
    let zone = check.zone.parse::<Name>().ok().and_then(|origin| declaration.zone(&origin));
    let pair = zone.and_then(|zone| Some((declaration.parent_of(zone)?, zone)));
    let Some((parent, zone)) = pair else { return Check { check: "delegation", ..check } };
    let records = parents.entry(parent.origin.clone()).or_insert_with(|| records(declaration, fleet, parent));
    let (outcome, detail) = match records {
        Err(reason) => (Outcome::Unknown, format!("the server has the zone too and hides the delegation; {reason}")),
        Ok(records) => match delegation(declaration, zone, records) {
            Ok(count) => {
                (Outcome::Ok, format!("{count} name servers, by the control API: the server has the zone too"))
            }
            Err(reason) => (Outcome::Failed, reason),
        },
    };
    Check { check: "delegation", outcome, detail, ..check }
}

/// What the primary of the parent holds.
fn records(declaration: &Declaration, fleet: &Fleet<'_>, parent: &Zone) -> Result<Vec<Record>, String> {
    let group = declaration.groups.get(&parent.group).ok_or("the parent has no group of servers")?;
    let zone = fleet.ask(&group.control, |provider| provider.zone(&parent.origin));
    match zone {
        Ok(Some(zone)) => Ok(zone.records),
        Ok(None) => Err(format!("{} does not have {}", group.control, parent.origin)),
        Err(error) => Err(format!("its control API does not say more: {error}")),
    }
}

fn delegation(declaration: &Declaration, zone: &Zone, records: &[Record]) -> Result<usize, String> {
    if !records.iter().any(|record| record.rtype == Rtype::NS && record.owner == zone.origin) {
        return Err("the zone is not delegated".to_owned());
    }
    let count = same_servers(records, declaration, zone)?;
    glue_of(records, declaration.servers_of(zone), zone)?;
    Ok(count)
}
