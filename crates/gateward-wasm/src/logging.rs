//! Where the log lines of filters go.

use crate::types::LogLevel;

/// Takes log lines.
pub trait LogSink: Send + Sync + 'static {
    /// One line of `filter`. Must not block.
    fn log(&self, level: LogLevel, filter: &str, line: &str);

    /// The least severe level that is not thrown away.
    fn least(&self) -> LogLevel;
}

/// The process's own log, under the target `wasm`.
#[derive(Debug, Default)]
pub struct Tracing;

impl LogSink for Tracing {
    fn log(&self, level: LogLevel, filter: &str, line: &str) {
        match level {
            LogLevel::Trace => tracing::trace!(target: "wasm", filter, "{line}"),
            LogLevel::Debug => tracing::debug!(target: "wasm", filter, "{line}"),
            LogLevel::Info => tracing::info!(target: "wasm", filter, "{line}"),
            LogLevel::Warn => tracing::warn!(target: "wasm", filter, "{line}"),
            LogLevel::Error | LogLevel::Critical => tracing::error!(target: "wasm", filter, "{line}"),
        }
    }

    fn least(&self) -> LogLevel {
        use tracing::Level;
        if tracing::enabled!(target: "wasm", Level::TRACE) {
            LogLevel::Trace
        } else if tracing::enabled!(target: "wasm", Level::DEBUG) {
            LogLevel::Debug
        } else if tracing::enabled!(target: "wasm", Level::INFO) {
            LogLevel::Info
        } else if tracing::enabled!(target: "wasm", Level::WARN) {
            LogLevel::Warn
        } else {
            LogLevel::Error
        }
    }
}
