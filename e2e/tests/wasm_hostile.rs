//! Hostile filters: each costs the requests of its own route, which end as its failure policy says, and nobody else's.

use gateward_e2e::filters::{Folder, config, get, module, on_request};
use gateward_testkit::load::Load;
use gateward_testkit::{Backend, Gateway, RawClient, RawResponse, eventually, http};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Failures in a request: a name, what the filter does, and the kind of failure.
const FAILING: [(&str, &str, &str); 4] = [
    ("loop", "(loop $forever (br $forever)) unreachable", "timeout"),
    ("memory", "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable", "memory"),
    ("stack", "(call $deep (i32.const 0)) unreachable", "stack"),
    ("trap", "unreachable", "trap"),
];

/// What a filter does a thousand times in a request before it lets it go on, and what becomes of the request.
const STORMS: [(&str, &str, u16); 3] = [
    // Fields of 8 bytes: what is over the limit is refused.
    ("flood", "(drop (call $add (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 8) (i32.const 8)))", 200),
    // Response after response: one is sent.
    (
        "respond",
        "(drop (call $respond (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const -1)))",
        418,
    ),
    // Callouts to the service, with headers that ask for `/plain`.
    (
        "callouts",
        "(drop (call $call (i32.const 300) (i32.const 7) (i32.const 320) (i32.const 66) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 16)))",
        200,
    ),
];

