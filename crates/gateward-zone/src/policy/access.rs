//! Who may change what.

use std::collections::BTreeSet;

use domain::base::iana::Rtype;

use super::check::{Case, Refusal, Step};
use super::{ActorKind, KeyGrant, Policy, Subtree};
use crate::name::Name;
use crate::rdata::canonical;
use crate::record::{Rdata, Record};
use crate::soa::{Soa, next_serial, with_serial};
use crate::view::Change;

/// What a key may do is no guardrail but a permission: nothing overrides it.
pub(super) const KEY_RULE: &str = "key";
const OWNER_RULE: &str = "owner";
const TYPES_RULE: &str = "subtree-types";

impl KeyGrant {
    /// Whether the key may change a record of `rtype` at `name`.
    #[must_use]
    pub fn covers(&self, name: &Name, rtype: Rtype) -> bool {
        let label = name.first_label().unwrap_or_default();
        let delicate = matches!(rtype, Rtype::NS | Rtype::DS | Rtype::DNAME | Rtype::SOA);
        name.is_in(&self.subtree)
            && (self.labels.is_empty() || self.labels.iter().any(|wanted| wanted.as_bytes() == label))
            && if self.types.is_empty() { !delicate } else { self.types.contains(&rtype) }
    }
}

impl Policy {
    /// The nearest subtree that `name` is in.
    fn subtree_of(&self, name: &Name) -> Option<&Subtree> {
        let above = self.subtrees.iter().filter(|subtree| name.is_in(&subtree.name));
        above.max_by_key(|subtree| subtree.name.label_count())
    }
}

/// The records that somebody decides about: all but a SOA record whose serial the server raised, and nothing else of it.
fn decided<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Record> {
    let is_raised = is_raised(case.changes());
    case.changes().iter().map(Change::record).filter(move |record| record.rtype != Rtype::SOA || !is_raised)
}

/// Whether the SOA record changes by its serial alone, and that by what the server adds to it.
fn is_raised(changes: &[Change]) -> bool {
    let mut of_soa = changes.iter().filter(|change| change.record().rtype == Rtype::SOA);
    let (Some(Change::Remove(old)), Some(Change::Add(new)), None) = (of_soa.next(), of_soa.next(), of_soa.next())
    else {
        return false;
    };
    let raised = Soa::read(&old.rdata).ok().and_then(|soa| with_serial(&old.rdata, next_serial(soa.serial)));
    let same = |rdata: Rdata| canonical(Rtype::SOA, rdata.as_wire()) == canonical(Rtype::SOA, new.rdata.as_wire());
    old.owner == new.owner && old.ttl == new.ttl && raised.is_some_and(same)
}

/// Updates need a key with a grant for each record (RFC 2136, 3.3).
pub(super) fn keys(case: &Case<'_>, found: &mut Vec<Refusal>) {
    if case.actor.kind != ActorKind::Update {
        return;
    }
    let Some(key) = &case.actor.key else {
        let message = format!("updates of {} must be signed with a key", case.zone);
        found.push(case.refusal(
            KEY_RULE,
            vec![case.zone.clone()],
            message,
            "sign them with a TSIG key that the policy grants something",
        ));
        return;
    };
    let grants: Vec<&KeyGrant> = case.policy.keys.iter().filter(|grant| grant.key == *key).collect();
    let refused: BTreeSet<(Name, Rtype)> = decided(case)
        .filter(|record| !grants.iter().any(|grant| grant.covers(&record.owner, record.rtype)))
        .map(|record| (record.owner.clone(), record.rtype))
        .collect();
    if refused.is_empty() {
        return;
    }
    let shown = shorten(refused.iter().map(|(name, rtype)| format!("{name} {rtype}")));
    let message = format!("the key {key} may not change {shown}");
    let names = refused.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>().into_iter().collect();
    found.push(case.refusal(
        KEY_RULE,
        names,
        message,
        "add the name and type to the key's entry under `keys` in the policy",
    ));
}

/// API calls, plans and leases: the nearest subtree's principals, otherwise the zone's. A key counts by its grants, and the end of a lease is not
/// anybody's wish.
pub(super) fn principals(case: &Case<'_>, found: &mut Vec<Refusal>) {
    if matches!(case.actor.kind, ActorKind::File | ActorKind::Update | ActorKind::Expiry) {
        return;
    }
    if let Step::Delete = case.step {
        return zone_principals(case, vec![case.zone.clone()], found);
    }
    let (mut of_zone, mut of_others, mut types) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for record in decided(case) {
        match case.policy.subtree_of(&record.owner) {
            None => {
                of_zone.insert(record.owner.clone());
            }
            Some(subtree) if !subtree.principals.contains(&case.actor.name) => {
                of_others.insert(record.owner.clone());
            }
            Some(subtree) if !subtree.types.is_empty() && !subtree.types.contains(&record.rtype) => {
                types.insert((record.owner.clone(), record.rtype));
            }
            Some(_) => {}
        }
    }
    if !of_zone.is_empty() {
        zone_principals(case, of_zone.into_iter().collect(), found);
    }
    if !of_others.is_empty() {
        let owners: BTreeSet<&str> =
            of_others.iter().filter_map(|name| case.policy.subtree_of(name)?.owner.as_deref()).collect();
        let owners = if owners.is_empty() {
            String::new()
        } else {
            format!(", of {}", owners.into_iter().collect::<Vec<_>>().join(", "))
        };
        let shown = shorten(of_others.iter().map(ToString::to_string));
        let message =
            format!("{} may not change {shown}: the names are in a subtree of somebody else{owners}", case.actor.name);
        found.push(case.refusal(
            OWNER_RULE,
            of_others.into_iter().collect(),
            message,
            "ask the owners to make the change, or to add you to the subtree's `principals`",
        ));
    }
    if !types.is_empty() {
        let shown = shorten(types.iter().map(|(name, rtype)| format!("{name} {rtype}")));
        let message = format!("the subtree does not allow records of these types: {shown}");
        let names = types.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>().into_iter().collect();
        found.push(case.refusal(TYPES_RULE, names, message, "add the type to the subtree's `types` in the policy"));
    }
}

/// The zone as a whole: its principals, or everybody where none are named.
pub(super) fn zone_principals(case: &Case<'_>, names: Vec<Name>, found: &mut Vec<Refusal>) {
    let Policy { principals, owner, .. } = case.policy;
    if principals.is_empty() || principals.contains(&case.actor.name) {
        return;
    }
    let owner = owner.as_ref().map(|owner| format!(", which belongs to {owner}")).unwrap_or_default();
    let message = format!("{} may not change the zone {}{owner}", case.actor.name, case.zone);
    found.push(case.refusal(
        OWNER_RULE,
        names,
        message,
        "ask the owner to make the change, or to add you to `principals` in the policy",
    ));
}

/// The first few of many, for a message.
pub(super) fn shorten(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let items: Vec<String> = items.collect();
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN { format!("{shown} and {} more", items.len() - SHOWN) } else { shown }
}
