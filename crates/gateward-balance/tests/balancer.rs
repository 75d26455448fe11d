//! The balancer through its public API: each algorithm against a naive reference or in simulated time.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use gateward_balance::{Algorithm, Balancer, SCAN_MAX_TARGETS, TargetSpec, Ticket, hash_bytes};
use proptest::prelude::*;

fn specs(targets: &[(&str, u16)]) -> Vec<TargetSpec> {
    targets.iter().map(|(name, weight)| TargetSpec { name: (*name).to_owned(), weight: *weight }).collect()
}

fn numbered(weights: &[u16]) -> Vec<TargetSpec> {
    (0..)
        .zip(weights)
        .map(|(number, weight)| TargetSpec { name: format!("10.0.0.{number}:8000"), weight: *weight })
        .collect()
}

fn algorithms() -> [Algorithm; 4] {
    [
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::ConsistentHashing { slots: 1_000 },
        Algorithm::Latency,
    ]
}

fn all_up(_: usize) -> bool {
    true
}

#[test]
fn no_algorithm_picks_disabled_or_unavailable_targets() {
    for algorithm in algorithms() {
        for count in [3, SCAN_MAX_TARGETS + 10] {
            let mut weights = vec![100; count];
            weights[1] = 0;
            let mut balancer = Balancer::new(algorithm, &numbered(&weights), 7);
            for key in 0..500u64 {
                let ticket = balancer.pick(Some(hash_bytes(&key.to_le_bytes())), &[], |index| index != 0, key);
                assert!(ticket.expect("others are up").index() > 1, "{algorithm:?}");
            }
            assert_eq!(balancer.pick(Some(1), &[], |_| false, 0), None);
            assert_eq!(balancer.pick(None, &[], |index| index == 1, 0), None);
        }
        assert_eq!(Balancer::new(algorithm, &[], 0).pick(Some(1), &[0, 9], all_up, 0), None);
        assert_eq!(Balancer::new(algorithm, &numbered(&[0, 0]), 0).pick(None, &[], all_up, 0), None);
    }
}

#[test]
fn a_retry_avoids_what_it_tried_until_nothing_else_is_left() {
    for algorithm in algorithms() {
        let mut balancer = Balancer::new(algorithm, &numbered(&[100, 100, 100]), 3);
        for key in 0..50 {
            let mut tried = Vec::new();
            for _ in 0..3 {
                tried.push(balancer.pick(Some(key), &tried, all_up, 0).expect("all are up").index());
            }
            let mut distinct = tried.clone();
            distinct.sort_unstable();
            assert_eq!(distinct, [0, 1, 2], "{algorithm:?}");
            assert!(balancer.pick(Some(key), &tried, all_up, 0).is_some());
        }
    }
}

#[test]
fn round_robin_shares_stay_in_proportion_while_a_target_is_down() {
    let mut balancer = Balancer::new(Algorithm::RoundRobin, &numbered(&[100, 200, 100, 400]), 0);
    let mut counts = [0; 4];
    for _ in 0..700 {
        counts[balancer.pick(None, &[], |index| index != 2, 0).expect("up").index()] += 1;
    }
    assert_eq!(counts, [100, 200, 0, 400]);
}

#[test]
fn an_update_without_change_is_invisible() {
    for algorithm in algorithms() {
        let targets = numbered(&[100, 50, 70]);
        let mut left = Balancer::new(algorithm, &targets, 1);
        let mut right = Balancer::new(algorithm, &targets, 1);
        for key in 0..100 {
            right.update(algorithm, &targets);
            let pair = (left.pick(Some(key), &[], all_up, key), right.pick(Some(key), &[], all_up, key));
            assert_eq!(pair.0, pair.1);
            left.started(pair.0.expect("up"), key);
            right.started(pair.1.expect("up"), key);
        }
        assert_eq!(right.generation(), 0);
    }
}

