//! Trying a Lua plugin without a gateway: a request, a response, and what should come of them.
//!
//! `tests/*.json` of a plugin's folder name the plugin, its configuration, and cases. The configuration goes through the loader, so
//! that the schema has its say; the handler runs in the machine that a worker would run it in, phase by phase. What it
//! calls over the network it really calls.

use crate::cli::check;
use crate::cli::print;
use crate::reload::Compiler;
use crate::settings::WasmOptions;
use anyhow::{Context, Result, bail, ensure};
use gateward_config::Format;
use gateward_http::{Headers, Method};
use gateward_lua::LuaOptions;
use gateward_model::{EntityId, RouterFlavor, Snapshot};
use gateward_plugin::{Exchange, LocalBody, LocalResponse, Plugin, RequestRecord, Source, Step};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::task::LocalSet;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    /// Which plugin; needed when the folder has several.
    plugin: Option<String>,
    /// Its `config`.
    #[serde(default)]
    configuration: Value,
    cases: Vec<Case>,
}

/// One exchange.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    request: Message,
    #[serde(default)]
    response: Message,
    #[serde(default)]
    expect: Expected,
}

/// Headers and a body. `:method` and `:path` of a request, `:status` of a response stand among the headers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
}

/// Expectations; what is not named is not looked at. `null` expects a field not to be there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    request_headers: BTreeMap<String, Option<String>>,
    request_body: Option<String>,
    #[serde(default)]
    response_headers: BTreeMap<String, Option<String>>,
    response_body: Option<String>,
    /// The plugin answers itself.
    reply: Option<ExpectedReply>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedReply {
    status: u16,
    body: Option<String>,
}

/// What came of a case.
#[derive(Default)]
struct Came {
    request_headers: Vec<(String, String)>,
    request_body: String,
    response_headers: Vec<(String, String)>,
    response_body: String,
    reply: Option<u16>,
}

/// Whether `folder` has plugins in Lua.
pub(crate) fn is_lua(folder: &Path) -> bool {
    let has_handler = |folder: &Path| folder.join("handler.lua").is_file();
    let within =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| has_handler(&entry.path()));
    has_handler(folder) || within(folder.to_owned()) || within(folder.join("kong/plugins"))
}

/// Run every case of `folder/tests/*.json`.
///
/// # Errors
/// A file cannot be used, a plugin does not load, or a case came out differently.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let tests = folder.join("tests");
    let files = fs::read_dir(&tests).with_context(|| format!("cannot read {}", tests.display()))?;
    let mut files: Vec<_> = files.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "json"));
    files.sort();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let background = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let lua = LuaOptions { folders: vec![folder.to_owned()], ..LuaOptions::default() };
    let compiler = check::compiler(RouterFlavor::default(), &lua, &WasmOptions::default(), background.handle())?;
    // What plugins log, and why one failed.
    let log =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).without_time();
    let _ = log.try_init();
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let cases: Cases = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        let plugin = plugin(&compiler, &cases).with_context(|| file.display().to_string())?;
        for case in &cases.cases {
            let came = LocalSet::new().block_on(&runtime, exchange(&*plugin, case));
            let differences = case.expect.differences(&came);
            let word = if differences.is_empty() { "ok" } else { "FAILED" };
            print(&format!("{word}: {}\n", case.name));
            differences.iter().for_each(|difference| print(&format!("  {difference}\n")));
            if differences.is_empty() { passed += 1 } else { failed += 1 }
        }
    }
    background.shutdown_background();
    print(&format!("{passed} passed, {failed} failed\n"));
    if passed + failed == 0 {
        bail!("there are no cases in {}", tests.display());
    }
    ensure!(failed == 0, "{failed} cases failed");
    Ok(())
}

/// The plugin with its configuration, through the loader.
fn plugin(compiler: &Compiler, cases: &Cases) -> Result<Box<dyn Plugin>> {
    let mut names = compiler.host.names();
    // A folder is about what is in it; what the gateway brings can be named.
    names.retain(|name| !gateward_lua::BROUGHT.contains(&name.as_str()));
    let name = match (&cases.plugin, names.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [name]) => name.clone(),
        (None, names) => bail!("`plugin` must say which is tried: {}", names.join(", ")),
    };
    let mut entity = json!({"name": name});
    if !cases.configuration.is_null() {
        entity["config"] = cases.configuration.clone();
    }
    let file = json!({"_format_version": "3.0", "plugins": [entity]}).to_string();
    let snapshot = compiler.snapshot(file.as_bytes(), Format::Json).map_err(|problems| {
        let problems: Vec<_> =
            problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        anyhow::anyhow!("{}", problems.join("\n"))
    })?;
    let Snapshot { config, .. } = &snapshot;
    let entity = config.plugins.first().context("the loader lost the plugin")?;
    Ok(compiler.host.build(entity, &snapshot, &compiler.env)?)
}

/// The life of a request as far as one plugin sees it.
async fn exchange(plugin: &dyn Plugin, case: &Case) -> Came {
    let phases = plugin.needs().phases;
    let mut exchange = begun(&case.request);
    let mut reply = None;
    if phases.rewrite {
        reply = outcome(plugin.rewrite(&mut exchange)).await;
    }
    if phases.access && reply.is_none() {
        reply = outcome(plugin.access(&mut exchange)).await;
    }
    let mut came = Came {
        request_headers: pairs(&exchange.request.headers),
        request_body: text(exchange.body.as_deref().unwrap_or_default()),
        ..Came::default()
    };
    let mut body = case.response.body.clone().into_bytes();
    if reply.is_none() {
        answer(&mut exchange, &case.response);
        if phases.response {
            exchange.response.body = Some(body);
            reply = outcome(plugin.response(&mut exchange)).await;
            body = exchange.response.body.take().unwrap_or_default();
        }
    }
    if let Some(reply) = reply {
        came.reply = Some(reply.status);
        body = replied(&mut exchange, reply);
    }
    for (name, value) in exchange.response.early.clone().iter() {
        exchange.response.headers.set(name, value);
    }
    if phases.header_filter {
        plugin.header_filter(&mut exchange);
        body = exchange.response.body.take().unwrap_or(body);
    }
    if phases.body_filter {
        plugin.body_filter(&mut exchange, &mut body, true);
    }
    if phases.log {
        plugin.log(&record(&exchange));
    }
    came.response_headers = pairs(&exchange.response.headers);
    came.response_body = text(&body);
    came
}

