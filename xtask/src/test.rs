//! `cargo xtask test`: set-up, then every check, each to its end, with one table at the close.
//!
//! A failing check does not hide the ones after it; the exit code is 1 if any failed. Checks that cannot run
//! here are reported as skipped with the reason, and refused where `CI` is set.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::shell::{cargo, find, line, root, succeeds, target_dir};
use crate::{setup, tidy};

/// How a check ended.
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// One check: a name and what to run.
struct Check {
    name: &'static str,
    run: Box<dyn FnOnce() -> Result<Outcome>>,
}

struct Finished {
    name: &'static str,
    outcome: Outcome,
    seconds: f64,
}

/// Runs everything; true when nothing failed.
///
/// # Errors
/// Set-up is incomplete where that is not allowed, or cargo itself does not work.
pub(crate) fn run() -> Result<bool> {
    let missing = setup::for_tests()?;
    let checks = checks(&missing)?;
    let total = checks.len();
    let mut finished = Vec::with_capacity(total);
    for (index, check) in checks.into_iter().enumerate() {
        println!("\n==> [{}/{total}] {}", index + 1, check.name);
        let started = Instant::now();
        let outcome = (check.run)().unwrap_or_else(|error| {
            println!("error: {error:#}");
            Outcome::Failed
        });
        let seconds = started.elapsed().as_secs_f64();
        println!("==> [{}/{total}] {}: {} ({seconds:.1} s)", index + 1, check.name, outcome.word());
        finished.push(Finished { name: check.name, outcome, seconds });
    }
    Ok(report(&finished, &missing))
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Skipped(_) => "skipped",
        }
    }
}

fn checks(missing: &[&'static str]) -> Result<Vec<Check>> {
    let binary = target_dir()?.join("debug/gateward");
    let has = |tool: &str| !missing.contains(&tool);
    let mut tests = if has("cargo-nextest") {
        nextest()
    } else {
        cargo_command(&["test", "--workspace", "--bins", "--lib", "--tests"])
    };
    tests.env("GATEWARD_BIN", &binary);
    if !missing.is_empty() {
        tests.env("GATEWARD_SKIP", missing.join(","));
    }
    let mut docs = cargo_command(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    let mut quickstart = Command::new(&binary);
    quickstart.current_dir(root()).args(["check", "examples/quickstart/kong.yml"]);
    let (has_deny, has_compiler) = (has("cargo-deny"), has("g++"));
    Ok(vec![
        command("formatting", cargo_command(&["fmt", "--all", "--check"])),
        check("tidy", || Ok(if tidy::run()? { Outcome::Passed } else { Outcome::Failed })),
        command("clippy", cargo_command(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        command("build", cargo_command(&["build", "--workspace", "--all-targets"])),
        command("quickstart file", quickstart),
        command("tests", tests),
        command("doc tests", cargo_command(&["test", "--workspace", "--doc", "--quiet"])),
        command("documentation", docs),
        check("dependencies", move || dependencies(has_deny)),
        check("advisories", move || advisories(has_deny)),
        check("fuzz targets compile", move || fuzz_targets(has_compiler)),
    ])
}

fn check(name: &'static str, run: impl FnOnce() -> Result<Outcome> + 'static) -> Check {
    Check { name, run: Box::new(run) }
}

fn command(name: &'static str, command: Command) -> Check {
    check(name, move || shown(command))
}

fn shown(mut command: Command) -> Result<Outcome> {
    println!("    {}", line(&command));
    Ok(if succeeds(&mut command)? { Outcome::Passed } else { Outcome::Failed })
}

fn cargo_command(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}

fn nextest() -> Command {
    let profile = if setup::in_ci() { "ci" } else { "default" };
    cargo_command(&["nextest", "run", "--workspace", "--profile", profile])
}

fn dependencies(has_deny: bool) -> Result<Outcome> {
    if !has_deny {
        return Ok(Outcome::Skipped("cargo-deny is missing".to_owned()));
    }
    // Warnings of cargo-deny (duplicate versions) are for whoever updates dependencies, not for every run.
    shown(cargo_command(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))
}

/// The advisory database is a git repository that many build machines cannot fetch; a copy at hand is used.
fn advisories(has_deny: bool) -> Result<Outcome> {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".cargo")));
    let at_hand = home.is_some_and(|home| home.join("advisory-dbs").is_dir());
    if !has_deny || !at_hand {
        return Ok(Outcome::Skipped("no advisory database on this machine; `cargo deny fetch` brings one".to_owned()));
    }
    shown(cargo_command(&["deny", "--offline", "check", "advisories"]))
}

fn fuzz_targets(has_compiler: bool) -> Result<Outcome> {
    if !has_compiler || find("g++").is_none() {
        return Ok(Outcome::Skipped("g++ is missing".to_owned()));
    }
    shown(cargo_command(&["check", "--manifest-path", "fuzz/Cargo.toml", "--bins"]))
}

fn report(finished: &[Finished], missing: &[&str]) -> bool {
    println!("\n{:<22} {:<8} {:>8}", "check", "result", "seconds");
    for check in finished {
        println!("{:<22} {:<8} {:>8.1}", check.name, check.outcome.word(), check.seconds);
    }
    for check in finished {
        if let Outcome::Skipped(reason) = &check.outcome {
            println!("note: {} skipped: {reason}", check.name);
        }
    }
    if !missing.is_empty() {
        println!("note: tests that need these programs were skipped: {}", missing.join(", "));
    }
    let count = |wanted: &str| finished.iter().filter(|check| check.outcome.word() == wanted).count();
    let failed: Vec<_> =
        finished.iter().filter(|check| matches!(check.outcome, Outcome::Failed)).map(|check| check.name).collect();
    println!("checks: {} passed, {} failed, {} skipped", count("passed"), failed.len(), count("skipped"));
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    failed.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(outcome: Outcome) -> Finished {
        Finished { name: "a check", outcome, seconds: 0.0 }
    }

    #[test]
    fn one_failure_fails_the_run_and_a_skip_does_not() {
        assert!(report(&[finished(Outcome::Passed), finished(Outcome::Skipped("why".to_owned()))], &[]));
        assert!(!report(&[finished(Outcome::Failed), finished(Outcome::Passed)], &["curl"]));
    }
}
