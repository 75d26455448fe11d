//! A node from start to end: sockets, workers, control side, signals, and the order in which they stop.

use crate::admin;
use crate::callouts::Callouts;
use crate::control::{Addresses, Control, Identity};
use crate::counter_store::Stores;
use crate::egress::Egress;
use crate::hosts::{self, Network};
use crate::logging::LogControl;
use crate::notify;
use crate::reload::{Compiled, Compiler, Reloader, announce, log_warnings, sniff};
use crate::settings::{ConfigSource, Options};
use crate::sockets::Sockets;
use crate::status;
use crate::upgrade::{self, Giver, Invocation};
use crate::watch::{Seen, Watch};
use anyhow::{Context, Result, anyhow};
use gateward_api::{ApiRequest, ApiResponse, Door};
use gateward_config::{Diagnostic, Format, Severity};
use gateward_net::dns::Names;
use gateward_net::{Drain, Listener, Stage, tls};
use gateward_plugin::{NativePlugins, PluginEnv, PluginStats};
use gateward_proxy::{Node, WorkerSockets, run_worker};
use gateward_telemetry::{AccessLog, AccessLogTarget, ControlCounter, Limits, Telemetry};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

/// Threads of the control runtime: one may be busy with a scrape or an Admin API request.
const CONTROL_THREADS: usize = 2;
/// Where whole declarative files may come.
const FILES: gateward_api::Limits = gateward_api::Limits { body_bytes: 256 << 20, bodies_bytes: 512 << 20 };
/// Where no request has a body.
const PROBES: gateward_api::Limits = gateward_api::Limits { body_bytes: 64 << 10, bodies_bytes: 16 << 20 };
/// Beyond the shutdown time-out, how long workers may take to notice that it is over.
const WORKER_SLACK: Duration = Duration::from_secs(2);
/// How long log plugins may take to deliver what they hold at the end.
const FLUSH: Duration = gateward_plugin::native::log_queue::FLUSH_BOUND;

/// Why a node could not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The configuration has problems; the name of its source, and all of them.
    Config(String, Vec<Diagnostic>),
    /// Something else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl std::fmt::Display for StartError {
    /// One line per problem, `file:line:column: path: message`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(source, problems) => {
                problems.iter().try_for_each(|problem| writeln!(formatter, "{source}:{problem}"))?;
                let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
                write!(formatter, "{source}: {errors} problem(s); nothing was started")
            }
            Self::Other(error) => write!(formatter, "{error:#}"),
        }
    }
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As asked.
    Stopped,
    /// A worker ended by itself.
    WorkerLost,
}

/// A node that is serving.
pub(crate) struct Running {
    /// The control side.
    pub(crate) control: Arc<Control>,
    /// Tells which worker ended.
    ended: mpsc::UnboundedReceiver<usize>,
    signals: Signals,
    reload_now: Arc<Notify>,
    /// Where a new process may take over, if anywhere.
    giver: Option<Arc<Giver>>,
    control_runtime: Runtime,
    /// Holds the plugins' queues and nothing else.
    background: Runtime,
}