/// The end of an exchange that took no time.
fn record(exchange: &Exchange) -> RequestRecord<'_> {
    RequestRecord {
        exchange,
        tries: &[],
        request_bytes: 0,
        response_bytes: 0,
        request_us: 0,
        gateway_us: 0,
        upstream_us: None,
        receive_us: 0,
        upstream_status: None,
        error: None,
    }
}

async fn outcome(step: Step<'_>) -> Option<LocalResponse> {
    let step = match step {
        Step::Wait(waiting) => waiting.await.into(),
        step => step,
    };
    match step {
        Step::Next => None,
        Step::Respond(response) => Some(response),
        // The body of a case is there from the beginning, and waiting comes to something else.
        Step::Wait(_) | Step::Body(_) => Some(LocalResponse::message(500, "the plugin waits for nothing")),
    }
}

fn begun(message: &Message) -> Exchange {
    let mut exchange = Exchange::new();
    exchange.id = EntityId::derived("case", &message.body).to_string().replace('-', "");
    let pseudo =
        |wanted: &str| message.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let target = pseudo(":path").unwrap_or("/");
    exchange.request.method = Method::parse(pseudo(":method").unwrap_or("GET")).unwrap_or_default();
    target.clone_into(&mut exchange.request.target);
    exchange.path = exchange.request.raw_path().to_owned();
    exchange.upstream.path.clone_from(&exchange.path);
    exchange.upstream.query = exchange.request.query().map(str::to_owned);
    fill(&mut exchange.request.headers, message);
    if !message.body.is_empty() {
        exchange.body = Some(message.body.clone().into_bytes());
    }
    exchange
}

fn answer(exchange: &mut Exchange, message: &Message) {
    let status = message.headers.iter().find(|(name, _)| name == ":status").and_then(|(_, value)| value.parse().ok());
    exchange.response.status = status.unwrap_or(200);
    exchange.response.source = Source::Service;
    exchange.response.upstream_status = exchange.response.status;
    fill(&mut exchange.response.headers, message);
    exchange.response.from_upstream = exchange.response.headers.len();
    if exchange.response.hold {
        exchange.response.held = Some(message.body.clone().into_bytes());
    }
}

/// As the gateway would send it; the body.
fn replied(exchange: &mut Exchange, reply: LocalResponse) -> Vec<u8> {
    exchange.response.status = reply.status;
    exchange.response.source = Source::Exit;
    exchange.response.headers.clear();
    for (name, value) in &reply.headers {
        exchange.response.headers.add(name, value);
    }
    match reply.body {
        LocalBody::Empty => Vec::new(),
        LocalBody::Message(message) => json!({"message": message}).to_string().into_bytes(),
        LocalBody::Bytes(content_type, body) => {
            if !content_type.is_empty() {
                exchange.response.headers.set("Content-Type", content_type);
            }
            body
        }
    }
}

fn fill(headers: &mut Headers, message: &Message) {
    for (name, value) in message.headers.iter().filter(|(name, _)| !name.starts_with(':')) {
        headers.add(name, value);
    }
}

fn pairs(headers: &Headers) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Expected {
    /// What came out differently, one line each.
    fn differences(&self, came: &Came) -> Vec<String> {
        let mut differences = Vec::new();
        compare_fields("request", &self.request_headers, &came.request_headers, &mut differences);
        compare_fields("response", &self.response_headers, &came.response_headers, &mut differences);
        let mut body = |what: &str, expected: &Option<String>, found: &str| {
            if let Some(expected) = expected.as_ref().filter(|expected| *expected != found) {
                differences.push(format!("{what}: {found:?}, not {expected:?}"));
            }
        };
        body("request body", &self.request_body, &came.request_body);
        body("response body", &self.response_body, &came.response_body);
        if let Some(reply) = &self.reply {
            body("reply body", &reply.body, &came.response_body);
        }
        match (self.reply.as_ref().map(|reply| reply.status), came.reply) {
            (None, Some(status)) => {
                differences.push(format!("the plugin answered {status} itself: {}", came.response_body));
            }
            (Some(status), None) => differences.push(format!("the plugin did not answer {status} itself")),
            (Some(expected), Some(found)) if expected != found => {
                differences.push(format!("reply: status {found}, not {expected}: {}", came.response_body));
            }
            _ => {}
        }
        differences
    }
}

fn compare_fields(
    what: &str,
    expected: &BTreeMap<String, Option<String>>,
    found: &[(String, String)],
    differences: &mut Vec<String>,
) {
    for (name, expected) in expected {
        let values = found.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<_> = values.map(|(_, value)| value.as_str()).collect();
        let value = (!values.is_empty()).then(|| values.join(", "));
        if value != *expected {
            let show =
                |value: &Option<String>| value.as_ref().map_or("absent".to_owned(), |value| format!("{value:?}"));
            differences.push(format!("{what} header {name}: {}, not {}", show(&value), show(expected)));
        }
    }
}
