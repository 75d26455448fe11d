//! Response-rate limiting, and the limits of zones: what keeps a server from being a weapon, and one zone from being everybody's problem.
//!
//! An answer of one kind about one subject to one network (a /24 or /56) costs a credit; credits come back at a steady rate. Who has none
//! left gets every second answer as an empty one with TC, so that a real client can come back over TCP, and otherwise nothing. Askers over TCP
//! and with a valid cookie are who they say and are not limited: nobody can make them a flood's target.
//!
//! Limits are given for the whole server. The kernel deals datagrams out to workers by their addresses and ports, so that a flood meets
//! all of them: each keeps its share of the limits, and no worker waits for another's count.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use crate::answer::Reply;

/// Buckets per worker, a power of two. Networks that meet in one share its credits, so that nobody gets new ones by taking turns with
/// others; who meets whom is different for every worker and cannot be told from outside.
const BUCKETS: usize = 1 << 16;
/// Seconds of answers that a flood can owe.
const DEBT_SECONDS: i64 = 15;
/// Leading bits of IPv4 addresses that are one asker to the limits of answers.
const ASKER_BITS: u32 = 24;
/// Leading bits of IPv6 addresses that are one network everywhere: what one household or machine is given, at most.
const NETWORK_BITS: u32 = 56;
/// What messages are counted as that are served elsewhere, beside the kinds of answers.
const ELSEWHERE: u8 = u8::MAX;

/// The network of an address as a number: its leading `v4_bits` bits (at most 32), or [`NETWORK_BITS`] of an IPv6 address.
#[inline]
pub(crate) fn network_of(address: IpAddr, v4_bits: u32) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let bits = u32::from(address).checked_shr(32 - v4_bits.min(32)).unwrap_or(0);
            (4_u64 << NETWORK_BITS) | u64::from(bits)
        }
        IpAddr::V6(address) => {
            let bits = u64::try_from(u128::from(address) >> (128 - NETWORK_BITS)).expect("56 bits");
            (6_u64 << NETWORK_BITS) | bits
        }
    }
}

/// What one of `shares` equal keepers of a limit may give: all together at least the limit. 0 stays no limit.
#[must_use]
pub fn share(limit: u32, shares: u32) -> u32 {
    limit.div_ceil(shares.max(1))
}

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
    exempt: Vec<IpNet>,
    buckets: Box<[Bucket]>,
    seed: [u64; 2],
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// The second in which credits came back last.
    second: u32,
    slipped: u32,
    credits: i64,
}

impl RateLimiter {
    /// `per_second` answers of a kind about a subject per network; 0 limits nothing. Every `slip`-th answer above passes with TC; 0 lets none
    /// pass. Networks in `exempt` are not limited.
    #[must_use]
    pub fn new(per_second: u32, slip: u32, exempt: Vec<IpNet>) -> Self {
        // The standard library's keys are random for each process, and differ with every call.
        Self::seeded(per_second, slip, exempt, [0, 1].map(|word: u64| RandomState::new().hash_one(word)))
    }

    fn seeded(per_second: u32, slip: u32, exempt: Vec<IpNet>, seed: [u64; 2]) -> Self {
        let buckets = if per_second == 0 { 0 } else { BUCKETS };
        let buckets = vec![Bucket::default(); buckets].into();
        RateLimiter { per_second: i64::from(per_second), slip, exempt, buckets, seed }
    }

    /// Whether an answer to `client` at `now` (seconds) is sent.
    #[inline]
    pub fn check(&mut self, reply: &Reply, client: IpAddr, now: u64) -> Limited {
        if reply.known_client {
            return Limited::Send;
        }
        self.spend(reply.subject, reply.kind as u8, client, now)
    }

    /// Whether a datagram is served that is an update, a notification, or signed. It costs as an answer does: until it is looked at,
    /// its sender has shown nothing.
    pub fn admits(&mut self, client: IpAddr, now: u64) -> bool {
        self.spend(0, ELSEWHERE, client, now) == Limited::Send
    }