/// Start a node; when this returns, it is serving.
///
/// Where a running process is to be followed, everything that can fail comes before its sockets are used.
///
/// # Errors
/// Problems of the configuration, addresses in use, files that cannot be opened.
pub(crate) fn start(mut options: Options, log: LogControl) -> Result<Running, StartError> {
    options.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    options.notes.iter().for_each(|note| tracing::info!("{note}"));
    let invocation = Invocation::own();
    let identity = Identity::new(options.node_id.clone());
    let telemetry = Telemetry::new(options.workers, Limits::default());
    options.lua.facts = Arc::new(hosts::facts(&identity, &options, &telemetry));
    let control_runtime = runtime("control", CONTROL_THREADS)?;
    let background = runtime("background", 1)?;
    let callouts = Callouts::new(control_runtime.handle().clone());
    let names = Names::new(options.data_plane.dns.clone(), control_runtime.handle().clone());
    let names = names.map_err(anyhow::Error::from)?;
    let compiler = Arc::new(compiler(&options, (&control_runtime, &background), &callouts, &names, telemetry)?);
    let first = first_plan(&compiler, options.config.as_ref())?;
    let node = node(&options, &compiler, names, first.compiled)?;
    callouts.serve(&node);
    let control = Arc::new(Control {
        reloader: Arc::new(Reloader::new(node.clone(), compiler)),
        log,
        identity,
        addresses: OnceLock::new(),
        options,
    });
    if let Some(origin) = &first.origin {
        announce(&node.plan(), origin);
        control.reloader.remember(origin, &[], true);
        node.telemetry.count_control(ControlCounter::ConfigReloadOk);
    }
    let entered = control_runtime.enter();
    let signals = Signals::listen().context("cannot listen for signals")?;
    let reload_now = Arc::new(Notify::new());
    let mut succession = upgrade::Succession::begin(control.options.upgrade_socket.as_deref(), first.origin.is_some())?;
    let sockets = Sockets::open(&control.options, &mut succession.inherited)?;
    if let Some(watch) = first.watch {
        control_runtime.spawn(watch.run(control.reloader.clone(), reload_now.clone()));
    }
    control_runtime.spawn(gateward_proxy::check_health(node.health.clone()));
    let ended = start_workers(&node, sockets.workers, control.options.timeout)?;
    let tls = control.reloader.compiler().tls.internal_server().context("the TLS settings cannot be used")?;
    // The cell was empty: it is set here and nowhere else, and before anybody can ask. The workers serve by now, so whoever asks is told that
    // the node is ready: where it follows another, a probe may come to either from here on.
    let _ = control.addresses.set(sockets.addresses);
    serve_control(&control_runtime, &control, &tls, sockets.admin, sockets.status);
    let giver = succession.complete(&node, sockets.offers, invocation);
    notify::ready();
    drop(entered);
    Ok(Running { control, ended, signals, reload_now, giver, control_runtime, background })
}

fn runtime(name: &str, threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the {name} threads"))
}

fn compiler(
    options: &Options,
    (control, background): (&Runtime, &Runtime),
    callouts: &Arc<Callouts>,
    names: &Arc<Names>,
    telemetry: Arc<Telemetry>,
) -> Result<Compiler> {
    let settings = options.data_plane.clone();
    let tls = tls::Context::new(settings.tls.clone()).context("the TLS settings cannot be used")?;
    let tls = Arc::new(tls);
    let stats = Arc::<PluginStats>::default();
    let egress = Arc::new(Egress::new(control.handle().clone(), tls.clone()));
    let network = Network { names: names.clone(), tls: tls.clone() };
    let hosts = hosts::set_up(&options.lua, &options.wasm, callouts, network, options.workers)?;
    let env = PluginEnv {
        background: background.handle().clone(),
        counters: Arc::default(),
        http: egress,
        redis: Arc::new(Stores::new(control.handle().clone(), tls.clone(), stats.clone())),
        stats,
        templates: hosts.all.templates(),
    };
    let plugins = NativePlugins::and(hosts.all.clone());
    Ok(Compiler { settings, env, plugins, host: hosts.all, telemetry, tls, filters: hosts.wasm, lua: Some(hosts.lua) })
}

/// The plan a node starts with, where it came from, and who watches that.
struct First {
    compiled: Compiled,
    origin: Option<String>,
    watch: Option<Watch>,
}

fn first_plan(compiler: &Compiler, source: Option<&ConfigSource>) -> Result<First, StartError> {
    let problems = |origin: &str| {
        let origin = origin.to_owned();
        |problems| StartError::Config(origin, problems)
    };
    match source {
        None => {
            tracing::warn!("no configuration: every request is answered 404 until POST /config brings one");
            let plan = compiler.empty(0).map_err(problems("(empty configuration)"))?;
            Ok(First { compiled: Compiled { plan, warnings: Vec::new() }, origin: None, watch: None })
        }
        Some(ConfigSource::Text(text)) => {
            let origin = "config-string";
            let compiled = compiler.compile(text.as_bytes(), sniff(text.as_bytes()), 1).map_err(problems(origin))?;
            log_warnings(&compiled.warnings, origin);
            Ok(First { compiled, origin: Some(origin.to_owned()), watch: None })
        }
        Some(ConfigSource::File(path)) => {
            let origin = path.display().to_string();
            let seen = Seen::read(path).with_context(|| {
                format!("cannot read the configuration {origin}; --config names a file in Kong's format")
            })?;
            let compiled = compiler.compile(&seen.text, Format::of_path(path), 1).map_err(problems(&origin))?;
            log_warnings(&compiled.warnings, &origin);
            let watch = Some(Watch::new(path.clone(), &seen));
            Ok(First { compiled, origin: Some(origin), watch })
        }
    }
}

