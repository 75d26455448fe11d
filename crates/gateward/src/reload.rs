//! From a text to the plan being served: the one way in, whoever brings the text.
//!
//! A file that changed, SIGHUP and `POST /config` all end in [`Reloader::apply`]. It works beside the traffic, one
//! text at a time; a text with mistakes changes nothing.

use gateward_config::{Diagnostic, Format, Place, Severity};
use gateward_lua::LuaHost;
use gateward_model::{Config, EntityId, RouterFlavor, Snapshot};
use gateward_net::tls::Context;
use gateward_plugin::{NativePlugins, PluginEnv, PluginHost};
use gateward_proxy::{CompileError, Node, Plan, Settings, TlsPlanError};
use gateward_telemetry::{ControlCounter, Telemetry};
use gateward_wasm::plugin::WasmHost;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Problems that are logged and kept for `/status`, of one text.
const PROBLEMS_SHOWN: usize = 50;

/// What compiling depends on besides the text.
pub(crate) struct Compiler {
    /// Settings of the data plane.
    pub(crate) settings: Settings,
    /// What plugins get.
    pub(crate) env: PluginEnv,
    /// Which plugins there are.
    pub(crate) plugins: NativePlugins,
    /// Where plugins in other languages come from.
    pub(crate) host: Arc<dyn PluginHost>,
    /// Where series are registered.
    pub(crate) telemetry: Arc<Telemetry>,
    /// Certificates and keys of the process.
    pub(crate) tls: Arc<Context>,
    /// Where Lua plugins come from, but in tests.
    pub(crate) lua: Option<Arc<LuaHost>>,
    /// Where Wasm filters come from, if they are switched on.
    pub(crate) filters: Option<Arc<WasmHost>>,
}

/// A text that was right.
pub(crate) struct Compiled {
    /// Ready to be served.
    pub(crate) plan: Plan,
    /// What in the text has no effect.
    pub(crate) warnings: Vec<Diagnostic>,
}

/// A text loaded, not yet compiled.
struct Loaded {
    snapshot: Snapshot,
    warnings: Vec<Diagnostic>,
    places: HashMap<EntityId, Place>,
}

impl Compiler {
    /// Load and compile `text`.
    ///
    /// # Errors
    /// All problems, warnings included.
    pub(crate) fn compile(&self, text: &[u8], format: Format, generation: u64) -> Result<Compiled, Vec<Diagnostic>> {
        self.build(self.load(text, format, generation)?)
    }

    /// Load `text` without compiling it.
    ///
    /// # Errors
    /// All problems, warnings included.
    pub(crate) fn snapshot(&self, text: &[u8], format: Format) -> Result<Snapshot, Vec<Diagnostic>> {
        self.load(text, format, 1).map(|loaded| loaded.snapshot)
    }

    /// The plan of a node without configuration.
    ///
    /// # Errors
    /// None that can happen: there is nothing to be wrong.
    pub(crate) fn empty(&self, generation: u64) -> Result<Plan, Vec<Diagnostic>> {
        let snapshot = Snapshot { generation, ..Snapshot::empty() };
        self.build(Loaded { snapshot, warnings: Vec::new(), places: HashMap::new() }).map(|compiled| compiled.plan)
    }

    fn load(&self, text: &[u8], format: Format, generation: u64) -> Result<Loaded, Vec<Diagnostic>> {
        self.host.refresh();
        let loaded = load(text, format, self.settings.flavor, &self.plugins)?;
        let snapshot = Snapshot { generation, hash: loaded.hash, config: loaded.config };
        Ok(Loaded { snapshot, warnings: loaded.warnings, places: loaded.places })
    }

