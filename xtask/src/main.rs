//! Project tasks: the commands that people and CI run alike.
//!
//! Each task is one module; this file only names them. Exit codes: 0 done, 1 findings or failure, 2 wrong usage.

mod bench;
mod fuzz;
mod setup;
mod shell;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Gateward's project tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need, then run every check.
    Test,
    /// Install what tests (and, with --bench, measurements) need.
    Setup {
        /// Also the peers that `cargo xtask bench` measures.
        #[arg(long)]
        bench: bool,
    },
    /// Check the rules of STYLE.md that no compiler checks.
    Tidy,
    /// Measure the gateway beside nginx, HAProxy, Envoy and the epoll floor.
    Bench(bench::Options),
    /// Measure the DNS server beside NSD and Knot.
    BenchDns(bench::dns::Options),
    /// Run the fuzz targets.
    Fuzz(fuzz::Options),
    /// Full load with a configuration swap every second; no request may fail and memory must stay flat.
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test => test::run(),
        Task::Setup { bench } => setup::run(bench),
        Task::Tidy => tidy::run(),
        Task::Bench(options) => bench::run(&options),
        Task::BenchDns(options) => bench::dns::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Soak(options) => soak::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
