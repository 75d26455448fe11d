//! The command line as people and scripts use it: `check`, a Kong container's environment, the quickstart.

use gateward_e2e::{await_room_in_the_minute, curl, has_tool};
use gateward_testkit::{Backend, Gateway, eventually, gateward_command, http, pause};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For a process to start and say something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file of this test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gateward-cli-{}-{name}", std::process::id()));
    std::fs::write(&path, text).expect("files can be written");
    path
}

#[track_caller]
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = gateward_command().args(args).output().expect("the binary runs");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn check_of_a_good_file() {
    let good = file("good.yml", "_format_version: '3.0'\nservices:\n- {name: a, url: 'http://b'}\n");
    let path = good.display().to_string();
    assert_eq!(run(&["check", &path]), (Some(0), format!("{path}: ok\n"), String::new()));
    let (code, stdout, _) = run(&["check", "--format", "json", &path]);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("it is JSON");
    assert_eq!((code, json["files"][0]["ok"].as_bool()), (Some(0), Some(true)), "{json}");
    std::fs::remove_file(good).expect("the file can be removed");
}

#[test]
fn check_tells_every_problem_with_its_place() {
    let bad = file(
        "bad.yml",
        "_format_version: '3.0'\nservices:\n- {name: a, hots: b}\n- name: c\n  url: http://d\n  retries: x\nplugins:\n- {name: key-aut}\n",
    );
    let path = bad.display().to_string();
    let (code, stdout, _) = run(&["check", &path]);
    assert_eq!(code, Some(1));
    for expected in [":3:", "services[0].hots", "did you mean", ":6:", "services[1].retries", ":8:", "key-aut"] {
        assert!(stdout.contains(expected), "{expected}: {stdout}");
    }
    for line in stdout.lines() {
        let mut parts = line.strip_prefix(&format!("{path}:")).unwrap_or_default().splitn(3, ':');
        let is_number = |part: Option<&str>| part.is_some_and(|text| text.parse::<u32>().is_ok());
        assert!(is_number(parts.next()) && is_number(parts.next()), "file:line:column: {line}");
    }
    let (code, stdout, _) = run(&["check", "--format=json", &path]);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("it is JSON");
    assert_eq!(code, Some(1));
    let diagnostics = json["files"][0]["diagnostics"].as_array().expect("a list");
    assert!(diagnostics.len() >= 3 && diagnostics.iter().all(|found| found["line"].is_u64()), "{json}");
    std::fs::remove_file(bad).expect("the file can be removed");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &["check"][..],
        &["check", "/nonexistent/file.yml"],
        &["nonsense"],
        &["gateway", "--workers=none"],
        &["gateway", "--nonsense"],
    ] {
        let (code, _, stderr) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(!stderr.is_empty(), "{args:?}");
    }
    let (code, stdout, _) = run(&["--help"]);
    assert!(code == Some(0) && stdout.contains("quickstart"), "{stdout}");
}

/// What people have in a compose file or Helm chart for Kong without a database.
#[test]
fn a_kong_containers_environment_works() {
    let backend = Backend::echo();
    let config = gateward_e2e::one_route(&backend.url());
    let path = file("kong.yml", &config);
    let mut command = gateward_command();
    command.arg("gateway").args(["--format", "json", "--workers", "1"]).envs([
        ("KONG_DATABASE", "off"),
        ("KONG_DECLARATIVE_CONFIG", path.to_str().expect("the path is text")),
        ("KONG_PROXY_LISTEN", "127.0.0.1:0 reuseport backlog=16384, 127.0.0.1:0 http2 ssl reuseport"),
        ("KONG_ADMIN_LISTEN", "off"),
        ("KONG_STATUS_LISTEN", "127.0.0.1:0"),
        ("KONG_TRUSTED_IPS", "127.0.0.1,10.0.0.0/8"),
        ("KONG_REAL_IP_HEADER", "X-Forwarded-For"),
        ("KONG_REAL_IP_RECURSIVE", "on"),
        ("KONG_CLIENT_MAX_BODY_SIZE", "1k"),
        ("KONG_UPSTREAM_KEEPALIVE_POOL_SIZE", "128"),
        ("KONG_UPSTREAM_KEEPALIVE_IDLE_TIMEOUT", "30"),
        ("KONG_PROXY_ACCESS_LOG", "/dev/stdout"),
        ("KONG_ADMIN_ACCESS_LOG", "/dev/stdout"),
        ("KONG_PROXY_ERROR_LOG", "/dev/stderr"),
        ("KONG_ADMIN_ERROR_LOG", "/dev/stderr"),
        ("KONG_LOG_LEVEL", "info"),
        ("KONG_DNS_ORDER", "LAST,A,CNAME"),
        ("KONG_PLUGINS", "request-transformer,cors,key-auth,acl,basic-auth,request-termination"),
        ("KONG_NGINX_PROXY_PROXY_BUFFER_SIZE", "160k"),
        ("KONG_NGINX_PROXY_PROXY_BUFFERS", "64 160k"),
        ("KONG_NGINX_DAEMON", "off"),
        ("KONG_PREFIX", "/usr/local/kong"),
        ("KONG_ROUTER_FLAVOR", "traditional_compatible"),
        ("GATEWARD_SHUTDOWN_GRACE", "0"),
    ]);
    let mut process = Process::spawn(command);
    let ready = process.wait_for("\"event\":\"ready\"");
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("the line is JSON");
    let proxy: std::net::SocketAddr =
        ready["proxy"][0].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let response = http(proxy, "GET /x", &[("X-Forwarded-For", "1.2.3.4, 10.0.0.9")], b"");
    assert_eq!(response.status, 200);
    assert_eq!(gateward_e2e::echoed_header(&response, "x-real-ip").as_deref(), Some("1.2.3.4"));
    assert_eq!(http(proxy, "POST /", &[], &[b'x'; 1025]).status, 413);
    process.wait_for("\"client_ip\":\"1.2.3.4\"");
    assert_eq!(process.end("TERM"), Some(0), "{}", process.output());
    std::fs::remove_file(path).expect("the file can be removed");
}

