//! When a secondary zone asks its primaries, transfers, tries again and gives up (RFC 1035, 3.3.13; RFC 1996, 3), without IO.
//!
//! One [`Secondary`] per zone. It says what to do ([`Secondary::poll`]), is told what came of it, and says when it wants to be asked
//! again ([`Secondary::deadline`]). At most one thing is under way.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateward_zone::{Name, Soa, is_newer};

/// Bounds on the times that SOA records name, so that neither a typing error nor malice makes a zone busy or forgotten.
const REFRESH: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(86_400));
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(7_200));
const EXPIRE: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(60 * 86_400));
/// Wait before a zone that was never transferred is tried again; doubled up to the longest retry.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Where a primary listens when nothing else is said.
const DEFAULT_PORT: u16 = 53;

/// A server that a zone is transferred from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// Where it listens.
    pub address: SocketAddr,
    /// The key that is shared with it.
    pub key: Option<Name>,
}

/// `ADDRESS[:PORT][#KEY]`, with brackets around an IPv6 address that a port follows. The port is 53 when there is none.
impl std::str::FromStr for Primary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, key) = text.split_once('#').map_or((text, None), |(address, key)| (address, Some(key)));
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = address.parse().or_else(|_| bare.parse().map(|address| SocketAddr::new(address, DEFAULT_PORT)));
        let address = address.map_err(|_| {
            format!("{text:?} is not the address of a primary; write it as 192.0.2.1, 192.0.2.1:53#KEY or [2001:db8::1]:53#KEY")
        })?;
        let key = key.map(|key| key.parse().map_err(|error| format!("{key:?} is not the name of a key: {error}")));
        Ok(Primary { address, key: key.transpose()? })
    }
}

impl std::fmt::Display for Primary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.address)?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "#{key}"))
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask this primary for the SOA record; tell [`Secondary::soa`] or [`Secondary::failed`].
    Ask(Primary),
    /// Transfer from this primary: what changed, or the whole zone; tell [`Secondary::transferred`] or [`Secondary::failed`].
    Transfer {
        /// From whom.
        primary: Primary,
        /// Whether only what changed is asked for.
        incremental: bool,
    },
    /// Nothing was heard for longer than the zone allows: it must not be answered from any more (SERVFAIL).
    Expire,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Asking,
    Transferring { incremental: bool },
}

/// One secondary zone.
pub struct Secondary {
    primaries: Vec<Primary>,
    /// Timers and serial of the version that is there; `None` before the first transfer.
    soa: Option<Soa>,
    doing: Doing,
    /// The primary that is tried, and how many were tried in this round.
    at: usize,
    tried: usize,
    /// A round begins then.
    next_round: Instant,
    /// A notice came while something was under way.
    again: bool,
    /// The next thing to do with the primary that is tried: `Some` while a round is under way and nothing is.
    pending: Option<Doing>,
    expires: Option<Instant>,
    is_expired: bool,
    failures: u32,
    /// State of the generator of jitter.
    jitter: u64,
}

impl Secondary {
    /// A zone with the SOA of the version that is there, if any, and when that was last confirmed. `seed` spreads the times of zones that
    /// were loaded together.
    #[must_use]
    pub fn new(primaries: Vec<Primary>, soa: Option<Soa>, confirmed: Option<Instant>, seed: u64, now: Instant) -> Self {
        let expires = soa.as_ref().map(|soa| confirmed.unwrap_or(now) + clamp(soa.expire, EXPIRE));
        Secondary {
            primaries,
            soa,
            doing: Doing::Nothing,
            at: 0,
            tried: 0,
            next_round: now,
            again: false,
            pending: None,
            expires,
            is_expired: false,
            failures: 0,
            jitter: seed | 1,
        }
    }

    /// The zone's primaries.
    #[must_use]
    pub fn primaries(&self) -> &[Primary] {
        &self.primaries
    }

    /// The serial of the version that is there.
    #[must_use]
    pub fn serial(&self) -> Option<u32> {
        self.soa.as_ref().map(|soa| soa.serial)
    }

