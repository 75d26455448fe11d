//! Commands that only look.

use super::{Common, Form, Step, code, fallible, print_json};
use crate::cli::print;
use clap::Args;
use gateward_domain::status;
use gateward_domain::verify::{Client, Verifier};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    common: Common,
    /// Look again until everything is right, at most this long: secondaries need a moment to follow
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = clap::value_parser!(u64).range(..=86_400))]
    wait: u64,
    /// Milliseconds that one query may take
    #[arg(long, value_name = "MS", default_value = "2000", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    query_timeout: u64,
    /// Do not ask IPv6 addresses
    #[arg(long)]
    ipv4_only: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    common: Common,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
}

impl Verify {
    pub(super) fn run(&self) -> Step<ExitCode> {
        let declaration = self.common.declaration()?;
        let client = Client { timeout: Duration::from_millis(self.query_timeout) };
        let verifier = Verifier { client, ipv4_only: self.ipv4_only };
        let fleet = self.common.reachable_fleet(&declaration);
        let verification = verifier.verify_within(&declaration, &fleet, Duration::from_secs(self.wait));
        match self.format {
            Form::Text => print(&verification.to_text()),
            Form::Json => print_json(&verification),
        }
        Ok(code(verification.is_right()))
    }
}

impl Status {
    pub(super) fn run(&self) -> Step<ExitCode> {
        let declaration = self.common.declaration()?;
        let fleet = self.common.fleet(&declaration)?;
        let status = fallible(status(&declaration, &fleet))?;
        match self.format {
            Form::Text => print(&status.to_text()),
            Form::Json => print_json(&status),
        }
        Ok(ExitCode::SUCCESS)
    }
}