    #[inline]
    fn spend(&mut self, subject: u64, kind: u8, client: IpAddr, now: u64) -> Limited {
        let client = client.to_canonical();
        if self.buckets.is_empty() || self.exempt.iter().any(|network| network.contains(&client)) {
            return Limited::Send;
        }
        let at = self.place(subject, kind, client);
        let bucket = &mut self.buckets[at];
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        let elapsed = i64::from(now.saturating_sub(bucket.second)).min(DEBT_SECONDS + 1);
        bucket.credits = (bucket.credits + elapsed * self.per_second).min(self.per_second);
        bucket.second = now;
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

    fn place(&self, subject: u64, kind: u8, client: IpAddr) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.seed[0], self.seed[1]);
        hasher.write_u64(subject);
        hasher.write_u64(network_of(client, ASKER_BITS));
        hasher.write_u8(kind);
        usize::try_from(hasher.finish() % BUCKETS as u64).expect("buckets are in memory")
    }
}

/// Counts of queries per zone in the current second, by the zones' numbers: a share of the server's count.
pub struct Quotas {
    shares: u32,
    counts: Vec<(u64, u32)>,
}

impl Quotas {
    /// One of `shares` keepers of the zones' limits.
    #[must_use]
    pub fn new(shares: u32) -> Self {
        Quotas { shares, counts: Vec::new() }
    }

    /// Whether the zone with number `zone`, which the server may answer `limit` queries per second for (0: any number), may answer one
    /// more at `now`.
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
        count.1 = count.1.saturating_add(1);
        count.1 <= share(limit, self.shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Kind;

    fn reply(kind: Kind, subject: u64) -> Reply {
        Reply {
            len: 0,
            question_end: 0,
            opt_at: 0,
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
        let mut limiter = RateLimiter::seeded(10, 2, Vec::new(), [1, 2]);
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
        // What is served elsewhere has credits of its own.
        assert_eq!((0..20).filter(|_| limiter.admits(client, 100)).count(), 10);
        // Whoever is known is not limited.
        assert_eq!(limiter.check(&Reply { known_client: true, ..reply(Kind::Answer, 1) }, client, 100), Limited::Send);
    }

    #[test]
    fn exempt_networks_are_not_limited() {
        let mut limiter = RateLimiter::new(
            1,
            0,
            ["127.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().expect("a network")).to_vec(),
        );
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
        let mut quotas = Quotas::new(1);
        assert_eq!((0..10).filter(|_| quotas.take(3, 4, 1)).count(), 4);
        assert!(quotas.take(2, 4, 1) && quotas.take(3, 4, 2));
        assert!((0..10).all(|_| quotas.take(3, 0, 1)));
    }

    #[test]
    fn keepers_of_a_limit_have_equal_shares() {
        let mut quotas: Vec<Quotas> = (0..4).map(|_| Quotas::new(4)).collect();
        let passed: Vec<usize> =
            quotas.iter_mut().map(|quotas| (0..50).filter(|_| quotas.take(0, 10, 1)).count()).collect();
        assert_eq!(passed, [3; 4]);
        assert_eq!((share(0, 4), share(1, 4), share(8, 4), share(u32::MAX, 0)), (0, 1, 2, u32::MAX));
    }

    /// Two floods that take turns in a bucket get no more than one of them would.
    #[test]
    fn who_meets_in_a_bucket_shares_its_credits() {
        let mut limiter = RateLimiter::seeded(10, 0, Vec::new(), [1, 2]);
        let client: IpAddr = [192, 0, 2, 7].into();
        let place = limiter.place(1, Kind::Answer as u8, client);
        let other = (2..).find(|subject| limiter.place(*subject, Kind::Answer as u8, client) == place);
        let other = other.expect("some subject meets the first one");
        let sent = (0..100).filter(|turn| {
            let subject = if turn % 2 == 0 { 1 } else { other };
            limiter.check(&reply(Kind::Answer, subject), client, 100) == Limited::Send
        });
        assert_eq!(sent.count(), 10);
    }

    #[test]
    fn networks_are_prefixes() {
        let of = |address: &str| network_of(address.parse().expect("an address"), 24);
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:ff::1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:100::1"));
        assert_ne!(of("0.0.0.0"), of("::"));
        let host = |address: &str| network_of(address.parse().expect("an address"), 32);
        assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
    }
}
