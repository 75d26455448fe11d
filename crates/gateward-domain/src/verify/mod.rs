//! Proof that a domain answers: every delegation is walked with real queries, and what servers say is compared with what is
//! declared and with each other.
//!
//! The name servers are asked as a resolver asks them. Control APIs are read only for what no query shows: the delegation to a
//! zone that the parent's server has too. What was not seen is not right.

mod client;
mod delegation;
mod hidden;
mod report;
mod service;
mod walk;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateward_zone::{Name, Rcode, Record, Rtype, rdata};

use crate::declaration::{Declaration, Server, Zone};
use crate::desired::serial_of;
use crate::provider::Fleet;

pub use client::Client;
pub use report::{Check, Outcome, Verification};

use client::Reply;
use report::Checks;

/// How long is waited before everything is looked at again.
const PAUSE: Duration = Duration::from_millis(250);
/// Zones that are looked at at the same time.
const PARALLEL: usize = 8;

/// What to verify, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verifier {
    /// How questions are asked.
    pub client: Client,
    /// Do not ask IPv6 addresses: this machine may have no way to them.
    pub ipv4_only: bool,
}

impl Verifier {
    /// Looks at every zone and every service once. `fleet` may be empty; then delegations that queries do not show are unknown.
    #[must_use]
    pub fn verify(&self, declaration: &Declaration, fleet: &Fleet<'_>) -> Verification {
        let mut checks = Vec::new();
        for zones in declaration.zones.chunks(PARALLEL) {
            std::thread::scope(|scope| {
                let started: Vec<_> =
                    zones.iter().map(|zone| (zone, scope.spawn(move || self.zone(declaration, zone)))).collect();
                for (zone, thread) in started {
                    checks.extend(thread.join().unwrap_or_else(|_| lost(zone)));
                }
            });
        }
        Verification { root: declaration.root.to_string(), checks: hidden::look(declaration, fleet, checks) }
    }

