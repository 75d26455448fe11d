//! `cargo xtask fuzz`: each fuzz target for a while, from its committed corpus.
//!
//! New inputs land in a scratch corpus below `fuzz/target`, so that a run does not change the checkout; what is
//! worth keeping is copied to `fuzz/corpus/TARGET` by hand, where the crates' unit tests replay it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::setup;
use crate::shell::{line, root, succeeds};

/// The targets of `fuzz/Cargo.toml`.
pub(crate) const TARGETS: &[&str] = &[
    "request_head",
    "chunked",
    "uri",
    "config",
    "route",
    "proxy_protocol",
    "websocket",
    "grpc_web",
    "grpc_health",
    "certificate",
    "client_hello",
    "wasm_pairs",
    "wasm_module",
    "lua_json",
    "lua_values",
    "lua_schema",
    "dns_query",
    "dns_update",
    "dns_transfer",
    "zone_file",
    "policy",
];

/// What to fuzz, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this target.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Runs the targets one after the other; true when none found anything.
///
/// # Errors
/// An unknown target, or the tools cannot be installed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let targets: Vec<&str> = match &options.target {
        Some(name) if TARGETS.contains(&name.as_str()) => vec![name],
        Some(name) => bail!("no fuzz target named {name}; there are: {}", TARGETS.join(", ")),
        None => TARGETS.to_vec(),
    };
    setup::for_fuzz()?;
    let mut failed = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        println!("\n==> [{}/{}] {target}: {} s", index + 1, targets.len(), options.seconds);
        let clean = fuzz_one(target, options.seconds)?;
        println!("==> {target}: {}", if clean { "clean" } else { "FAILED" });
        if !clean {
            failed.push(*target);
        }
    }
    println!("\nfuzz: {} clean, {} failed", targets.len() - failed.len(), failed.len());
    for target in &failed {
        println!("failed: {target}; the input is in fuzz/artifacts/{target}");
    }
    Ok(failed.is_empty())
}

fn fuzz_one(target: &str, seconds: u64) -> Result<bool> {
    let scratch = root().join("fuzz/target/corpus").join(target);
    let committed = root().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&scratch)?;
    std::fs::create_dir_all(&committed)?;
    let before = artifacts(target);
    // The toolchain of this process must not override the nightly one asked for here.
    let mut command = std::process::Command::new("cargo");
    command.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("CARGO_TARGET_DIR");
    command.args(["+nightly", "fuzz", "run", target]).arg(&scratch).arg(&committed).args([
        "--".to_owned(),
        format!("-max_total_time={seconds}"),
        "-timeout=10".to_owned(),
        "-rss_limit_mb=2048".to_owned(),
        "-max_len=65536".to_owned(),
        "-print_final_stats=1".to_owned(),
        "-verbosity=1".to_owned(),
    ]);
    if target.starts_with("lua_") {
        // What only LuaJIT's tagged pointers lead to looks lost to the leak checker.
        command.env("ASAN_OPTIONS", "detect_leaks=0");
    }
    println!("    {}", line(&command));
    let succeeded = succeeds(&mut command)?;
    Ok(succeeded && artifacts(target) == before)
}

fn artifacts(target: &str) -> usize {
    count_files(&root().join("fuzz/artifacts").join(target))
}

fn count_files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_targets_is_that_of_the_fuzz_workspace() {
        let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the fuzz workspace exists");
        let declared: Vec<_> = manifest
            .split("[[bin]]")
            .skip(1)
            .filter_map(|bin| bin.lines().find_map(|line| line.strip_prefix("name = ")))
            .map(|name| name.trim_matches('"'))
            .collect();
        assert_eq!(declared, TARGETS);
    }
}
