//! Wasm filters in a running gateway: the ones of `examples/plugins`, compiled here, and hostile ones written as text.

use gateward_e2e::filters::{Folder, config, get, module, on_request};
use gateward_e2e::{echoed_header, echoed_target};
use gateward_testkit::{Backend, Gateway, Next, TempDir, eventually, gateward_command, http};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_rust_filter_reads_writes_and_answers() {
    let (folder, backend) = (Folder::with_examples(), Backend::echo());
    let gateway = folder.gateway(&config(&backend, "{name: header_filter, config: yes}")).start();
    let response = get(&gateway, "/a?b=c", &[("User-Agent", "CURL")]);
    assert_eq!((response.status, response.header("x-filtered")), (200, Some("yes")));
    assert_eq!(echoed_header(&response, "x-asked-path").as_deref(), Some("/a?b=c"));
    assert_eq!(echoed_header(&response, "x-agent").as_deref(), Some("curl"));
    let response = get(&gateway, "/forbidden", &[]);
    assert_eq!(
        (response.status, response.header("x-reason"), response.text().as_str()),
        (403, Some("path"), "not here\n")
    );
    assert_eq!(response.header("x-filtered"), Some("yes"), "its own response passes it too");
    let response = get(&gateway, "/plain/a", &[]);
    assert_eq!((response.status, response.header("x-filtered")), (200, None));
    assert_eq!(echoed_header(&response, "x-asked-path"), None);
    let filters = http(gateway.admin(), "GET /plugins/filters", &[], b"").json();
    let header_filter = &filters["data"][1];
    assert_eq!((header_filter["name"].as_str(), header_filter["abi"].as_str()), (Some("header_filter"), Some("0.2.1")));
    assert_eq!(header_filter["configured"][0]["hash"], header_filter["hash"]);
    let built_with = header_filter["built_with"].to_string();
    assert!(built_with.contains("Rust") && built_with.contains("rustc 1."), "{built_with}");
    let chain = http(gateway.admin(), "GET /filter-chains/chain", &[], b"").json();
    let runtime = &chain["filters"][0]["runtime"];
    assert_eq!((&runtime["kind"], &runtime["hash"]), (&"proxy-wasm".into(), &header_filter["hash"]), "{chain}");
    assert_eq!(header_filter["configured"][0]["streams"], 0);
    let metrics = http(gateway.status(), "GET /metrics", &[], b"").text();
    let calls = "gateward_wasm_calls_total{filter=\"header_filter\",phase=\"request_headers\"} 2";
    assert!(metrics.contains(calls), "{metrics}");
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_filter_can_be_a_plugin_of_a_service() {
    let (folder, backend) = (Folder::with_examples(), Backend::echo());
    folder.meta("header_filter", "\"version\": \"1.2.3\"");
    let config = format!(
        "_format_version: '3.0'\nservices:\n- name: s\n  url: {}\n  routes: [{{name: r, paths: [/]}}]\n  \
         plugins:\n  - {{name: header_filter, config: plugin}}\n  - {{name: correlation-id}}\n",
        backend.url()
    );
    let gateway = folder.gateway(&config).start();
    let response = get(&gateway, "/", &[]);
    assert_eq!((response.status, response.header("x-filtered")), (200, Some("plugin")));
    assert!(echoed_header(&response, "kong-request-id").is_some());
    let plugins = http(gateway.admin(), "GET /plugins", &[], b"").json();
    let runtime = &plugins["data"][0]["runtime"];
    assert_eq!(
        (runtime["kind"].as_str(), runtime["version"].as_str()),
        (Some("proxy-wasm"), Some("1.2.3")),
        "{plugins}"
    );
    assert_eq!(runtime["hash"].as_str().map(str::len), Some(64), "{plugins}");
    assert!(runtime["workers"].as_array().is_some_and(|workers| workers.contains(&"running".into())), "{plugins}");
    assert_eq!(plugins["data"][1].get("runtime"), None, "what is part of the gateway has none: {plugins}");
    gateway.stop();
}

#[test]
fn a_filter_asks_a_service_before_a_request_goes_on() {
    let (folder, backend) = (Folder::with_examples(), Backend::echo());
    let check = Backend::scripted(|request, stream| {
        let good = request.header("authorization") == Some("good") && request.target == "/check";
        let answer = if good {
            "HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n"
        } else {
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        };
        // When the peer is gone, reading the next request finds out.
        let _ = stream.write_all(answer.as_bytes());
        Next::KeepAlive
    });
    let text = config(&backend, "{name: callout_filter, config: check}, {name: header_filter, config: after}");
    let text = text.replace("services:\n", &format!("services:\n- {{name: check, url: '{}'}}\n", check.url()));
    let gateway = folder.gateway(&text).start();
    let response = get(&gateway, "/a", &[("Authorization", "good")]);
    assert_eq!((response.status, response.header("x-filtered")), (200, Some("after")));
    assert_eq!(echoed_header(&response, "x-user").as_deref(), Some("ann"));
    assert_eq!(check.requests()[0].header("host"), Some("check"));
    let response = get(&gateway, "/a", &[("Authorization", "bad")]);
    assert_eq!((response.status, response.text().as_str()), (401, "who are you?\n"));
    drop(check);
    assert_eq!(get(&gateway, "/a", &[("Authorization", "good")]).status, 401, "no answer is none");
    assert_eq!(backend.request_count(), 1);
    gateway.stop();
}

#[test]
fn bodies_pass_through_filters() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    // Each body gets a digit at its end.
    folder.put(
        "bodies",
        &module(
            "(func (export \"proxy_on_request_body\") (param i32 i32 i32) (result i32)
                (drop (call $write (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 9) (i32.const 1))) (i32.const 0))
            (func (export \"proxy_on_response_body\") (param i32 i32 i32) (result i32)
                (if (local.get 2) (then
                    (drop (call $write (i32.const 1) (i32.const 0) (local.get 1) (i32.const 10) (i32.const 3)))
                    (return (i32.const 0))))
                ;; Held until the end, so that all of it is replaced.
                (i32.const 1))",
        ),
    );
    let gateway = folder.gateway(&config(&backend, "{name: bodies}")).start();
    let response = http(gateway.proxy(), "POST /", &[], b"sent");
    assert_eq!((response.status, response.text().as_str()), (200, "234"));
    assert_eq!(backend.requests()[0].body, b"sent1");
    gateway.stop();
}