    /// Whether the zone may be answered from.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// What is to be done now; `None`: nothing before [`Secondary::deadline`]. Call it until it says so.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if self.expire(now) {
            return Some(Action::Expire);
        }
        if self.doing != Doing::Nothing || self.primaries.is_empty() {
            return None;
        }
        if self.pending.is_none() && self.next_round <= now {
            self.tried = 0;
            self.pending = Some(self.first_step());
        }
        let step = self.pending.take()?;
        let primary = self.primaries[self.at % self.primaries.len()].clone();
        self.doing = step;
        match step {
            Doing::Transferring { incremental } => Some(Action::Transfer { primary, incremental }),
            _ => Some(Action::Ask(primary)),
        }
    }

    /// Whether the zone's time is over now, which is told once. It runs on while something is under way.
    pub fn expire(&mut self, now: Instant) -> bool {
        let is_over = self.expires.take_if(|expires| *expires <= now).is_some();
        self.is_expired |= is_over;
        is_over
    }

    /// When the zone's time is over, if nothing comes.
    #[must_use]
    pub fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// When [`Secondary::poll`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let round = (self.doing == Doing::Nothing && !self.primaries.is_empty()).then_some(self.next_round);
        round.into_iter().chain(self.expires).min()
    }

    /// A primary says that the zone changed. The one at `from` is tried first.
    pub fn notified(&mut self, from: Option<SocketAddr>, now: Instant) {
        if self.doing != Doing::Nothing || self.pending.is_some() {
            self.again = true;
            return;
        }
        let place = from.and_then(|from| self.primaries.iter().position(|primary| primary.address.ip() == from.ip()));
        self.at = place.unwrap_or(self.at);
        self.next_round = now;
    }

    /// The primary that was asked has this serial.
    pub fn soa(&mut self, serial: u32, now: Instant) {
        if self.doing != Doing::Asking {
            return;
        }
        self.doing = Doing::Nothing;
        match self.serial() {
            Some(own) if own == serial && !self.is_expired => self.confirmed(now),
            // An older version than ours: this primary is behind, another may not be.
            Some(own) if is_newer(own, serial) && !self.is_expired => self.next_primary(now),
            Some(_) if !self.is_expired => self.pending = Some(Doing::Transferring { incremental: true }),
            _ => self.pending = Some(Doing::Transferring { incremental: false }),
        }
    }

    /// A transfer brought the version with this SOA, or found that it is there already.
    pub fn transferred(&mut self, soa: Soa, now: Instant) {
        if !matches!(self.doing, Doing::Transferring { .. }) {
            return;
        }
        self.doing = Doing::Nothing;
        self.soa = Some(soa);
        self.confirmed(now);
    }

    /// What was under way failed. A failed incremental transfer is repeated as a whole one; else the next primary is tried.
    pub fn failed(&mut self, now: Instant) {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => {}
            Doing::Transferring { incremental: true } => {
                self.pending = Some(Doing::Transferring { incremental: false });
            }
            _ => self.next_primary(now),
        }
    }

    /// With nothing to compare with the whole zone is what is wanted.
    fn first_step(&self) -> Doing {
        if self.soa.is_some() { Doing::Asking } else { Doing::Transferring { incremental: false } }
    }

    fn confirmed(&mut self, now: Instant) {
        let (refresh, expire) = match &self.soa {
            Some(soa) => (clamp(soa.refresh, REFRESH), clamp(soa.expire, EXPIRE)),
            None => return,
        };
        self.failures = 0;
        self.is_expired = false;
        // Never before two rounds failed.
        self.expires = Some(now + expire.max(refresh * 2));
        self.next_round = if std::mem::take(&mut self.again) { now } else { now + self.spread(refresh) };
    }

    fn next_primary(&mut self, now: Instant) {
        self.tried += 1;
        self.at = (self.at + 1) % self.primaries.len().max(1);
        if self.tried < self.primaries.len() {
            self.pending = Some(self.first_step());
            return;
        }
        let doubled = |first: Duration| first * 2_u32.pow(self.failures.min(12));
        let retry = match &self.soa {
            Some(soa) => clamp(soa.retry, RETRY),
            None => doubled(FIRST_RETRY).min(RETRY.1),
        };
        self.failures = self.failures.saturating_add(1);
        self.next_round =
            if std::mem::take(&mut self.again) { now + RETRY.0.min(retry) } else { now + self.spread(retry) };
    }

    /// Up to a tenth less, so that zones with the same timers do not stay in step.
    fn spread(&mut self, time: Duration) -> Duration {
        // xorshift64: the times only have to differ.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        time - time * u32::try_from(self.jitter % 100).unwrap_or_default() / 1_000
    }
}

