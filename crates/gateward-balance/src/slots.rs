//! Consistent hashing: a table of slots, each owned by the target that wins it.
//!
//! A request's hash selects one of the upstream's `slots` (Kong's setting and meaning). The owner of a slot is
//! found by weighted rendezvous hashing (Thaler and Ravishankar 1998; weights after Schindelhauer and Schomaker
//! 2005): each target draws an exponential variable from a hash of its name and the slot, divides it by its
//! weight, and the smallest wins. Compared with points on a ring, a table of the same size is as even, and it
//! keeps three promises exactly rather than nearly:
//!
//! - the owner depends on names and weights alone: not on the order of targets, the process or the platform;
//! - removing or adding a target, or changing its weight, moves only slots from or to that target;
//! - slots of an unavailable target spread over all others by weight, not onto one neighbour.
//!
//! Owners are computed when a slot is first used, so a configuration change costs a worker nothing up front.

use crate::hash::{avalanche, hash_bytes};
use crate::random::GOLDEN;

/// Most slots of a table: Kong's upper limit for `slots`. Larger values are lowered to it.
pub(crate) const SLOTS_MAX: u32 = 65_536;

const UNKNOWN: u32 = u32::MAX;

#[derive(Debug, Clone)]
pub(crate) struct SlotTable {
    /// Per target: hash of its name, and its weight.
    contenders: Vec<Contender>,
    /// Per slot: the index of its owner, or `UNKNOWN`.
    owners: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Contender {
    name_hash: u64,
    weight: u16,
}

impl SlotTable {
    /// A table for targets given as (name, weight), in index order. Of targets with the same name each counts.
    pub(crate) fn new<'a>(slots: u32, targets: impl Iterator<Item = (&'a str, u16)>) -> Self {
        let mut contenders: Vec<Contender> =
            targets.map(|(name, weight)| Contender { name_hash: hash_bytes(name.as_bytes()), weight }).collect();
        separate_twins(&mut contenders);
        let slots = slots.clamp(1, SLOTS_MAX) as usize;
        Self { contenders, owners: vec![UNKNOWN; slots] }
    }

    /// The target for `hash`: the owner of its slot, or the best of the usable ones when the owner is not.
    pub(crate) fn pick(&mut self, hash: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let slot = self.slot(hash);
        let mut owner = self.owners[slot];
        if owner == UNKNOWN {
            owner = self.winner(slot, |_| true).map_or(UNKNOWN, |index| index as u32);
            self.owners[slot] = owner;
        }
        if owner == UNKNOWN {
            return None;
        }
        if usable(owner as usize) {
            return Some(owner as usize);
        }
        self.winner(slot, usable)
    }

    fn slot(&self, hash: u64) -> usize {
        // Mixed again because callers may pass hashes whose high bits are poor.
        let product = u128::from(avalanche(hash)) * self.owners.len() as u128;
        (product >> 64) as usize
    }

    fn winner(&self, slot: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let salt = (slot as u64 + 1).wrapping_mul(GOLDEN);
        let mut best: Option<(f64, u64, usize)> = None;
        for (index, contender) in self.contenders.iter().enumerate() {
            if contender.weight == 0 || !usable(index) {
                continue;
            }
            let draw = negative_ln(avalanche(contender.name_hash ^ salt));
            let score = draw / f64::from(contender.weight);
            // The name's hash settles equal scores, so that order never does.
            let better = best.is_none_or(|(least, name_hash, _)| {
                score < least || (score == least && contender.name_hash < name_hash)
            });
            if better {
                best = Some((score, contender.name_hash, index));
            }
        }
        best.map(|(_, _, index)| index)
    }
}

/// Gives targets with the same name different hashes, so that their weights add up. Among them the order of
/// weights decides, not the order of declaration.
fn separate_twins(contenders: &mut [Contender]) {
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    order.sort_by_key(|&index| (contenders[index].name_hash, contenders[index].weight));
    let mut previous = None;
    let mut twins = 0u64;
    for index in order {
        let name_hash = contenders[index].name_hash;
        twins = if previous == Some(name_hash) { twins + 1 } else { 0 };
        previous = Some(name_hash);
        if twins > 0 {
            contenders[index].name_hash = avalanche(name_hash.wrapping_add(twins));
        }
    }
}

