//! Response-rate limiting, and the limits of zones: what keeps a server from being a weapon, and one zone from being everybody's problem.
//!
//! An answer of one kind about one subject to one network (a /24 or /56) costs a credit; credits come back at a steady rate. Who has none
//! left gets every second answer as an empty one with TC, so that a real client can come back over TCP, and otherwise nothing. Askers over TCP
//! and with a valid cookie are who they say and are not limited.

use std::net::IpAddr;

use crate::answer::Reply;
use crate::hash;

/// Buckets per worker, a power of two. One that two networks share serves the one that came last.
const BUCKETS: usize = 1 << 15;
/// Seconds of answers that a flood can owe.
const DEBT_SECONDS: i64 = 15;

/// What is done with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    /// It is sent.
    Send,
    /// It is sent empty, with TC.
    Slip,
    /// It is not sent.
    Drop,
}

/// Credits of the networks that ask one worker.
pub struct RateLimiter {
    per_second: i64,
    slip: u32,
    exempt: Vec<(IpAddr, u8)>,
    buckets: Box<[Bucket]>,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    key: u64,
    second: u64,
    credits: i64,
    slipped: u32,
}

impl RateLimiter {
    /// `per_second` answers of a kind about a subject per network; 0 limits nothing. Every `slip`-th answer above passes with TC; 0 lets none
    /// pass. Networks in `exempt` (address, prefix length) are not limited.
    #[must_use]
    pub fn new(per_second: u32, slip: u32, exempt: Vec<(IpAddr, u8)>) -> Self {
        let buckets = if per_second == 0 { 0 } else { BUCKETS };
        RateLimiter {
            per_second: i64::from(per_second),
            slip,
            exempt,
            buckets: vec![Bucket::default(); buckets].into(),
        }
    }

    /// Whether an answer to `client` at `now` (seconds) is sent.
    #[inline]
    pub fn check(&mut self, reply: &Reply, client: IpAddr, now: u64) -> Limited {
        if self.buckets.is_empty() || reply.known_client {
            return Limited::Send;
        }
        self.spend(reply, client, now)
    }

    fn spend(&mut self, reply: &Reply, client: IpAddr, now: u64) -> Limited {
        if self.exempt.iter().any(|(network, bits)| contains(*network, *bits, client)) {
            return Limited::Send;
        }
        let mut network = [0; 8];
        match client {
            IpAddr::V4(address) => network[..3].copy_from_slice(&address.octets()[..3]),
            IpAddr::V6(address) => network[..7].copy_from_slice(&address.octets()[..7]),
        }
        network[7] = reply.kind as u8;
        let key = hash::child(reply.subject, &network);
        #[expect(clippy::cast_possible_truncation, reason = "the low bits choose the bucket")]
        let bucket = &mut self.buckets[key as usize & (BUCKETS - 1)];
        if bucket.key != key {
            *bucket = Bucket { key, second: now, credits: self.per_second, slipped: 0 };
        } else if bucket.second != now {
            let elapsed =
                i64::try_from(now.saturating_sub(bucket.second)).unwrap_or(DEBT_SECONDS).min(DEBT_SECONDS + 1);
            bucket.credits = (bucket.credits + elapsed * self.per_second).min(self.per_second);
            bucket.second = now;
        }
        bucket.credits = (bucket.credits - 1).max(-DEBT_SECONDS * self.per_second);
        if bucket.credits >= 0 {
            return Limited::Send;
        }
        bucket.slipped += 1;
        if self.slip > 0 && bucket.slipped >= self.slip {
            bucket.slipped = 0;
            return Limited::Slip;
        }
        Limited::Drop
    }
}

fn contains(network: IpAddr, bits: u8, client: IpAddr) -> bool {
    let (a, b, width) = match (network, client) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let shift = width - u32::from(bits).min(width);
    a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
}

/// Counts of queries per zone in the current second, by the zones' numbers.
#[derive(Default)]
pub struct Quotas {
    counts: Vec<(u64, u32)>,
}

impl Quotas {
    /// Whether the zone with number `zone`, which may answer `limit` queries per second (0: any number), may answer one more at `now`.
    #[inline]
    pub fn take(&mut self, zone: u32, limit: u32, now: u64) -> bool {
        if limit == 0 {
            return true;
        }
        let at = zone as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, (0, 0));
        }
        let count = &mut self.counts[at];
        if count.0 != now {
            *count = (now, 0);
        }
        count.1 += 1;
        count.1 <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Kind;

    fn reply(kind: Kind, subject: u64) -> Reply {
        Reply {
            len: 0,
            rcode: 0,
            kind,
            zone: None,
            zone_limit: 0,
            truncated: false,
            qtype: 1,
            known_client: false,
            subject,
        }
    }

    #[test]
    fn a_flood_is_answered_at_the_rate_and_slips() {
        let mut limiter = RateLimiter::new(10, 2, Vec::new());
        let client = [192, 0, 2, 7].into();
        let first: Vec<Limited> = (0..20).map(|_| limiter.check(&reply(Kind::Answer, 1), client, 100)).collect();
        assert!(first[..10].iter().all(|limited| *limited == Limited::Send));
        assert_eq!(first[10..].iter().filter(|limited| **limited == Limited::Slip).count(), 5);
        // Another host of the network shares its fate; another network, subject or kind does not.
        assert_ne!(limiter.check(&reply(Kind::Answer, 1), [192, 0, 2, 200].into(), 100), Limited::Send);
        assert_eq!(limiter.check(&reply(Kind::Answer, 1), [192, 0, 3, 7].into(), 100), Limited::Send);
        assert_eq!(limiter.check(&reply(Kind::Answer, 2), client, 100), Limited::Send);
        assert_eq!(limiter.check(&reply(Kind::NxDomain, 1), client, 100), Limited::Send);
        // Debts are paid first, then credits return.
        assert_ne!(limiter.check(&reply(Kind::Answer, 1), client, 101), Limited::Send);
        assert_eq!(limiter.check(&reply(Kind::Answer, 1), client, 110), Limited::Send);
        // Whoever is known is not limited.
        assert_eq!(limiter.check(&Reply { known_client: true, ..reply(Kind::Answer, 1) }, client, 100), Limited::Send);
    }

    #[test]
    fn exempt_networks_are_not_limited() {
        let mut limiter =
            RateLimiter::new(1, 0, vec![([127, 0, 0, 0].into(), 8), ("2001:db8::".parse().expect("address"), 32)]);
        for client in ["127.3.2.1", "2001:db8:1::1"] {
            assert!(
                (0..10)
                    .all(|_| limiter.check(&reply(Kind::Answer, 1), client.parse().expect("address"), 1)
                        == Limited::Send),
                "{client}"
            );
        }
        let client = "2001:db9::1".parse().expect("address");
        assert!((0..10).any(|_| limiter.check(&reply(Kind::Answer, 1), client, 1) == Limited::Drop));
    }

    #[test]
    fn a_zone_has_its_share_of_each_second() {
        let mut quotas = Quotas::default();
        assert_eq!((0..10).filter(|_| quotas.take(3, 4, 1)).count(), 4);
        assert!(quotas.take(2, 4, 1) && quotas.take(3, 4, 2));
        assert!((0..10).all(|_| quotas.take(3, 0, 1)));
    }
}