    /// Looks until everything is right or `patience` is over: secondaries need a moment to follow.
    #[must_use]
    pub fn verify_within(&self, declaration: &Declaration, fleet: &Fleet<'_>, patience: Duration) -> Verification {
        let until = Instant::now() + patience;
        loop {
            let verification = self.verify(declaration, fleet);
            if verification.is_right() || Instant::now() + PAUSE > until {
                return verification;
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    fn zone(&self, declaration: &Declaration, zone: &Zone) -> Vec<Check> {
        let mut checks = Checks::new(zone);
        self.servers(declaration, zone, &mut checks);
        if let Some(parent) = declaration.parent_of(zone) {
            self.delegation(declaration, parent, zone, &mut checks);
        }
        for service in &zone.services {
            self.service(declaration, zone, service, &mut checks);
        }
        checks.into_list()
    }

    /// Each server speaks for the zone, over UDP and TCP, with the same name servers and the same serial.
    fn servers(&self, declaration: &Declaration, zone: &Zone, checks: &mut Checks) {
        let mut serials = BTreeSet::new();
        let mut silent = 0;
        for server in declaration.servers_of(zone) {
            if self.endpoints(std::slice::from_ref(server)).is_empty() {
                silent += 1;
                let reason = "there is no address to ask it at; give it `addresses`, or `query`".to_owned();
                checks.unseen("authoritative", &server.name.to_string(), reason);
            }
        }
        for (server, at) in self.endpoints(declaration.servers_of(zone)) {
            let label = label(server, at);
            match self.client.ask(at, &zone.origin, Rtype::SOA).and_then(|reply| serial(&reply, &zone.origin)) {
                Ok(serial) => {
                    serials.insert(serial);
                    checks.right("authoritative", &label, format!("serial {serial}"));
                }
                Err(reason) => {
                    silent += 1;
                    checks.wrong("authoritative", &label, reason);
                    continue;
                }
            }
            match self.client.ask_tcp(at, &zone.origin, Rtype::SOA).and_then(|reply| serial(&reply, &zone.origin)) {
                Ok(_) => checks.right("tcp", &label, String::new()),
                Err(reason) => checks.wrong("tcp", &label, reason),
            }
            let asked = self.client.ask(at, &zone.origin, Rtype::NS);
            match asked.and_then(|reply| same_servers(&reply.answer, declaration, zone)) {
                Ok(count) => checks.right("ns", &label, format!("{count} name servers, as declared")),
                Err(reason) => checks.wrong("ns", &label, reason),
            }
        }
        match serials.len() {
            0 => {}
            1 if silent > 0 => checks.unseen("serials", "all", format!("{silent} of the servers did not say theirs")),
            1 => checks.right("serials", "all", "the same on every server".to_owned()),
            _ => {
                let listed: Vec<String> = serials.iter().map(u32::to_string).collect();
                checks.wrong(
                    "serials",
                    "all",
                    format!("the servers have {}; transfers do not arrive", listed.join(", ")),
                );
            }
        }
    }

    /// Where to ask servers: where the declaration says, or at port 53 of each address.
    fn endpoints<'s>(&self, servers: &'s [Server]) -> Vec<(&'s Server, SocketAddr)> {
        let mut endpoints = Vec::new();
        for server in servers {
            match server.query {
                Some(at) => endpoints.push((server, at)),
                None => {
                    let usable = server.addresses.iter().filter(|address| address.is_ipv4() || !self.ipv4_only);
                    endpoints.extend(usable.map(|address| (server, SocketAddr::new(*address, 53))));
                }
            }
        }
        endpoints
    }
}

/// What is known of a zone whose examination ended in a panic.
fn lost(zone: &Zone) -> Vec<Check> {
    let mut checks = Checks::new(zone);
    checks.unseen("authoritative", "all", "an internal error; report it with the declaration".to_owned());
    checks.into_list()
}

fn label(server: &Server, at: SocketAddr) -> String {
    format!("{} ({at})", server.name)
}

/// The serial in an answer for which the server takes responsibility.
fn serial(reply: &Reply, origin: &Name) -> Result<u32, String> {
    if reply.rcode != Rcode::NOERROR {
        return Err(format!("{} for the SOA record", reply.rcode));
    }
    let soa = reply.answer.iter().find(|record| record.rtype == Rtype::SOA && record.owner == *origin);
    let serial = soa.and_then(serial_of).ok_or_else(|| "no SOA record in the answer".to_owned())?;
    if reply.aa { Ok(serial) } else { Err("the answer is not authoritative (AA is 0)".to_owned()) }
}

/// How many name servers records name, if they are those that are declared.
fn same_servers(records: &[Record], declaration: &Declaration, zone: &Zone) -> Result<usize, String> {
    let of_zone = records.iter().filter(|record| record.rtype == Rtype::NS && record.owner == zone.origin);
    let found: BTreeSet<Name> = of_zone.filter_map(target).collect();
    let declared: BTreeSet<Name> = declaration.servers_of(zone).iter().map(|server| server.name.clone()).collect();
    if found == declared {
        return Ok(found.len());
    }
    let listed = |names: &mut dyn Iterator<Item = &Name>| names.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(match (listed(&mut declared.difference(&found)), listed(&mut found.difference(&declared))) {
        (missing, extra) if extra.is_empty() => format!("missing: {missing}"),
        (missing, extra) if missing.is_empty() => format!("not declared: {extra}"),
        (missing, extra) => format!("missing: {missing}; not declared: {extra}"),
    })
}

/// The name in the data of an NS or CNAME record.
fn target(record: &Record) -> Option<Name> {
    Name::from_wire(record.rdata.as_wire()).ok().map(|(name, _)| name)
}

/// The data of the set of a type at a name, letter case of names aside.
fn data(records: &[Record], name: &Name, rtype: Rtype) -> BTreeSet<Vec<u8>> {
    let of_set = records.iter().filter(|record| record.owner == *name && record.rtype == rtype);
    of_set.map(|record| rdata::canonical(rtype, record.rdata.as_wire()).into_owned()).collect()
}