#[test]
fn tickets_follow_their_target_through_updates() {
    let mut balancer = Balancer::new(Algorithm::LeastConnections, &specs(&[("a:1", 1), ("b:1", 1)]), 0);
    let a = balancer.pick(None, &[], |index| index == 0, 0).expect("up");
    let b = balancer.pick(None, &[], |index| index == 1, 0).expect("up");
    for ticket in [a, b, b] {
        balancer.started(ticket, 0);
    }
    balancer.update(Algorithm::LeastConnections, &specs(&[("c:1", 1), ("b:1", 9), ("a:1", 1)]));
    assert_eq!([0, 1, 2].map(|index| balancer.in_flight(index)), [0, 2, 1]);
    balancer.finished(a, Some(10), 1);
    balancer.finished(b, None, 1);
    assert_eq!([0, 1, 2].map(|index| balancer.in_flight(index)), [0, 1, 0]);

    // Target b goes and comes back: it is a new target, and the old request is no longer counted.
    balancer.update(Algorithm::LeastConnections, &specs(&[("a:1", 1)]));
    balancer.update(Algorithm::LeastConnections, &specs(&[("a:1", 1), ("b:1", 1)]));
    balancer.started(balancer.clone().pick(None, &[], |index| index == 1, 2).expect("up"), 2);
    balancer.finished(b, Some(1), 2);
    assert_eq!([0, 1, 9].map(|index| balancer.in_flight(index)), [0, 1, 0]);
    assert_eq!(balancer.generation(), 3);
}

#[test]
fn targets_with_the_same_name_keep_separate_counts() {
    let twins = specs(&[("a:1", 1), ("a:1", 1)]);
    let mut balancer = Balancer::new(Algorithm::LeastConnections, &twins, 0);
    let second = balancer.pick(None, &[0], all_up, 0).expect("up");
    balancer.started(second, 0);
    balancer.update(Algorithm::LeastConnections, &specs(&[("a:1", 2), ("a:1", 1)]));
    assert_eq!([0, 1].map(|index| balancer.in_flight(index)), [0, 1]);
}

/// Owner names of many keys.
fn owners(targets: &[TargetSpec]) -> Vec<String> {
    let mut balancer = Balancer::new(Algorithm::ConsistentHashing { slots: 1_000 }, targets, 0);
    (0..2_000u32)
        .map(|key| {
            let hash = hash_bytes(format!("user-{key}").as_bytes());
            let ticket = balancer.pick(Some(hash), &[], all_up, 0).expect("up");
            targets[ticket.index()].name.clone()
        })
        .collect()
}

#[test]
fn consistent_hashing_follows_weights() {
    let targets = numbered(&[100, 300, 100]);
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for owner in owners(&targets) {
        *shares.entry(owner).or_default() += 1;
    }
    let share = shares["10.0.0.1:8000"];
    assert!((1_080..1_320).contains(&share), "{shares:?}");
}

