//! The log on standard error: text for people, JSON for machines, a level that can change while running.
//!
//! Only our own crates log below WARN; what libraries say at INFO is of no use to an operator.

use crate::settings::{LogLevel, OutputFormat};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Changes the level while running.
#[derive(Clone)]
pub(crate) struct LogControl {
    handle: Option<reload::Handle<Targets, Registry>>,
    level: Arc<Mutex<LogLevel>>,
}

impl LogControl {
    /// Kong's name of the level in force.
    pub(crate) fn level(&self) -> &'static str {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).name
    }

    /// Log from `level` on.
    pub(crate) fn set(&self, level: LogLevel) {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        if let Some(handle) = &self.handle {
            // Fails only when the subscriber is gone, and then nobody logs.
            let _ = handle.reload(targets(level));
        }
    }

    /// A control without a log behind it.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self { handle: None, level: Arc::default() }
    }
}

/// Start logging. `live_line`: standard output shows a line that is rewritten, which a log line must clear first.
pub(crate) fn init(format: OutputFormat, level: LogLevel, live_line: bool) -> LogControl {
    let (filter, handle) = reload::Layer::new(targets(level));
    let terminal = io::stderr().is_terminal();
    let clear = live_line && terminal;
    let writer = move || Stderr { clear };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    let layer = match format {
        OutputFormat::Text => fmt::layer().with_ansi(colour).with_writer(writer).boxed(),
        OutputFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    LogControl { handle: started.is_ok().then_some(handle), level: Arc::new(Mutex::new(level)) }
}

fn targets(level: LogLevel) -> Targets {
    Targets::new()
        .with_default(level.filter.min(LevelFilter::WARN))
        // It warns of what peers do, frame by frame; that is counted, and must not fill the log.
        .with_target("h2", level.filter.min(LevelFilter::ERROR))
        .with_target("gateward", level.filter)
        // What plugins write.
        .with_target("lua", level.filter)
        .with_target("wasm", level.filter)
}

/// Standard error; a log must never end the process, so a closed pipe is no error.
struct Stderr {
    clear: bool,
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        if self.clear {
            let _ = stderr.write_all(b"\r\x1b[2K");
        }
        let _ = stderr.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
