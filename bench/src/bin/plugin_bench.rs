//! Measures in-process what a plugin in another language costs a request: nanoseconds of processor time for the phases of
//! one request, without a network.
//!
//! The Wasm filter is that of `bench/filter`, the Lua plugin that of `bench/lua`; each makes three reads and two writes.
//! What making and clearing the exchange costs is taken off. *Warm*: one request after the other, median of several rounds. *Cold*: as in a
//! gateway, the kernel sends and receives before each half of a request, and leaves the processor's nearest caches full of its own; median over the
//! requests, by the clock.
//!
//! ```text
//! cargo build --release --target wasm32-wasip1 --manifest-path bench/filter/Cargo.toml --target-dir target/filters
//! cargo run --release -p gateward-bench --bin plugin_bench
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use gateward_http::BodyFraming;
use gateward_lua::{LuaHost, LuaOptions};
use gateward_model::{EntityId, PluginConfig, Snapshot};
use gateward_plugin::{
    CounterStore, Exchange, Flow, HttpPost, Plugin, PluginEnv, PluginHost, PostRequest, Redis, RedisSettings,
    RequestRecord, Source, Step,
};
use gateward_wasm::plugin::{NoCarrier, WasmHost};
use gateward_wasm::{Runtime, Services, Tracing};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// Rounds per figure.
const ROUNDS: usize = 9;

#[derive(Parser)]
#[command(about = "Nanoseconds that a Wasm filter and a Lua plugin add to a request")]
struct Arguments {
    /// Folder with the compiled filter, bench_filter.wasm.
    #[arg(long, default_value = "target/filters/wasm32-wasip1/release")]
    filters: PathBuf,
    /// Folder with the Lua plugin.
    #[arg(long, default_value = "bench/lua")]
    lua: PathBuf,
    /// Requests per round.
    #[arg(long, default_value_t = 200_000)]
    requests: u32,
    /// Only this one: wasm or lua.
    #[arg(long)]
    only: Option<String>,
}

/// Nobody is called.
struct Nobody;

impl HttpPost for Nobody {
    fn post(&self, _: PostRequest) -> std::pin::Pin<Box<dyn Future<Output = Result<u16, String>> + Send + '_>> {
        Box::pin(async { Err("nobody is called".to_owned()) })
    }
}

