//! Outlier detection: targets that do worse than the others are taken out for a while.
//!
//! Two signs: failures in a row, seen with every attempt, and a success rate well below that of the upstream's
//! targets, looked at once per interval. Both only ever take out a bounded share of the targets, and never the last
//! one: when everything fails, the cause is not a target.

use crate::health::{TargetHealth, Turned, forget};
use std::sync::atomic::Ordering::Relaxed;

/// The rules; the fields of `resilience.outlier_detection` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierRules {
    /// Failures in a row that take a target out; 0: they do not.
    pub consecutive_failures: u32,
    /// Failures in a row that are a gateway's ([`Sign::GatewayFailure`]) that take a target out; 0: they do not.
    pub consecutive_gateway_failures: u32,
    /// How many standard deviations below the mean a success rate may be; 0: rates are not compared.
    pub stdev_factor: f64,
    /// Targets with enough attempts that there must be before rates are compared.
    pub minimum_hosts: usize,
    /// Attempts within an interval that make a rate meaningful.
    pub request_volume: u64,
    /// Microseconds out, times how often it was taken out of late.
    pub base_ejection_us: u64,
    /// Microseconds out, at most.
    pub max_ejection_us: u64,
    /// Percent of the targets that may be out at the same time.
    pub max_ejection_percent: u32,
}

/// What detection remembers of one target.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ejection {
    until_us: u64,
    /// How often it was taken out; falls by one per quiet interval.
    times: u32,
    attempts_seen: u64,
    failures_seen: u64,
}

/// What an attempt at a target shows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An answer that is no server error.
    Fine,
    /// A server error that the application itself may have made: 500, 501 and the like.
    ServerError,
    /// No connection, no answer, or 502, 503 or 504: the target cannot serve.
    GatewayFailure,
}

impl Sign {
    /// The sign of an answer with this status.
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailure,
            500.. => Self::ServerError,
            _ => Self::Fine,
        }
    }
}

impl TargetHealth {
    /// Count an attempt for outlier detection; whether it was one failure too many in a row.
    pub fn attempted(&self, sign: Sign, rules: &OutlierRules) -> bool {
        let failed = sign != Sign::Fine;
        if rules.stdev_factor > 0.0 {
            self.attempts.fetch_add(1, Relaxed);
            if failed {
                self.failures.fetch_add(1, Relaxed);
            }
        }
        if !failed {
            self.forget_rows();
            return false;
        }
        let too_many = |limit: u32, in_a_row: u32| limit > 0 && in_a_row >= limit;
        let mut out = too_many(rules.consecutive_failures, self.failures_in_a_row.fetch_add(1, Relaxed) + 1);
        if sign == Sign::GatewayFailure {
            let in_a_row = self.gateway_failures_in_a_row.fetch_add(1, Relaxed) + 1;
            out |= too_many(rules.consecutive_gateway_failures, in_a_row);
        } else {
            forget(&self.gateway_failures_in_a_row);
        }
        out && !self.is_ejected()
    }
}

/// Take out the target at `index` if the share allows it; what to remember of it then. Where it does not, the failures
/// that led here are forgotten: as many again must come before the next try.
pub fn eject(
    targets: &[(&TargetHealth, &mut Ejection)],
    index: usize,
    rules: &OutlierRules,
    now_us: u64,
) -> Option<Ejection> {
    let out = targets.iter().filter(|(target, _)| target.is_ejected()).count();
    let most = (targets.len() * rules.max_ejection_percent as usize / 100).max(1).min(targets.len().saturating_sub(1));
    let others = targets.iter().enumerate().filter(|(other, _)| *other != index);
    let last = !others.into_iter().any(|(_, (target, _))| target.is_available());
    let (target, ejection) = &targets[index];
    if out >= most || last || target.is_ejected() {
        target.forget_rows();
        return None;
    }
    target.eject(true, now_us)?;
    let times = ejection.times.saturating_add(1);
    let length = rules.base_ejection_us.saturating_mul(u64::from(times)).min(rules.max_ejection_us);
    Some(Ejection { until_us: now_us.saturating_add(length), times, ..**ejection })
}

