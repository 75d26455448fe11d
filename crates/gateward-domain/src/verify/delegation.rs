//! The parent's side of a zone: its referral names the zone's servers, does not claim to be the answer, and brings the
//! addresses that cannot be found otherwise.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gateward_zone::{Rcode, Record, Rtype};

use super::client::Reply;
use super::report::Checks;
use super::{Verifier, label, same_servers};
use crate::declaration::{Declaration, Server, Zone};

impl Verifier {
    pub(super) fn delegation(&self, declaration: &Declaration, parent: &Zone, zone: &Zone, checks: &mut Checks) {
        for (server, at) in self.endpoints(declaration.servers_of(parent)) {
            let label = label(server, at);
            let reply = match self.client.ask(at, &zone.origin, Rtype::NS) {
                Ok(reply) => reply,
                Err(reason) => {
                    checks.unseen("delegation", &label, reason);
                    continue;
                }
            };
            if reply.aa && !reply.answer.is_empty() {
                checks.hidden(&label);
                continue;
            }
            match referral(&reply, declaration, zone) {
                Ok(count) => checks.right("delegation", &label, format!("{count} name servers, as at the zone itself")),
                Err(reason) => checks.wrong("delegation", &label, reason),
            }
            match glue_of(&reply.additional, declaration.servers_of(zone), zone) {
                Ok(Some(count)) => checks.right("glue", &label, format!("{count} addresses, as declared")),
                Ok(None) => {}
                Err(reason) => checks.wrong("glue", &label, reason),
            }
        }
    }
}

fn referral(reply: &Reply, declaration: &Declaration, zone: &Zone) -> Result<usize, String> {
    if reply.rcode != Rcode::NOERROR {
        return Err(format!("{} instead of a referral; is the zone delegated?", reply.rcode));
    }
    if reply.aa {
        return Err("the parent claims to be the answer (AA is 1) and has none; the zone is not delegated".to_owned());
    }
    same_servers(&reply.authority, declaration, zone)
}

/// How many addresses came for servers whose names are in the zone itself; `None` if there are no such servers.
pub(super) fn glue_of(records: &[Record], servers: &[Server], zone: &Zone) -> Result<Option<usize>, String> {
    let mut count = None;
    for server in servers.iter().filter(|server| server.name.is_in(&zone.origin)) {
        let of_server = records.iter().filter(|record| record.owner == server.name);
        let found: BTreeSet<IpAddr> = of_server.filter_map(address).collect();
        let declared: BTreeSet<IpAddr> = server.addresses.iter().copied().collect();
        if found != declared {
            let listed = |addresses: &BTreeSet<IpAddr>| match addresses.is_empty() {
                true => "none".to_owned(),
                false => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            };
            return Err(format!("{}: {}; declared: {}", server.name, listed(&found), listed(&declared)));
        }
        *count.get_or_insert(0) += found.len();
    }
    Ok(count)
}

/// The address in an A or AAAA record.
pub(super) fn address(record: &Record) -> Option<IpAddr> {
    let octets = record.rdata.as_wire();
    match record.rtype {
        Rtype::A => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        Rtype::AAAA => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}
