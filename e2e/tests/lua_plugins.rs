//! Kong's Lua plugins in a running gateway: found in a folder, in their place among native plugins, replaced, fenced.

use gateward_e2e::{Metrics, echoed_header};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, RawResponse, TempDir, eventually, gateward_command, http};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of plugins for one test.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(TempDir::new().expect("a folder can be made"));
        files.iter().for_each(|(path, text)| folder.write(path, text));
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("plugins")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("folders can be made");
        let draft = path.with_extension("draft");
        std::fs::write(&draft, text).expect("plugins can be written");
        std::fs::rename(draft, path).expect("plugins can be replaced");
    }

    fn gateway(&self, config: &str) -> GatewayBuilder {
        Gateway::builder(config).arg(format!("--plugins-dir={}", self.path().display()))
    }
}

fn config(backend: &Backend, plugins: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, url: {}, routes: [{{name: r, paths: [/]}}]}}\n\
         consumers:\n- {{username: alice, keyauth_credentials: [{{key: secret}}]}}\nplugins:\n{plugins}",
        backend.url()
    )
}

fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> RawResponse {
    http(gateway.proxy(), &format!("GET {target}"), headers, b"")
}

/// Says which consumer was known when it ran.
fn who(priority: i32) -> String {
    format!(
        "local P = {{ PRIORITY = {priority}, VERSION = '1.0.0' }}\n\
         function P:access(conf)\n\
           kong.service.request.set_header('X-Seen-{priority}', kong.request.get_header('X-Consumer-Username') or 'nobody')\n\
         end\nreturn P"
    )
}

#[test]
fn priorities_interleave_with_native_plugins() {
    let folder =
        Folder::new(&[("kong/plugins/early/handler.lua", &who(1251)), ("kong/plugins/late/handler.lua", &who(1249))]);
    let backend = Backend::echo();
    let config = config(&backend, "- {name: late}\n- {name: key-auth}\n- {name: early}\n");
    // Each worker times the first call that it makes.
    let gateway = folder.gateway(&config).workers(1).start();
    let response = get(&gateway, "/", &[("apikey", "secret")]);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(echoed_header(&response, "x-seen-1251").as_deref(), Some("nobody"));
    assert_eq!(echoed_header(&response, "x-seen-1249").as_deref(), Some("alice"));
    assert_eq!(get(&gateway, "/", &[]).status, 401);
    let plugins = http(gateway.admin(), "GET /plugins", &[], b"").json();
    let of = |name: &str| plugins["data"].as_array().and_then(|all| all.iter().find(|it| it["name"] == name)).cloned();
    let runtime = of("early").map(|entity| entity["runtime"].clone()).unwrap_or_default();
    assert_eq!((runtime["kind"].as_str(), runtime["version"].as_str()), (Some("lua"), Some("1.0.0")), "{plugins}");
    assert!(runtime["hash"].as_str().is_some_and(|hash| hash.len() == 64), "{runtime}");
    assert_eq!(of("key-auth").map(|entity| entity["runtime"].is_null()), Some(true));
    let metrics = Metrics::scrape(&gateway);
    assert!(metrics.sum("gateward_lua_calls_total", &["plugin=\"early\"", "phase=\"access\""]) >= 2.0);
    assert!(metrics.sum("gateward_lua_memory_bytes", &[]) > 0.0);
    assert_eq!(metrics.sum("gateward_lua_timed_seconds_count", &["plugin=\"early\"", "phase=\"access\""]), 1.0);
    assert!(metrics.sum("gateward_lua_timed_seconds_sum", &["plugin=\"early\""]) > 0.0);
}

#[test]
fn a_changed_plugin_is_served_without_a_restart_and_a_broken_one_is_not() {
    let word = |word: &str| {
        format!(
            "local P = {{ PRIORITY = 5 }}\nfunction P:access() kong.response.set_header('X-Word', '{word}') end\nreturn P"
        )
    };
    let folder = Folder::new(&[("words/handler.lua", &word("first"))]);
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "- {name: words}\n")).start();
    assert_eq!(get(&gateway, "/", &[]).header("x-word"), Some("first"));
    folder.write("words/handler.lua", &word("second"));
    eventually(PATIENCE, || get(&gateway, "/", &[]).header("x-word") == Some("second"));
    folder.write("words/handler.lua", "local P = {\n");
    gateway.expect_log("words/handler.lua:2:");
    assert_eq!(get(&gateway, "/", &[]).header("x-word"), Some("second"));
    folder.write("words/handler.lua", &word("third"));
    eventually(PATIENCE, || get(&gateway, "/", &[]).header("x-word") == Some("third"));
}

