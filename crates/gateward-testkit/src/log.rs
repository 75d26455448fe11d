//! What a process writes, collected while it runs.
//!
//! Kept in memory so that a test can wait for a line, look for errors, and show the story when it fails.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wait::pause;

/// Lines of log kept; the first ones tell the story.
const LOG_LINES_MAX: usize = 20_000;
/// Errors are kept beyond that, up to this many lines in all, so that none is missed behind a long access log.
const LOG_LINES_WITH_ERRORS_MAX: usize = 2 * LOG_LINES_MAX;

/// The lines a process wrote, collected while it runs.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Mutex<Vec<String>>,
}

impl Log {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all sources have ended: until no thread but the caller's holds the log.
    pub(crate) fn await_end(self: &Arc<Self>, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while Arc::strong_count(self) > 1 && Instant::now() < deadline {
            pause(Duration::from_millis(1));
        }
    }

    /// Collects from `source` until it ends; each line goes to `copy` too while someone listens.
    pub(crate) fn follow(self: &Arc<Self>, source: impl Read + Send + 'static, mut copy: Option<Sender<String>>) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                copy = copy.filter(|copy| copy.send(line.clone()).is_ok());
                let mut lines = log.lines.lock().unwrap_or_else(PoisonError::into_inner);
                let limit = if is_error(&line) { LOG_LINES_WITH_ERRORS_MAX } else { LOG_LINES_MAX };
                if lines.len() < limit {
                    lines.push(line);
                }
            }
        });
    }
}

/// Whether a line has level ERROR, in text or JSON, or tells of a panic.
pub(crate) fn is_error(line: &str) -> bool {
    let json_level = serde_json::from_str::<serde_json::Value>(line)
        .ok()
        .and_then(|value| Some(value.get("level")?.as_str()?.eq_ignore_ascii_case("error")));
    json_level.unwrap_or_else(|| line.split_whitespace().take(4).any(|word| word == "ERROR"))
        || line.contains("panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_errors_from_other_lines() {
        for line in [
            "2026-01-01T00:00:00Z ERROR gateward: cannot bind",
            r#"{"timestamp":"x","level":"ERROR","fields":{}}"#,
            "thread 'worker-0' panicked at src/lib.rs:1:1:",
        ] {
            assert!(is_error(line), "{line}");
        }
        for line in [
            "2026-01-01T00:00:00Z  INFO gateward: a client sent the word ERROR",
            r#"{"level":"INFO","fields":{"message":"ERROR"}}"#,
            "",
        ] {
            assert!(!is_error(line), "{line}");
        }
    }
}
