//! What is known of a name over time: a function of what asking came to, and when.
//!
//! An answer is used for its time to live and then asked for anew. While asking fails the last answer stays, for
//! `stale_ttl` past its time; that the name does not exist or has no such records is an answer too, and ends the last
//! one at once (RFC 8767 section 4).

use super::settings::DnsSettings;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Least time between two look-ups of a name that has addresses: a time to live of 0 counts as this much.
const LEAST: Duration = Duration::from_secs(1);
/// Least time between two look-ups of a name that has none.
const LEAST_FAILED: Duration = Duration::from_millis(100);
/// Longest time an answer is used, whatever its time to live says.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// One place a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where.
    pub ip: IpAddr,
    /// The port, where a record of kind SRV says one.
    pub port: Option<NonZeroU16>,
    /// The share, where a record of kind SRV says one; 1 at least.
    pub weight: Option<NonZeroU16>,
    /// The host that a record of kind SRV names, without the final dot.
    pub host: Option<Arc<str>>,
}

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It does not exist, or has no record of the kinds that are asked for.
    NotFound,
    /// Nobody could tell.
    Failed,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To these, in a fixed order and each once; never none.
    Found(Box<[Endpoint]>),
    /// To nothing.
    Failed(Failure),
}

impl Answer {
    /// The places; none where it is a failure.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Found(endpoints) => endpoints,
            Self::Failed(_) => &[],
        }
    }
}

/// What one look-up came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Places, and how long they are good for.
    Found(Vec<Endpoint>, Duration),
    /// There is nothing of that name.
    NotFound,
    /// Nobody could tell, for this reason.
    Failed(String),
}

/// What to do after a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What is known now.
    pub(super) answer: Arc<Answer>,
    /// It is an earlier answer, past its time.
    pub(super) stale: bool,
    /// When to ask again.
    pub(super) again: Duration,
}

/// One name's course.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The last answer with places, and when its time is over.
    good: Option<(Arc<Answer>, Instant)>,
}

impl Course {
    /// A look-up ended at `now` with `outcome`.
    pub(super) fn step(&mut self, outcome: Outcome, now: Instant, settings: &DnsSettings) -> Step {
        match outcome {
            Outcome::Found(endpoints, ttl) => {
                let again = lifetime(ttl, settings);
                let answer = self.found(endpoints);
                self.good = Some((answer.clone(), now + again));
                Step { answer, stale: false, again }
            }
            Outcome::NotFound => {
                self.good = None;
                let again = settings.not_found_ttl.clamp(LEAST_FAILED, MOST);
                Step { answer: Arc::new(Answer::Failed(Failure::NotFound)), stale: false, again }
            }
            Outcome::Failed(_) => {
                let again = settings.error_ttl.clamp(LEAST_FAILED, MOST);
                if let Some((answer, fresh_until)) = &self.good {
                    let left = (*fresh_until + settings.stale_ttl).saturating_duration_since(now);
                    if !left.is_zero() {
                        return Step { answer: answer.clone(), stale: true, again: again.min(left) };
                    }
                }
                self.good = None;
                Step { answer: Arc::new(Answer::Failed(Failure::Failed)), stale: false, again }
            }
        }
    }

    /// The same pointer as before where nothing differs, so that a change can be told by it.
    fn found(&self, mut endpoints: Vec<Endpoint>) -> Arc<Answer> {
        settle(&mut endpoints);
        match &self.good {
            Some((answer, _)) if answer.endpoints() == endpoints.as_slice() => answer.clone(),
            _ => Arc::new(Answer::Found(endpoints.into())),
        }
    }
}

/// How long an answer with this time to live is used.
fn lifetime(ttl: Duration, settings: &DnsSettings) -> Duration {
    settings.valid_ttl.unwrap_or(ttl).clamp(LEAST, MOST)
}

