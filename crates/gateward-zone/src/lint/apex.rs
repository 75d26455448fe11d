//! The apex: SOA and NS records.

use domain::base::iana::Rtype;

use super::Lint;
use crate::soa::Soa;

const DAY: u32 = 86_400;

impl Lint<'_> {
    pub(super) fn apex(&mut self) {
        let origin = self.origin().clone();
        match self.view.set(&origin, Rtype::SOA) {
            None => self.error(
                "soa-missing",
                &origin,
                Rtype::SOA,
                format!("{origin} has no SOA record"),
                "add one as the zone's first record: `@ 3600 IN SOA ns1 hostmaster 1 7200 900 1209600 300`",
            ),
            Some(set) if set.data.len() > 1 => self.error(
                "soa-several",
                &origin,
                Rtype::SOA,
                format!("{origin} has {} SOA records", set.data.len()),
                "keep the one with the right serial",
            ),
            Some(set) => {
                if let Ok(soa) = Soa::read(&set.data[0]) {
                    self.timers(&soa);
                }
            }
        }
        match self.view.set(&origin, Rtype::NS).map_or(0, |set| set.data.len()) {
            0 => self.error(
                "apex-ns-missing",
                &origin,
                Rtype::SOA,
                format!("{origin} has no NS record"),
                "list the servers of the zone: `@ 3600 IN NS ns1`, at least two (RFC 1034, 4.1)",
            ),
            1 => self.warning(
                "apex-ns-single",
                &origin,
                Rtype::NS,
                format!("{origin} has a single NS record: when that server is gone, so is the zone"),
                "add a second server on another network (RFC 2182)",
            ),
            _ => {}
        }
    }

    /// RFC 1912, 2.2; RFC 2308, 5; RIPE-203.
    fn timers(&mut self, soa: &Soa) {
        let Soa { refresh, retry, expire, minimum, .. } = soa;
        let cases = [
            (*refresh < 300 || *refresh > 2 * DAY, format!("refresh is {refresh} s"), "from 300 s to 2 days"),
            (
                *retry < 60 || retry >= refresh,
                format!("retry is {retry} s with refresh at {refresh} s"),
                "from 60 s to below refresh",
            ),
            (
                *expire < 7 * DAY
                    || *expire > 60 * DAY
                    || u64::from(*expire) <= u64::from(*refresh) + u64::from(*retry),
                format!("expire is {expire} s"),
                "from 1 to 8 weeks, and above refresh and retry together",
            ),
            (
                *minimum > DAY,
                format!("negative answers may be kept for {minimum} s"),
                "at most a day: a name that was missing stays missing that long",
            ),
        ];
        let origin = self.origin().clone();
        for (_, what, remedy) in cases.into_iter().filter(|(wrong, ..)| *wrong) {
            self.warning("soa-timers", &origin, Rtype::SOA, format!("SOA: {what}"), remedy);
        }
    }
}
