//! From the root of the domain down to a name, as a resolver goes: by referrals only.

use std::net::SocketAddr;

use gateward_zone::{Name, Rcode, Rtype};

use super::client::Reply;
use super::delegation::address;
use super::{Verifier, target};
use crate::declaration::{Declaration, Server};

/// Referrals that are followed; a hierarchy has four levels.
const MAX_REFERRALS: usize = 8;

/// Where a walk ended.
pub(super) struct Walked {
    /// The zones that referred, from the root on.
    pub(super) path: Vec<Name>,
    pub(super) reply: Reply,
}

impl Verifier {
    /// Asks for `name`, beginning at the root's servers.
    pub(super) fn walk(&self, declaration: &Declaration, name: &Name, rtype: Rtype) -> Result<Walked, String> {
        let root = declaration.zone(&declaration.root).ok_or("the declaration has no root zone")?;
        let mut path = vec![declaration.root.clone()];
        let mut servers: Vec<SocketAddr> =
            self.endpoints(declaration.servers_of(root)).into_iter().map(|(_, at)| at).collect();
        for _ in 0..=MAX_REFERRALS {
            let reply = self.first_answer(&servers, name, rtype)?;
            let last = path.last().unwrap_or(&declaration.root);
            let Some(cut) = cut(&reply, name, last) else {
                return Ok(Walked { path, reply });
            };
            servers = self.referred(declaration, &reply, &cut);
            if servers.is_empty() {
                return Err(format!("{last} refers to {cut}, but no address of its servers is known"));
            }
            path.push(cut);
        }
        Err(format!("more than {MAX_REFERRALS} referrals: {}", shown(&path)))
    }

    /// What the first server says that says anything.
    fn first_answer(&self, servers: &[SocketAddr], name: &Name, rtype: Rtype) -> Result<Reply, String> {
        let mut failures = Vec::new();
        for server in servers {
            match self.client.ask(*server, name, rtype) {
                Ok(reply) if matches!(reply.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) => return Ok(reply),
                Ok(reply) => failures.push(format!("{server}: {}", reply.rcode)),
                Err(reason) => failures.push(format!("{server}: {reason}")),
            }
        }
        Err(failures.join("; "))
    }

    /// Where to ask next: glue, or the address of a server that the declaration knows.
    fn referred(&self, declaration: &Declaration, reply: &Reply, cut: &Name) -> Vec<SocketAddr> {
        let names = reply.authority.iter().filter(|record| record.rtype == Rtype::NS && record.owner == *cut);
        let known = |name: &Name| {
            let servers = declaration.groups.values().flat_map(|group| &group.servers);
            servers.into_iter().find(|server| server.name == *name).cloned()
        };
        let servers: Vec<Server> = names
            .filter_map(target)
            .filter_map(|name| {
                let glue: Vec<_> =
                    reply.additional.iter().filter(|record| record.owner == name).filter_map(address).collect();
                match known(&name) {
                    // Its query address stands for any of its addresses.
                    Some(server) if server.query.is_some() || glue.is_empty() => Some(server),
                    _ if glue.is_empty() => None,
                    _ => Some(Server { name, addresses: glue, query: None }),
                }
            })
            .collect();
        self.endpoints(&servers).into_iter().map(|(_, at)| at).collect()
    }
}

/// The zone that a reply refers to: deeper than the last one, and above the name.
fn cut(reply: &Reply, name: &Name, last: &Name) -> Option<Name> {
    if reply.aa || !reply.answer.is_empty() || reply.rcode != Rcode::NOERROR {
        return None;
    }
    let deeper = |owner: &Name| owner != last && owner.is_in(last) && name.is_in(owner);
    let found = reply.authority.iter().find(|record| record.rtype == Rtype::NS && deeper(&record.owner));
    found.map(|record| record.owner.clone())
}

/// `a -> b -> c`.
pub(super) fn shown(path: &[Name]) -> String {
    path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
}