/// `-ln((hash + 0.5) / 2^64)`, positive: an exponential variable when the hash is uniform.
///
/// Written with the four basic operations only, whose results IEEE 754 fixes: a platform's own logarithm may
/// differ in the last bit, and with it the owner of a slot.
fn negative_ln(hash: u64) -> f64 {
    // 52 bits, so that the sum is exact; the half keeps it above zero.
    let value = (hash >> 12) as f64 + 0.5;
    let bits = value.to_bits();
    let exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    // ln(m) = 2 artanh((m - 1) / (m + 1)); for 1 <= m < 2 the argument is at most 1/3 and 16 terms are enough.
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let mut sum = 0.0;
    for term in (0..16u32).rev() {
        sum = sum * square + 1.0 / f64::from(2 * term + 1);
    }
    // Close to hash = 2^64 the difference loses all its digits and may round to zero or below.
    ((52.0 - exponent) * std::f64::consts::LN_2 - 2.0 * ratio * sum).max(1e-17)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(slots: u32, targets: &[(&str, u16)]) -> SlotTable {
        SlotTable::new(slots, targets.iter().copied())
    }

    /// The name of each slot's owner.
    fn owners<'a>(slots: u32, targets: &[(&'a str, u16)]) -> Vec<&'a str> {
        let table = table(slots, targets);
        (0..slots as usize).map(|slot| targets[table.winner(slot, |_| true).unwrap()].0).collect()
    }

    #[test]
    fn logarithm_agrees_with_the_platform() {
        for hash in [0, 1 << 12, 1 << 40, 1 << 63, u64::MAX / 3, u64::MAX] {
            let value = ((hash >> 12) as f64 + 0.5) / 2f64.powi(52);
            let difference = negative_ln(hash) + value.ln();
            assert!(difference.abs() < 1e-13 * value.ln().abs().max(1.0), "{hash}: {difference}");
            assert!(negative_ln(hash) > 0.0);
        }
    }

    #[test]
    fn owners_never_change_between_versions() {
        let targets = [("10.0.0.1:80", 100), ("10.0.0.2:80", 100), ("b:8000", 50)];
        let start: String = owners(1_000, &targets)[..24]
            .iter()
            .map(|name| name.as_bytes()[name.find(':').unwrap() - 1] as char)
            .collect();
        assert_eq!(start, "12211b11212b111bb1122221");
    }

    #[test]
    fn twins_add_their_weights_whatever_their_order() {
        let twice = owners(10_000, &[("a:1", 10), ("b:1", 50), ("a:1", 40)]);
        let share = twice.iter().filter(|name| **name == "a:1").count();
        assert!((4_800..5_200).contains(&share), "{share}");
        assert_eq!(twice, owners(10_000, &[("a:1", 40), ("a:1", 10), ("b:1", 50)]));
    }

    #[test]
    fn slots_are_clamped_to_the_table_limits() {
        assert_eq!(table(0, &[("a:1", 1)]).owners.len(), 1);
        assert_eq!(table(u32::MAX, &[("a:1", 1)]).owners.len(), SLOTS_MAX as usize);
    }

    #[test]
    fn an_unavailable_targets_slots_spread_by_weight() {
        let targets = [("a:1", 100), ("b:1", 100), ("c:1", 200), ("d:1", 100)];
        let mut table = table(10_000, &targets);
        let mut gained = [0u32; 4];
        for key in 0..20_000u64 {
            let owner = table.pick(key, |_| true).unwrap();
            let stand_in = table.pick(key, |index| index != 0).unwrap();
            if owner == 0 {
                gained[stand_in] += 1;
            } else {
                assert_eq!(owner, stand_in);
            }
        }
        assert_eq!(gained[0], 0);
        assert!((900..1_100).contains(&gained[1]), "{gained:?}");
        assert!((1_800..2_200).contains(&gained[2]), "{gained:?}");
    }
}
