//! The SOA record and serial numbers (RFC 1035, 3.3.13; RFC 1982).

use domain::base::iana::Rtype;

use crate::name::Name;
use crate::rdata::{BadRdata, check, names};
use crate::record::Rdata;

/// What a SOA record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    /// The primary server.
    pub mname: Name,
    /// The mailbox of who is responsible, `@` written as a dot.
    pub rname: Name,
    /// The version of the zone.
    pub serial: u32,
    /// Seconds between a secondary's checks.
    pub refresh: u32,
    /// Seconds until a failed check is repeated.
    pub retry: u32,
    /// Seconds after which a secondary that reaches nobody stops to answer.
    pub expire: u32,
    /// Seconds that a negative answer may be kept, at most (RFC 2308).
    pub minimum: u32,
}

impl Soa {
    /// Reads the data of a SOA record.
    ///
    /// # Errors
    /// [`BadRdata`] when the octets are not such data.
    pub fn read(rdata: &Rdata) -> Result<Self, BadRdata> {
        let octets = rdata.as_wire();
        check(Rtype::SOA, octets)?;
        let [mname, rname] = names(Rtype::SOA, octets).try_into().map_err(|_| BadRdata { at: 0 })?;
        let numbers = rname.end;
        let name = |range: std::ops::Range<usize>| Name::from_checked(octets[range].to_vec());
        let number = |index: usize| {
            let at = numbers + 4 * index;
            octets[at..at + 4].iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet))
        };
        Ok(Soa {
            mname: name(mname),
            rname: name(rname),
            serial: number(0),
            refresh: number(1),
            retry: number(2),
            expire: number(3),
            minimum: number(4),
        })
    }

    /// The data of a record that says this.
    #[must_use]
    pub fn to_rdata(&self) -> Rdata {
        let mut octets = [self.mname.as_wire(), self.rname.as_wire()].concat();
        for number in [self.serial, self.refresh, self.retry, self.expire, self.minimum] {
            octets.extend(number.to_be_bytes());
        }
        Rdata::from_wire(octets)
    }
}

/// The same SOA data with another serial; `None` when it is not SOA data. Letter case of names stays.
#[must_use]
pub fn with_serial(soa: &Rdata, serial: u32) -> Option<Rdata> {
    check(Rtype::SOA, soa.as_wire()).ok()?;
    let mut octets = soa.as_wire().to_vec();
    let at = octets.len() - 20;
    octets[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    Some(Rdata::from_wire(octets))
}

/// Whether `a` comes after `b` (RFC 1982, 3.2). Of two that are 2^31 apart neither does.
#[must_use]
pub fn is_newer(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < 1 << 31
}

/// The serial after `serial`. Zero is left out: some software takes it for none.
#[must_use]
pub fn next_serial(serial: u32) -> u32 {
    match serial.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1982_serials_compare_around_the_circle() {
        for (a, b, newer) in [
            (1, 0, true),
            (0, 1, false),
            (5, 5, false),
            (0, u32::MAX, true),
            (u32::MAX, 0, false),
            (100, 0x8000_0064, false),
            (0x8000_0064, 100, false),
            (0x8000_0063, 100, true),
        ] {
            assert_eq!(is_newer(a, b), newer, "{a} after {b}");
        }
        assert_eq!(next_serial(7), 8);
        assert_eq!(next_serial(u32::MAX), 1);
        assert!(is_newer(next_serial(u32::MAX), u32::MAX));
    }

    #[test]
    fn soa_data_is_read_and_written() {
        let soa = Soa {
            mname: "ns.example.com".parse().expect("a name"),
            rname: "hostmaster.example.com".parse().expect("a name"),
            serial: 7,
            refresh: 1,
            retry: 2,
            expire: 3,
            minimum: u32::MAX,
        };
        let rdata = soa.to_rdata();
        assert_eq!(Soa::read(&rdata), Ok(soa.clone()));
        let later = with_serial(&rdata, 8).expect("SOA data");
        assert_eq!(Soa::read(&later), Ok(Soa { serial: 8, ..soa }));
        let cut = Rdata::from_wire(&rdata.as_wire()[..30]);
        assert!(Soa::read(&cut).is_err());
        assert_eq!(with_serial(&cut, 8), None);
    }
}
