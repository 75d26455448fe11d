//! LOC: where something is (RFC 1876).

use std::fmt::{self, Write};

use super::Cursor;
use crate::lexer::{Fault, Token};

/// Octets of version 0.
pub(super) const LEN: usize = 16;
/// The equator and the prime meridian.
const CENTRE: u32 = 1 << 31;
/// Centimetres below the reference that altitudes are counted from.
const ALTITUDE_BASE: i64 = 10_000_000;
/// One metre, 10,000 metres and 10 metres: what applies when sizes are left out.
const DEFAULT_SIZES: [u8; 3] = [0x12, 0x16, 0x13];

/// Whether the octets are of version 0 with sizes whose digits are decimal.
pub(super) fn is_valid(octets: &[u8]) -> bool {
    let angle =
        |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]).abs_diff(CENTRE);
    octets[0] == 0
        && octets[1..4].iter().all(|size| size >> 4 <= 9 && size & 0x0f <= 9)
        && angle(4) <= 90 * 3_600_000
        && angle(8) <= 180 * 3_600_000
}

pub(super) fn read(words: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let latitude = read_angle(words, 90, b'N', b'S')?;
    let longitude = read_angle(words, 180, b'E', b'W')?;
    let token = words.need("an altitude")?;
    let altitude = centimetres(token, -ALTITUDE_BASE, i64::from(u32::MAX) - ALTITUDE_BASE)? + ALTITUDE_BASE;
    let mut sizes = DEFAULT_SIZES;
    for size in &mut sizes {
        let Some(token) = words.take() else { break };
        *size = to_size(centimetres(token, 0, 9_000_000_000)?);
    }
    out.push(0);
    out.extend(sizes);
    out.extend(latitude.to_be_bytes());
    out.extend(longitude.to_be_bytes());
    out.extend(u32::try_from(altitude).unwrap_or(u32::MAX).to_be_bytes());
    Ok(())
}

/// Degrees, minutes, seconds and a direction, as thousandths of a second around [`CENTRE`].
fn read_angle(words: &mut Cursor<'_, '_>, most: u32, positive: u8, negative: u8) -> Result<u32, Fault> {
    let mut sum = 0_u32;
    for (unit, limit) in [(3_600_000_u32, most), (60_000, 59), (1_000, 59)] {
        let token = words.need("degrees")?;
        if unit < 3_600_000 && is_direction(token, positive, negative).is_some() {
            return finish_angle(token, sum, most, positive, negative);
        }
        let decimals = if unit == 1_000 { 3 } else { 0 };
        let value = decimal(token.raw, decimals).filter(|value| *value < i64::from(limit + 1) * 10_i64.pow(decimals));
        let value = value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| {
            token.fault(format!("`{}` is not degrees (to {most}), minutes or seconds (to 59)", token.shown()))
        })?;
        sum += if decimals > 0 { value } else { value * unit };
    }
    finish_angle(words.need("a direction")?, sum, most, positive, negative)
}

fn is_direction(token: &Token<'_>, positive: u8, negative: u8) -> Option<bool> {
    match token.raw {
        [letter] if letter.eq_ignore_ascii_case(&positive) => Some(true),
        [letter] if letter.eq_ignore_ascii_case(&negative) => Some(false),
        _ => None,
    }
}

fn finish_angle(token: &Token<'_>, sum: u32, most: u32, positive: u8, negative: u8) -> Result<u32, Fault> {
    if sum > most * 3_600_000 {
        return Err(token.fault(format!("an angle is larger than {most} degrees")));
    }
    match is_direction(token, positive, negative) {
        Some(true) => Ok(CENTRE + sum),
        Some(false) => Ok(CENTRE - sum),
        None => Err(token.fault(format!(
            "`{}` is neither {} nor {}",
            token.shown(),
            char::from(positive),
            char::from(negative)
        ))),
    }
}

fn centimetres(token: &Token<'_>, least: i64, most: i64) -> Result<i64, Fault> {
    let digits = token.raw.strip_suffix(b"m").or_else(|| token.raw.strip_suffix(b"M")).unwrap_or(token.raw);
    let (negative, digits) = digits.strip_prefix(b"-").map_or((false, digits), |digits| (true, digits));
    let value = decimal(digits, 2).map(|value| if negative { -value } else { value });
    value
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| token.fault(format!("`{}` is not a distance in metres within the bounds of LOC", token.shown())))
}

/// A decimal number with at most `decimals` places, times 10^decimals.
fn decimal(text: &[u8], decimals: u32) -> Option<i64> {
    const MOST_DIGITS: usize = 12;
    let dot = text.iter().position(|octet| *octet == b'.');
    let (whole, part) = dot.map_or((text, &b""[..]), |dot| (&text[..dot], &text[dot + 1..]));
    let places = usize::try_from(decimals).unwrap_or_default();
    if whole.is_empty() || whole.len() > MOST_DIGITS || part.len() > places || (dot.is_some() && part.is_empty()) {
        return None;
    }
    let padded = part.iter().copied().chain(std::iter::repeat(b'0')).take(places);
    whole
        .iter()
        .copied()
        .chain(padded)
        .try_fold(0_i64, |sum, octet| octet.is_ascii_digit().then(|| sum * 10 + i64::from(octet - b'0')))
}

/// One digit and a power of ten.
fn to_size(centimetres: i64) -> u8 {
    let (mut value, mut power) = (centimetres, 0_u8);
    while value > 9 {
        value /= 10;
        power += 1;
    }
    u8::try_from(value).unwrap_or(9) << 4 | power
}

pub(super) fn write(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    let number = |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    write_angle(number(4), 'N', 'S', out)?;
    out.write_char(' ')?;
    write_angle(number(8), 'E', 'W', out)?;
    write_metres(i64::from(number(12)) - ALTITUDE_BASE, out)?;
    for size in &octets[1..4] {
        write_metres(i64::from(size >> 4) * 10_i64.pow(u32::from(size & 0x0f)), out)?;
    }
    Ok(())
}

fn write_angle(angle: u32, positive: char, negative: char, out: &mut impl Write) -> fmt::Result {
    let direction = if angle >= CENTRE { positive } else { negative };
    let rest = angle.abs_diff(CENTRE);
    let (degrees, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    write!(out, "{degrees} {minutes} {}.{:03} {direction}", rest / 1_000 % 60, rest % 1_000)
}

fn write_metres(centimetres: i64, out: &mut impl Write) -> fmt::Result {
    let sign = if centimetres < 0 { "-" } else { "" };
    let value = centimetres.unsigned_abs();
    write!(out, " {sign}{}.{:02}m", value / 100, value % 100)
}