fn node(options: &Options, compiler: &Compiler, names: Arc<Names>, first: Compiled) -> Result<Arc<Node>> {
    let access_log = options.access_log.clone().map(|target| {
        let name = match &target {
            AccessLogTarget::Stdout => "on standard output".to_owned(),
            AccessLogTarget::File(path) => path.display().to_string(),
        };
        AccessLog::open(target, &Limits::default())
            .with_context(|| format!("cannot open the access log {name}; choose another file with --access-log"))
    });
    let settings = options.data_plane.clone();
    Ok(Node::new(settings, compiler.telemetry.clone(), access_log.transpose()?, names, first.plan))
}

/// Start the workers and wait until each has taken the plan.
fn start_workers(
    node: &Arc<Node>,
    sockets: Vec<WorkerSockets>,
    finish: Duration,
) -> Result<mpsc::UnboundedReceiver<usize>> {
    let (ended, receiver) = mpsc::unbounded_channel();
    let (started, ready) = std::sync::mpsc::channel();
    let count = sockets.len();
    for (index, sockets) in sockets.into_iter().enumerate() {
        let (node, started) = (node.clone(), started.clone());
        let end = TellEnd { index, ended: ended.clone() };
        let work = move || async move {
            let end = end;
            // Sockets are bound already: what connects now waits in their queues.
            let _ = started.send(());
            run_worker(node, end.index, sockets, finish).await;
        };
        gateward_net::worker::spawn(format!("worker-{index}"), work).context("cannot start a worker thread")?;
    }
    drop(started);
    for _ in 0..count {
        ready.recv().map_err(|_| anyhow!("a worker thread ended while it was starting"))?;
    }
    Ok(receiver)
}

/// Tells that a worker ended, by a panic too.
struct TellEnd {
    index: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        let _ = self.ended.send(self.index);
    }
}

fn serve_control(
    runtime: &Runtime,
    control: &Arc<Control>,
    tls: &tls::Server,
    admin: Vec<Listener>,
    status: Vec<Listener>,
) {
    let drain = &control.node().drain;
    for listener in admin {
        let control = control.clone();
        let handler = move |request| {
            let control = control.clone();
            async move { admin::handle(&control, request).await }
        };
        runtime.spawn(serve(listener, tls.clone(), drain.clone(), FILES, handler));
    }
    for listener in status {
        let control = control.clone();
        let handler = move |request| {
            let control = control.clone();
            async move { status::handle(&control, &request) }
        };
        runtime.spawn(serve(listener, tls.clone(), drain.clone(), PROBES, handler));
    }
}

async fn serve<F>(
    listener: Listener,
    tls: tls::Server,
    drain: Drain,
    limits: gateward_api::Limits,
    handler: impl Fn(ApiRequest) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ApiResponse> + Send,
{
    match Door::new(listener, Some(tls), drain) {
        Ok(door) => gateward_api::serve(door, limits, ApiResponse::message, handler).await,
        Err(error) => tracing::error!(%error, "a listener of the control side could not be used"),
    }
}

/// The signals a node listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reload: Signal,
    reopen: Signal,
    upgrade: Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    Reload,
    Reopen,
    Upgrade,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.quit.recv() => Asked::Stop,
            _ = self.reload.recv() => Asked::Reload,
            _ = self.reopen.recv() => Asked::Reopen,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }

    /// Until somebody asks to stop, doing what else is asked meanwhile.
    async fn stop(&mut self, control: &Control, reload_now: &Notify, giver: Option<&Arc<Giver>>) {
        loop {
            match self.next().await {
                Asked::Stop => return,
                Asked::Reload if matches!(control.options.config, Some(ConfigSource::File(_))) => {
                    reload_now.notify_one();
                }
                Asked::Reload => tracing::warn!("SIGHUP: there is no configuration file to load again"),
                Asked::Reopen => {
                    if let Some(access_log) = &control.node().access_log {
                        access_log.reopen();
                    }
                }
                Asked::Upgrade => match giver {
                    Some(giver) => drop(tokio::spawn(giver.clone().relaunch())),
                    None => tracing::warn!("SIGUSR2: there is no way to hand over; start with --upgrade-socket PATH"),
                },
            }
        }
    }
}