#[test]
fn without_a_hash_consistent_hashing_goes_round() {
    let algorithm = Algorithm::ConsistentHashing { slots: 100 };
    let mut balancer = Balancer::new(algorithm, &numbered(&[1, 1]), 0);
    let picks: Vec<usize> = (0..4).map(|_| balancer.pick(None, &[], all_up, 0).expect("up").index()).collect();
    assert_eq!(picks, [0, 1, 0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn removing_a_target_moves_only_its_keys(
        weights in prop::collection::vec(1u16..200, 2..12), gone: prop::sample::Index, turn: prop::sample::Index,
    ) {
        let all = numbered(&weights);
        let mut fewer = all.clone();
        let removed = fewer.remove(gone.index(all.len()));
        let by = turn.index(fewer.len());
        fewer.rotate_left(by);
        for (before, after) in owners(&all).into_iter().zip(owners(&fewer)) {
            prop_assert!(before == after || before == removed.name);
        }
    }

    #[test]
    fn raising_a_weight_moves_keys_only_to_that_target(
        weights in prop::collection::vec(1u16..200, 2..12), raised: prop::sample::Index,
    ) {
        let before = numbered(&weights);
        let mut after = before.clone();
        let raised = raised.index(before.len());
        after[raised].weight *= 2;
        for (old, new) in owners(&before).into_iter().zip(owners(&after)) {
            prop_assert!(old == new || new == before[raised].name);
        }
    }

    /// Every choice has the least cost that a naive count of requests in flight allows.
    #[test]
    fn least_connections_agrees_with_counting(
        weights in prop::collection::vec(0u16..5, 1..10),
        steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<u16>()), 1..80),
    ) {
        let mut balancer = Balancer::new(Algorithm::LeastConnections, &numbered(&weights), 0);
        let mut counts = vec![0u32; weights.len()];
        let mut open: Vec<Ticket> = Vec::new();
        for (finish, which, up) in steps {
            if finish && !open.is_empty() {
                let ticket = open.swap_remove(which.index(open.len()));
                balancer.finished(ticket, None, 0);
                counts[ticket.index()] -= 1;
                continue;
            }
            let usable = |index: usize| weights[index] > 0 && up & (1 << index) != 0;
            let cost = |index: usize| f64::from(counts[index] + 1) / f64::from(weights[index]);
            let least = (0..weights.len()).filter(|index| usable(*index)).map(cost).reduce(f64::min);
            let picked = balancer.pick(None, &[], |index| up & (1 << index) != 0, 0);
            prop_assert_eq!(picked.map(|ticket| cost(ticket.index())), least);
            if let Some(ticket) = picked {
                prop_assert!(usable(ticket.index()));
                balancer.started(ticket, 0);
                counts[ticket.index()] += 1;
                open.push(ticket);
            }
        }
    }

    /// No sequence of calls panics, and requests in flight never go astray.
    #[test]
    fn counts_survive_any_history(
        seed: u64,
        steps in prop::collection::vec((0u8..4, prop::collection::vec((0u8..6, 0u16..3), 0..6), any::<u64>()), 1..60),
    ) {
        let mut balancer = Balancer::new(Algorithm::RoundRobin, &[], seed);
        let mut names: Vec<String> = Vec::new();
        let mut open: Vec<(Ticket, String)> = Vec::new();
        for (step, targets, number) in steps {
            match step {
                0 => {
                    let mut targets: Vec<TargetSpec> = targets
                        .iter()
                        .map(|(name, weight)| TargetSpec { name: format!("t{name}:1"), weight: *weight })
                        .collect();
                    targets.sort_by(|left, right| left.name.cmp(&right.name));
                    targets.dedup_by(|left, right| left.name == right.name);
                    open.retain(|(_, name)| targets.iter().any(|target| target.name == *name));
                    names = targets.iter().map(|target| target.name.clone()).collect();
                    balancer.update(algorithms()[(number % 4) as usize], &targets);
                }
                1 if !open.is_empty() => {
                    let (ticket, _) = open.swap_remove((number % open.len() as u64) as usize);
                    balancer.finished(ticket, number.is_multiple_of(2).then_some(number), number);
                }
                _ => {
                    if let Some(ticket) = balancer.pick(Some(number), &[0], all_up, number) {
                        balancer.started(ticket, number);
                        open.push((ticket, names[ticket.index()].clone()));
                    }
                }
            }
            for (index, name) in names.iter().enumerate() {
                let expected = open.iter().filter(|(_, open)| open == name).count();
                prop_assert_eq!(balancer.in_flight(index) as usize, expected);
            }
        }
    }
}

#[test]
fn many_targets_share_load_evenly_enough() {
    let count = 500;
    let mut balancer = Balancer::new(Algorithm::LeastConnections, &numbered(&vec![100; count]), 11);
    for _ in 0..count * 20 {
        let ticket = balancer.pick(None, &[], all_up, 0).expect("up");
        balancer.started(ticket, 0);
    }
    let most = (0..count).map(|index| balancer.in_flight(index)).max();
    assert!(most < Some(25), "{most:?}");
    // Nearly everything down: still found.
    for _ in 0..50 {
        assert_eq!(balancer.pick(None, &[], |index| index == 321, 0).map(|ticket| ticket.index()), Some(321));
    }
}