fn clamp(seconds: u32, (least, most): (Duration, Duration)) -> Duration {
    Duration::from_secs(u64::from(seconds)).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primaries(count: u8) -> Vec<Primary> {
        (1..=count).map(|last| Primary { address: SocketAddr::from(([192, 0, 2, last], 53)), key: None }).collect()
    }

    fn soa(serial: u32) -> Soa {
        let name: Name = "ns.example.com".parse().expect("a name");
        Soa { mname: name.clone(), rname: name, serial, refresh: 1_000, retry: 100, expire: 10_000, minimum: 1 }
    }

    /// A zone at serial 7, and the moment it was confirmed.
    fn served(count: u8) -> (Secondary, Instant) {
        let now = Instant::now();
        (Secondary::new(primaries(count), Some(soa(7)), Some(now), 42, now), now)
    }

    fn ask(last: u8) -> Option<Action> {
        Some(Action::Ask(primaries(last).pop().expect("one")))
    }

    fn transfer(last: u8, incremental: bool) -> Option<Action> {
        Some(Action::Transfer { primary: primaries(last).pop().expect("one"), incremental })
    }

    fn seconds_until_deadline(zone: &Secondary, now: Instant) -> u64 {
        (zone.deadline().expect("a deadline") - now).as_secs()
    }

    #[test]
    fn rfc1035_refresh_asks_and_transfers_what_is_newer() {
        let (mut zone, now) = served(1);
        assert_eq!(zone.poll(now), ask(1));
        assert_eq!(zone.poll(now), None);
        zone.soa(7, now);
        assert_eq!(zone.poll(now), None);
        let wait = seconds_until_deadline(&zone, now);
        assert!((900..=1_000).contains(&wait), "{wait}");
        let later = zone.deadline().expect("a deadline");
        assert_eq!(zone.poll(later), ask(1));
        zone.soa(8, later);
        assert_eq!(zone.poll(later), transfer(1, true));
        zone.transferred(soa(8), later);
        assert_eq!(zone.serial(), Some(8));
        assert_eq!(zone.poll(later), None);
    }

    #[test]
    fn a_failed_incremental_transfer_is_repeated_as_a_whole() {
        let (mut zone, now) = served(2);
        zone.poll(now);
        zone.soa(8, now);
        assert_eq!(zone.poll(now), transfer(1, true));
        zone.failed(now);
        assert_eq!(zone.poll(now), transfer(1, false));
        zone.failed(now);
        assert_eq!(zone.poll(now), ask(2));
    }

    #[test]
    fn every_primary_is_tried_before_the_wait() {
        let (mut zone, now) = served(3);
        for last in 1..=3 {
            assert_eq!(zone.poll(now), ask(last));
            // The second is behind us, which is as good as no answer.
            if last == 2 {
                zone.soa(6, now);
            } else {
                zone.failed(now);
            }
        }
        assert_eq!(zone.poll(now), None);
        let wait = seconds_until_deadline(&zone, now);
        assert!((90..=100).contains(&wait), "{wait}");
    }

    #[test]
    fn rfc1035_a_zone_expires_and_comes_back() {
        let (mut zone, start) = served(1);
        let mut now = start;
        let mut asked = 0;
        loop {
            match zone.poll(now) {
                Some(Action::Ask(_)) => {
                    asked += 1;
                    zone.failed(now);
                }
                Some(Action::Expire) => break,
                Some(other) => panic!("{other:?}"),
                None => now = zone.deadline().expect("a deadline"),
            }
        }
        assert_eq!((now - start).as_secs(), 10_000);
        assert!((100..=112).contains(&asked), "{asked} attempts");
        assert!(zone.is_expired());
        // It still tries, and takes the whole zone, of whatever serial.
        let later = zone.deadline().expect("a deadline");
        assert_eq!(zone.poll(later), ask(1));
        zone.soa(7, later);
        assert_eq!(zone.poll(later), transfer(1, false));
        zone.transferred(soa(7), later);
        assert!(!zone.is_expired());
        assert_eq!(zone.poll(later), None);
    }

    #[test]
    fn a_version_from_disk_expires_by_when_it_was_confirmed() {
        let now = Instant::now() + Duration::from_secs(20_000);
        let mut zone = Secondary::new(primaries(1), Some(soa(7)), Some(now - Duration::from_secs(10_000)), 1, now);
        assert_eq!(zone.poll(now), Some(Action::Expire));
        assert_eq!(zone.poll(now), ask(1));
    }

    #[test]
    fn a_new_zone_is_transferred_at_once_and_tried_less_and_less_often() {
        let start = Instant::now();
        let mut zone = Secondary::new(primaries(1), None, None, 42, start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..14 {
            assert_eq!(zone.poll(now), transfer(1, false));
            zone.failed(now);
            waits.push(seconds_until_deadline(&zone, now));
            now = zone.deadline().expect("a deadline");
        }
        assert!((4..=5).contains(&waits[0]) && (9..=10).contains(&waits[1]), "{waits:?}");
        assert!(waits[13] <= 7_200 && waits[13] > 6_000, "{waits:?}");
        assert_eq!(zone.poll(now), transfer(1, false));
        zone.transferred(soa(1), now);
        assert_eq!(zone.serial(), Some(1));
    }

    #[test]
    fn rfc1996_a_notice_brings_the_next_round_forward() {
        let (mut zone, now) = served(2);
        zone.poll(now);
        zone.soa(7, now);
        zone.notified(Some(primaries(2)[1].address), now);
        assert_eq!(zone.poll(now), ask(2));
        // While something is under way a notice means: once more after it.
        zone.notified(None, now);
        zone.soa(8, now);
        assert_eq!(zone.poll(now), transfer(2, true));
        zone.notified(None, now);
        zone.transferred(soa(8), now);
        assert_eq!(zone.poll(now), ask(2));
        zone.soa(8, now);
        assert_eq!(zone.poll(now), None);
    }

    #[test]
    fn timers_of_the_record_are_kept_within_bounds() {
        for (seconds, least, most) in [(0, 27, 30), (u32::MAX, 77_760, 86_400)] {
            let now = Instant::now();
            let wild = Soa { refresh: seconds, retry: seconds, expire: seconds, ..soa(7) };
            let mut zone = Secondary::new(primaries(1), Some(wild), Some(now), 42, now);
            zone.poll(now);
            zone.soa(7, now);
            let wait = seconds_until_deadline(&zone, now);
            assert!((least..=most).contains(&wait), "{seconds}: {wait}");
        }
    }

    #[test]
    fn a_zone_expires_while_its_primary_keeps_it_waiting() {
        let (mut zone, now) = served(1);
        zone.poll(now);
        zone.soa(8, now);
        assert_eq!(zone.poll(now), transfer(1, true));
        let over = zone.expires().expect("it is not for ever");
        assert_eq!(zone.deadline(), Some(over));
        assert!(!zone.expire(over - Duration::from_secs(1)));
        assert!(zone.expire(over) && zone.is_expired());
        assert!(!zone.expire(over), "it is told once");
        zone.transferred(soa(8), over);
        assert!(!zone.is_expired());
    }

    #[test]
    fn primaries_are_written_and_read() {
        for (text, address, key) in [
            ("192.0.2.1", "192.0.2.1:53", None),
            ("192.0.2.1:5353#a.key", "192.0.2.1:5353", Some("a.key")),
            ("2001:db8::1", "[2001:db8::1]:53", None),
            ("[2001:db8::1]#k", "[2001:db8::1]:53", Some("k")),
            ("[2001:db8::1]:54", "[2001:db8::1]:54", None),
        ] {
            let key = key.map(|key| key.parse().expect("a name"));
            let primary = Primary { address: address.parse().expect(address), key };
            assert_eq!(text.parse(), Ok(primary.clone()), "{text}");
            assert_eq!(primary.to_string().parse(), Ok(primary), "{text}");
        }
        for wrong in ["", "ns.example.com", "192.0.2.1:", "192.0.2.1:99999", "192.0.2.1#a..b", "#key"] {
            assert!(wrong.parse::<Primary>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_to_nothing_change_nothing() {
        let (mut zone, now) = served(1);
        zone.soa(9, now);
        zone.transferred(soa(9), now);
        zone.failed(now);
        assert_eq!(zone.serial(), Some(7));
        assert_eq!(zone.poll(now), ask(1));
        zone.transferred(soa(9), now);
        assert_eq!((zone.serial(), zone.poll(now)), (Some(7), None));
        assert_eq!(Secondary::new(Vec::new(), None, None, 1, now).poll(now), None);
    }
}
