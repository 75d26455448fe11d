//! `gateward dns`: the authoritative DNS server.

use std::process::ExitCode;

pub(super) use crate::dns::{AFTER_HELP, Arguments};

use super::{FAILURE, complain};
use crate::dns;

/// Serves until a signal.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match dns::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}
