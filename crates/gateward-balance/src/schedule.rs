//! Smooth weighted round-robin.
//!
//! Targets of equal weight form a group. In one cycle of virtual time, from 0 to 1, a group of `m` targets of
//! weight `w` has `m * w` turns, evenly spaced at `(2k - 1) / (2 m w)`, and gives them to its members in order.
//! The next pick is the earliest turn of all groups, found in a heap. This gives what nginx's smooth weighted
//! round-robin gives (each target exactly `weight` turns per cycle, no bursts) at a cost that depends on the
//! number of distinct weights, not of targets, with nothing precomputed. Turns are fractions compared exactly.
//!
//! Position is one number, the virtual time of the last turn. It outlives a change of targets: the new schedule
//! goes on from there, so nobody's turn comes twice because a target was added elsewhere.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::random::GOLDEN;

/// Turns tried one by one before the usable targets are searched for the earliest turn.
const TURNS_TRIED: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    groups: Vec<Group>,
    /// Each group's next turn.
    next: BinaryHeap<Reverse<Turn>>,
    position: Position,
}

/// Where in its cycle a schedule is: everything up to this fraction (in 2^-64) has had its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position(u64);

#[derive(Debug, Clone)]
struct Group {
    /// Indices of targets, in the order of declaration; never empty.
    members: Vec<u32>,
    /// Turns in one cycle: members times (reduced) weight; at least 1, below 2^48.
    turns: u64,
}

/// Turn `number` (from 1 to `turns`) of a group in a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    cycle: u64,
    number: u64,
    turns: u64,
    group: u32,
}

impl Position {
    /// A start that differs between workers. Consecutive seeds are spread as evenly as any sequence can.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed.wrapping_mul(GOLDEN))
    }
}

