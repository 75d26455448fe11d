//! One upstream's balancer: the targets, what is known of each, and the choice.
//!
//! Targets keep an identity of their own beside their index, so that a request that started before a change of
//! targets is accounted to the target it used, wherever that is now.

use crate::latency::{PeakEwma, Typical};
use crate::random::Random;
use crate::schedule::{Position, Schedule};
use crate::slots::SlotTable;

/// Up to this many targets, least-connections and latency compare all of them. Above, they compare two chosen at
/// random, which is nearly as good (Mitzenmacher, "The power of two choices", 2001) and does not grow.
pub const SCAN_MAX_TARGETS: usize = 64;

/// Draws spent on finding two usable targets before all are compared after all.
const DRAWS_MAX: usize = 8;

/// How a target is chosen; Kong's upstream `algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, each as often as its weight says.
    RoundRobin,
    /// The target with the fewest requests in flight for its weight.
    LeastConnections,
    /// The same target for the same hash. A request without a hash is placed round-robin.
    ConsistentHashing {
        /// Size of the table hashes map to: Kong's `slots`, 10 to 65536; other values are brought into 1..=65536.
        slots: u32,
    },
    /// The target with the lowest recent latency for its weight and requests in flight.
    Latency,
}

/// One configured target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// `host:port` as configured: the identity of the target across changes.
    pub name: String,
    /// Its share, 0 to 65535; 0 is never chosen.
    pub weight: u16,
}

/// A choice: which target, in a form that stays right when the targets change afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    index: u32,
    id: u64,
}

impl Ticket {
    /// The position of the target in the list the balancer had when it was picked.
    pub fn index(&self) -> usize {
        self.index as usize
    }
}

/// The balancing state of one upstream on one worker.
#[derive(Debug, Clone)]
pub struct Balancer {
    algorithm: Algorithm,
    targets: Vec<Target>,
    schedule: Schedule,
    slots: Option<SlotTable>,
    typical: Typical,
    random: Random,
    /// Where the next comparison starts: equal targets take turns.
    cursor: usize,
    next_id: u64,
    generation: u64,
    /// The latest time seen, for targets that an update adds.
    now_us: u64,
}

#[derive(Debug, Clone)]
struct Target {
    id: u64,
    spec: TargetSpec,
    in_flight: u32,
    latency: PeakEwma,
}

impl Balancer {
    /// A balancer over `targets`. The seed sets where round-robin starts and what random choices are made; give
    /// each worker its own (0, 1, 2, ... do well) so that they do not all begin with the same target.
    pub fn new(algorithm: Algorithm, targets: &[TargetSpec], seed: u64) -> Self {
        let mut balancer = Self {
            algorithm,
            targets: Vec::new(),
            schedule: Schedule::new(std::iter::empty(), Position::from_seed(seed)),
            slots: None,
            typical: Typical::default(),
            random: Random::new(seed),
            cursor: 0,
            next_id: 0,
            generation: 0,
            now_us: 0,
        };
        balancer.rebuild(algorithm, targets);
        balancer
    }

    /// Takes over a new configuration. Targets whose name stays keep their requests in flight and latency, and
    /// round-robin goes on where it was. Does nothing when nothing changed.
    pub fn update(&mut self, algorithm: Algorithm, targets: &[TargetSpec]) {
        let same_targets = self.targets.iter().map(|target| &target.spec).eq(targets);
        if same_targets && self.algorithm == algorithm {
            return;
        }
        let names = targets.iter().map(|spec| &spec.name);
        self.generation += u64::from(!self.targets.iter().map(|target| &target.spec.name).eq(names));
        self.rebuild(algorithm, targets);
    }

    /// Counts the changes of targets other than of weights. Indices taken at one generation mean nothing at another: a request that
    /// retries must drop its list of excluded indices when this has changed in between.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Chooses a target, or `None` when every target has weight 0 or is unavailable.
    ///
    /// - `hash`: the hash of the request's hash input ([`crate::hash_bytes`]); only consistent hashing reads it.
    /// - `excluded`: indices this request has tried. They are avoided while another target is available and
    ///   allowed again when none is, as Kong may retry the same target.
    /// - `available`: whether the target at an index is healthy.
    /// - `now_us`: microseconds since any fixed origin, the same for all calls.
    ///
    /// Nothing is counted until [`Balancer::started`].
    pub fn pick(
        &mut self,
        hash: Option<u64>,
        excluded: &[usize],
        available: impl Fn(usize) -> bool,
        now_us: u64,
    ) -> Option<Ticket> {
        self.now_us = self.now_us.max(now_us);
        let mut index = self.choose(hash, &|index| !excluded.contains(&index) && available(index));
        if index.is_none() && !excluded.is_empty() {
            index = self.choose(hash, &available);
        }
        let index = index?;
        Some(Ticket { index: index as u32, id: self.targets[index].id })
    }