/// The end of an interval: let back whose time is over, and take out those whose success rate is an outlier. The
/// indices of the targets that changed sides.
pub fn tick(
    targets: &mut [(&TargetHealth, &mut Ejection)],
    rules: &OutlierRules,
    interval_over: bool,
    now_us: u64,
) -> Vec<(usize, Turned)> {
    let mut turned = Vec::new();
    for (index, (target, ejection)) in targets.iter_mut().enumerate() {
        if target.is_ejected() && now_us >= ejection.until_us && target.eject(false, now_us).is_some() {
            turned.push((index, Turned::Healthy));
        } else if interval_over && !target.is_ejected() {
            ejection.times = ejection.times.saturating_sub(1);
        }
    }
    if interval_over && rules.stdev_factor > 0.0 {
        for index in outliers(targets, rules) {
            if let Some(ejection) = eject(targets, index, rules, now_us) {
                *targets[index].1 = ejection;
                turned.push((index, Turned::Unhealthy));
            }
        }
    }
    turned
}

/// When the next ejected target is let back; `None` while none is out.
pub fn next_return(targets: &[(&TargetHealth, &mut Ejection)]) -> Option<u64> {
    targets.iter().filter(|(target, _)| target.is_ejected()).map(|(_, ejection)| ejection.until_us).min()
}

