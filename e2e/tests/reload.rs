//! New configurations in a running gateway: by file, by signal, by API; refused ones; and all of it under load.

use gateward_e2e::{Metrics, curl, has_tool, one_route};
use gateward_testkit::{Backend, Gateway, eventually, http, load::Load, pause};
use std::fmt::Write;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers every request itself with this text.
fn saying(text: &str) -> String {
    format!(
        "_format_version: '3.0'\n\
         routes:\n- {{name: all, paths: [/]}}\n\
         plugins:\n- {{name: request-termination, config: {{status_code: 200, body: {text}, content_type: text/plain}}}}\n"
    )
}

fn says(gateway: &Gateway) -> String {
    http(gateway.proxy(), "GET /", &[], b"").text()
}

#[track_caller]
fn post_config(gateway: &Gateway, query: &str, config: &str) -> gateward_testkit::RawResponse {
    let body = serde_json::json!({ "config": config }).to_string();
    http(gateway.admin(), &format!("POST /config{query}"), &[("Content-Type", "application/json")], body.as_bytes())
}

fn hash(gateway: &Gateway) -> String {
    http(gateway.status(), "GET /status", &[], b"").json()["configuration_hash"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_changed_file_is_served() {
    let gateway = Gateway::start(&saying("one"));
    assert_eq!(says(&gateway), "one");
    let first = hash(&gateway);
    // In one step, and in place as an editor does.
    gateway.write_config(&saying("two"));
    eventually(PATIENCE, || says(&gateway) == "two");
    std::fs::write(gateway.config_path(), saying("three")).expect("the file can be written");
    eventually(PATIENCE, || says(&gateway) == "three");
    // Through a symbolic link, as Kubernetes mounts files.
    assert_ne!(hash(&gateway), first);
    let metrics = Metrics::scrape(&gateway);
    assert!(metrics.sum("gateward_config_reloads_total", &["result=\"ok\""]) >= 2.0, "{}", metrics.text());
    assert_eq!(metrics.sum("gateward_config_last_reload_success", &[]), 1.0);
    gateway.stop();
}

#[test]
fn a_file_behind_symbolic_links_is_followed() {
    let dir = std::env::temp_dir().join(format!("gateward-links-{}", std::process::id()));
    for version in ["v1", "v2"] {
        std::fs::create_dir_all(dir.join(version)).expect("directories can be made");
        std::fs::write(dir.join(version).join("kong.yml"), saying(version)).expect("files can be written");
    }
    let relink = |version: &str| {
        // As the kubelet does: a new link, renamed over the old one.
        std::os::unix::fs::symlink(version, dir.join("..data_tmp")).expect("links can be made");
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).expect("links can be renamed");
    };
    relink("v1");
    let gateway = Gateway::builder("").config_file(dir.join("..data").join("kong.yml")).start();
    assert_eq!(says(&gateway), "v1");
    relink("v2");
    eventually(PATIENCE, || says(&gateway) == "v2");
    gateway.stop();
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}

#[test]
fn sighup_reads_the_file_again() {
    let gateway = Gateway::start(&saying("one"));
    gateway.write_config(&saying("two"));
    gateway.sighup();
    eventually(PATIENCE, || says(&gateway) == "two");
    // An unchanged file is no news.
    gateway.sighup();
    pause(Duration::from_millis(200));
    assert_eq!(says(&gateway), "two");
    gateway.stop();
}

#[test]
fn post_config_replaces_the_configuration() {
    let gateway = Gateway::start(&saying("one"));
    let posted = post_config(&gateway, "", &saying("two"));
    assert_eq!(posted.status, 201, "{}", posted.text());
    assert_eq!(says(&gateway), "two", "the answer comes when the configuration is served");
    assert!(posted.json().get("routes").is_some(), "Kong answers with the entities: {}", posted.text());

    let same = post_config(&gateway, "?check_hash=1", &saying("two"));
    assert_eq!(same.status, 304, "{}", same.text());
    let other = post_config(&gateway, "?check_hash=1", &saying("three"));
    assert_eq!(other.status, 201);
    assert_eq!(says(&gateway), "three");

    // JSON entities in the body itself, and a form.
    let plain = r#"{"_format_version":"3.0","routes":[{"name":"all","paths":["/"]}],"plugins":[{"name":"request-termination","config":{"status_code":200,"body":"json","content_type":"text/plain"}}]}"#;
    let json = http(gateway.admin(), "POST /config", &[("Content-Type", "application/json")], plain.as_bytes());
    assert_eq!((json.status, says(&gateway).as_str()), (201, "json"), "{}", json.text());
    if has_tool("curl") {
        let file = gateway.dir().join("form.yml");
        std::fs::write(&file, saying("form")).expect("files can be written");
        let url = format!("http://{}/config", gateway.admin());
        for (flag, argument) in
            [("--data-urlencode", format!("config@{}", file.display())), ("-F", format!("config=@{}", file.display()))]
        {
            assert_eq!(post_config(&gateway, "", &saying("between")).status, 201);
            let output = curl(&["-o", "/dev/null", "-w", "%{http_code}", flag, &argument, &url]);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "201", "{flag}: {output:?}");
            assert_eq!(says(&gateway), "form", "{flag}");
        }
    }
    gateway.stop();
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let mut gateway = Gateway::start(&saying("good"));
    gateway.expect_error("");
    let before = hash(&gateway);
    let bad = "_format_version: '3.0'\nservices:\n- {name: s, hots: a}\n- {name: t, url: 'http://b', retries: many}\n";
    gateway.write_config(bad);
    eventually(PATIENCE, || {
        Metrics::scrape(&gateway).sum("gateward_config_reloads_total", &["result=\"failed\""]) >= 1.0
    });
    assert_eq!((says(&gateway).as_str(), hash(&gateway)), ("good", before));
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_config_last_reload_success", &[]), 0.0);
    let status = http(gateway.status(), "GET /status", &[], b"").text();
    for text in ["hots", "retries"] {
        assert!(status.contains(text), "/status tells of {text}: {status}");
    }
    // The log arrives through a pipe of its own, maybe after the answers above; it names the line too.
    eventually(PATIENCE, || {
        let log = gateway.log().join("\n");
        ["hots", "retries", ":3:"].iter().all(|text| log.contains(text))
    });
    assert_eq!(http(gateway.status(), "GET /status/ready", &[], b"").status, 200, "it still serves, so it is ready");

    let posted = post_config(&gateway, "", bad);
    assert_eq!(posted.status, 400);
    assert!(posted.text().contains("hots") && posted.text().contains("retries"), "{}", posted.text());
    for garbage in ["", "\0", "{", "a: [", "_format_version: '9.9'", "- x", "null"] {
        assert_eq!(post_config(&gateway, "", garbage).status, 400, "{garbage:?}");
    }
    assert_eq!(says(&gateway), "good");

    gateway.write_config(&saying("better"));
    eventually(PATIENCE, || says(&gateway) == "better");
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_config_last_reload_success", &[]), 1.0);
    gateway.stop();
}