#[test]
fn flags_win_over_variables_and_ours_over_kongs() {
    let backend = Backend::echo();
    let config = gateward_e2e::one_route(&backend.url());
    for (flag, ours, expected) in [
        (None, None, "X-Kong-Request-Id"),
        (None, Some("X-Ours"), "X-Ours-Request-Id"),
        (Some("X-Flag"), Some("X-Ours"), "X-Flag-Request-Id"),
    ] {
        let mut builder = Gateway::builder(&config);
        if let Some(flag) = flag {
            builder = builder.arg(format!("--header-prefix={flag}"));
        }
        if let Some(ours) = ours {
            builder = builder.env("GATEWARD_HEADER_PREFIX", ours);
        }
        let gateway = builder.start();
        assert!(http(gateway.proxy(), "GET /", &[], b"").header(expected).is_some(), "{expected}");
        gateway.stop();
    }
    let gateway = Gateway::builder(&config)
        .env("KONG_CLIENT_MAX_BODY_SIZE", "1")
        .env("GATEWARD_CLIENT_MAX_BODY_SIZE", "10")
        .start();
    assert_eq!(http(gateway.proxy(), "POST /", &[], b"12345").status, 200);
    gateway.stop();
}

/// `gateward quickstart` and the lines it prints, run by the real curl.
#[test]
fn quickstart_does_what_it_says() {
    if !has_tool("curl") {
        return;
    }
    // The ports of the example's back ends are fixed: somebody's own quickstart may have them for a while.
    eventually(Duration::from_secs(30), || {
        [9101, 9102, 5300].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    });
    let mut command = gateward_command();
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args([
        "quickstart",
        "--proxy-listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--status-listen=127.0.0.1:0",
    ]);
    let mut process = Process::spawn(command);
    process.wait_for("a service there");
    let text = process.output();
    let proxy = text.lines().find_map(|line| line.trim().strip_prefix("proxy ")?.split_whitespace().next());
    let proxy = proxy.expect("the proxy's address is told");
    for expected in [&format!("{proxy}/open"), "apikey: demo-key", "/limited", "/metrics", "Ctrl-C", "dig @127.0.0.1"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let commands: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| ["curl ", "for ", "dig "].iter().any(|start| line.starts_with(start)))
        .collect();
    assert!(commands.len() >= 4, "{text}");
    let answers: Vec<String> = commands
        .iter()
        .map(|line| {
            // What follows a gap is the explanation.
            let line = line.split("    ").next().unwrap_or(line).split("   ").next().unwrap_or(line);
            if line.contains("/limited") {
                await_room_in_the_minute();
            }
            let output = Command::new("sh").args(["-c", line]).output().expect("a shell runs");
            assert!(output.status.success(), "{line}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
        .collect();
    let answer_to = |part: &str| {
        let index =
            commands.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("no line with {part}"));
        &answers[index]
    };
    assert!(answer_to("/open").starts_with("HTTP/1.1 200"), "{answers:?}");
    assert!(answer_to("/secure").starts_with("HTTP/1.1 401"), "{answers:?}");
    let authorized = answer_to("apikey");
    assert!(authorized.starts_with("HTTP/1.1 200") && authorized.contains("demo"), "{authorized}");
    assert_eq!(
        answer_to("/limited").split_whitespace().collect::<Vec<_>>(),
        ["200", "200", "200", "200", "200", "429"]
    );
    assert!(answer_to("dig @127.0.0.1 -p 5300 messaging.example NS").contains("ns1.messaging.example."), "{answers:?}");
    assert!(
        answer_to("us-east-1.prod.messaging.example NS").contains("NS\tns1.prod.messaging.example."),
        "{answers:?}"
    );
    assert_eq!(answer_to("+short"), "192.0.2.35\n192.0.2.36\n");
    assert!(answer_to("/metrics").contains("kong_http_requests_total{"), "{answers:?}");

    let head = curl(&["-I", &format!("{proxy}/open")]);
    assert!(String::from_utf8_lossy(&head.stdout).starts_with("HTTP/1.1 200"), "{head:?}");
    assert_eq!(process.end("INT"), Some(0), "{}", process.output());
}

/// A child process whose output is collected; killed when dropped.
struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Process {
    #[track_caller]
    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take(), &output);
        collect(child.stderr.take(), &output);
        Self { child, output }
    }

    fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first line of the output with this text.
    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        let began = Instant::now();
        loop {
            let output = self.output();
            if let Some(line) = output.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "no {text:?} in the output:\n{output}");
            pause(Duration::from_millis(5));
        }
    }

    /// Sends the signal and waits for the exit code.
    #[track_caller]
    fn end(&mut self, signal: &str) -> Option<i32> {
        let kill = format!("kill -{signal} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell runs");
        assert!(sent.success(), "the process has ended already:\n{}", self.output());
        let mut status = None;
        eventually(Duration::from_secs(20), || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(source: Option<impl Read + Send + 'static>, output: &Arc<Mutex<String>>) {
    let Some(source) = source else { return };
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(&line);
            output.push('\n');
        }
    });
}
