//! `gateward domain`: a domain from one declaration.
//!
//! What the commands do is in `gateward-domain`; here are flags, files, the environment and exit codes.

mod change;
mod force_token;
mod look;
mod secrets;

use crate::cli::{FAILURE, complain, print};
use clap::{Args, Subcommand, ValueEnum};
use gateward_domain::declaration::SecretSource;
use gateward_domain::provider::{Fleet, HttpProvider};
use gateward_domain::{Declaration, Error, Tokens};
use gateward_model::Secret;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What is served differs from what is declared.
const DRIFT: u8 = 3;
/// Octets of a declaration that are read.
const MAX_FILE: u64 = 64 << 20;

const EXIT_CODES: &str = "\
Exit codes: 0 done, and nothing wrong was found; 1 findings or failure; 2 wrong usage; 3 drift.

A declaration describes everything below one root: name servers, environments, regions, services, owners and who writes what.
docs/guide/domains.md shows the way from nothing to a domain that answers.";

#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Show every change that makes what is served what is declared
    #[command(after_help = EXIT_CODES)]
    Plan(change::Plan),
    /// Apply a plan to what it was made from
    #[command(after_help = EXIT_CODES)]
    Apply(change::Apply),
    /// Walk the delegations with DNS queries, from the root to every service
    #[command(after_help = EXIT_CODES)]
    Verify(look::Verify),
    /// Show every zone: level, owner, serial, drift, versions
    #[command(after_help = EXIT_CODES)]
    Status(look::Status),
    /// Give a zone the content of an old version; serials still rise
    #[command(after_help = EXIT_CODES)]
    Rollback(change::Rollback),
    /// Tell whether what is served is what is declared, and repair it
    #[command(after_help = EXIT_CODES)]
    Drift(change::Drift),
    /// Sign leave for one change that guardrails refuse: two people, one zone, some hours
    #[command(subcommand, after_help = force_token::AFTER_HELP)]
    ForceToken(force_token::Arguments),
}

/// What every command needs.
#[derive(Debug, Args)]
struct Common {
    /// The declaration
    #[arg(value_name = "FILE", default_value = "domain.yaml")]
    file: PathBuf,
    /// Seconds that one call to a control API may take
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
    api_timeout: u64,
}

/// Who changes zones, and with what leave.
#[derive(Debug, Args)]
struct Author {
    /// Who this is, for the servers' audit logs and policies
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    actor: String,
    /// A signed token that lifts guardrails for one change; several are given by several flags, or with commas between them.
    /// Each goes to the server with the change that it is for, and with no other
    #[arg(long, value_name = "TOKEN", env = "GATEWARD_FORCE_TOKEN", hide_env_values = true, value_delimiter = ',')]
    force_token: Vec<String>,
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// A command that ended early; the message was written.
struct Ended(ExitCode);

type Step<T> = Result<T, Ended>;

/// Runs a command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let ended = match arguments {
        Arguments::Plan(plan) => plan.run(),
        Arguments::Apply(apply) => apply.run(),
        Arguments::Verify(verify) => verify.run(),
        Arguments::Status(status) => status.run(),
        Arguments::Rollback(rollback) => rollback.run(),
        Arguments::Drift(drift) => drift.run(),
        Arguments::ForceToken(arguments) => force_token::run(arguments),
    };
    ended.unwrap_or_else(|Ended(code)| code)
}

impl Common {
    /// The declaration, or every mistake in it as `FILE:LINE:COLUMN: PATH: MESSAGE`.
    fn declaration(&self) -> Step<Declaration> {
        let text = read(&self.file)?;
        Declaration::read(&text).map_err(|problems| {
            for problem in &problems {
                complain(&format!("{}:{problem}", self.file.display()));
            }
            Ended(ExitCode::from(FAILURE))
        })
    }

    /// The control APIs that the declaration names.
    fn fleet(&self, declaration: &Declaration) -> Step<Fleet<'static>> {
        let mut fleet = Fleet::new();
        for group in declaration.groups.values() {
            let token = group.token.as_ref().map(|source| self.token(source)).transpose()?;
            let provider = HttpProvider::new(&group.control, token).map_err(|error| failed(&error))?;
            fleet.add(&group.control, provider.timeout(Duration::from_secs(self.api_timeout)));
        }
        Ok(fleet)
    }

    /// Those of the control APIs whose tokens are here, for commands that can do without the others.
    fn reachable_fleet(&self, declaration: &Declaration) -> Fleet<'static> {
        let mut fleet = Fleet::new();
        for group in declaration.groups.values() {
            let token = group.token.as_ref().map(|source| secrets::find(source, self.folder())).transpose();
            if let Some(provider) = token.ok().and_then(|token| HttpProvider::new(&group.control, token).ok()) {
                fleet.add(&group.control, provider.timeout(Duration::from_secs(self.api_timeout)));
            }
        }
        fleet
    }

    fn token(&self, source: &SecretSource) -> Step<Secret> {
        secrets::find(source, self.folder()).map_err(|reason| failed(&format!("the token of a control API: {reason}")))
    }

    /// The folder that files named in the declaration are relative to.
    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }
}

impl Author {
    fn read(&self) -> Step<gateward_domain::Author> {
        let actor = if self.actor.is_empty() { "unknown" } else { &self.actor };
        let given = self.force_token.iter().map(String::as_str).filter(|token| !token.trim().is_empty());
        let tokens = Tokens::read(given).map_err(|error| failed(&error))?;
        Ok(gateward_domain::Author { actor: actor.to_owned(), tokens })
    }
}

/// A file of a bounded size.
fn read(path: &Path) -> Step<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            complain(&format!("error: cannot read {}: {error}", path.display()));
            Err(Ended(ExitCode::from(crate::cli::USAGE)))
        }
    }
}

/// Writes why a command fails.
fn failed(error: &impl std::fmt::Display) -> Ended {
    complain(&format!("error: {error}"));
    Ended(ExitCode::from(FAILURE))
}

fn fallible<T>(result: Result<T, Error>) -> Step<T> {
    result.map_err(|error| failed(&error))
}

fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("texts, numbers and lists of these");
    print(&format!("{text}\n"));
}

/// The code that says whether everything was right.
fn code(right: bool) -> ExitCode {
    if right { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}