    fn build(&self, loaded: Loaded) -> Result<Compiled, Vec<Diagnostic>> {
        let Loaded { snapshot, warnings, places } = loaded;
        match Plan::compile(Arc::new(snapshot), &self.settings, &self.env, &*self.host, &self.telemetry, &self.tls) {
            Ok(plan) => {
                let lapsed = plan.lapsed_certificates(unix_seconds());
                let located = lapsed.into_iter().filter_map(|(id, lapse)| {
                    let place: &Place = places.get(&id)?;
                    Some(place.warning(format!("certificate '{id}' {lapse}")))
                });
                let mut warnings: Vec<Diagnostic> = warnings.into_iter().chain(located).collect();
                warnings.sort_by_key(|warning| (warning.line, warning.column));
                Ok(Compiled { plan, warnings })
            }
            Err(errors) => Err(problems(warnings, &errors, &places)),
        }
    }
}

/// Load `text` with this process's environment for vault references.
pub(crate) fn load(
    text: &[u8],
    format: Format,
    flavor: RouterFlavor,
    plugins: &NativePlugins,
) -> Result<gateward_config::Loaded, Vec<Diagnostic>> {
    let vault = |name: &str| std::env::var(name).ok();
    gateward_config::load(
        text,
        format,
        &gateward_config::Options { plugins, flavor, vault: &vault, now: unix_seconds() },
    )
}

/// Compiling knows entities and not positions; loading noted where they stand.
fn problems(warnings: Vec<Diagnostic>, errors: &[CompileError], places: &HashMap<EntityId, Place>) -> Vec<Diagnostic> {
    let located = errors.iter().map(|error| {
        let (id, message) = match error {
            CompileError::Route(error) => (Some(error.route), error.message.clone()),
            CompileError::Plugin(error) => (Some(error.id), error.reason.clone()),
            CompileError::Tls(TlsPlanError::Entity { id, error, .. }) => (Some(*id), error.to_string()),
            CompileError::Tls(TlsPlanError::Settings(_)) | CompileError::Target { .. } => (None, error.to_string()),
        };
        let place = id.and_then(|id| places.get(&id));
        // A regular expression's fault is drawn over several lines; a problem is one.
        place.map_or_else(|| problem(one_line(&error.to_string())), |place| place.error(one_line(&message)))
    });
    let mut problems: Vec<Diagnostic> = warnings.into_iter().chain(located).collect();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    // What stands between is the drawing; the last line is the reason.
    let Some(last) = lines.next_back() else { return first.to_owned() };
    let reason = last.trim_start_matches("error: ").trim_start_matches("= ");
    match first.split_once("-->") {
        Some((what, place)) => format!("{} at {}: {reason}", what.trim_end().trim_end_matches(':'), place.trim()),
        None => format!("{first} {reason}"),
    }
}

/// A problem of a text as a whole.
pub(crate) fn problem(message: String) -> Diagnostic {
    Diagnostic { severity: Severity::Error, line: 1, column: 1, path: String::new(), message, entity: None }
}

