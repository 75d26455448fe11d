//! The target group: who is in it, who gets a new connection, which connections there are, and what happened.
//!
//! Without sockets and clocks: moments come in, decisions go out.

use super::Event;
use super::settings::{Settings, Target};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Names a target for as long as the balancer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TargetId(u64);

/// What the checks say of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not checked often enough yet.
    Initial,
    /// It gets connections.
    Healthy,
    /// It failed its checks.
    Unhealthy,
}

/// Why the balancer resets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    Unhealthy,
    Terminated,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(crate) enum Choice {
    /// It goes to this target. The receiver tells when it is to be reset.
    To { addr: SocketAddr, flow: FlowId, reset: oneshot::Receiver<Reset> },
    /// The target has a connection with these addresses and ports already.
    Duplicate,
    /// There is nobody to send it to.
    Nobody,
}

/// Names a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlowId(u64);

#[derive(Debug)]
struct Member {
    id: TargetId,
    target: Target,
    health: Health,
    /// Results that speak against `health`, in a row.
    against: u32,
    unhealthy_since: Option<Instant>,
    deregistered: Option<Instant>,
}

#[derive(Debug)]
struct Flow {
    target: TargetId,
    client: SocketAddr,
    reset: Option<oneshot::Sender<Reset>>,
}

#[derive(Debug)]
pub(crate) struct Group {
    cross_zone: bool,
    unhealthy_lag: Duration,
    deregistration_lag: Duration,
    preserve_client_ip: bool,
    unhealthy_termination: bool,
    thresholds: (u32, u32),
    members: Vec<Member>,
    flows: HashMap<FlowId, Flow>,
    /// Client addresses as targets see them.
    tuples: HashSet<(TargetId, SocketAddr)>,
    sent: HashMap<TargetId, u64>,
    counts: BTreeMap<Event, u64>,
    next: u64,
}

impl Group {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            cross_zone: settings.cross_zone,
            unhealthy_lag: settings.scaled(settings.unhealthy_lag),
            deregistration_lag: settings.scaled(settings.deregistration_lag),
            preserve_client_ip: settings.preserve_client_ip,
            unhealthy_termination: settings.unhealthy_termination,
            thresholds: (settings.check.healthy_threshold, settings.check.unhealthy_threshold),
            members: Vec::new(),
            flows: HashMap::new(),
            tuples: HashSet::new(),
            sent: HashMap::new(),
            counts: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn register(&mut self, target: Target) -> TargetId {
        self.next += 1;
        let id = TargetId(self.next);
        let member =
            Member { id, target, health: Health::Initial, against: 0, unhealthy_since: None, deregistered: None };
        self.members.push(member);
        id
    }

