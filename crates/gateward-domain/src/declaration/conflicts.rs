//! Contradictions between levels: a name has one owner, and lies in one zone.

use std::collections::BTreeMap;

use gateward_yaml::Path;
use gateward_zone::{Name, Record, Rtype};

use super::levels::{Claim, Placed};
use super::reader::Report;
use super::{Group, Zone};

/// Reports every name that two levels claim.
pub(super) fn find(zones: &[Placed], groups: &BTreeMap<String, Group>, report: &mut Report) {
    for placed in zones {
        for (index, claim) in placed.records.iter().enumerate() {
            record_owner(claim, &placed.zone, zones, report);
            record_set(index, placed, report);
        }
        services(placed, report);
        grants(placed, zones, report);
        unmanaged(placed, zones, report);
        servers(placed, zones, groups, report);
    }
}

/// The zones below `zone` that `name` lies in.
fn child_of<'a>(name: &Name, zone: &Zone, zones: &'a [Placed]) -> Option<&'a Zone> {
    let below = |other: &&Zone| other.origin != zone.origin && other.origin.is_in(&zone.origin);
    zones.iter().map(|placed| &placed.zone).filter(below).find(|other| name.is_in(&other.origin))
}

/// A record is declared by the level or the service whose name it has.
fn record_owner(claim: &Claim, zone: &Zone, zones: &[Placed], report: &mut Report) {
    let (name, written) = (&claim.written.record.owner, &claim.written);
    let path = Path::Text(&written.path);
    if let Some(child) = child_of(name, zone, zones) {
        let message = format!("{name} is in the zone {} of {}; declare it there", child.origin, child.owner);
        report.add(written.at, &path, message);
    }
    if let Some(service) = zone.service_of(name).filter(|service| claim.service.as_ref() != Some(&service.name)) {
        let message = format!("{name} belongs to the service {} of {}; declare it there", service.name, service.owner);
        report.add(written.at, &path, message);
    }
}

/// What RFC 1034, 3.6.2 and RFC 2181, 5.2 ask of the records at one name.
fn record_set(index: usize, placed: &Placed, report: &mut Report) {
    let Claim { written, .. } = &placed.records[index];
    let Record { owner, rtype, ttl, .. } = &written.record;
    let path = Path::Text(&written.path);
    let others = placed.zone.records.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other);
    let same_name: Vec<&Record> = others.filter(|other| other.owner == *owner).collect();
    if *rtype == Rtype::CNAME && (*owner == placed.zone.origin || !same_name.is_empty()) {
        report.add(written.at, &path, format!("{owner} has other records too; a CNAME record stands alone"));
    }
    if let Some(other) = same_name.iter().find(|other| other.rtype == *rtype && other.ttl != *ttl) {
        let message = format!("the {rtype} records of {owner} have the TTLs {ttl} and {}; give them one", other.ttl);
        report.add(written.at, &path, message);
    }
}

/// A service's name must not be one at which external-dns keeps the ownership records of another.
fn services(placed: &Placed, report: &mut Report) {
    let zone = &placed.zone;
    for service in &zone.services {
        let beside = |other: &&super::Service| {
            let label = other.name.first_label().unwrap_or_default();
            let names = super::writers::REGISTRY_PREFIXES.map(|prefix| [prefix.as_bytes(), label].concat());
            service.name.first_label().is_some_and(|label| names.iter().any(|name| name == label))
        };
        let written = |other: &super::Service| {
            zone.grants.iter().any(|grant| grant.subtree == other.name && grant.types.contains(&Rtype::TXT))
        };
        if let Some(other) = zone.services.iter().filter(beside).find(|other| written(other)) {
            let message = format!(
                "external-dns keeps the ownership records of {} at the name of the service {}; rename one of them",
                other.name, service.name
            );
            report.add(placed.at, &Path::Text(&placed.path), message);
        }
    }
}

/// A key writes where no other zone is.
fn grants(placed: &Placed, zones: &[Placed], report: &mut Report) {
    for grant in &placed.zone.grants {
        if let Some(child) = child_of(&grant.subtree, &placed.zone, zones) {
            let message = format!(
                "the key {} may write {}, which is in the zone {} of {}; let it write there",
                grant.key, grant.subtree, child.origin, child.owner
            );
            report.add(placed.at, &Path::Text(&placed.path), message);
        }
    }
}

/// What plans leave alone cannot be declared.
fn unmanaged(placed: &Placed, zones: &[Placed], report: &mut Report) {
    let zone = &placed.zone;
    let mut fail = |message: String| report.add(placed.at, &Path::Text(&placed.path), message);
    for name in &zone.unmanaged {
        if let Some(record) = zone.records.iter().find(|record| record.owner.is_in(name)) {
            fail(format!("{name} is unmanaged, but {} is declared; it can be one of these", record.owner));
        }
        let children = zones.iter().filter(|other| other.zone.origin != zone.origin);
        if let Some(child) = children.into_iter().find(|other| other.zone.origin.is_in(name)) {
            fail(format!(
                "{name} is unmanaged, but the zone {} is declared; it can be one of these",
                child.zone.origin
            ));
        }
        if let Some(service) =
            zone.services.iter().find(|service| service.name.is_in(name) || name.is_in(&service.name))
        {
            fail(format!("{name} is unmanaged, but it overlaps the service {} of {}", service.name, service.owner));
        }
    }
}

/// Names of servers that lie under the root need a place of their own, and one set of addresses.
fn servers(placed: &Placed, zones: &[Placed], groups: &BTreeMap<String, Group>, report: &mut Report) {
    let zone = &placed.zone;
    let mut fail = |message: String| report.add(placed.at, &Path::Text(&placed.path), message);
    let ours = |name: &Name| name.is_in(&zone.origin) && child_of(name, zone, zones).is_none();
    let mut addresses: BTreeMap<&Name, &[std::net::IpAddr]> = BTreeMap::new();
    for (group_name, server) in
        groups.iter().flat_map(|(name, group)| group.servers.iter().map(move |server| (name, server)))
    {
        if !ours(&server.name) {
            continue;
        }
        if addresses.insert(&server.name, &server.addresses).is_some_and(|other| other != server.addresses) {
            fail(format!("the name server {} has different addresses in different groups", server.name));
        }
        if let Some(service) = zone.service_of(&server.name) {
            fail(format!(
                "the name server {} of the group {group_name} has a name of the service {}; give it another",
                server.name, service.name
            ));
        }
        let declared = |record: &&Record| {
            record.owner == server.name && matches!(record.rtype, Rtype::A | Rtype::AAAA | Rtype::CNAME)
        };
        if zone.records.iter().any(|record| declared(&record)) {
            fail(format!(
                "the addresses of the name server {} follow from name_servers; remove its records",
                server.name
            ));
        }
    }
}
