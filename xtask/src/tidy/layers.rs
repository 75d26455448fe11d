//! The architecture as a graph of crates: which arrows may exist, and what must not be reachable.
//!
//! Arrows go strictly downwards. The assertions that matter are the absences: a crate that cannot reach tokio
//! cannot read a socket, however the code inside it changes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{CargoOpt, DependencyKind, MetadataCommand, PackageId};

use super::Finding;
use crate::shell::root;

/// Where a crate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Product code; may use strictly lower levels.
    Level(u8),
    /// Helpers of tests; product crates may use them as dev-dependencies only.
    TestHelp,
    /// Programs around the product; nothing may use them.
    Tool,
}

const LAYERS: &[(&str, Layer)] = &[
    ("gateward-model", Layer::Level(0)),
    ("gateward-http", Layer::Level(0)),
    ("gateward-yaml", Layer::Level(0)),
    ("gateward-config", Layer::Level(1)),
    ("gateward-route", Layer::Level(1)),
    ("gateward-balance", Layer::Level(1)),
    ("gateward-net", Layer::Level(1)),
    ("gateward-telemetry", Layer::Level(1)),
    ("gateward-zone", Layer::Level(1)),
    ("gateward-plugin", Layer::Level(1)),
    ("gateward-api", Layer::Level(2)),
    ("gateward-wasm", Layer::Level(2)),
    ("gateward-lua", Layer::Level(2)),
    ("gateward-domain", Layer::Level(2)),
    ("gateward-proxy", Layer::Level(3)),
    ("gateward-dns", Layer::Level(3)),
    ("gateward", Layer::Level(4)),
    ("gateward-testkit", Layer::TestHelp),
    ("gateward-e2e", Layer::Tool),
    ("gateward-bench", Layer::Tool),
    ("xtask", Layer::Tool),
];

/// Crates that must never reach a package, not even through others.
const ABSENCES: &[(&str, &[&str], &str)] = &[
    ("gateward-model", RUNTIMES, "it reads no clock, socket or file"),
    ("gateward-http", RUNTIMES, "it is sans-IO"),
    ("gateward-yaml", RUNTIMES, "it turns text into values"),
    ("gateward-route", RUNTIMES, "it is a pure function of its arguments"),
    ("gateward-balance", RUNTIMES, "it is a pure function of its arguments"),
    ("gateward-config", RUNTIMES, "it turns text into values"),
    ("gateward-zone", RUNTIMES, "it is a pure function of its arguments"),
    ("gateward-proxy", &["wasmtime", "mlua", "hyper"], "plugin hosts implement the contract; the loop is our own"),
];

const RUNTIMES: &[&str] = &["tokio", "mio", "async-std", "smol", "hyper"];

/// The only crates through which a TLS library may be reached.
const TLS_CRATES: &[&str] = &["gateward-dns", "gateward-net"];
const TLS: &[&str] = &["rustls", "tokio-rustls", "openssl", "native-tls", "boring"];

const LONGEST_CHAIN: usize = 5;

