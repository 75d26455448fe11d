//! One run of h2load (nghttp2), and what it said.
//!
//! It knows no gRPC: a call is a POST with one framed message. That the answer was one, too, shows in the bytes of
//! DATA that came back.

use std::path::Path;

use anyhow::{Context, Result};

use super::load::{CONNECTIONS, Load, output};

/// Streams at once on a connection.
const STREAMS: u32 = 10;

/// A gRPC message of 16 bytes: not compressed, its length, and a protobuf field (number 1, 14 bytes).
pub(crate) const CALL: &[u8] = b"\x00\x00\x00\x00\x10\x0a\x0egateward bench";

/// Loads `url`, with GET or with `call` as the body of gRPC calls.
///
/// # Errors
/// h2load is missing, fails, or prints what this version does not understand.
pub(crate) fn run(url: &str, seconds: u64, core: usize, call: Option<&Path>) -> Result<Load> {
    let (connections, streams, seconds) = (CONNECTIONS.to_string(), STREAMS.to_string(), seconds.to_string());
    let mut arguments = vec!["-t1", "-c", &connections, "-m", &streams, "-D", &seconds];
    let file = call.map(|call| call.display().to_string());
    if let Some(file) = &file {
        arguments.extend(["-d", file, "-H", "content-type: application/grpc", "-H", "te: trailers"]);
    }
    arguments.push(url);
    let text = output("h2load", &arguments, core)?;
    let answer_bytes = if call.is_some() { CALL.len() as u64 } else { 0 };
    parse(&text, answer_bytes).with_context(|| format!("cannot read what h2load printed:\n{text}"))
}

/// Reads h2load's report. Answers with fewer than `answer_bytes` of DATA are failures.
fn parse(text: &str, answer_bytes: u64) -> Option<Load> {
    let mut load = Load::default();
    let mut understood = false;
    for line in text.lines() {
        if let Some(finished) = line.strip_prefix("finished in ") {
            let rate = finished.split(", ").find_map(|part| part.strip_suffix(" req/s"))?;
            load.per_second = rate.parse().ok()?;
        } else if let Some(requests) = line.strip_prefix("requests: ") {
            load.count = number(requests, "succeeded")?;
            // What was under way at the end is neither done nor failed.
            load.failed = number(requests, "failed")? + number(requests, "timeout")?;
            understood = true;
        } else if let Some(traffic) = line.strip_prefix("traffic: ") {
            let data = traffic.rsplit_once('(')?.1.split_once(')')?.0.parse::<u64>().ok()?;
            load.failed += load.count.saturating_sub(data.checked_div(answer_bytes).unwrap_or(load.count));
        }
    }
    understood.then_some(load)
}

/// The number before `word` in `12 total, 11 done`.
fn number(text: &str, word: &str) -> Option<u64> {
    let part = text.split(", ").find(|part| part.trim_end().ends_with(word))?;
    part.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "finished in 1.01s, 8000.00 req/s, 555.20KB/s\nrequests: 8014 total, 8024 started, 8014 done, 8000 \
                    succeeded, 14 failed, 14 errored, 0 timeout\nstatus codes: 8000 2xx, 0 3xx, 0 4xx, 0 5xx\n\
                    traffic: 555.20KB (568528) total, 375.00KB (384000) headers (space savings 51.02%), 39.06KB (168000) data\n";
        let expected = Load { count: 8000, per_second: 8000.0, failed: 14, ..Load::default() };
        assert_eq!(parse(text, 0), Some(expected.clone()));
        assert_eq!(parse(text, 21), Some(expected));
        // Half of the calls were answered without a message.
        assert_eq!(parse(text, 42).map(|load| load.failed), Some(4014));
        assert_eq!(parse("cannot connect", 0), None);
    }

    #[test]
    fn the_call_says_its_own_length() {
        assert_eq!(CALL[4] as usize, CALL.len() - 5);
        assert_eq!(CALL[6] as usize, CALL.len() - 7);
    }
}
