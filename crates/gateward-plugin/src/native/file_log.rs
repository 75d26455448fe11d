//! `file-log`: one JSON line per request or stream, appended to a file.
//!
//! Workers only queue lines (see [`crate::native::log_queue`]); a blocking thread of the background runtime
//! writes them, many at a time, in append mode so that several instances and rotation by renaming can share a
//! file. With `reopen` the file is opened for every batch, otherwise once and again after an error. A line that
//! could not be written is lost and counted.

use crate::native::log_queue::{Limits, LogQueue, Sink};
use crate::native::record_fields::{self, CustomFields};
use crate::native::settings;
use crate::{BuildContext, BuildError, Definition, Needs, Phases, Plugin, RequestRecord, StreamRecord, Templates};
use gateward_model::schema::{Field, Rule, Schema};
use serde::Deserialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines waiting for the writer.
const MAX_ENTRIES: usize = 10_000;
/// Bytes waiting for the writer.
const MAX_BYTES: usize = 64 << 20;
/// Lines per write.
const MAX_BATCH_SIZE: usize = 256;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "file-log", priority: 9, schema, check_scope: |_| Ok(()), build }
}

fn schema() -> Schema {
    schema_of(record_fields::refused())
}

/// The schema where `templates` evaluates `custom_fields_by_lua`.
pub(crate) fn schema_with(templates: Arc<dyn Templates>) -> Schema {
    schema_of(record_fields::evaluated(templates))
}

fn schema_of(custom_fields: Field) -> Schema {
    Schema::new([
        ("path", Field::string().required().rule(Rule::Custom(check_path))),
        ("reopen", Field::boolean().required().default(false)),
        ("custom_fields_by_lua", custom_fields),
    ])
}

fn check_path(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(path) if path.is_empty() || path.contains('\0') || path.ends_with('/') => {
            Err(format!("{value} is not the name of a file"))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Settings {
    path: String,
    reopen: bool,
    custom_fields_by_lua: record_fields::Settings,
}

struct FileLog {
    custom_fields: CustomFields,
    queue: LogQueue,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let Settings { path, reopen, custom_fields_by_lua } = settings::read(context)?;
    let custom_fields = CustomFields::of(context, custom_fields_by_lua)?;
    let limits = Limits {
        max_entries: MAX_ENTRIES,
        max_bytes: MAX_BYTES,
        max_batch_size: MAX_BATCH_SIZE,
        max_coalescing_delay: Duration::ZERO,
        max_retry_time: Duration::ZERO,
        initial_retry_delay: Duration::ZERO,
        max_retry_delay: Duration::ZERO,
        concurrency: 1,
    };
    let sink = Appender { target: Arc::new(Target { path, reopen, file: Mutex::new(None) }) };
    let queue = LogQueue::start(format!("file-log {}", context.entity.id), limits, sink, context.env);
    Ok(Box::new(FileLog { custom_fields, queue }))
}

impl Plugin for FileLog {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { log: true, log_stream: true, ..Phases::default() }, ..Needs::default() }
    }

    fn log(&self, record: &RequestRecord<'_>) {
        self.custom_fields.add(record);
        self.append(|line| record.write_json(line));
    }

    fn log_stream(&self, record: &StreamRecord<'_>) {
        self.custom_fields.add_to_stream(record);
        self.append(|line| record.write_json(line));
    }
}

impl FileLog {
    fn append(&self, write: impl FnOnce(&mut String)) {
        let mut line = String::with_capacity(2048);
        write(&mut line);
        line.push('\n');
        self.queue.push(line);
    }
}

struct Appender {
    target: Arc<Target>,
}

struct Target {
    path: String,
    reopen: bool,
    /// Held on the writer's blocking thread only.
    file: Mutex<Option<File>>,
}

impl Sink for Appender {
    async fn deliver(&self, batch: &[String]) -> Result<(), String> {
        let (target, lines) = (self.target.clone(), batch.concat());
        let written = tokio::task::spawn_blocking(move || target.append(lines.as_bytes())).await;
        written
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("cannot append to {}: {error}", self.target.path))
    }
}

impl Target {
    fn append(&self, lines: &[u8]) -> std::io::Result<()> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match slot.take().filter(|_| !self.reopen) {
            Some(file) => file,
            None => OpenOptions::new().append(true).create(true).open(&self.path)?,
        };
        file.write_all(lines)?;
        // Kept only after a success: the next batch opens the file anew after an error.
        *slot = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing::{build_with, environment, problems, request};
    use crate::record::testing::record;
    use gateward_model::Config;
    use serde_json::json;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    fn temporary(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("gateward-file-log-{}-{name}", std::process::id()))
    }

    fn wait_until(what: &str, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_are_appended_and_a_reopened_file_follows_rotation() {
        for reopen in [false, true] {
            let path = temporary(if reopen { "reopen" } else { "keep" });
            let rotated = path.with_extension("1");
            std::fs::write(&path, "before\n").unwrap();
            let env = environment();
            let plugin = build_with(&definition(), json!({ "path": path, "reopen": reopen }), &Config::default(), &env);
            let exchange = request("GET", "/a", &[]);
            let log = |count| {
                plugin.log(&record(&exchange));
                wait_until("delivery", || env.stats.log_entries_delivered.load(Ordering::Relaxed) == count);
            };
            log(1);
            std::fs::rename(&path, &rotated).unwrap();
            log(2);
            let old = std::fs::read_to_string(&rotated).unwrap();
            let new = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(old.starts_with("before\n{") && old.ends_with("}\n"), "{old}");
            assert_eq!((old.lines().count(), new.lines().count()), if reopen { (2, 1) } else { (3, 0) });
            let last: Value = serde_json::from_str(old.lines().last().unwrap()).unwrap();
            assert_eq!(last["request"]["uri"], "/a");
            std::fs::remove_file(&rotated).unwrap();
            let _ = std::fs::remove_file(&path);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_costs_its_lines_and_nothing_else() {
        let env = environment();
        let config = json!({ "path": "/nonexistent/dir/file.log" });
        let plugin = build_with(&definition(), config, &Config::default(), &env);
        let exchange = request("GET", "/", &[]);
        plugin.log(&record(&exchange));
        wait_until("failure", || env.stats.log_entries_failed.load(Ordering::Relaxed) == 1);
    }

    #[test]
    fn settings_are_checked() {
        for (config, expected) in [
            (json!({}), "required"),
            (json!({ "path": "/tmp/" }), "is not the name of a file"),
            (json!({ "path": "/tmp/x", "custom_fields_by_lua": { "a": "return 1" } }), "Lua code for log fields"),
        ] {
            let found = problems(&schema(), config.clone());
            assert!(found.iter().any(|text| text.contains(expected)), "{config}: {found:?}");
        }
        assert_eq!(problems(&schema(), json!({ "path": "/tmp/x", "custom_fields_by_lua": {} })), [""; 0]);
    }
}