/// Servers rotate their answers: a fixed order, and what is there twice added up.
fn settle(endpoints: &mut Vec<Endpoint>) {
    endpoints.sort_unstable();
    endpoints.dedup_by(|next, kept| {
        let same = (next.ip, next.port) == (kept.ip, kept.port);
        if same && let (Some(sum), Some(more)) = (kept.weight, next.weight) {
            kept.weight = Some(sum.saturating_add(more.get()));
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str, port: u16, weight: u16) -> Endpoint {
        Endpoint { ip: ip.parse().unwrap(), port: NonZeroU16::new(port), weight: NonZeroU16::new(weight), host: None }
    }

    fn found(ips: &[&str], seconds: u64) -> Outcome {
        Outcome::Found(ips.iter().map(|ip| endpoint(ip, 0, 0)).collect(), Duration::from_secs(seconds))
    }

    fn failed() -> Outcome {
        Outcome::Failed("timed out".into())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn times_to_live_are_kept_within_bounds_and_may_be_overridden() {
        let own = DnsSettings::default();
        let valid = DnsSettings { valid_ttl: Some(seconds(7)), ..DnsSettings::default() };
        for (ttl, settings, expected) in [
            (seconds(0), &own, LEAST),
            (Duration::from_millis(1_500), &own, Duration::from_millis(1_500)),
            (seconds(300), &own, seconds(300)),
            (seconds(1 << 31), &own, MOST),
            (seconds(0), &valid, seconds(7)),
            (seconds(300), &valid, seconds(7)),
        ] {
            assert_eq!(lifetime(ttl, settings), expected, "{ttl:?}");
        }
    }

    #[test]
    fn an_answer_in_another_order_is_the_same_answer() {
        let (mut course, settings, now) = (Course::default(), DnsSettings::default(), Instant::now());
        let first = course.step(found(&["10.0.0.2", "10.0.0.1", "10.0.0.2"], 5), now, &settings);
        assert_eq!(first.answer.endpoints(), [endpoint("10.0.0.1", 0, 0), endpoint("10.0.0.2", 0, 0)]);
        let second = course.step(found(&["10.0.0.1", "10.0.0.2"], 5), now, &settings);
        assert!(Arc::ptr_eq(&first.answer, &second.answer));
        let third = course.step(found(&["10.0.0.1"], 5), now, &settings);
        assert!(!Arc::ptr_eq(&first.answer, &third.answer));
    }

    #[test]
    fn weights_of_the_same_place_add_up() {
        let mut endpoints =
            vec![endpoint("10.0.0.1", 80, 5), endpoint("10.0.0.1", 81, 1), endpoint("10.0.0.1", 80, u16::MAX)];
        settle(&mut endpoints);
        assert_eq!(endpoints, [endpoint("10.0.0.1", 80, u16::MAX), endpoint("10.0.0.1", 81, 1)]);
    }

    #[test]
    fn while_asking_fails_the_last_answer_stays_for_its_stale_time_and_no_longer() {
        let (mut course, began) = (Course::default(), Instant::now());
        let settings = DnsSettings { stale_ttl: seconds(10), ..DnsSettings::default() };
        let good = course.step(found(&["10.0.0.1"], 5), began, &settings);
        assert_eq!((good.stale, good.again), (false, seconds(5)));
        for (after, again) in [(5, 1), (14, 1)] {
            let step = course.step(failed(), began + seconds(after), &settings);
            assert_eq!((step.stale, step.again), (true, seconds(again)), "{after}");
            assert!(Arc::ptr_eq(&step.answer, &good.answer));
        }
        let last = course.step(failed(), began + Duration::from_millis(14_700), &settings);
        assert_eq!(last.again, Duration::from_millis(300), "its end is not overslept");
        let over = course.step(failed(), began + seconds(15), &settings);
        assert_eq!((&*over.answer, over.stale), (&Answer::Failed(Failure::Failed), false));
        // The end is the end, also for a clock that is read late.
        assert_eq!(*course.step(failed(), began, &settings).answer, Answer::Failed(Failure::Failed));
        // And it begins anew.
        assert_eq!(course.step(found(&["10.0.0.1"], 5), began + seconds(20), &settings).answer, good.answer);
    }

    #[test]
    fn that_there_is_nothing_ends_an_answer_and_is_remembered_longer_than_a_failure() {
        let (mut course, settings, now) = (Course::default(), DnsSettings::default(), Instant::now());
        course.step(found(&["10.0.0.1"], 5), now, &settings);
        let nothing = course.step(Outcome::NotFound, now, &settings);
        assert_eq!((&*nothing.answer, nothing.again), (&Answer::Failed(Failure::NotFound), seconds(30)));
        let failure = course.step(failed(), now, &settings);
        assert_eq!((&*failure.answer, failure.again), (&Answer::Failed(Failure::Failed), seconds(1)));
    }
}