impl Running {
    /// Where the node listens.
    pub(crate) fn addresses(&self) -> &Addresses {
        self.control.addresses.get().expect("set before a node is running")
    }

    /// The runtime of the control side.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.control_runtime
    }

    /// Serve until a signal asks to stop or another process has taken over, then stop: readiness fails, after the grace
    /// the listeners close, after the time-out what is left is cut. Another such signal ends it at once.
    pub(crate) fn until_stopped(mut self) -> Ended {
        let runtime = self.control_runtime;
        let giver = self.giver.as_ref();
        let ended = runtime.block_on(async {
            let stop = self.signals.stop(&self.control, &self.reload_now, giver);
            let followed = tokio::select! {
                () = stop => false,
                () = followed(giver) => true,
                // `None`: there is no worker, because there is no proxy port.
                Some(worker) = self.ended.recv() => {
                    tracing::error!(worker, "a worker ended unexpectedly; stopping, so that the process is started anew");
                    self.control.node().drain.advance(Stage::Closing);
                    return Ended::WorkerLost;
                }
            };
            if !followed {
                notify::stopping();
            }
            let asked_again = async {
                if followed {
                    // Nobody has asked yet.
                    self.signals.stop(&self.control, &self.reload_now, giver).await;
                    tracing::info!("asked to stop: stopping already, since another process took over");
                }
                self.signals.stop(&self.control, &self.reload_now, giver).await;
            };
            tokio::select! {
                () = drain(&self.control, giver, &mut self.ended) => {}
                () = asked_again => tracing::warn!("asked again to stop: ending at once"),
            }
            Ended::Stopped
        });
        flush_plugins(&self.control, &runtime, &self.background);
        // Whatever still runs on the control side holds the node, and with it the access log.
        runtime.shutdown_timeout(Duration::from_secs(1));
        self.background.shutdown_timeout(Duration::from_secs(1));
        tracing::info!("stopped");
        ended
    }
}

/// Wait until another process serves instead of this one.
async fn followed(giver: Option<&Arc<Giver>>) {
    let Some(giver) = giver else { return std::future::pending().await };
    let given = giver.given().await;
    tracing::info!(pid = given.pid, version = given.version, "another process has taken over; stopping");
    notify::main_process(given.pid);
}

/// The stages of a shutdown.
async fn drain(control: &Control, giver: Option<&Arc<Giver>>, ended: &mut mpsc::UnboundedReceiver<usize>) {
    let Options { grace, timeout, workers, .. } = &control.options;
    let stages = &control.node().drain;
    if !stages.handover().is_given() {
        tracing::info!(grace = ?grace, timeout = ?timeout, "stopping: not ready from now on, still accepting for the grace");
    }
    stages.advance(Stage::Draining);
    tokio::time::sleep(*grace).await;
    if let Some(giver) = giver {
        giver.close();
    }
    stages.advance(Stage::Closing);
    let deadline = Instant::now() + *timeout + WORKER_SLACK;
    for _ in 0..*workers {
        // `Ok(None)`: no proxy port, no worker.
        if timeout_at(deadline, ended.recv()).await.is_err() {
            tracing::warn!("workers are still busy at the end of the shutdown's time-out");
            return;
        }
    }
}

/// Let go of the plugins, and wait for their queues to be delivered.
fn flush_plugins(control: &Control, runtime: &Runtime, background: &Runtime) {
    let generation = control.node().plan().snapshot.generation;
    let Ok(plan) = control.reloader.compiler().empty(generation) else { return };
    control.node().swap(plan);
    let queues = background.handle().metrics();
    runtime.block_on(async {
        let deadline = Instant::now() + FLUSH;
        while queues.num_alive_tasks() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
