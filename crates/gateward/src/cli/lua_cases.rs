//! Trying a Lua plugin without a gateway: a request, a response, and what should come of them.
//!
//! `tests/*.json` of a plugin's folder name the plugin, its configuration, and cases. The configuration goes through the loader, so
//! that the schema has its say; the handler runs in the machine that a worker would run it in, phase by phase. What it
//! calls over the network it really calls.

use crate::cli::cases::Tally;
use crate::cli::check;
use crate::reload::Compiler;
use crate::settings::WasmOptions;
use anyhow::{Context, Result, bail};
use gateward_config::Format;
use gateward_http::{Headers, Method};
use gateward_lua::LuaOptions;
use gateward_model::{EntityId, RouterFlavor, Snapshot};
use gateward_plugin::cases::{Came, Expected, Message};
use gateward_plugin::{Exchange, LocalBody, LocalResponse, Plugin, RequestRecord, Source, Step};
use serde::Deserialize;
use serde_json::{Value, json};
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let background = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let lua = LuaOptions { folders: vec![folder.to_owned()], ..LuaOptions::default() };
    let compiler = check::compiler(RouterFlavor::default(), &lua, &WasmOptions::default(), background.handle())?;
    // What plugins log, and why one failed.
    let log =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).without_time();
    let _ = log.try_init();
    let mut tally = Tally::new(folder);
    for (file, cases) in tally.files::<Cases>()? {
        let plugin = plugin(&compiler, &cases).with_context(|| file.display().to_string())?;
        for case in &cases.cases {
            let came = LocalSet::new().block_on(&runtime, exchange(&*plugin, case));
            tally.note(&case.name, &case.expect.differences(&came));
        }
    }
    background.shutdown_background();
    tally.conclude()
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
        request_body: exchange.body.clone().unwrap_or_default(),
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
        plugin.log(&RequestRecord::of(&exchange));
    }
    came.response_headers = pairs(&exchange.response.headers);
    came.response_body = body;
    came
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
    let target = message.header(":path").unwrap_or("/");
    exchange.request.method = Method::parse(message.header(":method").unwrap_or("GET")).unwrap_or_default();
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
    let status = message.header(":status").and_then(|status| status.parse().ok());
    exchange.response.status = status.unwrap_or(200);
    exchange.response.source = Source::Service;
    exchange.response.upstream_status = exchange.response.status;
    fill(&mut exchange.response.headers, message);
    exchange.response.headers.mark();
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

fn pairs(headers: &Headers) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}
