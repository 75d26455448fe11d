//! The command line.

mod cases;
mod check;
mod dns;
mod domain;
mod echo;
mod faults;
mod gateway;
mod lua_cases;
mod plugin;
mod quickstart;

use crate::settings::reference;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Findings or failure.
const FAILURE: u8 = 1;
/// Wrong usage: flags, variables.
const USAGE: u8 = 2;

/// An API gateway that reads Kong's declarative file as it is, and the names in front of it.
#[derive(Debug, Parser)]
#[command(name = "gateward", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done and nothing found; 1 findings or failure; 2 wrong usage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    #[command(after_help = gateway::AFTER_HELP)]
    Gateway(Box<gateway::Arguments>),
    /// Report every problem of declarative files as file:line:column: path: message
    #[command(after_help = EXIT_CODES)]
    Check(check::Arguments),
    /// Run the gateway with the example configuration and two echo backends
    #[command(after_help = quickstart::AFTER_HELP)]
    Quickstart(Box<quickstart::Arguments>),
    /// Run the authoritative DNS server
    #[command(after_help = dns::AFTER_HELP)]
    Dns(Box<dns::Arguments>),
    /// Run a backend that answers with the request it got
    #[command(after_help = EXIT_CODES)]
    Echo(echo::Arguments),
    /// Plan, apply, verify and repair the zones of a domain from one declaration
    #[command(subcommand)]
    Domain(Box<domain::Arguments>),
    /// Make, build, try and check Wasm filters
    #[command(subcommand, after_help = EXIT_CODES)]
    Plugin(plugin::Arguments),
    /// Print the reference of settings as Markdown
    Settings,
}

/// Parse the command line and run the command.
pub(crate) fn main() -> ExitCode {
    // clap itself ends with 2 on wrong usage and 0 on --help.
    match Cli::parse().command {
        Command::Gateway(arguments) => gateway::run(*arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Quickstart(arguments) => quickstart::run(*arguments),
        Command::Dns(arguments) => dns::run(&arguments),
        Command::Echo(arguments) => echo::run(&arguments),
        Command::Domain(arguments) => domain::run(&arguments),
        Command::Plugin(arguments) => plugin::run(&arguments),
        Command::Settings => {
            print(&reference());
            ExitCode::SUCCESS
        }
    }
}

/// Write to standard output; a closed pipe is the reader's wish, not an error.
fn print(text: &str) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Write a line of failure to standard error.
fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Say what is wrong with flags and variables.
fn usage(errors: &[String]) -> ExitCode {
    errors.iter().for_each(|error| complain(&format!("error: {error}")));
    complain("'gateward gateway --help' explains every setting");
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
