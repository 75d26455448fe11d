//! The access log: a bounded queue of lines and one thread that writes them in batches.
//!
//! A slow disk or a blocked pipe must never slow a request, so a line that finds the queue full is dropped and
//! counted. After the first line of a batch the thread lets a few milliseconds pass before it writes: senders
//! then wake it a few hundred times a second at most, and a write holds many lines.
//!
//! Lines are made elsewhere; the only thing changed here is a newline within a line, which becomes a space.

use crate::catalog;
use crate::{ExtraMetric, Limits};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a batch gathers lines.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes after which a batch is written.
const BATCH_BYTES: usize = 256 << 10;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// A file, created if missing and appended to.
    File(PathBuf),
}

/// The queue's end that requests write to. Shared by all workers.
#[derive(Debug)]
pub struct AccessLog {
    /// `None` once the log is being dropped.
    queue: Option<SyncSender<Entry>>,
    shared: Arc<Shared>,
    /// Closes when the thread has ended. Only looked at on drop; the lock makes the log `Sync`.
    ended: Mutex<Receiver<()>>,
    line_limit: usize,
    byte_limit: usize,
    drain: Duration,
}

#[derive(Debug)]
enum Entry {
    Line(String),
    /// Nothing to write; look at the flags.
    Wake,
}

#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    reopen: AtomicBool,
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened for appending or the thread cannot be started.
    pub fn open(target: AccessLogTarget, limits: &Limits) -> io::Result<Self> {
        let sink = Sink::open(target)?;
        let (queue, lines) = sync_channel(limits.access_log_lines.max(1));
        let (end, ended) = channel();
        let shared = Arc::new(Shared::default());
        let writer = Writer { lines, sink, shared: Arc::clone(&shared), failing: false };
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(end))?;
        Ok(Self {
            queue: Some(queue),
            shared,
            ended: Mutex::new(ended),
            line_limit: limits.access_log_line_bytes,
            byte_limit: limits.access_log_bytes,
            drain: limits.access_log_drain,
        })
    }

    /// Queues a line, without its newline. `false`: it was dropped, because the queue was full or the line longer
    /// than [`Limits::access_log_line_bytes`]. Never waits.
    pub fn write(&self, line: String) -> bool {
        let bytes = line.len();
        let queued = self.enqueue(line, bytes);
        if !queued {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
        queued
    }

    /// Lines lost since the start: not queued, or not written because the target failed.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Lines written since the start.
    #[must_use]
    pub fn written_total(&self) -> u64 {
        self.shared.written.load(Relaxed)
    }

    /// Opens the file again by its name, after it was moved away by log rotation. Returns at once; lines queued
    /// before may still go to the old file. When it cannot be opened the old one stays in use and an error is logged.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
        if let Some(queue) = &self.queue {
            // A full queue means that the writer is awake anyway.
            let _ = queue.try_send(Entry::Wake);
        }
    }

    /// Figures for the exporter.
    #[must_use]
    pub fn metrics(&self) -> Vec<ExtraMetric> {
        let counters =
            [(&catalog::ACCESS_LOG_LINES, self.written_total()), (&catalog::ACCESS_LOG_DROPPED, self.dropped_total())];
        counters.map(|(metric, n)| ExtraMetric::of(metric).sample(&[], n as f64)).into()
    }

    fn enqueue(&self, line: String, bytes: usize) -> bool {
        let Some(queue) = &self.queue else { return false };
        if bytes > self.line_limit {
            return false;
        }
        let waiting = &self.shared.queued_bytes;
        let fits = waiting.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.byte_limit;
        if fits && queue.try_send(Entry::Line(line)).is_ok() {
            return true;
        }
        waiting.fetch_sub(bytes, Relaxed);
        false
    }
}

impl Drop for AccessLog {
    /// Lets the writer finish what is queued, for at most [`Limits::access_log_drain`].
    fn drop(&mut self) {
        self.queue = None;
        let ended = self.ended.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.recv_timeout(self.drain) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(waited = ?self.drain, "the access log's target is too slow: its last lines are lost");
        }
    }
}

/// The thread's side.
struct Writer {
    lines: Receiver<Entry>,
    sink: Sink,
    shared: Arc<Shared>,
    /// The last write failed; said once, not per batch.
    failing: bool,
}

impl Writer {
    /// Writes batches until every sender is gone and the queue is empty. `_end` is dropped when it returns.
    fn run(mut self, _end: Sender<()>) {
        let mut batch = String::new();
        while let Ok(first) = self.lines.recv() {
            if self.shared.reopen.swap(false, Relaxed) {
                self.sink.reopen();
            }
            let count = self.gather(first, &mut batch);
            self.flush(&batch, count);
            batch.clear();
            batch.shrink_to(BATCH_BYTES);
        }
    }

    /// Collects lines into `batch` until it is large or [`GATHER`] has passed; returns how many.
    fn gather(&self, first: Entry, batch: &mut String) -> u64 {
        let mut count = self.append(first, batch);
        let deadline = Instant::now() + GATHER;
        while batch.len() < BATCH_BYTES {
            match self.lines.try_recv() {
                Ok(entry) => {
                    count += self.append(entry, batch);
                    continue;
                }
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Parked rather than waiting on the queue: a waiting receiver is woken by every line.
            std::thread::park_timeout(left);
        }
        count
    }

    fn append(&self, entry: Entry, batch: &mut String) -> u64 {
        let Entry::Line(line) = entry else { return 0 };
        self.shared.queued_bytes.fetch_sub(line.len(), Relaxed);
        for (number, part) in line.split('\n').enumerate() {
            if number > 0 {
                batch.push(' ');
            }
            batch.push_str(part);
        }
        batch.push('\n');
        1
    }

    fn flush(&mut self, batch: &str, count: u64) {
        if batch.is_empty() {
            return;
        }
        let result = self.sink.write(batch.as_bytes());
        let counter = if result.is_ok() { &self.shared.written } else { &self.shared.dropped };
        counter.fetch_add(count, Relaxed);
        let was_failing = std::mem::replace(&mut self.failing, result.is_err());
        match result {
            Ok(()) if was_failing => tracing::info!(target = %self.sink, "access log is written again"),
            Err(error) if !was_failing => {
                tracing::error!(target = %self.sink, %error, "access log lines are lost; check the disk or the reader");
            }
            _ => {}
        }
    }
}

/// An open target.
enum Sink {
    Stdout,
    File {
        path: PathBuf,
        file: File,
        /// A failed write may have left part of a line behind.
        torn: bool,
    },
}

impl Sink {
    fn open(target: AccessLogTarget) -> io::Result<Self> {
        Ok(match target {
            AccessLogTarget::Stdout => Self::Stdout,
            AccessLogTarget::File(path) => Self::File { file: append_to(&path)?, path, torn: false },
        })
    }

    fn reopen(&mut self) {
        let Self::File { path, file, torn } = self else { return };
        match append_to(path) {
            Ok(new) => (*file, *torn) = (new, false),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "access log cannot be reopened; the old file stays in use");
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File { file, torn, .. } => {
                if *torn {
                    file.write_all(b"\n")?;
                }
                // Counts as torn until it is known not to be.
                *torn = true;
                file.write_all(bytes)?;
                *torn = false;
                Ok(())
            }
        }
    }
}

impl std::fmt::Display for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File { path, .. } => path.display().fmt(f),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