#[test]
fn what_is_not_there_or_does_not_start_stops_the_configuration() {
    let (folder, backend) = (Folder::with_examples(), Backend::echo());
    std::fs::write(folder.file("broken", "wasm"), b"\0asm nonsense").expect("filters can be written");
    let good = config(&backend, "{name: header_filter, config: yes}");
    let mut gateway = folder.gateway(&good).start();
    for (filters, expected) in [
        ("{name: unheard_of}", "there is no plugin 'unheard_of'"),
        ("{name: broken}", "not a valid Wasm module"),
        ("{name: header_filter, config: ''}", "proxy_on_configure refused the configuration"),
    ] {
        gateway.write_config(&config(&backend, filters));
        gateway.expect_error(expected);
        let refused = || gateway.log().iter().any(|line| line.contains("filter_chains[0]") && line.contains(expected));
        eventually(PATIENCE, refused);
        assert_eq!(get(&gateway, "/", &[]).header("x-filtered"), Some("yes"), "what was served still is");
    }
    gateway.write_config(&good.replace("config: yes", "config: new"));
    eventually(PATIENCE, || get(&gateway, "/", &[]).header("x-filtered") == Some("new"));
    gateway.stop();
}

#[test]
fn without_filters_switched_on_a_chain_is_refused() {
    let backend = Backend::echo();
    let error = Gateway::builder(&config(&backend, "{name: any}")).try_start().expect_err("it starts");
    assert!(format!("{error:#}").contains("Wasm filters, with --wasm on"), "{error:#}");
}

#[test]
fn a_filter_that_failed_is_started_again() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    // Fails on requests with a body to come.
    folder.put("sometimes", &on_request("(if (i32.eqz (local.get 2)) (then unreachable)) (i32.const 0)"));
    let mut gateway = folder.gateway(&config(&backend, "{name: sometimes}")).workers(1).start();
    gateway.expect_error("a Wasm filter failed");
    for _ in 0..3 {
        assert_eq!(http(gateway.proxy(), "POST /", &[], b"x").status, 503);
        eventually(PATIENCE, || get(&gateway, "/", &[]).status == 200);
    }
    gateway.stop();
}

#[test]
fn the_path_a_filter_sets_is_the_one_that_is_asked() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    let set = "(data (i32.const 200) \":path/new?x=1\")
        (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32)
            (drop (call $set (i32.const 0) (i32.const 200) (i32.const 5) (i32.const 205) (i32.const 8))) (i32.const 0))";
    folder.put("path", &module(set));
    let gateway = folder.gateway(&config(&backend, "{name: path}")).start();
    assert_eq!(echoed_target(&get(&gateway, "/old", &[])), "/new?x=1");
    gateway.stop();
}

fn plugin(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = gateward_command().arg("plugin").args(arguments).current_dir(folder).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn from_an_empty_folder_to_a_filter_that_was_tried() {
    let folder = TempDir::new().expect("a folder can be made");
    let (made, text) = plugin(folder.path(), &["new", "my-filter"]);
    assert!(made, "{text}");
    assert!(!plugin(folder.path(), &["new", "my-filter"]).0, "what is there is not written over");
    assert!(!plugin(folder.path(), &["new", "My/Filter"]).0);
    let (passed, text) = plugin(folder.path(), &["test", "my-filter"]);
    assert!(passed && text.contains("3 passed, 0 failed"), "{text}");
    let cases = folder.path().join("my-filter/tests/cases.json");
    let wrong = std::fs::read_to_string(&cases).expect("it was made").replace("\"curl\"", "\"wget\"");
    std::fs::write(&cases, wrong).expect("it can be written");
    let (passed, text) = plugin(folder.path(), &["test", "my-filter"]);
    assert!(!passed && text.contains("request header x-agent: \"curl\", not \"wget\""), "{text}");
    let (built, text) = plugin(folder.path(), &["build", "my-filter"]);
    let module = text.lines().find(|line| line.ends_with(".wasm")).expect("it names the module");
    assert!(built, "{text}");
    let (right, text) = plugin(folder.path(), &["check", module, "--config", "text"]);
    assert!(right && text.contains("ABI 0.2.1") && text.contains("it starts"), "{text}");
    let (right, text) = plugin(folder.path(), &["check", module, "--config", ""]);
    assert!(!right && text.contains("proxy_on_configure refused"), "{text}");
}

#[test]
fn the_cases_of_the_example_that_asks_a_service_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in the workspace");
    let (passed, text) = plugin(root, &["test", "examples/plugins/callout-filter"]);
    assert!(passed && text.contains("3 passed, 0 failed"), "{text}");
}