impl Turn {
    /// `(2 number - 1) / (2 turns)` as a fraction of 2^64, rounded up.
    fn position(&self) -> Position {
        let fraction = (u128::from(2 * self.number - 1) << 64).div_ceil(u128::from(2 * self.turns));
        Position(u64::try_from(fraction).unwrap_or(u64::MAX))
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = u128::from(2 * self.number - 1) * u128::from(other.turns);
        let theirs = u128::from(2 * other.number - 1) * u128::from(self.turns);
        (self.cycle.cmp(&other.cycle)).then(mine.cmp(&theirs)).then(self.group.cmp(&other.group))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Schedule {
    /// A schedule of the targets with these weights, in index order, that goes on from `position`.
    pub(crate) fn new(weights: impl Iterator<Item = u16>, position: Position) -> Self {
        let groups = groups_by_weight(weights);
        let next =
            groups.iter().enumerate().map(|(index, group)| Reverse(group.first_after(position, index))).collect();
        Self { groups, next, position }
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The next usable target. Those that are passed over lose their turn, so that the others keep their
    /// proportions and a target that comes back is not owed a burst.
    pub(crate) fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..TURNS_TRIED {
            let mut top = self.next.peek_mut()?;
            let turn = top.0;
            top.0 = turn.following();
            drop(top);
            self.position = turn.position();
            let index = self.groups[turn.group as usize].member(&turn);
            if usable(index) {
                return Some(index);
            }
        }
        self.skip_to_usable(usable)
    }

    /// As if turns had been tried until a usable target came, in time that does not depend on weights.
    fn skip_to_usable(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut earliest: Option<(Turn, usize)> = None;
        for Reverse(next) in &self.next {
            let group = &self.groups[next.group as usize];
            let mut turn = *next;
            for _ in 0..group.members.len() {
                if earliest.is_some_and(|(best, _)| best <= turn) {
                    break;
                }
                let index = group.member(&turn);
                if usable(index) {
                    earliest = Some((turn, index));
                    break;
                }
                turn = turn.following();
            }
        }
        let (chosen, index) = earliest?;
        self.next = self.next.drain().map(|Reverse(next)| Reverse(next.first_after(&chosen))).collect();
        self.position = chosen.position();
        Some(index)
    }
}

impl Group {
    fn member(&self, turn: &Turn) -> usize {
        let members = self.members.len() as u64;
        self.members[((turn.number - 1) % members) as usize] as usize
    }

    fn first_after(&self, position: Position, index: usize) -> Turn {
        // (2k - 1) / (2 turns) <= position  <=>  2k - 1 <= 2 turns * position
        let odd = (u128::from(2 * self.turns) * u128::from(position.0)) >> 64;
        let turn = Turn { cycle: 0, number: 1, turns: self.turns, group: index as u32 };
        turn.after_passing(odd)
    }
}

impl Turn {
    fn following(mut self) -> Self {
        if self.number == self.turns {
            self.number = 1;
            self.cycle += 1;
        } else {
            self.number += 1;
        }
        self
    }

    /// This group's first turn later than `chosen`, given that `self` is its first that is not over.
    fn first_after(self, chosen: &Self) -> Self {
        if self > *chosen {
            return self;
        }
        // (2k - 1) / (2 turns) against (2K - 1) / (2 TURNS); at equal times the lower group came first.
        let product = u128::from(2 * chosen.number - 1) * u128::from(self.turns);
        let product = if self.group > chosen.group { product - 1 } else { product };
        Self { cycle: chosen.cycle, ..self }.after_passing(product / u128::from(chosen.turns))
    }

    /// The first turn of this cycle whose `2 number - 1` exceeds `odd`, or the first of the next cycle.
    fn after_passing(self, odd: u128) -> Self {
        let passed = odd.div_ceil(2);
        match u64::try_from(passed) {
            Ok(passed) if passed < self.turns => Self { number: passed + 1, ..self },
            _ => Self { number: 1, cycle: self.cycle + 1, ..self },
        }
    }
}

/// Heaviest first, so that ties go to heavier targets; weights reduced by their common divisor.
fn groups_by_weight(weights: impl Iterator<Item = u16>) -> Vec<Group> {
    let mut targets: Vec<(u16, u32)> =
        (0u32..).zip(weights).filter(|(_, weight)| *weight > 0).map(|(index, weight)| (weight, index)).collect();
    targets.sort_by_key(|(weight, index)| (Reverse(*weight), *index));
    let divisor = targets.iter().fold(0, |divisor, (weight, _)| common_divisor(*weight, divisor));
    targets
        .chunk_by(|left, right| left.0 == right.0)
        .map(|group| Group {
            members: group.iter().map(|(_, index)| *index).collect(),
            turns: u64::from(group[0].0 / divisor) * group.len() as u64,
        })
        .collect()
}

fn common_divisor(left: u16, right: u16) -> u16 {
    if right == 0 { left } else { common_divisor(right, left % right) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(weights: &[u16], picks: usize) -> Vec<usize> {
        let mut schedule = Schedule::new(weights.iter().copied(), Position(0));
        (0..picks).map(|_| schedule.pick(|_| true).unwrap()).collect()
    }

    #[test]
    fn known_orders() {
        assert_eq!(order(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(order(&[100, 100], 4), [0, 1, 0, 1]);
        assert_eq!(order(&[5, 1, 1], 7), [0, 1, 0, 0, 0, 2, 0]);
        assert_eq!(order(&[4, 1, 1, 1, 1], 8), [0, 1, 0, 2, 0, 3, 0, 4]);
        assert_eq!(order(&[0, 7, 0], 3), [1, 1, 1]);
    }

    #[test]
    fn nothing_to_choose() {
        let mut empty = Schedule::new([].into_iter(), Position(0));
        assert_eq!(empty.pick(|_| true), None);
        let mut disabled = Schedule::new([0, 0].into_iter(), Position(5));
        assert_eq!(disabled.pick(|_| true), None);
        let mut down = Schedule::new([1, 2].into_iter(), Position(5));
        assert_eq!(down.pick(|_| false), None);
    }

    #[test]
    fn workers_start_apart() {
        let firsts: std::collections::HashSet<usize> = (0..4)
            .map(|seed| Schedule::new([100; 8].into_iter(), Position::from_seed(seed)).pick(|_| true).unwrap())
            .collect();
        assert_eq!(firsts.len(), 4);
    }

    #[test]
    fn a_light_target_is_found_among_heavy_ones_that_are_down() {
        let weights = std::iter::repeat_n(65_535, 500).chain([1]);
        let mut schedule = Schedule::new(weights, Position(0));
        for _ in 0..100 {
            assert_eq!(schedule.pick(|index| index == 500), Some(500));
        }
    }

    #[test]
    fn a_change_goes_on_where_it_was() {
        let mut schedule = Schedule::new([1; 4].into_iter(), Position(0));
        schedule.pick(|_| true);
        schedule.pick(|_| true);
        // Targets 0 and 1 had their turn; target 0 goes, so that the next is 1 (which was 2).
        let mut after = Schedule::new([1; 3].into_iter(), schedule.position());
        assert_eq!(after.pick(|_| true), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn exact_over_every_cycle(
            weights in prop::collection::vec(0u16..20, 1..12), seed: u64, factor in 1u16..100,
        ) {
            let cycle: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let scaled = weights.iter().map(|weight| weight * factor);
            let mut schedule = Schedule::new(scaled, Position::from_seed(seed));
            for _ in 0..3 {
                let mut counts = vec![0u16; weights.len()];
                for _ in 0..cycle {
                    counts[schedule.pick(|_| true).unwrap()] += 1;
                }
                prop_assert_eq!(&counts, &weights);
            }
        }

        /// No target is ever further from its share than the number of distinct weights allows.
        #[test]
        fn smooth(weights in prop::collection::vec(1u16..50, 1..12)) {
            let cycle: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let distinct = weights.iter().collect::<std::collections::HashSet<_>>().len() as f64;
            let mut counts = vec![0f64; weights.len()];
            for (picked, index) in order(&weights, cycle).into_iter().enumerate() {
                counts[index] += 1.0;
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = (picked + 1) as f64 * f64::from(*weight) / cycle as f64;
                    prop_assert!((count - share).abs() <= 1.0 + distinct / 2.0);
                }
            }
        }

        /// The search agrees with trying turn after turn, also in what comes after.
        #[test]
        fn skipping_equals_trying(
            weights in prop::collection::vec(0u16..30, 1..10), seed: u64,
            ups in prop::collection::vec(any::<u16>(), 1..20),
        ) {
            let position = Position::from_seed(seed);
            let mut skipping = Schedule::new(weights.iter().copied(), position);
            let mut trying = Schedule::new(weights.iter().copied(), position);
            for up in ups {
                let usable = |index: usize| up & (1 << index) != 0;
                let possible = weights.iter().enumerate().any(|(index, weight)| *weight > 0 && usable(index));
                let expected = possible.then(|| loop {
                    let index = trying.pick(|_| true).expect("some weight is not 0");
                    if usable(index) {
                        break index;
                    }
                });
                prop_assert_eq!(skipping.skip_to_usable(usable), expected);
            }
        }
    }
}
