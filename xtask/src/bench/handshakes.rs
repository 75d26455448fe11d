//! TLS handshakes, one after the other: `openssl s_time`, and what it said.
//!
//! Each connection makes one small request. Without it a TLS 1.3 client never reads the ticket for its next connection,
//! so a resumed handshake could not be measured, and the two kinds could not be compared.

use anyhow::{Context, Result};

use super::load::{Load, output};

/// Connects to `address` for some seconds, with the first connection's session where `resumed`.
///
/// # Errors
/// openssl is missing, fails, or prints what this version does not understand.
pub(crate) fn run(address: &str, seconds: u64, core: usize, resumed: bool) -> Result<Load> {
    let kind = if resumed { "-reuse" } else { "-new" };
    let seconds = seconds.to_string();
    let arguments = ["s_time", "-connect", address, "-tls1_3", kind, "-www", "/", "-time", &seconds];
    let text = output("openssl", &arguments, core)?;
    parse(&text, resumed).with_context(|| format!("cannot read what openssl s_time printed:\n{text}"))
}

/// Reads the report: a letter for each connection (`r`: resumed), then sums. Connections that were to be resumed and
/// were not are failures, and so are those without a response.
fn parse(text: &str, resumed: bool) -> Option<Load> {
    let sum = text.lines().rfind(|line| line.contains(" real seconds"))?;
    let mut words = sum.split_whitespace();
    let count: u64 = words.next()?.parse().ok()?;
    let seconds: f64 = words.nth(2)?.parse().ok()?;
    let per_connection: u64 = sum.split_once(", ")?.1.split_whitespace().next()?.parse().ok()?;
    let letters = text.lines().filter(|line| !line.is_empty() && line.chars().all(|letter| "rt*".contains(letter)));
    let reused = letters.flat_map(str::chars).filter(|letter| *letter == 'r').count() as u64;
    let failed = match (per_connection, resumed) {
        (0, _) => count,
        (_, true) => count.saturating_sub(reused),
        (_, false) => reused,
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let per_second = count as f64 / seconds.max(1.0);
    Some(Load { count, per_second, failed, ..Load::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "Collecting connection statistics for 1 seconds\nrrr*\n\n4 connections in 0.21s; 19.24 connections/user \
                    sec, bytes read 588\n4 connections in 2 real seconds, 147 bytes read per connection\n";
        let load = |failed| Some(Load { count: 4, per_second: 2.0, failed, ..Load::default() });
        assert_eq!(parse(text, true), load(1));
        assert_eq!(parse(text, false), load(3));
        assert_eq!(parse(&text.replace("147 bytes", "0 bytes"), true), load(4));
        assert_eq!(parse("ERROR\n", true), None);
    }
}