/// Requests at a fixed interval against targets of fixed latency; returns how many each target got.
fn simulate(
    balancer: &mut Balancer,
    latencies_us: &[u64],
    interval_us: u64,
    span_us: std::ops::Range<u64>,
) -> Vec<u32> {
    let mut counts = vec![0; latencies_us.len()];
    let mut ends: BinaryHeap<std::cmp::Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut open: HashMap<u64, (Ticket, u64)> = HashMap::new();
    let mut now_us = span_us.start;
    let mut number = 0;
    while now_us < span_us.end {
        while let Some(std::cmp::Reverse((end_us, request))) = ends.peek().copied().filter(|end| end.0.0 <= now_us) {
            ends.pop();
            let (ticket, latency_us) = open.remove(&request).expect("ends once");
            balancer.finished(ticket, Some(latency_us), end_us);
        }
        let ticket = balancer.pick(None, &[], all_up, now_us).expect("up");
        balancer.started(ticket, now_us);
        counts[ticket.index()] += 1;
        let latency_us = latencies_us[ticket.index()];
        ends.push(std::cmp::Reverse((now_us + latency_us, number)));
        open.insert(number, (ticket, latency_us));
        number += 1;
        now_us += interval_us;
    }
    for (ticket, latency_us) in open.into_values() {
        balancer.finished(ticket, Some(latency_us), now_us + latency_us);
    }
    counts
}

#[test]
fn latency_sends_a_slow_target_far_less() {
    let mut balancer = Balancer::new(Algorithm::Latency, &numbered(&[100, 100, 100]), 0);
    let counts = simulate(&mut balancer, &[5_000, 100_000, 5_000], 1_000, 0..30_000_000);
    assert!(counts[1] * 20 < counts[0], "{counts:?}");
    assert!(counts[1] > 0, "tried at least once: {counts:?}");
    assert!(counts[0].abs_diff(counts[2]) < counts[0] / 5, "{counts:?}");
}

#[test]
fn latency_forgives_a_target_that_became_fast() {
    let mut balancer = Balancer::new(Algorithm::Latency, &numbered(&[100, 100]), 0);
    simulate(&mut balancer, &[5_000, 200_000], 1_000, 0..10_000_000);
    let counts = simulate(&mut balancer, &[5_000, 5_000], 1_000, 10_000_000..120_000_000);
    assert!(counts[1] * 3 > counts[0], "{counts:?}");
}

#[test]
fn latency_tries_a_new_target_without_flooding_it() {
    let old = numbered(&[100, 100]);
    let mut balancer = Balancer::new(Algorithm::Latency, &old, 0);
    simulate(&mut balancer, &[5_000, 5_000], 500, 0..5_000_000);
    balancer.update(Algorithm::Latency, &numbered(&[100, 100, 100]));
    // The new target never answers within the 200 ms looked at.
    let counts = simulate(&mut balancer, &[5_000, 5_000, 10_000_000], 500, 5_000_000..5_200_000);
    assert!((1..60).contains(&counts[2]), "{counts:?}");
    // A new target as good as the others gets its share.
    let mut balancer = Balancer::new(Algorithm::Latency, &old, 0);
    simulate(&mut balancer, &[5_000, 5_000], 500, 0..5_000_000);
    balancer.update(Algorithm::Latency, &numbered(&[100, 100, 100]));
    let counts = simulate(&mut balancer, &[5_000, 5_000, 5_000], 500, 5_000_000..10_000_000);
    assert!(counts[2] * 4 > counts[0], "{counts:?}");
}

#[test]
fn latency_respects_weights_between_equals() {
    let mut balancer = Balancer::new(Algorithm::Latency, &numbered(&[100, 300]), 0);
    let counts = simulate(&mut balancer, &[20_000, 20_000], 500, 0..20_000_000);
    assert!((2 * counts[0]..4 * counts[0]).contains(&counts[1]), "{counts:?}");
}