    /// Counts a request in flight to the target.
    pub fn started(&mut self, ticket: Ticket, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        if let Some(target) = self.target_mut(ticket) {
            target.in_flight = target.in_flight.saturating_add(1);
        }
    }

    /// Ends what [`Balancer::started`] began; must follow it exactly once. `latency_us` is the time from sending
    /// the request to the head of the response, `None` when there was no response. Tickets of targets that are
    /// gone are ignored.
    pub fn finished(&mut self, ticket: Ticket, latency_us: Option<u64>, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        let Some(target) = self.target_mut(ticket) else {
            return;
        };
        target.in_flight = target.in_flight.saturating_sub(1);
        match latency_us {
            Some(latency_us) => {
                target.latency.observe(latency_us, now_us);
                self.typical.observe(latency_us);
            }
            None => target.latency.hold(now_us),
        }
    }

    /// Requests in flight to the target at `index`; 0 for an index out of range.
    pub fn in_flight(&self, index: usize) -> u32 {
        self.targets.get(index).map_or(0, |target| target.in_flight)
    }

    fn rebuild(&mut self, algorithm: Algorithm, specs: &[TargetSpec]) {
        let mut old: rustc_hash::FxHashMap<String, Vec<Target>> = rustc_hash::FxHashMap::default();
        // Reversed, so that of targets with the same name the first is popped first.
        for target in self.targets.drain(..).rev() {
            old.entry(target.spec.name.clone()).or_default().push(target);
        }
        for spec in specs {
            let kept = old.get_mut(&spec.name).and_then(Vec::pop);
            let target = match kept {
                Some(target) => Target { spec: spec.clone(), ..target },
                None => self.newcomer(spec),
            };
            self.targets.push(target);
        }
        let weights = specs.iter().map(|spec| spec.weight);
        self.schedule = Schedule::new(weights, self.schedule.position());
        self.slots = match algorithm {
            Algorithm::ConsistentHashing { slots } => {
                let contenders = specs.iter().map(|spec| (spec.name.as_str(), spec.weight));
                Some(SlotTable::new(slots, contenders))
            }
            _ => None,
        };
        self.algorithm = algorithm;
    }

    fn newcomer(&mut self, spec: &TargetSpec) -> Target {
        let id = self.next_id;
        self.next_id += 1;
        Target { id, spec: spec.clone(), in_flight: 0, latency: PeakEwma::new(self.now_us) }
    }

    fn choose(&mut self, hash: Option<u64>, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        if let (Some(slots), Some(hash)) = (&mut self.slots, hash) {
            return slots.pick(hash, usable);
        }
        let now_us = self.now_us;
        let typical_us = self.typical.value_us();
        match self.algorithm {
            Algorithm::RoundRobin | Algorithm::ConsistentHashing { .. } => self.schedule.pick(usable),
            Algorithm::LeastConnections => self.cheapest(usable, Target::load),
            Algorithm::Latency => self.cheapest(usable, |target| target.load() * target.latency.at(now_us, typical_us)),
        }
    }

    /// The usable target of least cost; of equal ones, the next in turn.
    fn cheapest(&mut self, usable: &impl Fn(usize) -> bool, cost: impl Fn(&Target) -> f64) -> Option<usize> {
        let usable = |targets: &[Target], index: usize| targets[index].spec.weight > 0 && usable(index);
        let count = self.targets.len();
        if count > SCAN_MAX_TARGETS
            && let Some((left, right)) = self.draw_two(&usable)
        {
            let left_wins = cost(&self.targets[left]) <= cost(&self.targets[right]);
            return Some(if left_wins { left } else { right });
        }
        let mut best: Option<(f64, usize)> = None;
        for step in 0..count {
            let index = (self.cursor + step) % count;
            if !usable(&self.targets, index) {
                continue;
            }
            let cost = cost(&self.targets[index]);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, index));
            }
        }
        let (_, index) = best?;
        self.cursor = index + 1;
        Some(index)
    }

    /// Two different usable targets at random; `None` when too many draws failed.
    fn draw_two(&mut self, usable: &impl Fn(&[Target], usize) -> bool) -> Option<(usize, usize)> {
        let mut first = None;
        for _ in 0..DRAWS_MAX {
            let index = self.random.below(self.targets.len());
            if first == Some(index) || !usable(&self.targets, index) {
                continue;
            }
            match first {
                None => first = Some(index),
                Some(first) => return Some((first, index)),
            }
        }
        None
    }

    fn target_mut(&mut self, ticket: Ticket) -> Option<&mut Target> {
        let index = ticket.index();
        let unmoved = self.targets.get(index).is_some_and(|target| target.id == ticket.id);
        if unmoved {
            return self.targets.get_mut(index);
        }
        self.targets.iter_mut().find(|target| target.id == ticket.id)
    }
}

impl Target {
    /// Requests in flight, with the one to come, per unit of weight; the weight must not be 0.
    fn load(&self) -> f64 {
        (f64::from(self.in_flight) + 1.0) / f64::from(self.spec.weight)
    }
}
