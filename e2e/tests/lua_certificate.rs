//! The certificate phase of Kong's Lua plugins: during a real handshake of openssl with the gateway.

use gateward_e2e::{Authority, Metrics};
use gateward_testkit::{Backend, Gateway, TempDir, eventually};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Refuses, asks for certificates or forbids resumption by server name, after it waited for a moment.
const HANDLER: &str = r#"
local P = { PRIORITY = 5, VERSION = "1.0" }
function P:certificate(conf)
  ngx.sleep(0.01)
  local name = require("ngx.ssl").server_name()
  if name == "refused.test" then return ngx.exit(ngx.ERROR) end
  if name == "broken.test" then error("as asked") end
  if name == "asked.test" then assert(kong.client.tls.request_client_certificate()) end
  if name == "once.test" then assert(kong.client.tls.disable_session_reuse()) end
end
function P:access(conf)
  local chain = kong.client.tls.get_full_client_certificate_chain()
  local count = select(2, (chain or ""):gsub("BEGIN CERTIFICATE", ""))
  kong.response.set_header("X-Client", count .. " " .. ngx.var.ssl_client_verify .. " " .. (ngx.var.ssl_client_s_dn or "-"))
  if chain then kong.client.tls.set_client_verify("SUCCESS") end
end
function P:log(conf)
  local tls = kong.log.serialize().request.tls
  kong.log.notice("verified: ", tls.client_verify, " ", ngx.var.ssl_client_verify)
end
return P
"#;

/// What `openssl s_client` printed about a request to `name`, and how it ended.
fn request(addr: SocketAddr, name: &str, more: &[&str]) -> (bool, String) {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof", "-servername", name, "-connect", &addr.to_string()])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let _ = std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), request.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn start(folder: &TempDir, scope: &str) -> Gateway {
    let plugin = folder.path().join("kong/plugins/hello");
    std::fs::create_dir_all(&plugin).expect("folders can be made");
    std::fs::write(plugin.join("handler.lua"), HANDLER).expect("files can be written");
    let backend = Backend::echo();
    let config = format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, url: {}, routes: [{{name: r, paths: [/]}}]}}\nplugins:\n- {{name: hello{scope}}}\n",
        backend.url()
    );
    let gateway = Gateway::builder(&config)
        .proxy_listen("127.0.0.1:0 ssl http2")
        .arg(format!("--plugins-dir={}", folder.path().display()))
        .start();
    // It answers as long as the test runs.
    std::mem::forget(backend);
    gateway
}

fn pair(folder: &Path) -> [String; 4] {
    Authority::new().issue("client.test").write(folder, "client");
    let shown = folder.display();
    ["-cert".into(), format!("{shown}/client.crt"), "-key".into(), format!("{shown}/client.key")]
}

fn refused(gateway: &Gateway) -> f64 {
    Metrics::scrape(gateway).sum("gateward_refusals_total", &["reason=\"tls_refused_by_plugin\""])
}

#[test]
fn a_plugin_has_its_say_in_handshakes() {
    let folder = TempDir::new().expect("a folder can be made");
    let mut gateway = start(&folder, "");
    gateway.expect_error("a Lua plugin failed");
    let addr = gateway.proxy();
    let identity = pair(folder.path());
    let identity: Vec<&str> = identity.iter().map(String::as_str).collect();

    // Nobody is asked for a certificate unless the plugin says so.
    let (_, text) = request(addr, "plain.test", &identity);
    assert!(text.contains("X-Client: 0 NONE -") || text.contains("x-client: 0 NONE -"), "{text}");
    for version in ["-tls1_2", "-tls1_3"] {
        let (_, text) = request(addr, "asked.test", &[&[version], &identity[..]].concat());
        // Its subject is none that anybody vouches for, so it is shown only to who looks at the certificate.
        assert!(text.to_ascii_lowercase().contains("x-client: 1 failed:not verified "), "{text}");
        let (_, text) = request(addr, "asked.test", &[version]);
        assert!(text.to_ascii_lowercase().contains("x-client: 0 none -"), "without one it goes on: {text}");
    }
    eventually(PATIENCE, || gateway.log().iter().any(|line| line.contains("verified: SUCCESS SUCCESS")));
    eventually(PATIENCE, || gateway.log().iter().any(|line| line.contains("verified: NONE NONE")));

    for (name, count) in [("refused.test", 1.0), ("broken.test", 2.0)] {
        let (fine, text) = request(addr, name, &[]);
        assert!(!fine && text.contains("alert internal error"), "{name}: {text}");
        eventually(PATIENCE, || refused(&gateway) >= count);
    }
    gateway.stop();
}

#[test]
fn sessions_are_resumed_unless_a_plugin_forbids_it() {
    let folder = TempDir::new().expect("a folder can be made");
    let gateway = start(&folder, "");
    let addr = gateway.proxy();
    let kept = folder.path().join("session");
    let file = kept.display().to_string();
    for (name, resumed) in [("plain.test", true), ("once.test", false), ("asked.test", false)] {
        let _ = std::fs::remove_file(&kept);
        let (_, text) = request(addr, name, &["-tls1_2", "-sess_out", &file]);
        assert!(text.to_ascii_lowercase().contains("x-client: "), "{text}");
        let more = ["-tls1_2", "-sess_in", &file];
        let (_, text) = request(addr, name, if kept.exists() { &more } else { &more[..1] });
        assert_eq!(text.contains("Reused, TLSv1.2"), resumed, "{name}: {text}");
    }
    gateway.stop();
}

#[test]
fn only_global_plugins_are_asked() {
    let folder = TempDir::new().expect("a folder can be made");
    let gateway = start(&folder, ", route: r");
    let (_, text) = request(gateway.proxy(), "refused.test", &[]);
    assert!(text.to_ascii_lowercase().contains("x-client: 0 none -"), "{text}");
    assert!(refused(&gateway) < 1.0);
    gateway.stop();
}