/// Packages and their dependencies, by name.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    members: BTreeSet<String>,
    /// Normal (and build) dependencies.
    normal: BTreeMap<String, BTreeSet<String>>,
    /// Dev-dependencies of members.
    dev: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Reads the graph of this workspace for Linux.
    ///
    /// # Errors
    /// `cargo metadata` fails.
    pub(crate) fn read() -> Result<Self> {
        let metadata = MetadataCommand::new()
            .current_dir(root())
            .features(CargoOpt::AllFeatures)
            .other_options(["--filter-platform".to_owned(), "x86_64-unknown-linux-gnu".to_owned()])
            .exec()
            .context("cargo metadata failed; `cargo metadata` shows why")?;
        let names: BTreeMap<&PackageId, String> =
            metadata.packages.iter().map(|package| (&package.id, package.name.to_string())).collect();
        let name = |id: &PackageId| names.get(id).cloned().unwrap_or_default();
        let mut graph = Self { members: metadata.workspace_members.iter().map(name).collect(), ..Self::default() };
        for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
            for dependency in &node.deps {
                let is_dev = dependency.dep_kinds.iter().all(|kind| kind.kind == DependencyKind::Development);
                let arrows = if is_dev { &mut graph.dev } else { &mut graph.normal };
                arrows.entry(name(&node.id)).or_default().insert(name(&dependency.pkg));
            }
        }
        Ok(graph)
    }

    /// The workspace's crates.
    pub(crate) fn members(&self) -> BTreeSet<String> {
        self.members.clone()
    }

    /// A way from one package to another along normal dependencies that touches none of `around`.
    fn way(&self, from: &str, to: &str, around: &[&str]) -> Option<Vec<String>> {
        let mut queue = std::collections::VecDeque::from([vec![from.to_owned()]]);
        let mut seen = BTreeSet::new();
        while let Some(path) = queue.pop_front() {
            let last = path.last()?;
            if last == to {
                return Some(path);
            }
            for next in self.normal.get(last).into_iter().flatten() {
                if !around.contains(&next.as_str()) && seen.insert(next) {
                    queue.push_back(path.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        None
    }

    fn ours<'a>(&'a self, arrows: &'a BTreeMap<String, BTreeSet<String>>) -> impl Iterator<Item = (&'a str, &'a str)> {
        let from_ours = arrows.iter().filter(|(from, _)| self.members.contains(*from));
        let pairs = from_ours.flat_map(|(from, to)| to.iter().map(move |to| (from.as_str(), to.as_str())));
        pairs.filter(|(_, to)| self.members.contains(*to))
    }
}

fn layer(name: &str) -> Option<Layer> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// Arrows between our crates go strictly downwards; tools are never depended on.
pub(crate) fn arrows(graph: &Graph) -> Vec<Finding> {
    let unknown = graph.members.iter().filter(|name| layer(name).is_none());
    let mut findings: Vec<_> =
        unknown.map(|name| Finding::error(name, "has no layer; give it one in xtask/src/tidy/layers.rs")).collect();
    for (from, to) in graph.ours(&graph.normal) {
        let allowed = match (layer(from), layer(to)) {
            (Some(Layer::Level(from)), Some(Layer::Level(to))) => to < from,
            (Some(Layer::TestHelp), Some(Layer::Level(_))) => true,
            (Some(Layer::Tool), Some(Layer::Level(_) | Layer::TestHelp)) => true,
            (None, _) | (_, None) => true,
            _ => false,
        };
        if !allowed {
            findings.push(Finding::error(from, format!("must not depend on {to}: arrows go strictly down the layers")));
        }
    }
    for (from, to) in graph.ours(&graph.dev).filter(|(_, to)| layer(to) == Some(Layer::Tool)) {
        findings.push(Finding::error(from, format!("must not depend on {to}, not even in tests: it is a program")));
    }
    findings
}

/// What must not be reachable, and who alone may use TLS.
pub(crate) fn absences(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (from, targets, reason) in ABSENCES {
        for way in targets.iter().filter_map(|target| graph.way(from, target, &[])) {
            findings.push(Finding::error(*from, format!("reaches {}: {reason}", way.join(" -> "))));
        }
    }
    // Peers of tests and measurements bring what they need.
    let is_product = |name: &&String| !matches!(layer(name), Some(Layer::TestHelp | Layer::Tool));
    for member in graph.members.iter().filter(is_product).filter(|name| !TLS_CRATES.contains(&name.as_str())) {
        for way in TLS.iter().filter_map(|library| graph.way(member, library, TLS_CRATES)) {
            let message = format!("reaches {}: TLS is spoken in {}", way.join(" -> "), TLS_CRATES.join(", "));
            findings.push(Finding::error(member, message));
        }
    }
    findings
}

/// The longest chain of our crates, counted in crates.
pub(crate) fn chain(graph: &Graph) -> Vec<Finding> {
    let mut depths = BTreeMap::new();
    let deepest = graph.members.iter().map(|name| depth(name, graph, &mut depths)).max().unwrap_or(0);
    if deepest <= LONGEST_CHAIN {
        return Vec::new();
    }
    vec![Finding::error("workspace", format!("a chain of {deepest} crates; the limit is {LONGEST_CHAIN}"))]
}

/// Crates on the longest way down from `name`; cargo guarantees that there is no cycle.
fn depth(name: &str, graph: &Graph, known: &mut BTreeMap<String, usize>) -> usize {
    if let Some(found) = known.get(name) {
        return *found;
    }
    let below = graph.normal.get(name).into_iter().flatten().filter(|next| graph.members.contains(*next));
    let own = 1 + below.map(|next| depth(next, graph, known)).max().unwrap_or(0);
    known.insert(name.to_owned(), own);
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::testing::lines;

    fn graph(normal: &[(&str, &str)], dev: &[(&str, &str)], members: &[&str]) -> Graph {
        let map = |pairs: &[(&str, &str)]| {
            let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (from, to) in pairs {
                map.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            }
            map
        };
        Graph { members: members.iter().map(|name| (*name).to_owned()).collect(), normal: map(normal), dev: map(dev) }
    }

    #[test]
    fn arrows_up_and_sideways_are_found() {
        let members = ["gateward-model", "gateward-route", "gateward-config", "gateward-proxy"];
        let check = |from: &str, to: &str| arrows(&graph(&[(from, to)], &[], &members)).len();
        assert_eq!(check("gateward-route", "gateward-model"), 0);
        assert_eq!(check("gateward-proxy", "gateward-route"), 0);
        assert_eq!(check("gateward-model", "gateward-route"), 1);
        assert_eq!(check("gateward-route", "gateward-config"), 1);
    }

    #[test]
    fn a_crate_without_layer_is_found() {
        assert!(lines(&arrows(&graph(&[], &[], &["gateward-new"])))[0].contains("has no layer"));
    }

    #[test]
    fn test_help_is_for_tests_and_tools_for_nobody() {
        let members = ["gateward-http", "gateward-testkit", "xtask", "gateward-e2e"];
        assert_eq!(arrows(&graph(&[], &[("gateward-http", "gateward-testkit")], &members)), []);
        assert_eq!(arrows(&graph(&[("gateward-e2e", "gateward-testkit")], &[], &members)), []);
        assert_eq!(arrows(&graph(&[("gateward-http", "gateward-testkit")], &[], &members)).len(), 1);
        assert_eq!(arrows(&graph(&[], &[("gateward-http", "xtask")], &members)).len(), 1);
    }

    #[test]
    fn a_hidden_way_to_a_runtime_is_found() {
        let hidden = graph(&[("gateward-route", "helper"), ("helper", "tokio")], &[], &["gateward-route"]);
        assert!(lines(&absences(&hidden))[0].contains("gateward-route -> helper -> tokio"));
        let in_tests = graph(&[], &[("gateward-route", "tokio")], &["gateward-route"]);
        assert_eq!(absences(&in_tests), []);
    }

    #[test]
    fn tls_outside_its_crates_is_found() {
        let members = ["gateward-net", "gateward-proxy"];
        assert_eq!(absences(&graph(&[("gateward-net", "rustls")], &[], &members)), []);
        assert_eq!(
            absences(&graph(&[("gateward-proxy", "gateward-net"), ("gateward-net", "rustls")], &[], &members)),
            []
        );
        assert_eq!(absences(&graph(&[("gateward-proxy", "helper"), ("helper", "rustls")], &[], &members)).len(), 1);
        let peer = graph(&[("gateward-e2e", "helper"), ("helper", "rustls")], &[], &["gateward-e2e"]);
        assert_eq!(absences(&peer), [], "a peer of tests");
    }

    #[test]
    fn a_chain_that_is_too_long_is_found() {
        let members = ["a", "b", "c", "d", "e", "f"];
        let pairs = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")];
        assert_eq!(chain(&graph(&pairs[..4], &[], &members)), []);
        assert_eq!(chain(&graph(&pairs, &[], &members)).len(), 1);
    }
}
