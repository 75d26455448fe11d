//! Parts of data with a notation of their own: type bitmaps, times and algorithms of signatures, groups of digits.

use std::fmt::{self, Write};

use domain::base::iana::Rtype;
use domain::utils::base16;

use super::read::{Cursor, number, rtype};
use super::write::big_endian;
use crate::lexer::{Fault, Token};

/// The types in a bitmap, ascending; `None` when it does not have the form of RFC 4034, 4.1.2.
pub(super) fn bitmap_types(mut rest: &[u8]) -> Option<Vec<Rtype>> {
    let mut types = Vec::new();
    let mut last_window = None;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(2)?;
        let (window, len) = (head[0], usize::from(head[1]));
        let (bits, tail) = tail.split_at_checked(len)?;
        if !(1..=32).contains(&len) || last_window.is_some_and(|last| last >= window) || bits.last() == Some(&0) {
            return None;
        }
        for (octet, at) in bits.iter().zip(0_u16..) {
            let set = (0..8).filter(|bit| octet & (0x80 >> bit) != 0);
            types.extend(set.map(|bit| Rtype::from_int(u16::from(window) << 8 | (at * 8 + bit))));
        }
        last_window = Some(window);
        rest = tail;
    }
    Some(types)
}

pub(super) fn read_bitmap(words: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut types = Vec::new();
    while let Some(token) = words.take() {
        types.push(rtype(token)?.to_int());
    }
    types.sort_unstable();
    types.dedup();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; 32];
        let mut len = 0;
        for number in window {
            let [_, low] = number.to_be_bytes();
            bits[usize::from(low / 8)] |= 0x80 >> (low % 8);
            len = low / 8 + 1;
        }
        out.push(window[0].to_be_bytes()[0]);
        out.push(len);
        out.extend_from_slice(&bits[..usize::from(len)]);
    }
    Ok(())
}

pub(super) fn write_bitmap(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    for (index, rtype) in bitmap_types(octets).unwrap_or_default().into_iter().enumerate() {
        let space = if index > 0 { " " } else { "" };
        write!(out, "{space}{rtype}")?;
    }
    Ok(())
}

/// YYYYMMDDHHmmSS, or seconds since 1970 (RFC 4034, 3.2).
pub(super) fn read_time(token: &Token<'_>) -> Result<u32, Fault> {
    if token.raw.len() != 14 {
        return number(token);
    }
    let wrong = || token.fault(format!("`{}` is not a time YYYYMMDDHHmmSS", token.shown()));
    if !token.raw.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let part = |from: usize, len: usize| {
        token.raw[from..from + len].iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
    };
    let (year, month, day) = (part(0, 4), part(4, 2), part(6, 2));
    let (hour, minute, second) = (part(8, 2), part(10, 2), part(12, 2));
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 || year < 1970 {
        return Err(wrong());
    }
    // Serial number arithmetic over the years (RFC 4034, 3.1.5): 2106 wraps around.
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Ok(u32::try_from(seconds.rem_euclid(1 << 32)).unwrap_or_default())
}

pub(super) fn write_time(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    let seconds = big_endian(octets);
    let (year, month, day) = civil_from_days(i64::try_from(seconds / 86_400).unwrap_or_default());
    let second = seconds % 86_400;
    write!(out, "{year:04}{month:02}{day:02}{:02}{:02}{:02}", second / 3_600, second / 60 % 60, second % 60)
}

/// Days since 1970 of a date; months and days out of range are carried over.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = days.div_euclid(146_097) * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// Mnemonics of the IANA registry of DNSSEC algorithms.
const ALGORITHMS: &[(&str, u8)] = &[
    ("DELETE", 0),
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("DSA-NSEC3-SHA1", 6),
    ("NSEC3DSA", 6),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("NSEC3RSASHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECC-GOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

/// RFC 4398, 2.1.
const CERT_TYPES: &[(&str, u16)] = &[
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

pub(super) fn read_algorithm(token: &Token<'_>) -> Result<u8, Fault> {
    mnemonic(token, ALGORITHMS).map_or_else(|| number(token), Ok)
}

pub(super) fn read_cert_type(token: &Token<'_>) -> Result<u16, Fault> {
    mnemonic(token, CERT_TYPES).map_or_else(|| number(token), Ok)
}

fn mnemonic<T: Copy>(token: &Token<'_>, table: &[(&str, T)]) -> Option<T> {
    let row = table.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(token.raw))?;
    Some(row.1)
}

/// `count` groups of exactly two, or one to four, hexadecimal digits.
pub(super) fn read_groups(
    token: &Token<'_>,
    count: usize,
    digits: usize,
    between: char,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let groups: Option<Vec<u16>> = token.ascii().and_then(|text| {
        let good = |group: &str| {
            let len_is_good = if digits == 2 { group.len() == 2 } else { (1..=digits).contains(&group.len()) };
            len_is_good && group.bytes().all(|octet| octet.is_ascii_hexdigit())
        };
        text.split(between).map(|group| u16::from_str_radix(group, 16).ok().filter(|_| good(group))).collect()
    });
    let groups = groups.filter(|groups| groups.len() == count).ok_or_else(|| {
        token.fault(format!(
            "`{}` is not {count} groups of {digits} hexadecimal digits with `{between}` between them",
            token.shown()
        ))
    })?;
    for group in groups {
        let octets = group.to_be_bytes();
        out.extend_from_slice(if digits == 2 { &octets[1..] } else { &octets });
    }
    Ok(())
}

pub(super) fn write_groups(octets: &[u8], len: usize, between: char, out: &mut impl Write) -> fmt::Result {
    for (index, group) in octets.chunks(len).enumerate() {
        if index > 0 {
            out.write_char(between)?;
        }
        for octet in group {
            write!(out, "{octet:02x}")?;
        }
    }
    Ok(())
}

/// `0x`, then hexadecimal digits with dots anywhere (RFC 1706, 7).
pub(super) fn read_nsap(token: &Token<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let digits = token.ascii().and_then(|text| text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")));
    let octets =
        digits.and_then(|digits| base16::decode_vec(&digits.replace('.', "")).ok()).filter(|octets| !octets.is_empty());
    out.extend(octets.ok_or_else(|| token.fault(format!("`{}` is not `0x` and hexadecimal digits", token.shown())))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_seconds_agree() {
        for (text, seconds) in [
            ("19700101000000", 0),
            ("20000229235959", 951_868_799),
            ("20240229000000", 1_709_164_800),
            ("21060207062815", u32::MAX),
            ("21060207062816", 0),
            ("1709164800", 1_709_164_800),
        ] {
            let token = Token { raw: text.as_bytes(), quoted: false, line: 1 };
            assert_eq!(read_time(&token), Ok(seconds), "{text}");
            let mut written = String::new();
            write_time(&seconds.to_be_bytes(), &mut written).expect("strings take everything");
            let again = Token { raw: written.as_bytes(), quoted: false, line: 1 };
            assert_eq!(read_time(&again), Ok(seconds), "{written}");
        }
        for text in
            ["20230229000000", "20231301000000", "20230101240000", "20230132000000", "2023010100000x", "19691231235959"]
        {
            assert!(read_time(&Token { raw: text.as_bytes(), quoted: false, line: 1 }).is_err(), "{text}");
        }
    }
}
