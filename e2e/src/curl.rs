//! Real peers: programs of the system, and what happens when one is missing.

use std::process::{Command, Output};

/// Whether the program `name` can be run.
///
/// A missing program is a failure unless `GATEWARD_SKIP`, a comma-separated list, names it: then the caller skips.
///
/// # Panics
/// When it is missing and not to be skipped.
#[track_caller]
pub fn has_tool(name: &str) -> bool {
    has_program(name, "--version")
}

/// Likewise, for a program that answers to `flag` instead of `--version`.
///
/// # Panics
/// As [`has_tool`].
#[track_caller]
pub fn has_program(name: &str, flag: &str) -> bool {
    let found = Command::new(name).arg(flag).output().is_ok();
    let skipped = std::env::var("GATEWARD_SKIP").is_ok_and(|list| list.split(',').any(|entry| entry.trim() == name));
    assert!(found || skipped, "{name} is not installed; install it, or set GATEWARD_SKIP={name} to skip its tests");
    if !found {
        eprintln!("skipped: {name} is not installed and GATEWARD_SKIP names it");
    }
    found
}

/// Runs curl silently with these arguments and a time limit.
///
/// # Panics
/// When curl cannot be run.
#[track_caller]
pub fn curl(args: &[&str]) -> Output {
    match Command::new("curl").args(["-sS", "--max-time", "20", "--noproxy", "*"]).args(args).output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run curl: {error}"),
    }
}