/// YAML unless it starts like a JSON object.
pub(crate) fn sniff(text: &[u8]) -> Format {
    match text.trim_ascii_start().first() {
        Some(b'{') => Format::Json,
        _ => Format::Yaml,
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What became of a text that was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It is being served.
    Swapped,
    /// It is the one being served already.
    Unchanged,
}

/// The last text offered, for `/status`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LastReload {
    /// Where it came from.
    pub(crate) origin: String,
    /// Unix seconds.
    pub(crate) at: u64,
    /// Whether it was taken.
    pub(crate) success: bool,
    /// The first problem, as text.
    pub(crate) last_error: Option<String>,
    /// How many problems there were.
    pub(crate) problems: usize,
    /// The first of them.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Takes texts and serves them.
pub(crate) struct Reloader {
    node: Arc<Node>,
    compiler: Arc<Compiler>,
    /// Held while a text is worked on.
    gate: tokio::sync::Mutex<()>,
    last: Mutex<Option<LastReload>>,
    /// What the filters looked like when a text was offered last, and when one was taken.
    filters_offered: AtomicU64,
    filters_served: AtomicU64,
}

impl Reloader {
    /// For a node that serves a plan of `compiler` already.
    pub(crate) fn new(node: Arc<Node>, compiler: Arc<Compiler>) -> Self {
        let filters = compiler.host.refresh();
        Self {
            node,
            compiler,
            gate: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            filters_offered: AtomicU64::new(filters),
            filters_served: AtomicU64::new(filters),
        }
    }

    /// The node.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What compiles.
    pub(crate) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Whether filters changed since a text was offered last. Reads what changed: call it where that may take time.
    pub(crate) fn filters_changed(&self) -> bool {
        self.compiler.host.refresh() != self.filters_offered.load(Ordering::Relaxed)
    }

    /// The last text offered.
    pub(crate) fn last(&self) -> Option<LastReload> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Load, compile and serve `text`. `origin` names it in the log and in `/status`.
    ///
    /// # Errors
    /// All problems; what was served before still is.
    pub(crate) async fn apply(&self, text: Vec<u8>, format: Format, origin: &str) -> Result<Applied, Vec<Diagnostic>> {
        let _one_at_a_time = self.gate.lock().await;
        let current = self.node.plan();
        let (generation, hash) = (current.snapshot.generation + 1, current.snapshot.hash.clone());
        // The old plan must not live longer than its requests on our account.
        drop(current);
        let compiler = self.compiler.clone();
        let filters = match tokio::task::spawn_blocking(move || compiler.host.refresh()).await {
            Ok(filters) => filters,
            Err(error) => return Err(vec![problem(format!("reading filters failed: {error}; please report this"))]),
        };
        self.filters_offered.store(filters, Ordering::Relaxed);
        let same_filters = filters == self.filters_served.load(Ordering::Relaxed);
        let compiler = self.compiler.clone();
        let work = move || -> Result<Option<Compiled>, Vec<Diagnostic>> {
            let loaded = compiler.load(&text, format, generation)?;
            if loaded.snapshot.hash == hash && same_filters {
                return Ok(None);
            }
            compiler.build(loaded).map(Some)
        };
        let outcome = match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) => Err(vec![problem(format!("compiling failed: {error}; please report this"))]),
        };
        match outcome {
            Ok(Some(compiled)) => {
                self.filters_served.store(filters, Ordering::Relaxed);
                Ok(self.serve(compiled, origin))
            }
            Ok(None) => {
                tracing::info!(origin, "configuration is the one being served already");
                if self.last().is_some_and(|last| !last.success) {
                    // The mistake was taken back: the last one offered is being served again.
                    self.node.telemetry.count_control(ControlCounter::ConfigReloadOk);
                }
                self.remember(origin, &[], true);
                Ok(Applied::Unchanged)
            }
            Err(problems) => {
                self.refuse(&problems, origin);
                Err(problems)
            }
        }
    }

    /// Note that a text could not even be read.
    pub(crate) fn unreadable(&self, origin: &str, message: String) {
        self.refuse(&[problem(message)], origin);
    }

    fn serve(&self, compiled: Compiled, origin: &str) -> Applied {
        let Compiled { plan, warnings } = compiled;
        log_warnings(&warnings, origin);
        announce(&plan, origin);
        self.node.swap(plan);
        self.node.telemetry.count_control(ControlCounter::ConfigReloadOk);
        self.remember(origin, &[], true);
        Applied::Swapped
    }

    fn refuse(&self, problems: &[Diagnostic], origin: &str) {
        for problem in problems.iter().take(PROBLEMS_SHOWN) {
            match problem.severity {
                Severity::Error => tracing::error!("configuration refused: {origin}:{problem}"),
                Severity::Warning => tracing::warn!("{origin}:{problem}"),
            }
        }
        if problems.len() > PROBLEMS_SHOWN {
            tracing::error!("configuration refused: {origin}: {} more problems", problems.len() - PROBLEMS_SHOWN);
        }
        self.node.telemetry.count_control(ControlCounter::ConfigReloadFailed);
        self.remember(origin, problems, false);
    }

    /// Note what became of a text.
    pub(crate) fn remember(&self, origin: &str, problems: &[Diagnostic], success: bool) {
        let first = problems.iter().find(|problem| problem.severity == Severity::Error);
        let last = LastReload {
            origin: origin.to_owned(),
            at: unix_seconds(),
            success,
            last_error: first.map(|problem| format!("{origin}:{problem}")),
            problems: problems.len(),
            diagnostics: problems.iter().take(PROBLEMS_SHOWN).cloned().collect(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }
}

/// Say in the log what is being served from now on.
pub(crate) fn announce(plan: &Plan, origin: &str) {
    let Snapshot { generation, hash, config } = &*plan.snapshot;
    let Config { services, routes, plugins, consumers, .. } = config;
    tracing::info!(
        origin,
        generation,
        hash,
        services = services.len(),
        routes = routes.len(),
        plugins = plugins.len(),
        consumers = consumers.len(),
        "configuration applied"
    );
    for warning in plan.stream_warnings() {
        tracing::warn!("{warning}");
    }
    for warning in plan.tls_warnings(unix_seconds()) {
        tracing::warn!("{warning}");
    }
}

/// Log what in a text has no effect.
pub(crate) fn log_warnings(warnings: &[Diagnostic], origin: &str) {
    for warning in warnings.iter().take(PROBLEMS_SHOWN) {
        tracing::warn!("{origin}:{warning}");
    }
    if warnings.len() > PROBLEMS_SHOWN {
        tracing::warn!("{origin}: {} more warnings; 'gateward check' shows them", warnings.len() - PROBLEMS_SHOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    const GOOD: &str = "_format_version: '3.0'\nservices:\n- name: a\n  url: http://127.0.0.1:1\n";

    #[tokio::test]
    async fn a_wrong_text_keeps_what_is_served_and_shows() {
        let reloader = testing::control("").reloader.clone();
        let apply = async |text: &str| reloader.apply(text.into(), Format::Yaml, "test").await;
        let generation = || reloader.node().plan().snapshot.generation;
        assert_eq!(apply(GOOD).await, Ok(Applied::Swapped));
        assert_eq!(generation(), 1);
        assert_eq!(apply(GOOD).await, Ok(Applied::Unchanged));
        assert_eq!(generation(), 1);
        let problems = apply("_format_version: '3.0'\nservices:\n- nam: a\n- url: 7\n").await.unwrap_err();
        assert!(problems.len() >= 2, "{problems:?}");
        assert_eq!(generation(), 1);
        let last = reloader.last().unwrap();
        assert!(!last.success && last.last_error.unwrap().starts_with("test:3:"), "{:?}", last.diagnostics);
        assert!(!reloader.node().telemetry.snapshot().last_reload_success);
        assert_eq!(apply(GOOD).await, Ok(Applied::Unchanged));
        assert!(reloader.node().telemetry.snapshot().last_reload_success);
        assert_eq!(apply(&GOOD.replace("a\n", "b\n")).await, Ok(Applied::Swapped));
        assert_eq!(generation(), 2);
        assert!(reloader.last().unwrap().success);
    }

    #[tokio::test]
    async fn what_only_compiling_finds_has_a_place_too() {
        let reloader = testing::control("").reloader.clone();
        let text = "_format_version: '3.0'\nconsumers:\n- username: ann\n\
                    plugins:\n- name: prometheus\n- name: key-auth\n  config:\n    anonymous: bob\n";
        let problems = reloader.apply(text.into(), Format::Yaml, "test").await.unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!((problem.line, problem.column, problem.path.as_str()), (6, 3, "plugins[1]"));
        assert!(problem.message.starts_with("config.anonymous names the consumer 'bob'"), "{problem}");
        assert_eq!(problem.entity.as_ref().map(|entity| entity.kind.as_str()), Some("plugins"));
    }

    #[test]
    fn drawings_become_one_line() {
        let drawn = "`expression` cannot be used:  --> 1:13\n  |\n1 | x ~ \"((\"\n  |\n  = regex parse error:\nerror: unclosed group";
        assert_eq!(one_line(drawn), "`expression` cannot be used at 1:13: unclosed group");
        assert_eq!(one_line("one line"), "one line");
    }

    #[test]
    fn texts_are_told_apart() {
        assert_eq!(sniff(b" \n{}"), Format::Json);
        assert_eq!(sniff(b"a: {}"), Format::Yaml);
        assert_eq!(sniff(b""), Format::Yaml);
    }
}