/// A filter that does this over and over in `proxy_on_request_headers`.
fn storm(once: &str) -> String {
    let pairs = [(":method", "GET"), (":path", "/plain"), (":authority", "a")];
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in pairs {
        bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    assert_eq!(bytes.len(), 66, "the length that the callouts give");
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = on_request(&format!(
        "(local $left i32) (local.set $left (i32.const 1000))
        (loop $again {once}
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $again (local.get $left)))
        (i32.const 0)"
    ));
    let imports = "(module
        (import \"env\" \"proxy_add_header_map_value\" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import \"env\" \"proxy_send_local_response\"
            (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import \"env\" \"proxy_http_call\"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))";
    let data = format!("(data (i32.const 300) \"backend\") (data (i32.const 320) \"{data}\")");
    text.replacen("(module", imports, 1).replacen(
        "(memory (export \"memory\") 2)",
        &format!("(memory (export \"memory\") 2) {data}"),
        1,
    )
}

fn start(folder: &Folder, backend: &Backend, name: &str, policy: &str) -> Gateway {
    folder.meta(name, &format!("\"failure_policy\": \"{policy}\""));
    folder.gateway(&config(backend, &format!("{{name: {name}}}"))).workers(1).start()
}

/// What a request ends with whose filter failed.
fn failed(policy: &str) -> u16 {
    if policy == "fail_open" { 200 } else { 503 }
}

#[test]
fn a_request_whose_filter_fails_ends_as_the_policy_says() {
    for (name, body, kind) in FAILING {
        for policy in ["fail_closed", "fail_open"] {
            let (folder, backend) = (Folder::new(), Backend::echo());
            folder.put(name, &on_request(body));
            let mut gateway = start(&folder, &backend, name, policy);
            gateway.expect_error("a Wasm filter failed");
            for _ in 0..5 {
                assert_eq!(get(&gateway, "/", &[]).status, failed(policy), "{name} {policy}");
                assert_eq!(get(&gateway, "/plain", &[]).status, 200, "{name} {policy}");
            }
            let metrics = http(gateway.status(), "GET /metrics", &[], b"").text();
            let labels = format!("filter=\"{name}\",phase=\"request_headers\"");
            let none = format!("gateward_wasm_failures_total{{{labels},kind=\"{kind}\"}} 0\n");
            assert!(metrics.contains(&none[..none.len() - 2]) && !metrics.contains(&none), "{name}: {metrics}");
            let timed = format!("gateward_wasm_timed_seconds_bucket{{{labels},le=\"+Inf\"}} ");
            assert!(metrics.contains(&timed), "{name}: {metrics}");
            gateway.stop();
        }
    }
}

/// Callbacks with their parameters and results, and what a request ends with when they trap, under `fail_closed` (`None`:
/// its response is broken off, or 503 if nothing of it was sent).
const CALLBACKS: [(&str, &str, Option<u16>); 8] = [
    ("proxy_on_context_create", "(param i32 i32)", Some(503)),
    ("proxy_on_request_headers", "(param i32 i32 i32) (result i32)", Some(503)),
    ("proxy_on_request_body", "(param i32 i32 i32) (result i32)", Some(503)),
    ("proxy_on_response_headers", "(param i32 i32 i32) (result i32)", Some(503)),
    ("proxy_on_response_body", "(param i32 i32 i32) (result i32)", None),
    ("proxy_on_done", "(param i32) (result i32)", Some(200)),
    ("proxy_on_log", "(param i32)", Some(200)),
    ("proxy_on_delete", "(param i32)", Some(200)),
];

/// A POST whose response may be broken off: then there is no status.
fn post(gateway: &Gateway) -> Option<RawResponse> {
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    client.try_read_response("POST").ok()
}

#[test]
fn a_trap_in_any_callback_ends_the_request_and_no_other() {
    for (callback, form, closed) in CALLBACKS {
        // Contexts of the instance itself, which the module's check starts too, have the number 1.
        let result = if form.contains("result") { "(i32.const 0)" } else { "" };
        let body = format!("(if (i32.gt_u (local.get 0) (i32.const 1)) (then unreachable)) {result}");
        for policy in ["fail_closed", "fail_open"] {
            let (folder, backend) = (Folder::new(), Backend::echo());
            folder.put("trap", &module(&format!("(func (export \"{callback}\") {form} {body})")));
            let mut gateway = start(&folder, &backend, "trap", policy);
            gateway.expect_error("a Wasm filter failed");
            let status = post(&gateway).map(|response| response.status);
            let expected = if policy == "fail_open" { Some(200) } else { closed };
            let as_expected = status == expected || (expected.is_none() && status == Some(503));
            assert!(as_expected, "{callback} {policy}: {status:?}");
            assert_eq!(get(&gateway, "/plain", &[]).status, 200, "{callback} {policy}");
            // There is no instance now, or already one that fails likewise.
            let status = post(&gateway).map(|response| response.status);
            assert!([Some(failed(policy)), expected].contains(&status), "{callback} {policy}: {status:?}");
            gateway.stop();
        }
    }
}

#[test]
fn a_trap_in_a_timer_costs_no_request_its_answer() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    let ticking = module(
        "(func (export \"proxy_on_configure\") (param i32 i32) (result i32)
            (drop (call $tick (i32.const 300))) (i32.const 1))
        (func (export \"proxy_on_tick\") (param i32) unreachable)",
    );
    let import =
        "(module (import \"env\" \"proxy_set_tick_period_milliseconds\" (func $tick (param i32) (result i32)))";
    folder.put("tick", &ticking.replacen("(module", import, 1));
    let mut gateway = start(&folder, &backend, "tick", "fail_closed");
    gateway.expect_error("a Wasm filter failed");
    assert_eq!(get(&gateway, "/", &[]).status, 200, "the timer was not due yet");
    eventually(PATIENCE, || get(&gateway, "/", &[]).status == 503);
    assert_eq!(get(&gateway, "/plain", &[]).status, 200);
    eventually(PATIENCE, || get(&gateway, "/", &[]).status == 200);
    gateway.stop();
}

/// Passes its check, and panics when a worker starts it: the first start leaves a mark in the shared data.
#[test]
fn a_panic_at_the_start_costs_its_own_requests_only() {
    for policy in ["fail_closed", "fail_open"] {
        let (folder, backend) = (Folder::new(), Backend::echo());
        let start_once = module(
            "(func (export \"proxy_on_vm_start\") (param i32 i32) (result i32)
                (if (i32.eqz (call $get (i32.const 0) (i32.const 4) (i32.const 64) (i32.const 68) (i32.const 72)))
                    (then unreachable))
                (drop (call $mark (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 4) (i32.const 0)))
                (i32.const 1))",
        );
        let imports = "(module
            (import \"env\" \"proxy_get_shared_data\" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import \"env\" \"proxy_set_shared_data\" (func $mark (param i32 i32 i32 i32 i32) (result i32)))";
        folder.put("start", &start_once.replacen("(module", imports, 1));
        let mut gateway = start(&folder, &backend, "start", policy);
        gateway.expect_error("a Wasm filter does not start");
        for _ in 0..5 {
            assert_eq!(get(&gateway, "/", &[]).status, failed(policy), "{policy}");
            assert_eq!(get(&gateway, "/plain", &[]).status, 200, "{policy}");
        }
        gateway.stop();
    }
}

#[test]
fn storms_are_bounded_and_the_request_ends() {
    for (name, once, status) in STORMS {
        let (folder, backend) = (Folder::new(), Backend::echo());
        folder.put(name, &storm(once));
        let gateway = start(&folder, &backend, name, "fail_closed");
        for _ in 0..3 {
            assert_eq!(get(&gateway, "/", &[]).status, status, "{name}");
            assert_eq!(get(&gateway, "/plain", &[]).status, 200, "{name}");
        }
        if name == "callouts" {
            // Of a thousand in each request, a few are carried.
            let plain = || backend.requests().iter().filter(|request| request.target == "/plain").count();
            assert!(plain() <= 3 * 16, "{} callouts", plain());
        }
        gateway.assert_no_errors();
        gateway.stop();
    }
}

/// The time in which this share of the clean route's requests is answered, in the middle of some rounds.
fn quantile(gateway: &Gateway, share: f64, rounds: usize) -> Duration {
    let round = || {
        let load = Load::get(gateway.proxy(), "/plain").connections(2).interval(Duration::from_millis(2));
        let report = load.run(Duration::from_millis(400));
        assert_eq!(report.failed, 0, "{report:?}");
        report.latencies.quantile(share)
    };
    let mut times: Vec<Duration> = (0..rounds).map(|_| round()).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// On one worker, so that nobody else can serve the clean route. What is asserted is that the hostile filter does not hold
/// it up again and again; a callback may take 50 ms, and a round that such a one falls into is slow.
#[test]
fn load_a_hostile_filter_slows_nobody_else_down() {
    let failing = FAILING.map(|(name, body, _)| (name, on_request(body)));
    let storms = STORMS.map(|(name, once, _)| (name, storm(once)));
    for (name, wat) in failing.into_iter().chain(storms) {
        let (folder, backend) = (Folder::new(), Backend::echo());
        folder.put(name, &wat);
        let mut gateway = start(&folder, &backend, name, "fail_closed");
        if FAILING.iter().any(|(failing, ..)| *failing == name) {
            gateway.expect_error("a Wasm filter failed");
        }
        // Callouts that are carried are work for this machine's cores like any other, here sixteen at once.
        let share = if name == "callouts" { 0.9 } else { 0.99 };
        let alone = quantile(&gateway, share, 3);
        let hostile = Load::get(gateway.proxy(), "/").connections(1).interval(Duration::from_millis(50)).start();
        let beside = quantile(&gateway, share, 5);
        let report = hostile.stop();
        assert!(report.ok + report.failed > 10, "{name}: {report:?}");
        assert!(beside < alone * 4 + Duration::from_millis(30), "{name}: {alone:?} alone, {beside:?} beside it");
        gateway.stop();
    }
}
