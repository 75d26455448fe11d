//! What the data of each type is made of: one table, from which reading, writing, checking and finding names follow.
//!
//! A type that is not in the table is opaque and has the form of RFC 3597. The parser of the `domain` crate stops at its first
//! error and lacks several of these types (docs/adr/0019); tests compare this table with it.

mod apl;
mod extra;
mod gateway;
mod loc;
mod read;
pub(crate) mod svcb;
mod write;

use std::borrow::Cow;
use std::ops::Range;

use domain::base::iana::Rtype;

use crate::name::{MAX_LABEL_LEN, MAX_NAME_LEN};

pub(crate) use read::{Cursor, read, rtype};
pub(crate) use write::write;

/// Most octets of a record's data.
pub const MAX_RDATA_LEN: usize = 65_535;

/// A part of a record's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// A domain name.
    Name,
    U8,
    U16,
    U32,
    /// Seconds, written with or without units.
    Seconds,
    V4,
    V6,
    /// A character string: its length in one octet, then its octets.
    Text,
    /// As [`Field::Text`], written without quotes: letters and digits (CAA tags).
    Tag,
    /// One or more character strings, to the end.
    Texts,
    /// Octets to the end, written as one string.
    Raw,
    /// Octets to the end, at least one.
    Hex,
    Base64,
    /// A length in one octet, then octets; `-` for none (NSEC3 salts).
    SaltHex,
    /// A length in one octet, then octets (NSEC3 hashes).
    HashBase32,
    /// A type's number, written as its name.
    Rtype,
    /// Types to the end (RFC 4034, 4.1.2).
    Bitmap,
    /// As in RRSIG: YYYYMMDDHHmmSS.
    Time,
    /// Number or mnemonic of a DNSSEC algorithm.
    Algorithm,
    /// Number or mnemonic of a kind of certificate (RFC 4398).
    CertType,
    /// Six or eight octets, as 00-00-5e-00-53-2a.
    Eui48,
    Eui64,
    /// Eight octets as four groups (RFC 6742).
    Node64,
    /// `0x` and hexadecimal digits, to the end (RFC 1706).
    Nsap,
    /// RFC 1876.
    Loc,
    /// RFC 3123, to the end.
    Apl,
    /// RFC 4025, all of it.
    Ipseckey,
    /// RFC 8777, all of it.
    Amtrelay,
    /// RFC 8005, all of it.
    Hip,
    /// RFC 9460, 2.2, to the end.
    SvcParams,
}