    pub(crate) fn deregister(&mut self, id: TargetId, now: Instant) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            member.deregistered = Some(now);
        }
    }

    /// Forgets a target; its connections go on unless they are to be reset.
    pub(crate) fn remove(&mut self, id: TargetId, reset: Option<Reset>) {
        self.members.retain(|member| member.id != id);
        if let Some(reset) = reset {
            self.reset_flows(id, reset);
        }
    }

    /// The target, while it is to be checked.
    pub(crate) fn checked(&self, id: TargetId) -> Option<Target> {
        let member = self.members.iter().find(|member| member.id == id)?;
        member.deregistered.is_none().then_some(member.target)
    }

    pub(crate) fn health(&self, id: TargetId) -> Option<Health> {
        self.members.iter().find(|member| member.id == id).map(|member| member.health)
    }

    /// A check has ended.
    pub(crate) fn report(&mut self, id: TargetId, success: bool, now: Instant) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else { return };
        let (becomes, threshold) =
            if success { (Health::Healthy, self.thresholds.0) } else { (Health::Unhealthy, self.thresholds.1) };
        if member.health == becomes {
            member.against = 0;
            return;
        }
        member.against += 1;
        if member.against < threshold {
            return;
        }
        (member.health, member.against) = (becomes, 0);
        member.unhealthy_since = (!success).then_some(now);
        if !success && self.unhealthy_termination {
            self.reset_flows(id, Reset::Unhealthy);
        }
    }

    /// The target of a new connection from `client` to `balancer`, the address of `zone`.
    pub(crate) fn choose(&mut self, client: SocketAddr, balancer: SocketAddr, zone: usize, now: Instant) -> Choice {
        self.note(Event::Flow);
        self.next += 1;
        // The number stands for the sequence number of the first packet, which an NLB hashes, too.
        let mut hasher = DefaultHasher::new();
        (client, balancer, self.next).hash(&mut hasher);
        let Some((id, addr, deregistered)) = self.pick(zone, hasher.finish(), now) else {
            self.note(Event::BlackHole);
            return Choice::Nobody;
        };
        if deregistered {
            self.note(Event::ToDeregistered);
        }
        if self.preserve_client_ip && !self.tuples.insert((id, client)) {
            self.note(Event::Duplicate);
            return Choice::Duplicate;
        }
        *self.sent.entry(id).or_default() += 1;
        let flow = FlowId(self.next);
        let (sender, reset) = oneshot::channel();
        self.flows.insert(flow, Flow { target: id, client, reset: Some(sender) });
        Choice::To { addr, flow, reset }
    }

    /// The connection has ended, or was forgotten.
    pub(crate) fn ended(&mut self, flow: FlowId) {
        if let Some(flow) = self.flows.remove(&flow) {
            self.tuples.remove(&(flow.target, flow.client));
        }
    }

    pub(crate) fn note(&mut self, event: Event) {
        *self.counts.entry(event).or_default() += 1;
    }

    pub(crate) fn count(&self, event: Event) -> u64 {
        self.counts.get(&event).copied().unwrap_or_default()
    }

    pub(crate) fn flows_to(&self, id: TargetId) -> u64 {
        self.sent.get(&id).copied().unwrap_or_default()
    }

    pub(crate) fn events(&self) -> String {
        format!("{:?}", self.counts)
    }

    /// Among the targets that are, or still pass for, healthy; among all when none is.
    fn pick(&self, zone: usize, hash: u64, now: Instant) -> Option<(TargetId, SocketAddr, bool)> {
        let within = |since: Instant, lag: Duration| now.saturating_duration_since(since) < lag;
        let here: Vec<&Member> = self
            .members
            .iter()
            .filter(|member| self.cross_zone || member.target.zone == zone)
            .filter(|member| member.deregistered.is_none_or(|since| within(since, self.deregistration_lag)))
            .collect();
        let passes = |member: &&&Member| {
            member.health == Health::Healthy
                || member.unhealthy_since.is_some_and(|since| within(since, self.unhealthy_lag))
        };
        let healthy: Vec<&Member> = here.iter().filter(passes).copied().collect();
        let among = if healthy.is_empty() { here } else { healthy };
        let index = usize::try_from(hash % among.len().max(1) as u64).unwrap_or_default();
        among.get(index).map(|member| (member.id, member.target.addr, member.deregistered.is_some()))
    }

    fn reset_flows(&mut self, id: TargetId, reset: Reset) {
        for flow in self.flows.values_mut().filter(|flow| flow.target == id) {
            if let Some(sender) = flow.reset.take() {
                // The connection may be ending just now.
                let _ = sender.send(reset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn group(settings: &Settings, zones: &[usize]) -> (Group, Vec<TargetId>) {
        let mut group = Group::new(settings);
        let target = |index: usize, zone| Target::new(addr(index as u16)).in_zone(zone);
        let ids = zones.iter().enumerate().map(|(index, zone)| group.register(target(index, *zone))).collect();
        (group, ids)
    }

    /// The targets that 64 connections to `zone` go to, by port.
    fn reached(group: &mut Group, zone: usize, now: Instant) -> HashSet<u16> {
        let choose = |client| match group.choose(addr(client), addr(9), zone, now) {
            Choice::To { addr, .. } => Some(addr.port()),
            _ => None,
        };
        (1_000..1_064).filter_map(choose).collect()
    }

    #[test]
    fn only_healthy_targets_get_connections_and_all_when_none_is() {
        let (mut group, ids) = group(&Settings::default(), &[0, 0]);
        let now = Instant::now();
        assert_eq!(reached(&mut group, 0, now), HashSet::from([0, 1]), "fail open");
        for _ in 0..2 {
            group.report(ids[0], true, now);
        }
        assert_eq!(group.health(ids[0]), Some(Health::Healthy));
        assert_eq!(reached(&mut group, 0, now), HashSet::from([0]));
    }

    #[test]
    fn a_target_that_was_taken_out_gets_connections_for_a_while() {
        let settings = Settings { times_faster: 1, ..Settings::default() };
        let (mut group, ids) = group(&settings, &[0, 0]);
        let now = Instant::now();
        group.deregister(ids[0], now);
        assert_eq!(reached(&mut group, 0, now + Duration::from_secs(119)), HashSet::from([0, 1]));
        assert!(group.count(Event::ToDeregistered) > 0);
        assert_eq!(reached(&mut group, 0, now + Duration::from_secs(120)), HashSet::from([1]));
    }

    #[test]
    fn a_zone_without_targets_is_a_black_hole_unless_zones_are_crossed() {
        for (cross_zone, expected) in [(false, HashSet::new()), (true, HashSet::from([0]))] {
            let settings = Settings { zones: 2, cross_zone, ..Settings::default() };
            let (mut group, _) = group(&settings, &[0]);
            assert_eq!(reached(&mut group, 1, Instant::now()), expected);
        }
    }

    #[test]
    fn the_second_connection_with_the_same_addresses_is_a_duplicate_until_the_first_ends() {
        for preserve_client_ip in [true, false] {
            let settings = Settings { zones: 2, cross_zone: true, preserve_client_ip, ..Settings::default() };
            let (mut group, _) = group(&settings, &[0]);
            let now = Instant::now();
            let Choice::To { flow, .. } = group.choose(addr(5), addr(8), 0, now) else { panic!("nobody") };
            let second = group.choose(addr(5), addr(9), 1, now);
            assert_eq!(matches!(second, Choice::Duplicate), preserve_client_ip, "{second:?}");
            if let Choice::To { flow, .. } = second {
                group.ended(flow);
            }
            group.ended(flow);
            assert!(matches!(group.choose(addr(5), addr(9), 1, now), Choice::To { .. }));
        }
    }

    #[test]
    fn a_target_that_fails_has_its_connections_reset_where_that_is_on() {
        for unhealthy_termination in [true, false] {
            let settings = Settings { unhealthy_termination, ..Settings::default() };
            let (mut group, ids) = group(&settings, &[0]);
            let now = Instant::now();
            let Choice::To { mut reset, .. } = group.choose(addr(5), addr(9), 0, now) else { panic!("nobody") };
            group.report(ids[0], false, now);
            assert!(reset.try_recv().is_err(), "once is not enough");
            group.report(ids[0], false, now);
            assert_eq!(reset.try_recv().ok(), unhealthy_termination.then_some(Reset::Unhealthy));
        }
    }
}