/// The targets whose success rate since the last call lies below the others', worst first.
fn outliers(targets: &mut [(&TargetHealth, &mut Ejection)], rules: &OutlierRules) -> Vec<usize> {
    let mut rates: Vec<(usize, f64)> = Vec::new();
    for (index, (target, ejection)) in targets.iter_mut().enumerate() {
        let (attempts, failures) = (target.attempts.load(Relaxed), target.failures.load(Relaxed));
        let new = attempts.wrapping_sub(ejection.attempts_seen);
        let failed = failures.wrapping_sub(ejection.failures_seen);
        (ejection.attempts_seen, ejection.failures_seen) = (attempts, failures);
        if new >= rules.request_volume.max(1) && !target.is_ejected() {
            rates.push((index, 1.0 - failed.min(new) as f64 / new as f64));
        }
    }
    if rates.len() < rules.minimum_hosts.max(2) {
        return Vec::new();
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    let least = mean - rules.stdev_factor * variance.sqrt();
    rates.retain(|(_, rate)| *rate < least);
    rates.sort_by(|left, right| left.1.total_cmp(&right.1));
    rates.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: OutlierRules = OutlierRules {
        consecutive_failures: 3,
        consecutive_gateway_failures: 0,
        stdev_factor: 1.5,
        minimum_hosts: 3,
        request_volume: 10,
        base_ejection_us: 100,
        max_ejection_us: 250,
        max_ejection_percent: 50,
    };

    struct Upstream {
        targets: Vec<TargetHealth>,
        ejections: Vec<Ejection>,
    }

    impl Upstream {
        fn new(count: usize) -> Self {
            Self {
                targets: std::iter::repeat_with(TargetHealth::default).take(count).collect(),
                ejections: vec![Ejection::default(); count],
            }
        }

        fn fail(&mut self, index: usize, now_us: u64) -> bool {
            if !self.targets[index].attempted(Sign::ServerError, &RULES) {
                return false;
            }
            let pairs: Vec<_> = self.targets.iter().zip(&mut self.ejections).collect();
            let Some(ejection) = eject(&pairs, index, &RULES, now_us) else { return false };
            self.ejections[index] = ejection;
            true
        }

        fn tick(&mut self, over: bool, now_us: u64) -> Vec<(usize, Turned)> {
            let mut pairs: Vec<_> = self.targets.iter().zip(&mut self.ejections).collect();
            tick(&mut pairs, &RULES, over, now_us)
        }
    }

    #[test]
    fn failures_in_a_row_take_a_target_out_for_longer_each_time() {
        let mut upstream = Upstream::new(3);
        let mut now = 1_000;
        for length in [100, 200, 250, 250] {
            assert!(!upstream.fail(0, now) && !upstream.fail(0, now));
            upstream.targets[0].attempted(Sign::Fine, &RULES);
            assert!(!upstream.fail(0, now) && !upstream.fail(0, now), "not in a row");
            assert!(upstream.fail(0, now));
            assert!(upstream.tick(false, now + length - 1).is_empty());
            assert_eq!(upstream.tick(false, now + length), [(0, Turned::Healthy)]);
            now += 1_000;
        }
    }

    #[test]
    fn quiet_intervals_are_forgiven() {
        let mut upstream = Upstream::new(3);
        for _ in 0..3 {
            upstream.fail(0, 0);
        }
        upstream.tick(false, 100);
        upstream.tick(true, 101);
        for _ in 0..3 {
            upstream.fail(0, 200);
        }
        assert_eq!(upstream.tick(false, 300), [(0, Turned::Healthy)], "as long as the first time");
    }

    #[test]
    fn only_a_share_is_taken_out_and_never_the_last() {
        let mut upstream = Upstream::new(4);
        for index in 0..4 {
            for _ in 0..5 {
                upstream.fail(index, 0);
            }
        }
        assert_eq!(upstream.targets.iter().filter(|target| target.is_ejected()).count(), 2);
        let mut alone = Upstream::new(1);
        assert!((0..9).all(|_| !alone.fail(0, 0)));
        let mut two = Upstream::new(2);
        two.targets[1].set(false, 0);
        assert!((0..9).all(|_| !two.fail(0, 0)), "the other is unhealthy");
    }

    #[test]
    fn a_rate_far_below_the_others_is_an_outlier() {
        let mut upstream = Upstream::new(5);
        for (index, failures) in [(0, 0), (1, 1), (2, 0), (3, 9), (4, 1)] {
            for attempt in 0..20 {
                let failed = attempt % 2 == 0 && attempt / 2 < failures;
                upstream.targets[index].attempted(if failed { Sign::ServerError } else { Sign::Fine }, &RULES);
            }
        }
        assert!(upstream.tick(false, 0).is_empty());
        assert_eq!(upstream.tick(true, 1), [(3, Turned::Unhealthy)]);
        assert!(upstream.tick(true, 2).is_empty(), "nothing was attempted since");
        assert_eq!(upstream.tick(true, 101), [(3, Turned::Healthy)]);
    }

    #[test]
    fn too_few_targets_or_attempts_say_nothing() {
        let mut two = Upstream::new(2);
        for _ in 0..50 {
            two.targets[0].attempted(Sign::Fine, &RULES);
            two.targets[1].attempts.fetch_add(1, Relaxed);
            two.targets[1].failures.fetch_add(1, Relaxed);
        }
        assert!(two.tick(true, 0).is_empty());
        let mut few = Upstream::new(5);
        for target in &few.targets {
            target.attempts.fetch_add(9, Relaxed);
        }
        few.targets[1].failures.fetch_add(9, Relaxed);
        assert!(few.tick(true, 0).is_empty());
    }

    #[test]
    fn a_gateways_failures_are_counted_apart() {
        let rules = OutlierRules { consecutive_failures: 9, consecutive_gateway_failures: 2, ..RULES };
        let target = TargetHealth::default();
        let signs = [502, 500, 503, 500, 504].map(Sign::of_status);
        assert!(signs.iter().all(|sign| !target.attempted(*sign, &rules)), "never two in a row");
        assert!(target.attempted(Sign::GatewayFailure, &rules));
        assert_eq!([200, 404, 499, 501, 599].map(Sign::of_status)[..3], [Sign::Fine; 3]);
    }

    #[test]
    fn a_refused_ejection_is_not_asked_for_with_every_failure() {
        let mut alone = Upstream::new(1);
        let asked = (0..9).filter(|_| {
            let wanted = alone.targets[0].attempted(Sign::ServerError, &RULES);
            if wanted {
                let pairs: Vec<_> = alone.targets.iter().zip(&mut alone.ejections).collect();
                assert!(eject(&pairs, 0, &RULES, 0).is_none());
            }
            wanted
        });
        assert_eq!(asked.count(), 3, "every third failure");
    }

    #[test]
    fn the_next_return_is_the_earliest() {
        let mut upstream = Upstream::new(5);
        for (index, now) in [(0, 10), (1, 5)] {
            for _ in 0..3 {
                upstream.fail(index, now);
            }
        }
        let pairs: Vec<_> = upstream.targets.iter().zip(&mut upstream.ejections).collect();
        assert_eq!(next_return(&pairs), Some(105));
        assert_eq!(next_return(&[]), None);
    }

    /// Rates, mean and deviation the long way: who lies too far below.
    fn reference(counts: &[(u64, u64)]) -> Vec<usize> {
        let rated: Vec<(usize, f64)> = counts
            .iter()
            .enumerate()
            .filter(|(_, (attempts, _))| *attempts >= RULES.request_volume)
            .map(|(index, (attempts, failures))| (index, (attempts - failures) as f64 / *attempts as f64))
            .collect();
        if rated.len() < RULES.minimum_hosts {
            return Vec::new();
        }
        let mean = rated.iter().map(|(_, rate)| *rate).sum::<f64>() / rated.len() as f64;
        let squares = rated.iter().map(|(_, rate)| rate * rate).sum::<f64>() / rated.len() as f64;
        let deviation = (squares - mean * mean).max(0.0).sqrt();
        // What rounding could decide either way is left to the code under test.
        let clear = |rate: f64| (rate - (mean - RULES.stdev_factor * deviation)).abs() > 1e-9;
        rated
            .iter()
            .filter(|(_, rate)| clear(*rate) && *rate < mean - RULES.stdev_factor * deviation)
            .map(|(i, _)| *i)
            .collect()
    }

    proptest! {
        #[test]
        fn rates_are_compared_as_the_formula_says(counts in prop::collection::vec((0..40_u64, 0..40_u64), 1..9)) {
            let counts: Vec<_> = counts.into_iter().map(|(left, right)| (left.max(right), left.min(right))).collect();
            let mut upstream = Upstream::new(counts.len());
            for (target, (attempts, failures)) in upstream.targets.iter().zip(&counts) {
                target.attempts.fetch_add(*attempts, Relaxed);
                target.failures.fetch_add(*failures, Relaxed);
            }
            let mut pairs: Vec<_> = upstream.targets.iter().zip(&mut upstream.ejections).collect();
            let mut found = outliers(&mut pairs, &RULES);
            found.sort_unstable();
            for index in reference(&counts) {
                prop_assert!(found.contains(&index), "{index} of {counts:?}");
            }
            prop_assert!(found.iter().all(|index| counts[*index].1 > 0), "one without failures is no outlier");
        }

        /// Whatever happens: no more are out than may be, and one always serves.
        #[test]
        fn the_share_is_bounded(
            count in 1..8_usize, percent in 1..101_u32, events in prop::collection::vec((0..8_usize, 0..5_u8), 0..200),
        ) {
            let rules = OutlierRules { max_ejection_percent: percent, ..RULES };
            let mut upstream = Upstream::new(count);
            for (step, (index, event)) in events.into_iter().enumerate() {
                let (index, now) = (index % count, step as u64 * 7);
                let wanted = event < 4 && upstream.targets[index].attempted(Sign::GatewayFailure, &rules);
                let mut pairs: Vec<_> = upstream.targets.iter().zip(&mut upstream.ejections).collect();
                if wanted && let Some(ejection) = eject(&pairs, index, &rules, now) {
                    *pairs[index].1 = ejection;
                }
                if event == 4 {
                    tick(&mut pairs, &rules, true, now);
                }
                let out = upstream.targets.iter().filter(|target| target.is_ejected()).count();
                prop_assert!(out <= (count * percent as usize / 100).max(1) && out < count);
            }
        }
    }
}
