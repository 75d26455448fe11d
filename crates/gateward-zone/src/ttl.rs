//! Times in zone files: seconds, or numbers with units as BIND reads and writes them (`1h30m`).

/// Seconds from text: digits, or digits with units w, d, h, m, s. `None` when it is neither or does not fit.
pub(crate) fn parse_ttl(text: &[u8]) -> Option<u32> {
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    let mut units = false;
    for octet in text {
        if octet.is_ascii_digit() {
            number =
                Some(number.unwrap_or(0) * 10 + u64::from(octet - b'0')).filter(|value| *value <= u64::from(u32::MAX));
            number?;
            continue;
        }
        let seconds = match octet.to_ascii_lowercase() {
            b'w' => 7 * 86_400,
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total += number.take()? * seconds;
        units = true;
    }
    match number {
        // A number without a unit behind others with units says nothing.
        Some(_) if units => None,
        Some(seconds) => u32::try_from(seconds).ok(),
        None if units => u32::try_from(total).ok(),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_units() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("3600", Some(3_600)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("99999999999999999999", None),
            ("1h30m", Some(5_400)),
            ("1W2D3H4M5S", Some(788_645)),
            ("1h30", None),
            ("h", None),
            ("", None),
            ("-1", None),
            ("1y", None),
            ("4294967295w", None),
        ] {
            assert_eq!(parse_ttl(text.as_bytes()), seconds, "{text}");
        }
    }
}
