//! Whole exchanges in a test: one worker on this thread, a configuration as text, backends that follow a script.
//!
//! Everything runs on the test's own runtime, so a test may look into the worker's types; what needs a process,
//! several workers or signals is tested from outside.

use crate::{Node, Plan, Settings, WorkerSockets, run_worker};
use gateward_config::Format;
use gateward_model::Snapshot;
use gateward_net::Listener;
use gateward_net::dns::{DnsSettings, Names};
use gateward_net::listen::BACKLOG;
use gateward_plugin::env::{HttpPost, PostRequest};
use gateward_plugin::{CounterStore, NativePlugins, PluginEnv, Redis, RedisSettings};
use gateward_telemetry::{Limits, Telemetry};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Run `test` where workers can be started.
pub(crate) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new()
        .block_on(&runtime, async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// The plan of a configuration.
pub(crate) fn plan(config: &str, generation: u64, settings: &Settings, telemetry: &Telemetry) -> Plan {
    struct Nowhere;
    impl HttpPost for Nowhere {
        fn post(&self, _: PostRequest) -> Pin<Box<dyn Future<Output = Result<u16, String>> + Send + '_>> {
            Box::pin(async { Err("nothing is sent in tests".to_owned()) })
        }
    }
    impl Redis for Nowhere {
        fn store(&self, _: &RedisSettings) -> Result<Arc<dyn CounterStore>, String> {
            Err("there is no Redis in these tests".to_owned())
        }
    }
    let plugins = NativePlugins::new();
    let options =
        gateward_config::Options { plugins: &plugins, flavor: settings.flavor, vault: &|_: &str| None, now: 0 };
    let loaded = gateward_config::load(config.as_bytes(), Format::Yaml, &options).expect("the configuration is right");
    let snapshot = Snapshot { generation, hash: loaded.hash, config: loaded.config };
    let env = PluginEnv {
        background: tokio::runtime::Handle::current(),
        counters: Arc::default(),
        http: Arc::new(Nowhere),
        redis: Arc::new(Nowhere),
        stats: Arc::default(),
        templates: None,
    };
    let tls = gateward_net::tls::Context::new(settings.tls.clone()).expect("the TLS settings are right");
    Plan::compile(Arc::new(snapshot), settings, &env, &gateward_plugin::NoHost, telemetry, &Arc::new(tls))
        .expect("the configuration compiles")
}

/// Start a worker that serves `config`; where it listens.
pub(crate) fn gateway(config: &str, settings: Settings) -> SocketAddr {
    measured_gateway(config, settings).0
}

/// Likewise, with what it counts.
pub(crate) fn measured_gateway(config: &str, settings: Settings) -> (SocketAddr, Arc<Telemetry>) {
    let telemetry = Telemetry::new(1, Limits::default());
    let plan = plan(config, 1, &settings, &telemetry);
    // Nobody is there to be asked.
    let dns = DnsSettings { servers: vec![([127, 0, 0, 1], 1).into()], ..settings.dns.clone() };
    let names = Names::new(dns, tokio::runtime::Handle::current()).expect("names can be resolved");
    let node = Node::new(settings, telemetry.clone(), None, names, plan);
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), BACKLOG).unwrap();
    let address = listener.local_addr().unwrap();
    let sockets = WorkerSockets { listeners: vec![listener], ..WorkerSockets::default() };
    tokio::task::spawn_local(run_worker(node, 0, sockets, Duration::ZERO));
    (address, telemetry)
}

/// Start a backend that does `script` with every connection; its port.
pub(crate) async fn backend(script: impl AsyncFn(TcpStream) + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = std::rc::Rc::new(script);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::task::spawn_local(async move { script(stream).await });
        }
    });
    port
}

/// Read until what came ends with `end`, or the other side closes.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    while !got.ends_with(end.as_bytes()) {
        match stream.read_u8().await {
            Ok(byte) => got.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// Send `request` on a connection of its own, and read until the gateway closes.
pub(crate) async fn ask(gateway: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
