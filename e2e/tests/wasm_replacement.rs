//! Replacing filters while requests pass through them.

use gateward_e2e::filters::{Folder, config, get, module};
use gateward_testkit::load::Load;
use gateward_testkit::{Backend, Gateway, eventually, http};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const REPLACEMENTS: u32 = 1000;
/// Replacements until memory has come to rest.
const WARM: u32 = 300;

/// A filter that writes its version, four digits, on responses.
fn versioned(version: u32) -> String {
    module(&format!(
        "(data (i32.const 100) \"{version:04}\")
        (func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32)
            (drop (call $set (i32.const 2) (i32.const 0) (i32.const 9) (i32.const 100) (i32.const 4))) (i32.const 0))"
    ))
}

fn filter(gateway: &Gateway) -> Value {
    http(gateway.admin(), "GET /plugins/filters", &[], b"").json()["data"][0].take()
}

/// Waits until requests are served by the replacement.
fn wait_for(gateway: &Gateway, version: u32) {
    let expected = format!("{version:04}");
    eventually(PATIENCE, || get(gateway, "/", &[]).header("x-version") == Some(expected.as_str()));
}

#[test]
fn load_a_thousand_replacements_fail_no_request_and_leave_nothing_behind() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    folder.put("versioned", &versioned(0));
    let gateway = folder.gateway(&config(&backend, "{name: versioned}")).workers(2).start();
    let load = Load::get(gateway.proxy(), "/").connections(4).interval(Duration::from_millis(4)).start();
    let mut warm_kib = 0;
    for version in 1..=REPLACEMENTS {
        folder.put("versioned", &versioned(version));
        gateway.sighup();
        wait_for(&gateway, version);
        if version == WARM {
            warm_kib = gateway.rss_kib();
        }
    }
    let report = load.stop();
    assert!(report.ok > u64::from(REPLACEMENTS) && report.failed == 0, "{report:?}");
    let only_the_last = || {
        let filter = filter(&gateway);
        let configured = filter["configured"].as_array().cloned().unwrap_or_default();
        matches!(configured.as_slice(), [one] if one["hash"] == filter["hash"] && one["instances"].as_u64() <= Some(2))
    };
    eventually(PATIENCE, only_the_last);
    let metrics = http(gateway.status(), "GET /metrics", &[], b"").text();
    let instances =
        metrics.lines().find_map(|line| line.strip_prefix("gateward_wasm_instances{filter=\"versioned\"} "));
    assert!(instances.is_some_and(|count| matches!(count, "1" | "2")), "{instances:?}");
    let last_kib = gateway.rss_kib();
    // One instance has 128 KiB, and 700 were made meanwhile: 87 MiB, if they were kept.
    assert!(last_kib < warm_kib + 16 * 1024, "{warm_kib} KiB after {WARM} replacements, {last_kib} KiB at the end");
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_filter_is_replaced_without_being_asked_for() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    folder.put("versioned", &versioned(1));
    let gateway = folder.gateway(&config(&backend, "{name: versioned}")).start();
    wait_for(&gateway, 1);
    let load = Load::get(gateway.proxy(), "/").connections(4).start();
    folder.put("versioned", &versioned(2));
    wait_for(&gateway, 2);
    let report = load.stop();
    assert!(report.ok > 0 && report.failed == 0, "{report:?}");
    gateway.assert_no_errors();
    gateway.stop();
}