#[test]
fn without_a_good_configuration_it_does_not_start() {
    for bad in
        ["", "_format_version: '3.0'\nservices: 1\n", "_format_version: '3.0'\nservices:\n- {name: s, hots: a}\n"]
    {
        let error = Gateway::builder(bad).try_start().expect_err("it must not start").to_string();
        assert!(error.contains("it ended with exit status: 1"), "{error}");
    }
    let error = Gateway::builder("").config_file("/nonexistent/kong.yml").try_start().expect_err("it must not start");
    assert!(error.to_string().contains("/nonexistent/kong.yml"), "{error}");
}

#[test]
fn requests_under_way_end_as_they_began() {
    let backend = Backend::scripted(|_, stream| {
        pause(Duration::from_millis(600));
        // When the gateway has closed, reading the next request finds out.
        let _ = std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold");
        gateward_testkit::Next::KeepAlive
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let proxy = gateway.proxy();
    let under_way = std::thread::spawn(move || http(proxy, "GET /", &[], b"").text());
    eventually(PATIENCE, || backend.request_count() == 1);
    assert_eq!(post_config(&gateway, "", &saying("new")).status, 201);
    assert_eq!(says(&gateway), "new");
    assert_eq!(under_way.join().expect("the request was answered"), "old");
    gateway.stop();
}

/// 500 routes, and one that the load uses; `generation` makes every version differ.
fn many_routes(url: &str, generation: usize) -> String {
    let mut config = one_route(url);
    for index in 0..500 {
        // Writing to a String cannot fail.
        let _ = writeln!(config, "  - {{name: r{index}, paths: [/r{index}/g{generation}], strip_path: true}}");
    }
    config + "plugins:\n- {name: correlation-id, config: {header_name: X-Id, generator: uuid}}\n"
}

/// Configurations that are each waited for.
const ROUNDS: usize = 12;
/// For compiling one in a debug build, under load, on a machine that has other work too.
const A_RELOAD: Duration = Duration::from_secs(30);

#[test]
fn load_reload() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    // Connections end only when something goes wrong.
    let gateway = Gateway::builder(&many_routes(&backend.url(), 0))
        .arg("--keepalive-requests=0")
        .arg("--allow-debug-header=on")
        .start();
    let load = Load::get(gateway.proxy(), "/load").connections(8).start();
    for round in 1..=ROUNDS {
        // Several at once, of which some may never be served; the last one is.
        for burst in 1..=round % 4 + 1 {
            gateway.write_config(&many_routes(&backend.url(), 10 * round + burst));
            gateway.sighup();
        }
        let last = 10 * round + round % 4 + 1;
        eventually(A_RELOAD, || {
            let answer = http(gateway.proxy(), &format!("GET /r7/g{last}"), &[("Kong-Debug", "1")], b"");
            answer.status == 200 && answer.header("Kong-Route-Name") == Some("r7")
        });
    }
    let reloads = || Metrics::scrape(&gateway).sum("gateward_config_reloads_total", &["result=\"ok\""]);
    eventually(PATIENCE, || reloads() >= ROUNDS as f64);
    let reloads = reloads();
    let report = load.stop();
    println!("{} requests, longest {:?}, {reloads} configurations", report.ok, report.latencies.max());
    report.assert_all_ok();
    assert_eq!(report.connects, 8, "no connection was lost");
    gateway.stop();
}
