//! `gateward dns`: the authoritative DNS server, and what belongs to it.

use std::process::ExitCode;

use clap::Subcommand;

pub(super) use crate::dns::AFTER_HELP;

use super::{FAILURE, USAGE, complain, print};
use crate::dns;

/// `gateward dns`, with flags of the server or a command.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[group(skip)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: Option<dns::Arguments>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report everything that is wrong in zone files, policies and keys
    #[command(after_help = dns::check::AFTER_HELP)]
    Check(dns::check::Arguments),
    /// Keep a lease for this machine or task: register, renew while healthy, give up at the end
    #[command(after_help = dns::register::AFTER_HELP)]
    Register(Box<dns::register::Arguments>),
}

/// Serves until a signal, or does what the command says.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let done = match (&arguments.command, &arguments.server) {
        (Some(Command::Check(arguments)), _) => return check(arguments),
        (Some(Command::Register(arguments)), _) => dns::register::run(arguments),
        (None, Some(arguments)) => dns::run(arguments),
        (None, None) => {
            complain("error: give --zones-dir DIR; 'gateward dns --help' explains every flag");
            return ExitCode::from(USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}

fn check(arguments: &dns::check::Arguments) -> ExitCode {
    match dns::check::run(arguments) {
        Ok((text, ok)) => {
            print(&text);
            if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
        }
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::from(USAGE)
        }
    }
}