/// The parts of a type's data, in order; `None` for types that are opaque here.
pub(crate) fn shape(rtype: Rtype) -> Option<&'static [Field]> {
    use Field::{
        Algorithm, Amtrelay, Apl, Base64, Bitmap, CertType, Eui48, Eui64, HashBase32, Hex, Hip, Ipseckey, Loc, Name,
        Node64, Nsap, Raw, SaltHex, Seconds, SvcParams, Tag, Text, Texts, Time, U8, U16, U32, V4, V6,
    };
    Some(match rtype {
        Rtype::A => &[V4],
        Rtype::AAAA => &[V6],
        Rtype::NS
        | Rtype::MD
        | Rtype::MF
        | Rtype::CNAME
        | Rtype::MB
        | Rtype::MG
        | Rtype::MR
        | Rtype::PTR
        | Rtype::DNAME
        | Rtype::NSAPPTR => &[Name],
        Rtype::SOA => &[Name, Name, U32, Seconds, Seconds, Seconds, Seconds],
        Rtype::MINFO | Rtype::RP | Rtype::TALINK => &[Name, Name],
        Rtype::MX | Rtype::AFSDB | Rtype::RT | Rtype::KX | Rtype::LP => &[U16, Name],
        Rtype::TXT | Rtype::SPF | Rtype::NINFO | Rtype::AVC | Rtype::RESINFO | Rtype::WALLET | Rtype::CLA => &[Texts],
        Rtype::HINFO => &[Text, Text],
        Rtype::X25 => &[Text],
        // The subaddress is optional: one string or two.
        Rtype::ISDN => &[Texts],
        Rtype::GPOS => &[Text, Text, Text],
        Rtype::NSAP => &[Nsap],
        Rtype::PX => &[U16, Name, Name],
        Rtype::LOC => &[Loc],
        Rtype::SRV => &[U16, U16, U16, Name],
        Rtype::NAPTR => &[U16, U16, Text, Text, Text, Name],
        Rtype::CERT => &[CertType, U16, Algorithm, Base64],
        Rtype::APL => &[Apl],
        Rtype::DS | Rtype::CDS | Rtype::DLV | Rtype::TA => &[U16, Algorithm, U8, Hex],
        Rtype::SSHFP => &[U8, U8, Hex],
        Rtype::IPSECKEY => &[Ipseckey],
        Rtype::RRSIG => &[Field::Rtype, Algorithm, U8, U32, Time, Time, U16, Name, Base64],
        Rtype::NSEC => &[Name, Bitmap],
        Rtype::DNSKEY | Rtype::CDNSKEY | Rtype::RKEY | Rtype::KEY => &[U16, U8, Algorithm, Base64],
        Rtype::DHCID | Rtype::OPENPGPKEY => &[Base64],
        Rtype::NSEC3 => &[U8, U8, U16, SaltHex, HashBase32, Bitmap],
        Rtype::NSEC3PARAM => &[U8, U8, U16, SaltHex],
        Rtype::TLSA | Rtype::SMIMEA => &[U8, U8, U8, Hex],
        Rtype::HIP => &[Hip],
        Rtype::CSYNC => &[U32, U16, Bitmap],
        Rtype::ZONEMD => &[U32, U8, U8, Hex],
        Rtype::SVCB | Rtype::HTTPS => &[U16, Name, SvcParams],
        Rtype::DSYNC => &[Field::Rtype, U8, U16, Name],
        Rtype::NID | Rtype::L64 => &[U16, Node64],
        Rtype::L32 => &[U16, V4],
        Rtype::EUI48 => &[Eui48],
        Rtype::EUI64 => &[Eui64],
        Rtype::URI => &[U16, U16, Raw],
        Rtype::CAA => &[U8, Tag, Raw],
        Rtype::AMTRELAY => &[Amtrelay],
        _ => return None,
    })
}

/// Why octets are not the data of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data does not have the form of its type at octet {at}")]
pub struct BadRdata {
    /// How many octets were good.
    pub at: usize,
}

/// Checks that uncompressed `octets` have the form that `rtype` asks for. Opaque types may hold anything.
///
/// # Errors
/// [`BadRdata`]: what comes over the wire must not be stored then.
pub fn check(rtype: Rtype, octets: &[u8]) -> Result<(), BadRdata> {
    walk(rtype, octets, |_, _| ())
}

/// Where the domain names stand in the data of a record, whole names from their first octet to the root's.
/// Empty for opaque types and for data that does not have its type's form.
#[must_use]
pub fn names(rtype: Rtype, octets: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let walked = walk(rtype, octets, |field, range| match field {
        Field::Name => found.push(range),
        Field::Ipseckey | Field::Amtrelay | Field::Hip => found.extend(gateway::names(field, octets)),
        _ => {}
    });
    if walked.is_err() {
        found.clear();
    }
    found
}

/// Where data has names that may be compressed: one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressible {
    /// Octets before the first name.
    pub names_at: usize,
    /// How many names there are.
    pub names: usize,
}

/// The names in the data of a type that may be compressed in a message: those of RFC 1035's types only (RFC 3597, 4). `None` for all
/// others, whose data is sent as it is.
#[must_use]
#[inline]
pub fn compressible(rtype: Rtype) -> Option<Compressible> {
    match rtype {
        Rtype::NS | Rtype::MD | Rtype::MF | Rtype::CNAME | Rtype::MB | Rtype::MG | Rtype::MR | Rtype::PTR => {
            Some(Compressible { names_at: 0, names: 1 })
        }
        Rtype::SOA | Rtype::MINFO => Some(Compressible { names_at: 0, names: 2 }),
        Rtype::MX => Some(Compressible { names_at: 2, names: 1 }),
        _ => None,
    }
}

