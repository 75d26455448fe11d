//! The guardrails: each rule of a policy, whoever changes the zone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use domain::base::iana::Rtype;

use super::NameRule;
use super::access::shorten;
use super::check::{Case, Refusal, Step};
use crate::name::Name;
use crate::rdata::canonical;
use crate::record::Record;
use crate::soa::with_serial;
use crate::view::Change;

fn added<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Record> {
    case.changes().iter().filter_map(|change| if let Change::Add(record) = change { Some(record) } else { None })
}

/// Removed for good: no addition of the same data gives them another TTL only.
fn removed<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Record> {
    let identity = |record: &'a Record| (&record.owner, record.rtype, canonical(record.rtype, record.rdata.as_wire()));
    let come: std::collections::HashSet<_> = added(case).map(identity).collect();
    case.changes().iter().filter_map(move |change| match change {
        Change::Remove(record) if !come.contains(&identity(record)) => Some(record),
        _ => None,
    })
}

fn unique(names: impl Iterator<Item = Name>) -> Vec<Name> {
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn list(names: &[Name]) -> String {
    shorten(names.iter().map(ToString::to_string))
}

pub(super) fn freeze(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let holds =
        |freeze: &&super::Freeze| (freeze.start..freeze.end).contains(&case.now) && !freeze.spares(case.actor.kind);
    let Some(freeze) = case.policy.freezes.iter().find(holds) else { return };
    let end = jiff::Timestamp::from_second(freeze.end).map(|end| end.to_string()).unwrap_or_default();
    let reason = if freeze.reason.is_empty() { String::new() } else { format!(" ({})", freeze.reason) };
    let message = format!("changes of {} are frozen until {end}{reason}", case.zone);
    found.push(case.refusal("freeze", case.summary.names.iter().cloned().collect(), message, "wait until then"));
}

pub(super) fn zone_deletion(case: &Case<'_>, found: &mut Vec<Refusal>) {
    if matches!(case.step, Step::Delete) && case.policy.protected {
        let message = format!("the zone {} is protected from deletion", case.zone);
        found.push(case.refusal(
            "protected-zone",
            vec![case.zone.clone()],
            message,
            "set `protected: false` in its policy first",
        ));
    }
}

/// The rules of `rules` that one of the records there now comes under.
fn standing<'a>(case: &Case<'_>, rules: &'a [NameRule]) -> Vec<&'a NameRule> {
    let Some(before) = case.before else { return Vec::new() };
    let stands = |rule: &&NameRule| before.sets_at(&rule.name).iter().any(|set| rule.covers(&rule.name, set.rtype));
    rules.iter().filter(stands).collect()
}

pub(super) fn protected_names(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let broken: Vec<&NameRule> = match case.step {
        Step::Delete => standing(case, &case.policy.protected_names),
        Step::Write(_) => {
            let gone: Vec<&Record> = removed(case).collect();
            let breaks = |rule: &&NameRule| {
                gone.iter().any(|record| record.rtype != Rtype::SOA && rule.covers(&record.owner, record.rtype))
            };
            case.policy.protected_names.iter().filter(breaks).collect()
        }
    };
    if !broken.is_empty() {
        let message = format!("protected records would go: {}", shorten(broken.iter().map(ToString::to_string)));
        let names = unique(broken.iter().map(|rule| rule.name.clone()));
        found.push(case.refusal(
            "protected-names",
            names,
            message,
            "keep them, or take them off `protected_names` in the policy first",
        ));
    }
}

pub(super) fn never_empty(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let empty = |rule: &&NameRule| {
        let Some(before) = case.before.filter(|_| matches!(case.step, Step::Write(_))) else { return true };
        let sets = before.sets_at(&rule.name);
        let count: usize = sets.iter().filter(|set| rule.covers(&rule.name, set.rtype)).map(|set| set.data.len()).sum();
        let gone = removed(case).filter(|record| rule.covers(&record.owner, record.rtype)).count();
        let stays = count > gone;
        !stays && !added(case).any(|record| rule.covers(&record.owner, record.rtype))
    };
    let broken: Vec<&NameRule> = standing(case, &case.policy.never_empty).into_iter().filter(empty).collect();
    if !broken.is_empty() {
        let message = format!("nothing would be left at {}", shorten(broken.iter().map(ToString::to_string)));
        let names = unique(broken.iter().map(|rule| rule.name.clone()));
        found.push(case.refusal(
            "never-empty",
            names,
            message,
            "keep at least one record there, or take the name off `never_empty` in the policy first",
        ));
    }
}

/// How much of the zone one change may touch.
pub(super) fn shares(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let (summary, policy) = (&case.summary, case.policy);
    if summary.records < policy.percent_floor.max(1) {
        return;
    }
    let cases = [
        (
            "max-deleted",
            "max_deleted_percent",
            summary.removed,
            summary.removed_percent(),
            policy.max_deleted_percent,
            "go",
        ),
        (
            "max-changed",
            "max_changed_percent",
            summary.removed + summary.updated + summary.retimed,
            summary.changed_percent(),
            policy.max_changed_percent,
            "go or change",
        ),
    ];
    for (rule, field, count, percent, most, what) in cases {
        if percent > u64::from(most) {
            let message = format!(
                "{count} of {} records ({percent} %) would {what}; at most {most} % may at once",
                summary.records
            );
            let remedy = format!(
                "check that the change is meant; then make it in smaller steps, or raise `{field}` in the policy"
            );
            found.push(case.refusal(rule, summary.names.iter().cloned().collect(), message, &remedy));
        }
    }
}

/// SOA and NS of the apex hold the zone in its parent.
pub(super) fn apex(case: &Case<'_>, found: &mut Vec<Refusal>) {
    if !case.policy.lock_apex || case.before.is_none() {
        return;
    }
    let at_apex = case.changes().iter().filter(|change| change.record().owner == *case.zone);
    let (mut servers, mut soa) = (false, BTreeSet::new());
    for change in at_apex {
        let record = change.record();
        if record.rtype == Rtype::NS {
            servers = true;
        } else if record.rtype == Rtype::SOA {
            let rdata = with_serial(&record.rdata, 0).unwrap_or_else(|| record.rdata.clone());
            let same = (record.ttl, canonical(Rtype::SOA, rdata.as_wire()).into_owned());
            // One that goes and one that comes with another serial cancel out.
            if !soa.remove(&same) {
                soa.insert(same);
            }
        }
    }
    let what = match (servers, soa.is_empty()) {
        (false, true) => return,
        (true, true) => "the NS records",
        (false, false) => "the SOA record",
        (true, false) => "the NS and SOA records",
    };
    let message = format!("{what} of the apex {} would change", case.zone);
    let remedy = "check that the parent's delegation fits; then set `lock_apex: false` in the policy";
    found.push(case.refusal("apex-lock", vec![case.zone.clone()], message, remedy));
}

pub(super) fn ttl(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let (min, max) = (case.policy.ttl.min.unwrap_or(0), case.policy.ttl.max.unwrap_or(u32::MAX));
    let wrong: Vec<&Record> =
        added(case).filter(|record| record.rtype != Rtype::SOA && !(min..=max).contains(&record.ttl)).collect();
    let Some(first) = wrong.first() else { return };
    let names = unique(wrong.iter().map(|record| record.owner.clone()));
    let bounds = match (case.policy.ttl.min, case.policy.ttl.max) {
        (Some(min), Some(max)) => format!("from {min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        _ => format!("at most {max}"),
    };
    let message = format!(
        "TTLs must be {bounds} seconds; {} {} has {} ({} records in all)",
        first.owner,
        first.rtype,
        first.ttl,
        wrong.len()
    );
    found.push(case.refusal(
        "ttl",
        names,
        message,
        "use a TTL within the bounds, or set `ttl.clamp: true` in the policy to have the server do it",
    ));
}

pub(super) fn addresses(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let networks = &case.policy.addresses;
    if networks.is_empty() {
        return;
    }
    let outside = |address: &IpAddr| !networks.iter().any(|network| network.contains(address));
    let wrong: Vec<(Name, IpAddr)> =
        added(case).filter_map(|record| Some((record.owner.clone(), address(record).filter(outside)?))).collect();
    if !wrong.is_empty() {
        let shown = shorten(wrong.iter().map(|(name, address)| format!("{name} {address}")));
        let names = unique(wrong.into_iter().map(|(name, _)| name));
        let message = format!("addresses outside the allowed networks: {shown}");
        found.push(case.refusal(
            "addresses",
            names,
            message,
            "correct the address, or add its network to `addresses` in the policy",
        ));
    }
}

fn address(record: &Record) -> Option<IpAddr> {
    let octets = record.rdata.as_wire();
    match record.rtype {
        Rtype::A => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        Rtype::AAAA => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

pub(super) fn targets(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let suffixes = &case.policy.targets;
    if suffixes.is_empty() {
        return;
    }
    let aliases = added(case).filter(|record| matches!(record.rtype, Rtype::CNAME | Rtype::DNAME));
    let outside = |record: &&Record| {
        let target = Name::from_wire(record.rdata.as_wire());
        target.is_ok_and(|(target, _)| !suffixes.iter().any(|suffix| target.is_in(suffix)))
    };
    let names = unique(aliases.filter(outside).map(|record| record.owner.clone()));
    if !names.is_empty() {
        let message = format!("aliases that lead out of the allowed domains: {}", list(&names));
        found.push(case.refusal(
            "targets",
            names,
            message,
            "correct the target, or add its domain to `targets` in the policy",
        ));
    }
}
