//! The access log on real files and pipes: order, rotation, overload, failure.

use gateward_telemetry::{AccessLog, AccessLogTarget, Limits};
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A directory of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gateward-access-log-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: PathBuf, limits: &Limits) -> AccessLog {
    AccessLog::open(AccessLogTarget::File(path), limits).expect("the file can be opened")
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn lines_arrive_in_order_and_the_last_ones_when_dropped() {
    let scratch = Scratch::new("order");
    let path = scratch.file("access.log");
    let log = open(path.clone(), &Limits::default());
    for n in 0..5_000 {
        assert!(log.write(format!("{{\"n\":{n}}}")));
    }
    assert!(log.write("two\nparts".into()));
    drop(log);
    let text = fs::read_to_string(path).expect("the file exists");
    let mut lines = text.lines();
    assert!((0..5_000).all(|n| lines.next() == Some(&format!("{{\"n\":{n}}}"))));
    assert_eq!(lines.collect::<Vec<_>>(), ["two parts"]);
}

#[test]
fn reopening_follows_rotation_and_appends() {
    let scratch = Scratch::new("rotate");
    let (path, rotated) = (scratch.file("access.log"), scratch.file("access.log.1"));
    let log = open(path.clone(), &Limits::default());
    log.write("before".into());
    wait_until("the first line", || log.written_total() == 1);
    fs::rename(&path, &rotated).expect("renamed");
    fs::write(&path, "kept\n").expect("written");
    log.reopen();
    log.write("after".into());
    drop(log);
    assert_eq!(fs::read_to_string(rotated).expect("the old file"), "before\n");
    assert_eq!(fs::read_to_string(path).expect("the new file"), "kept\nafter\n");
}

#[test]
fn a_reopen_that_fails_keeps_the_old_file() {
    let scratch = Scratch::new("reopen-fails");
    let (path, rotated) = (scratch.file("access.log"), scratch.file("access.log.1"));
    let log = open(path.clone(), &Limits::default());
    fs::rename(&path, &rotated).expect("renamed");
    fs::create_dir(&path).expect("a directory cannot be opened for appending");
    log.reopen();
    log.write("still here".into());
    drop(log);
    assert_eq!(fs::read_to_string(rotated).expect("the old file"), "still here\n");
}

#[test]
fn what_cannot_be_opened_is_an_error() {
    let path = PathBuf::from("/nonexistent/access.log");
    assert!(AccessLog::open(AccessLogTarget::File(path), &Limits::default()).is_err());
}

#[test]
fn lines_and_queues_have_limits_in_bytes() {
    let scratch = Scratch::new("bytes");
    let limits = Limits { access_log_line_bytes: 8, access_log_bytes: 4, ..Limits::default() };
    let log = open(scratch.file("access.log"), &limits);
    assert!(!log.write("123456789".into()), "longer than a line may be");
    assert!(!log.write("12345".into()), "more than the queue may hold");
    assert!(log.write("1234".into()));
    assert_eq!(log.dropped_total(), 2);
}

#[test]
#[cfg(target_os = "linux")]
fn a_stuck_reader_costs_lines_but_never_blocks() {
    let scratch = Scratch::new("stuck");
    let path = scratch.file("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    // Held open and never read; opening a pipe both ways does not wait for a peer.
    let reader = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe");
    let drain = Duration::from_millis(100);
    let limits = Limits { access_log_lines: 100, access_log_drain: drain, ..Limits::default() };
    let log = open(path, &limits);
    let line = "x".repeat(1000);
    let begun = Instant::now();
    wait_until("a full queue", || !log.write(line.clone()));
    (0..1000).for_each(|_| _ = log.write(line.clone()));
    assert!(log.dropped_total() >= 1);
    drop(log);
    assert!(begun.elapsed() < Duration::from_secs(10), "neither writing nor dropping may wait for the reader");
    drop(reader);
}

#[test]
#[cfg(target_os = "linux")]
fn lines_a_full_disk_refuses_are_counted() {
    let log = open("/dev/full".into(), &Limits::default());
    assert!(log.write("lost".into()));
    wait_until("the failed write", || log.dropped_total() == 1);
    assert_eq!(log.written_total(), 0);
}
