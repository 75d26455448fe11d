//! The `gateward` command.
//!
//! The one crate that knows every plane: it reads the command line and the environment, starts workers and the
//! control side, and ends them in order. No request passes through the code here.
#![forbid(unsafe_code)]

mod admin;
mod callouts;
mod cli;
mod control;
mod counter_store;
mod dns;
mod egress;
mod filters;
mod hosts;
mod logging;
mod metrics;
mod notify;
mod reload;
mod run;
mod settings;
mod sockets;
mod statistics;
mod status;
mod upgrade;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
