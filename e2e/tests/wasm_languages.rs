//! Filters written in C++, AssemblyScript and Go (`filters/`), compiled here and run in a gateway.

use gateward_e2e::echoed_header;
use gateward_e2e::filters::{Folder, Language, config, get};
use gateward_testkit::{Backend, eventually, http};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// `abi`: the version that the filter says it was built for.
fn runs(language: Language, abi: &str) {
    let (folder, backend, name) = (Folder::new(), Backend::echo(), language.name());
    folder.put_bytes(name, &language.compile());
    let good = config(&backend, &format!("{{name: {name}, config: yes}}"));
    let mut gateway = folder.gateway(&good).workers(1).start();
    for count in 1..=300 {
        let response = get(&gateway, "/a?b=c", &[("User-Agent", "CURL")]);
        let seen = (response.status, response.header("x-filtered"), response.header("x-count"));
        assert_eq!(seen, (200, Some("yes"), Some(count.to_string().as_str())), "{}", response.text());
        assert!(response.text().ends_with('!'), "{}", response.text());
        let echoed = |field| echoed_in(response.text().trim_end_matches('!'), field);
        assert_eq!(echoed("x-asked-path").as_deref(), Some("/a?b=c"));
        assert_eq!(echoed("x-agent").as_deref(), Some("curl"));
    }
    let response = get(&gateway, "/forbidden", &[]);
    assert_eq!((response.status, response.header("x-filtered")), (403, Some("yes")));
    assert!(response.text().starts_with("not here\n"), "{}", response.text());
    assert_eq!(echoed_header(&get(&gateway, "/plain", &[]), "x-asked-path"), None);
    let filters = http(gateway.admin(), "GET /plugins/filters", &[], b"").json();
    let (filter, state) = (&filters["data"][0], &filters["data"][0]["configured"][0]);
    assert_eq!((filter["abi"].as_str(), filter["error"].as_str()), (Some(abi), None), "{filters}");
    assert_eq!((&state["failures"], &state["instances"]), (&serde_json::json!({}), &1.into()), "{filters}");
    gateway.write_config(&good.replace("config: yes", "config: ''"));
    gateway.expect_error("proxy_on_configure refused the configuration");
    let refused = || gateway.log().iter().any(|line| line.contains("proxy_on_configure refused the configuration"));
    eventually(PATIENCE, refused);
    assert_eq!(get(&gateway, "/", &[]).header("x-filtered"), Some("yes"));
    gateway.stop();
}

/// The value of a request field in what the back end echoes.
fn echoed_in(text: &str, field: &str) -> Option<String> {
    let echoed: serde_json::Value = serde_json::from_str(text).expect("the back end echoes JSON");
    let fields = echoed["headers"].as_array().expect("headers are a list").iter();
    let mut named = fields.filter(|pair| pair[0].as_str().is_some_and(|name| name.eq_ignore_ascii_case(field)));
    named.next()?[1].as_str().map(str::to_owned)
}

#[test]
fn a_filter_in_cpp() {
    runs(Language::Cpp, "0.2.1");
}

#[test]
fn a_filter_in_assemblyscript() {
    runs(Language::AssemblyScript, "0.2.1");
}

#[test]
fn a_filter_in_assemblyscript_with_its_sdk() {
    runs(Language::AssemblyScriptSdk, "0.2.0");
}

#[test]
fn a_filter_in_go() {
    runs(Language::Go, "0.2.1");
}