#[test]
fn a_failing_handler_is_a_500_with_a_traceback_and_others_go_on() {
    let handler = "local P = { PRIORITY = 5 }\n\
        local function inner(what) if what == 'error' then error('it broke') end if what == 'loop' then while true do end end end\n\
        function P:access() inner(kong.request.get_header('X-What')) end\nreturn P";
    let folder = Folder::new(&[("fails/handler.lua", handler)]);
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "- {name: fails}\n")).workers(1).start();
    for what in ["error", "loop"] {
        let response = get(&gateway, "/", &[("X-What", what)]);
        assert_eq!(response.status, 500, "{what}");
        assert!(response.text().contains("An unexpected error occurred"), "{}", response.text());
        assert_eq!(get(&gateway, "/", &[]).status, 200, "after {what}");
    }
    gateway.expect_log("handler.lua:2: it broke");
    gateway.expect_log("stack traceback");
    gateway.expect_log("without waiting for anything");
}

#[test]
fn a_schema_completes_checks_and_is_shown() {
    let schema = "local typedefs = require 'kong.db.schema.typedefs'\nreturn { name = 'words', fields = {\n\
        { consumer = typedefs.no_consumer },\n{ config = { type = 'record', fields = {\n\
        { word = { type = 'string', default = 'preset', match = '^%l+$' } },\n\
        { limit = { type = 'integer', custom_validator = function(n) return n % 2 == 0, 'must be even' end } } } } } } }";
    let handler = "local P = { PRIORITY = 5 }\nfunction P:access(conf) kong.response.set_header('X-Word', conf.word) end\nreturn P";
    let folder = Folder::new(&[("words/handler.lua", handler), ("words/schema.lua", schema)]);
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "- {name: words}\n")).start();
    assert_eq!(get(&gateway, "/", &[]).header("x-word"), Some("preset"));
    let shown = http(gateway.admin(), "GET /schemas/plugins/words", &[], b"").text();
    assert!(shown.contains(r#""match":"^%l+$""#) && shown.contains(r#""default":"preset""#), "{shown}");
    let enabled = http(gateway.admin(), "GET /plugins/enabled", &[], b"").text();
    assert!(enabled.contains("\"words\""), "{enabled}");
    for (plugins, expected) in [
        ("- name: words\n  config: {word: UP}\n", "8:18: plugins[0].config.word: invalid value: UP"),
        ("- name: words\n  config: {limit: 3}\n", "8:19: plugins[0].config.limit: must be even"),
        ("- name: words\n  config: {wrod: x}\n", "unknown field - did you mean 'word'?"),
        ("- name: words\n  consumer: alice\n", "cannot be configured for a consumer"),
        ("- name: wrods\n", "there is no plugin 'wrods' - did you mean 'words'?"),
    ] {
        let file = folder.0.path().join("kong.yml");
        std::fs::write(&file, config(&backend, plugins)).expect("a file can be written");
        let mut check = gateward_command();
        check.arg("check").arg(format!("--plugins-dir={}", folder.path().display())).arg(&file);
        let output = check.output().expect("gateward runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && text.contains(expected), "{text}\nexpected {expected}");
    }
}

/// The Lua that a gateway brings, in its place among native plugins and those of folders.
#[test]
fn code_in_a_configuration_runs_before_and_after_everything_else() {
    let backend = Backend::echo();
    let plugins = "- name: pre-function\n  config:\n    access:\n    - |\n      local n = 0\n      return function()\n\
        \x20       n = n + 1\n        kong.service.request.set_header('X-First', kong.request.get_header('X-Consumer-Username') or 'nobody')\n\
        \x20       if kong.request.get_header('X-Stop') then kong.response.exit(418) end\n      end\n\
        \x20   header_filter: [\"kong.response.set_header('X-Pre', 'seen')\"]\n\
        - name: post-function\n  config: {access: [\"kong.service.request.set_header('X-Last', kong.request.get_header('X-Consumer-Username') or 'nobody')\"]}\n\
        - {name: key-auth}\n";
    let gateway = Gateway::builder(&config(&backend, plugins)).start();
    let response = get(&gateway, "/", &[("apikey", "secret")]);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(echoed_header(&response, "x-first").as_deref(), Some("nobody"));
    assert_eq!(echoed_header(&response, "x-last").as_deref(), Some("alice"));
    assert_eq!(response.header("x-pre"), Some("seen"));
    assert_eq!(get(&gateway, "/", &[("X-Stop", "1")]).status, 418);
    assert_eq!(get(&gateway, "/", &[]).status, 401);
    let refused = |argument: &str, plugins: &str| {
        let gateway = Gateway::builder(&config(&backend, plugins)).arg(argument).try_start();
        gateway.err().map(|error| format!("{error:#}")).unwrap_or_default()
    };
    let broken = "- name: pre-function\n  config: {log: [\"x =\"]}\n";
    let error = refused("--untrusted-lua=sandbox", broken);
    assert!(error.contains("8:18: plugins[0].config.log[0]: error parsing pre-function"), "{error}");
    let right = "- name: pre-function\n  config: {log: [\"x = 1\"]}\n";
    let error = refused("--untrusted-lua=off", right);
    assert!(error.contains("'untrusted_lua' config option is set to 'off'"), "{error}");
}

#[test]
fn templates_are_lua_where_they_are_more_than_look_ups() {
    let backend = Backend::echo();
    let transformer =
        |value: &str| format!("- name: request-transformer\n  config: {{add: {{headers: [\"X-Made:{value}\"]}}}}\n");
    let shares = "- name: pre-function\n  config: {access: [\"kong.ctx.shared.word = 'shared'\"]}\n";
    let value = "$(headers.x_in:upper() .. shared.word)/$(query_params.v or 'none')";
    let gateway = Gateway::builder(&config(&backend, &(transformer(value) + shares))).start();
    let response = get(&gateway, "/?v=2", &[("X-In", "abc")]);
    assert_eq!(echoed_header(&response, "x-made").as_deref(), Some("ABCshared/2"));
    assert_eq!(get(&gateway, "/", &[]).status, 500, "there is no such header to be changed");
    gateway.expect_log("attempt to index field 'x_in'");
    let refused = Gateway::builder(&config(&backend, &transformer("$(1 +)"))).try_start();
    let error = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(error.contains("plugins[0].config.add.headers[0]: template '$(1 +)' is not right"), "{error}");
}

#[test]
fn a_folder_is_checked_before_it_is_used() {
    let schema = "return { name = 'p', fields = { { config = { type = 'record', fields = {} } } } }";
    let folder = Folder::new(&[
        ("good/handler.lua", "return { PRIORITY = 1, VERSION = '1.0', log = function() kong.log.err('x') end }"),
        ("good/schema.lua", schema),
        ("bad/handler.lua", "return { PRIORITY = 1, VERSION = '1.0',\n access = function() kong.no.such() end }"),
    ]);
    let check = |arguments: &[&str]| {
        let mut command = gateward_command();
        let output = command.args(["plugin", "check"]).args(arguments).output().expect("gateward runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let all = folder.path().display().to_string();
    let (code, text) = check(&[&all]);
    assert_eq!(code, Some(1), "{text}");
    for expected in
        ["good: ok", "bad: will not work", "bad/handler.lua:2: kong.no is not there", "there is no schema.lua"]
    {
        assert!(text.contains(expected), "{text}\nexpected {expected}");
    }
    let (code, text) = check(&[&all, "--format=json"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &json["ok"], &json["plugins"][1]["name"]), (Some(1), &false.into(), &"good".into()));
    std::fs::remove_dir_all(folder.path().join("bad")).expect("a folder can be removed");
    assert_eq!(check(&[&all]).0, Some(0));
    std::fs::remove_dir_all(folder.path().join("good")).expect("a folder can be removed");
    assert_eq!(check(&[&all]).0, Some(1));
}

#[test]
fn what_cannot_work_is_said_before_anything_is_started() {
    let folder = Folder::new(&[("p/handler.lua", "return { PRIORITY = 1 }"), ("q/handler.lua", "\nerror('at load')")]);
    let backend = Backend::echo();
    let refused = |plugins: &str, argument: &str| {
        let gateway = folder.gateway(&config(&backend, plugins)).arg(argument).try_start();
        gateway.err().map(|error| format!("{error:#}")).unwrap_or_default()
    };
    let error = refused("- {name: q}\n", "--plugins=bundled");
    assert!(error.contains("q/handler.lua:2: at load"), "{error}");
    let error = refused("- {name: p}\n", "--plugins=bundled,absent");
    assert!(error.contains("--plugins names absent"), "{error}");
    let error = refused("- {name: p}\n", "--plugins=bundled,q");
    assert!(error.contains("'p'"), "{error}");
    let file = folder.0.path().join("kong.yml");
    std::fs::write(&file, config(&backend, "- {name: q}\n")).expect("a file can be written");
    let mut check = gateward_command();
    check.arg("check").arg(format!("--plugins-dir={}", folder.path().display())).arg(&file);
    let output = check.output().expect("gateward runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("q/handler.lua:2: at load"), "{text}");
}

/// The workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in the workspace")
}

fn plugin_command(arguments: &[&str], folder: &Path) -> (bool, String) {
    let output = gateward_command().arg("plugin").args(arguments).current_dir(folder).output().expect("gateward runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_example_passes_its_cases_and_serves() {
    let (passed, text) = plugin_command(&["test", "examples/plugins/tenant"], root());
    assert!(passed && text.contains("3 passed, 0 failed"), "{text}");
    let backend = Backend::echo();
    let example = root().join("examples/plugins/tenant");
    let config = std::fs::read_to_string(example.join("kong.yml")).expect("the example has a configuration");
    let config = config.replace("http://127.0.0.1:9001", &backend.url());
    let gateway = Gateway::builder(&config).arg(format!("--plugins-dir={}", example.display())).start();
    let response = get(&gateway, "/a", &[("X-Tenant", "acme")]);
    assert_eq!((response.status, response.header("x-served-as")), (200, Some("acme")), "{}", response.text());
    assert_eq!(echoed_header(&response, "x-tenant-plan").as_deref(), Some("premium"));
    assert!(response.header("x-ratelimit-remaining-minute").is_some(), "the plugin behind it ran");
    let refused = get(&gateway, "/a", &[]);
    assert_eq!((refused.status, refused.header("x-ratelimit-remaining-minute")), (400, None));
    assert_eq!(refused.text(), r#"{"message":"Header 'X-Tenant' is missing"}"#);
}

#[test]
fn a_new_plugin_is_ready_and_a_case_that_fails_says_what_came() {
    let folder = TempDir::new().expect("a folder can be made");
    let (made, text) = plugin_command(&["new", "my-plugin", "--lua"], folder.path());
    assert!(made, "{text}");
    let (passed, text) = plugin_command(&["test", "my-plugin"], folder.path());
    assert!(passed && text.contains("3 passed"), "{text}");
    let cases = folder.path().join("my-plugin/tests/cases.json");
    let changed = std::fs::read_to_string(&cases).expect("cases can be read").replace("\"premium\"}", "\"standard\"}");
    std::fs::write(&cases, changed).expect("cases can be written");
    let (passed, text) = plugin_command(&["test", "my-plugin"], folder.path());
    assert!(!passed && text.contains(r#"request header x-tenant-plan: "premium", not "standard""#), "{text}");
    let (made, text) = plugin_command(&["new", "my-plugin", "--lua"], folder.path());
    assert!(!made && text.contains("there already"), "{text}");
}

#[test]
fn a_connection_is_closed_without_an_answer() {
    let handler = "local P = { PRIORITY = 5, VERSION = '1.0' }\n\
                   function P:access() if kong.request.get_path() == '/closed' then return ngx.exit(444) end end\nreturn P";
    let folder = Folder::new(&[("p/handler.lua", handler)]);
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "- {name: p}\n")).start();
    let mut stream = std::net::TcpStream::connect(gateway.proxy()).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    std::io::Write::write_all(&mut stream, b"GET /closed HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is taken");
    let mut answer = Vec::new();
    match std::io::Read::read_to_end(&mut stream, &mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(get(&gateway, "/open", &[]).status, 200);
    gateway.stop();
}

#[test]
fn records_of_native_log_plugins_have_what_lua_sets() {
    let folder = Folder::new(&[]);
    std::fs::create_dir_all(folder.path()).unwrap();
    let (backend, log) = (Backend::echo(), folder.0.path().join("log"));
    let plugins = format!(
        "- name: pre-function\n  config:\n    access: ['kong.log.set_serialize_value(\"request.tenant\", {{ id = 7 }})']\n    \
         log: ['kong.log.set_serialize_value(\"client_ip\", nil) kong.log.set_serialize_value(\"at_end\", true)']\n\
         - name: file-log\n  config:\n    path: {}\n    custom_fields_by_lua:\n      \
         seen: 'return kong.response.get_status() .. \" \" .. kong.request.get_header(\"X-A\")'\n      \
         broken: 'return nil .. 1'\n",
        log.display()
    );
    let gateway = folder.gateway(&config(&backend, &plugins)).start();
    assert_eq!(get(&gateway, "/", &[("X-A", "b")]).status, 200);
    let line = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually(PATIENCE, || line().ends_with('\n'));
    let record: serde_json::Value = serde_json::from_str(&line()).unwrap();
    assert_eq!(record["request"]["tenant"], serde_json::json!({ "id": 7 }), "{record}");
    assert_eq!((&record["at_end"], record.get("client_ip")), (&serde_json::Value::Bool(true), None));
    assert_eq!((&record["seen"], record.get("broken")), (&serde_json::json!("200 b"), None));

    let bad = config(
        &backend,
        "- {name: http-log, config: {http_endpoint: 'http://x/', custom_fields_by_lua: {a: 'return +'}}}\n",
    );
    let path = folder.0.path().join("bad.yml");
    std::fs::write(&path, bad).unwrap();
    let output = gateward_command().arg("check").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("custom_fields_by_lua") && said.contains("unexpected symbol"),
        "{said}"
    );
}