impl Redis for Nobody {
    fn store(&self, _: &RedisSettings) -> Result<Arc<dyn CounterStore>, String> {
        Err("no plugin here counts".to_owned())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let env = PluginEnv {
        background: runtime.handle().clone(),
        counters: Arc::default(),
        http: Arc::new(Nobody),
        redis: Arc::new(Nobody),
        stats: Arc::default(),
        templates: None,
    };
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    let bare = Figures::of(arguments.requests, None)?;
    println!("| plugin | ns per request, warm | cold |\n|---|---|---|");
    if wanted("wasm") {
        let wasm = Runtime::new(Services::new(Arc::new(Tracing)), None)?;
        let host = WasmHost::new(wasm, arguments.filters.clone(), Arc::new(NoCarrier));
        report("wasm filter", &host, "bench_filter", &env, arguments.requests, &bare)?;
    }
    if wanted("lua") {
        let host = LuaHost::new(LuaOptions { folders: vec![arguments.lua.clone()], ..LuaOptions::default() });
        report("lua plugin", &host, "bench", &env, arguments.requests, &bare)?;
    }
    Ok(())
}

fn report(
    title: &str,
    host: &dyn PluginHost,
    name: &str,
    env: &PluginEnv,
    requests: u32,
    bare: &Figures,
) -> Result<()> {
    host.refresh();
    if !host.has(name) {
        bail!("there is no plugin '{name}'; see --help");
    }
    let plugin = host.build(&entity(name), &Snapshot::empty(), env).with_context(|| title.to_owned())?;
    let with = Figures::of(requests, Some(&*plugin))?;
    println!("| {title} | {:.0} | {:.0} |", with.warm_ns - bare.warm_ns, with.cold_ns - bare.cold_ns);
    Ok(())
}

fn entity(name: &str) -> PluginConfig {
    PluginConfig::new(EntityId::derived("bench", name), name, json!({"kind": "plain"}))
}

/// Nanoseconds per request.
struct Figures {
    warm_ns: f64,
    cold_ns: f64,
}

impl Figures {
    fn of(requests: u32, plugin: Option<&dyn Plugin>) -> Result<Self> {
        Ok(Self { warm_ns: warm_ns(requests, plugin), cold_ns: cold_ns(requests, plugin)? })
    }
}

/// The median over the requests, with the kernel's work in between.
fn cold_ns(requests: u32, plugin: Option<&dyn Plugin>) -> Result<f64> {
    let mut kernel = Kernel::new()?;
    let mut exchange = Exchange::new();
    let mut piece = Vec::new();
    let mut times = Vec::with_capacity(requests as usize);
    for _ in 0..requests {
        kernel.work()?;
        let began = Instant::now();
        arrive(&mut exchange, plugin);
        let arrived = began.elapsed();
        kernel.work()?;
        let began = Instant::now();
        answer(&mut exchange, &mut piece, plugin);
        times.push(arrived + began.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e9)
}

/// Two ends of a connection.
struct Kernel {
    ends: [TcpStream; 2],
    buffer: [u8; 512],
}

impl Kernel {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let one = TcpStream::connect(listener.local_addr()?)?;
        one.set_nodelay(true)?;
        Ok(Self { ends: [one, listener.accept()?.0], buffer: [0; 512] })
    }

    /// Sends a head and receives it.
    fn work(&mut self) -> Result<()> {
        let Self { ends: [one, other], buffer } = self;
        one.write_all(buffer)?;
        Ok(other.read_exact(buffer)?)
    }
}

/// The median over the rounds.
fn warm_ns(requests: u32, plugin: Option<&dyn Plugin>) -> f64 {
    let mut exchange = Exchange::new();
    let mut piece = Vec::new();
    let mut rounds: Vec<f64> = (0..=ROUNDS)
        .map(|_| {
            let began = processor_time();
            for _ in 0..requests {
                arrive(&mut exchange, plugin);
                answer(&mut exchange, &mut piece, plugin);
            }
            (processor_time() - began).as_secs_f64() * 1e9 / f64::from(requests)
        })
        // The first compiles and fills caches.
        .skip(1)
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// A request comes, and goes through the phases that the plugin takes part in.
fn arrive(exchange: &mut Exchange, plugin: Option<&dyn Plugin>) {
    exchange.reset();
    exchange.request.headers.clear();
    "/v1/orders/42".clone_into(&mut exchange.request.target);
    "/v1/orders/42".clone_into(&mut exchange.path);
    exchange.request.framing = BodyFraming::None;
    for (name, value) in
        [("Host", "api.example.com"), ("User-Agent", "Mozilla/5.0 Mobile"), ("Accept", "*/*"), ("Content-Type", "a/b")]
    {
        exchange.request.headers.add(name, value);
    }
    if let Some(plugin) = plugin {
        let phases = plugin.needs().phases;
        if phases.access {
            assert!(matches!(plugin.access(exchange), Step::Next));
        }
        if phases.request_head {
            assert!(matches!(plugin.request_head(exchange, true), Flow::Next));
        }
    }
}

/// Likewise the response.
fn answer(exchange: &mut Exchange, piece: &mut Vec<u8>, plugin: Option<&dyn Plugin>) {
    exchange.response.status = 200;
    exchange.response.source = Source::Service;
    exchange.response.headers.add("Content-Type", "application/json; charset=utf-8");
    exchange.response.headers.add("Content-Length", "2");
    let Some(plugin) = plugin else { return };
    let phases = plugin.needs().phases;
    if phases.response_head {
        assert!(matches!(plugin.response_head(exchange), Step::Next));
    }
    if phases.header_filter {
        plugin.header_filter(exchange);
    }
    if phases.body_filter {
        piece.clear();
        piece.extend_from_slice(b"{}");
        if phases.response_head {
            assert!(matches!(plugin.response_piece(exchange, piece, true), Flow::Next));
        } else {
            plugin.body_filter(exchange, piece, true);
        }
    }
    if phases.log {
        plugin.log(&RequestRecord::of(exchange));
    }
    assert!(exchange.response.headers.contains("x-kind"), "the plugin did not do its work");
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