/// The data with its names in lower case: two records are the same when this is (RFC 1035, 2.3.3; RFC 4034, 6.2).
#[must_use]
pub fn canonical(rtype: Rtype, octets: &[u8]) -> Cow<'_, [u8]> {
    if !octets.iter().any(u8::is_ascii_uppercase) {
        return Cow::Borrowed(octets);
    }
    let names = names(rtype, octets);
    if names.is_empty() {
        return Cow::Borrowed(octets);
    }
    let mut lower = octets.to_vec();
    for range in names {
        lower[range].make_ascii_lowercase();
    }
    Cow::Owned(lower)
}

/// Shows each part of the data to `visit`, in order.
pub(crate) fn walk(rtype: Rtype, octets: &[u8], mut visit: impl FnMut(Field, Range<usize>)) -> Result<(), BadRdata> {
    if octets.len() > MAX_RDATA_LEN {
        return Err(BadRdata { at: MAX_RDATA_LEN });
    }
    let Some(shape) = shape(rtype) else { return Ok(()) };
    let mut at = 0;
    for field in shape {
        let len = field_len(*field, &octets[at..]).ok_or(BadRdata { at })?;
        visit(*field, at..at + len);
        at += len;
    }
    if at == octets.len() { Ok(()) } else { Err(BadRdata { at }) }
}

/// How many octets of `rest` a part takes; `None` when they are not such a part.
fn field_len(field: Field, rest: &[u8]) -> Option<usize> {
    let fixed = |len: usize| (rest.len() >= len).then_some(len);
    let to_end = |good: bool| good.then_some(rest.len());
    match field {
        Field::Name => name_len(rest),
        Field::U8 | Field::Algorithm => fixed(1),
        Field::U16 | Field::Rtype | Field::CertType => fixed(2),
        Field::U32 | Field::Seconds | Field::V4 | Field::Time => fixed(4),
        Field::Eui48 => fixed(6),
        Field::Eui64 | Field::Node64 => fixed(8),
        Field::V6 => fixed(16),
        Field::Text | Field::SaltHex => text_len(rest),
        Field::Tag => text_len(rest).filter(|len| *len > 1 && rest[1..*len].iter().all(u8::is_ascii_alphanumeric)),
        Field::HashBase32 => text_len(rest).filter(|len| *len > 1),
        Field::Texts => to_end(!rest.is_empty() && all_texts(rest)),
        Field::Raw => Some(rest.len()),
        Field::Hex | Field::Base64 | Field::Nsap => to_end(!rest.is_empty()),
        Field::Loc => (rest.len() >= loc::LEN && loc::is_valid(&rest[..loc::LEN])).then_some(loc::LEN),
        Field::Bitmap => to_end(extra::bitmap_types(rest).is_some()),
        Field::Apl => to_end(apl::items(rest).is_some()),
        Field::Ipseckey | Field::Amtrelay | Field::Hip => to_end(gateway::is_valid(field, rest)),
        Field::SvcParams => to_end(svcb::params(rest).is_some()),
    }
}

/// The length of the uncompressed name at the start of `rest`.
pub(crate) fn name_len(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let len = usize::from(*rest.get(at)?);
        at += 1 + len;
        if len > MAX_LABEL_LEN || at > MAX_NAME_LEN || at > rest.len() {
            return None;
        }
        if len == 0 {
            return Some(at);
        }
    }
}

fn text_len(rest: &[u8]) -> Option<usize> {
    let len = 1 + usize::from(*rest.first()?);
    (len <= rest.len()).then_some(len)
}

fn all_texts(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(len) = text_len(rest) else { return false };
        rest = &rest[len..];
    }
    true
}

#[cfg(test)]
mod tests;
