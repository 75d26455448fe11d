//! Who stands behind an upstream's targets: a target that is an address is one member, one that is a name has a member
//! for each address it leads to, with a health and a share of its own.
//!
//! Shares are Kong's (kong/runloop/balancer): each address has the weight of its target, but an SRV record brings its
//! own, and its own port. A weight of 0 takes a target out whatever records say.

use crate::plan::{TargetPlan, UpstreamPlan};
use gateward_balance::TargetHealth;
use gateward_net::dns::{Answer, Name, Names};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

/// One address of a target.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Its identity through changes: the target's `host:port`, and the address where that is another.
    pub(crate) name: Arc<str>,
    pub(crate) plan: Arc<TargetPlan>,
    pub(crate) address: SocketAddr,
    pub(crate) weight: u16,
    /// The host that an SRV record names, where the upstream asks for it by that (`use_srv_name`).
    pub(crate) srv_host: Option<Arc<str>>,
    pub(crate) health: Arc<TargetHealth>,
}

impl Member {
    /// The host it is asked for by.
    pub(crate) fn host(&self) -> &str {
        self.srv_host.as_deref().unwrap_or(&self.plan.host)
    }
}

/// The name of a target, and what was known of it.
#[derive(Debug)]
pub(super) struct Named {
    /// `None`: too many names are known.
    name: Option<Arc<Name>>,
    answer: Option<Arc<Answer>>,
}

impl Named {
    fn of(host: &str, names: Option<&Arc<Names>>) -> Self {
        let name = names.and_then(|names| names.name(host));
        Self { answer: name.as_ref().and_then(|name| name.answer()), name }
    }

    /// Whether the name leads elsewhere now.
    pub(super) fn is_outdated(&self) -> bool {
        let Some(name) = &self.name else { return false };
        match &self.answer {
            Some(answer) => !name.is_current(answer),
            None => name.answer().is_some(),
        }
    }

    /// Whether it is not known yet where it leads.
    pub(super) fn is_pending(&self) -> bool {
        self.name.is_some() && self.answer.is_none()
    }

    /// Have it looked up soon.
    pub(super) fn want(&self) {
        if let Some(name) = &self.name {
            name.want();
        }
    }
}

/// A member without its health.
pub(super) struct Place {
    pub(super) name: Arc<str>,
    pub(super) plan: Arc<TargetPlan>,
    pub(super) address: SocketAddr,
    pub(super) weight: u16,
    pub(super) srv_host: Option<Arc<str>>,
}

/// The members of `plan` by what `names` know now, and the names among its targets.
pub(super) fn places(plan: &UpstreamPlan, names: Option<&Arc<Names>>) -> (Vec<Place>, Vec<Named>) {
    let (mut places, mut named) = (Vec::with_capacity(plan.targets.len()), Vec::new());
    for target in &plan.targets {
        let entity = &target.entity;
        if let Some(ip) = target.literal {
            let address = SocketAddr::new(ip, target.port);
            let name = entity.target.as_str().into();
            places.push(Place { name, plan: target.clone(), address, weight: entity.weight, srv_host: None });
            continue;
        }
        let name = Named::of(&target.host, names);
        for endpoint in name.answer.iter().flat_map(|answer| answer.endpoints()) {
            let address = SocketAddr::new(endpoint.ip, endpoint.port.map_or(target.port, NonZeroU16::get));
            let own = endpoint.weight.filter(|_| entity.weight > 0);
            places.push(Place {
                name: format!("{} ({address})", entity.target).into(),
                plan: target.clone(),
                address,
                weight: own.map_or(entity.weight, NonZeroU16::get),
                srv_host: endpoint.host.clone().filter(|_| plan.entity.use_srv_name),
            });
        }
        named.push(name);
    }
    (places, named)
}
