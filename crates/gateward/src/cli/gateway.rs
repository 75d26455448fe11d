//! `gateward gateway`: the production form.

use crate::cli::{FAILURE, complain, print, usage};
use crate::control::Addresses;
use crate::logging;
use crate::run::{self, Ended};
use crate::settings::{Flags, Given, OutputFormat, resolve};
use serde_json::json;
use std::process::ExitCode;

pub(crate) const AFTER_HELP: &str = "\
Every flag has a variable, GATEWARD_ and its name in capitals; --help names Kong's variables, which count last.
Signals: SIGTERM, SIGINT and SIGQUIT stop gracefully (a second one at once), SIGHUP loads the configuration again,
SIGUSR1 opens the access log anew, SIGUSR2 starts the program anew and hands over to it (with --upgrade-socket).
Exit codes: 0 stopped as asked; 1 failure; 2 wrong usage.";

/// Flags of `gateward gateway`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

/// Run until a signal asks to stop.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let options = match resolve(&Given::new(arguments.flags, variables())) {
        Ok(options) => options,
        Err(errors) => return usage(&errors),
    };
    let format = options.format;
    let log = logging::init(format, options.log_level, false);
    let running = match run::start(options, log) {
        Ok(running) => running,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(FAILURE);
        }
    };
    announce(running.addresses(), format);
    match running.until_stopped() {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::WorkerLost => ExitCode::from(FAILURE),
    }
}

/// Variables of this process. What in a value is not text is replaced, so that the setting is refused and not ignored.
pub(crate) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

fn announce(addresses: &Addresses, format: OutputFormat) {
    let Addresses { proxy, stream, datagrams, admin, status } = addresses;
    match format {
        OutputFormat::Json => {
            let line = json!({
                "event": "ready", "proxy": proxy, "stream": stream, "udp": datagrams, "admin": admin,
                "status": status,
                "pid": std::process::id(),
            });
            print(&format!("{line}\n"));
        }
        OutputFormat::Text => {
            let or_off = |list: &[String]| if list.is_empty() { "off".to_owned() } else { list.join(", ") };
            let [proxy, stream, udp, admin, status] =
                [proxy, stream, datagrams, admin, status].map(|list| or_off(list));
            tracing::info!(proxy, stream, udp, admin, status, "ready");
        }
    }
}
