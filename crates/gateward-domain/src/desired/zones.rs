//! The records of a zone: name servers, delegations with glue, what is declared, and whose it is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gateward_zone::{Name, Rdata, Record, Rtype, Soa};

use super::{DesiredZone, LeftAlone, MARK};
use crate::declaration::{Declaration, Runtime, Server, Zone, policy_text, text};

/// What `zone` must hold.
pub(super) fn zone(declaration: &Declaration, zone: &Zone) -> DesiredZone {
    let mut records: BTreeSet<Record> = zone.records.iter().cloned().collect();
    records.extend(name_servers(declaration, zone, &zone.origin, zone.settings.ns_ttl));
    for child in declaration.children_of(zone) {
        records.extend(name_servers(declaration, child, &child.origin, zone.settings.ns_ttl));
        records.extend(glue(declaration, zone, child));
    }
    records.extend(server_addresses(declaration, zone));
    records.extend(mark(declaration, zone));
    let group = declaration.groups.get(&zone.group);
    DesiredZone {
        origin: zone.origin.clone(),
        level: zone.level,
        environment: zone.environment.clone(),
        region: zone.region.clone(),
        owner: zone.owner.clone(),
        control: group.map(|group| group.control.clone()).unwrap_or_default(),
        soa: soa(declaration, zone),
        soa_ttl: zone.settings.ns_ttl,
        records,
        policy: policy_text(declaration, zone),
        keys: zone
            .grants
            .iter()
            .map(|grant| grant.key.clone())
            .chain(group.and_then(|group| group.transfer_key.clone()))
            .collect(),
        left_alone: left_alone(zone),
    }
}

fn soa(declaration: &Declaration, zone: &Zone) -> Soa {
    let timers = &zone.settings.soa;
    let contact = timers.contact.clone().or_else(|| declaration.root.child(b"hostmaster").ok());
    let primary = declaration.servers_of(zone).first().map(|server| server.name.clone());
    Soa {
        mname: primary.unwrap_or_else(|| zone.origin.clone()),
        rname: contact.unwrap_or_else(|| declaration.root.clone()),
        serial: 0,
        refresh: timers.refresh,
        retry: timers.retry,
        expire: timers.expire,
        minimum: timers.negative_ttl,
    }
}

/// The NS records of `of`, at its apex or in its parent.
fn name_servers(declaration: &Declaration, of: &Zone, owner: &Name, ttl: u32) -> Vec<Record> {
    let servers = declaration.servers_of(of).iter();
    servers
        .map(|server| {
            let rdata = Rdata::from_wire(server.name.as_wire());
            Record { owner: owner.clone(), rtype: Rtype::NS, ttl, rdata }
        })
        .collect()
}

/// Addresses of the name servers of `child` that can only be found below `zone` (RFC 9471, sibling glue included).
fn glue(declaration: &Declaration, zone: &Zone, child: &Zone) -> Vec<Record> {
    let below = |server: &&Server| {
        server.name.is_in(&zone.origin)
            && declaration.zone_of(&server.name).is_some_and(|holder| holder.origin != zone.origin)
    };
    declaration.servers_of(child).iter().filter(below).flat_map(|server| addresses(server, zone)).collect()
}

/// Addresses of the name servers whose names are in this zone.
fn server_addresses(declaration: &Declaration, zone: &Zone) -> Vec<Record> {
    let here = |server: &&Server| declaration.zone_of(&server.name).is_some_and(|holder| holder.origin == zone.origin);
    let used = declaration.zones.iter().flat_map(|zone| declaration.servers_of(zone));
    used.filter(here).flat_map(|server| addresses(server, zone)).collect()
}

fn addresses<'a>(server: &'a Server, zone: &'a Zone) -> impl Iterator<Item = Record> + 'a {
    server.addresses.iter().map(|address| {
        let (rtype, rdata) = match address {
            IpAddr::V4(address) => (Rtype::A, Rdata::from_wire(address.octets())),
            IpAddr::V6(address) => (Rtype::AAAA, Rdata::from_wire(address.octets())),
        };
        Record { owner: server.name.clone(), rtype, ttl: zone.settings.ns_ttl, rdata }
    })
}

/// Who answers for the zone, and by which declaration: found with `dig TXT _gateward.ZONE`.
fn mark(declaration: &Declaration, zone: &Zone) -> Option<Record> {
    let said = format!(
        "heritage=gateward,{}gateward/level={},gateward/owner={}",
        mark_of_root(&declaration.root),
        zone.level.as_str(),
        zone.owner
    );
    let owner = zone.origin.child(MARK).ok()?;
    Some(Record { owner, rtype: Rtype::TXT, ttl: zone.settings.ns_ttl, rdata: text(said.as_bytes()) })
}

/// The part of the mark that names the declaration; its comma tells `example.com.` from `example.com.org.`.
pub(super) fn mark_of_root(root: &Name) -> String {
    format!("gateward/root={root},")
}

fn left_alone(zone: &Zone) -> Vec<LeftAlone> {
    let mut alone: Vec<LeftAlone> = Vec::new();
    for service in zone.services.iter().filter(|service| service.runtime != Runtime::Static) {
        // The apex of a service's own zone is the service's name: what registers it may be anywhere in the zone.
        alone.push(LeftAlone { subtree: service.name.clone(), types: None });
    }
    for grant in &zone.grants {
        alone.push(LeftAlone { subtree: grant.subtree.clone(), types: Some(grant.types.clone()) });
    }
    alone.extend(zone.unmanaged.iter().map(|name| LeftAlone { subtree: name.clone(), types: None }));
    alone
}
