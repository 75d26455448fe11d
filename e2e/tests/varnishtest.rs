//! Framing as another implementation sees it: varnishtest plays both the client and the origin, from the scripts in
//! `e2e/varnishtest`. A script gets the addresses as `${proxy}` and `${origin}`.

use gateward_e2e::{has_program, one_route};
use gateward_testkit::{Gateway, free_port};
use std::path::{Path, PathBuf};
use std::process::Command;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("varnishtest");
    let entries = std::fs::read_dir(&folder).expect("the folder of scripts can be read");
    let mut scripts: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    scripts.sort();
    scripts
}

/// What a script printed, when it failed.
fn run(script: &Path) -> Result<(), String> {
    let free = free_port();
    let gateway = Gateway::start(&one_route(&format!("http://{free}")));
    let output = Command::new("varnishtest")
        .args(["-t", "20", "-D", &format!("proxy={}", gateway.proxy()), "-D", &format!("origin={free}")])
        .arg(script)
        .output()
        .expect("varnishtest runs");
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    Err(format!("{}\n{printed}{}", script.display(), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn every_script_passes() {
    if !has_program("varnishtest", "-h") {
        return;
    }
    let scripts = scripts();
    assert!(!scripts.is_empty());
    let failures: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = scripts.iter().map(|script| scope.spawn(|| run(script))).collect();
        running.into_iter().filter_map(|script| script.join().expect("no panic").err()).collect()
    });
    assert!(failures.is_empty(), "{} of {} scripts failed\n{}", failures.len(), scripts.len(), failures.join("\n\n"));
}
