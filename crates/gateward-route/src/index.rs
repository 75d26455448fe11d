//! The index: host, then path prefix, then the few matchers filed there.
//!
//! Matchers are sorted by (priority descending, file order) once; the position in that order is a matcher's
//! *rank*, so "the first that matches" is "the smallest rank that matches" and places can be searched in any
//! order. A request's host leads to at most one bucket of exact hosts, the buckets of wildcards that fit it,
//! and the bucket of matchers without hosts; each bucket is a tree of path prefixes. A regular expression is
//! filed under the literal text it must start with.
//!
//! The best rank found bounds the rest of the search: places that hold nothing better are not entered. Only
//! matchers that share host and path place are tried one after the other.

use crate::compile::{self, Draft};
use crate::host::{CanonicalHost, HostPattern, HostRule, StackBytes};
use crate::matcher::{Matcher, PathTest};
use crate::tree::{Forest, NO_RANK, TreeId};
use crate::{CompileError, Found, Input, PathMatch, RouteEntry};
use gateward_model::{Config, RouterFlavor};
use rustc_hash::FxHashMap;

/// Rows a configuration may file for each host and path it names, on average. A matcher with many hosts and
/// many paths needs their product; beyond this it is filed under its hosts alone, which bounds memory.
const ROWS_PER_NAME: usize = 8;
/// Rows any configuration may file.
const FREE_ROWS: usize = 100_000;

/// Every route of a configuration, ready for look-ups. Immutable and shared between workers.
pub struct Router {
    entries: Vec<RouteEntry>,
    /// In order of rank.
    matchers: Vec<Matcher>,
    paths: Forest<Row>,
    hosts: HostIndex,
}

/// A matcher in a place of the index.
#[derive(Debug, Clone, Copy)]
struct Row {
    rank: u32,
    /// The destination port the host asks for.
    port: Option<u16>,
}

/// From host to trees of path prefixes.
struct HostIndex {
    exact: FxHashMap<String, TreeId>,
    wildcards: Forest<TreeId>,
    prefixes: TreeId,
    /// Keys are suffixes backwards.
    suffixes: TreeId,
    any: TreeId,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Router")
            .field("routes", &self.entries.len())
            .field("matchers", &self.matchers.len())
            .finish_non_exhaustive()
    }
}

impl Router {
    /// Compile the routes of `config`. Left out are routes of services that are not enabled, and stream routes.
    ///
    /// # Errors
    /// Every route that cannot be compiled.
    pub fn compile(config: &Config, flavor: RouterFlavor) -> Result<Self, Vec<CompileError>> {
        let (entries, mut drafts) = compile::compile(config, flavor)?;
        drafts.sort_by(|a, b| {
            b.matcher.priority.cmp(&a.matcher.priority).then_with(|| a.matcher.entry.cmp(&b.matcher.entry))
        });
        let mut plan = Plan::new(&drafts);
        let matchers = drafts.into_iter().enumerate().map(|(rank, draft)| plan.file(rank as u32, draft)).collect();
        let mut paths = Forest::default();
        let hosts = plan.build(&mut paths);
        Ok(Self { entries, matchers, paths, hosts })
    }

    /// The routes that can be found, in file order. [`Found::index`] counts in this list.
    pub fn routes(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// The route for a request: of all whose rules it satisfies, the one of the highest priority, and among
    /// equals the first in the file.
    pub fn find(&self, input: &Input<'_>) -> Option<Found<'_>> {
        let host = CanonicalHost::new(input.host);
        let host = host.as_str();
        let mut search = Search { router: self, input, host, best: NO_RANK, path: PathMatch::None };
        if !host.is_empty() {
            if let Some(tree) = self.hosts.exact.get(host) {
                search.enter(*tree);
            }
            search.enter_wildcards(self.hosts.prefixes, host.as_bytes());
            if self.hosts.wildcards.best(self.hosts.suffixes) < search.best {
                let backwards = StackBytes::collect(host.len(), host.bytes().rev());
                search.enter_wildcards(self.hosts.suffixes, backwards.as_slice());
            }
        }
        search.enter(self.hosts.any);
        let matcher = self.matchers.get(search.best as usize)?;
        Some(Found { index: matcher.entry as usize, path: search.path })
    }
}

/// One look-up under way.
struct Search<'r, 'i> {
    router: &'r Router,
    input: &'i Input<'i>,
    host: &'i str,
    best: u32,
    path: PathMatch<'r>,
}

impl<'r> Search<'r, '_> {
    fn enter_wildcards(&mut self, tree: TreeId, text: &[u8]) {
        self.router.hosts.wildcards.walk(tree, text, self.best, |buckets| {
            buckets.iter().for_each(|bucket| self.enter(*bucket));
            self.best
        });
    }

    fn enter(&mut self, tree: TreeId) {
        self.router.paths.walk(tree, self.input.path.as_bytes(), self.best, |rows| {
            self.try_rows(rows);
            self.best
        });
    }

    /// Rows are in order of rank: the first that matches is the best here.
    fn try_rows(&mut self, rows: &[Row]) {
        for row in rows {
            if row.rank >= self.best {
                return;
            }
            if row.port.is_some_and(|port| port != self.input.destination_port()) {
                continue;
            }
            if let Some(path) = self.router.matchers[row.rank as usize].matches(self.input, self.host) {
                self.best = row.rank;
                self.path = path;
                return;
            }
        }
    }
}

/// The index while it is planned: what goes where.
struct Plan {
    places: FxHashMap<HostPattern, Vec<(Vec<u8>, Row)>>,
    rows_left: usize,
}

impl Plan {
    fn new(drafts: &[Draft]) -> Self {
        let names: usize = drafts.iter().map(|draft| draft.hosts.len() + draft.path_keys.len()).sum();
        Self { places: FxHashMap::default(), rows_left: FREE_ROWS + names * ROWS_PER_NAME }
    }

    /// File a matcher under each of its hosts and path keys.
    fn file(&mut self, rank: u32, draft: Draft) -> Matcher {
        let Draft { mut matcher, mut hosts, mut path_keys } = draft;
        if hosts.is_empty() {
            hosts.push(HostRule::ANY);
        }
        if path_keys.is_empty() {
            path_keys.push(Vec::new());
        }
        let rows = hosts.len() * path_keys.len();
        if rows > self.rows_left {
            if let PathTest::Prefix(len) = matcher.path {
                matcher.path = PathTest::UnindexedPrefix(len, path_keys.drain(..).collect());
            }
            path_keys = vec![Vec::new()];
        }
        self.rows_left = self.rows_left.saturating_sub(rows);
        for HostRule { pattern, port } in hosts {
            let row = Row { rank, port };
            self.places.entry(pattern).or_default().extend(path_keys.iter().map(|key| (key.clone(), row)));
        }
        matcher
    }

    fn build(mut self, paths: &mut Forest<Row>) -> HostIndex {
        let mut plant = |rows: Vec<(Vec<u8>, Row)>| paths.plant(rows, |row| row.rank);
        let any = plant(self.places.remove(&HostPattern::Any).unwrap_or_default());
        let mut exact = FxHashMap::default();
        let (mut prefixes, mut suffixes) = (Vec::new(), Vec::new());
        for (pattern, rows) in self.places {
            let tree = plant(rows);
            match pattern {
                HostPattern::Any => {}
                HostPattern::Exact(name) => {
                    exact.insert(name, tree);
                }
                HostPattern::Prefix(text) => prefixes.push((text.into_bytes(), tree)),
                HostPattern::Suffix(text) => suffixes.push((text.bytes().rev().collect(), tree)),
            }
        }
        let mut wildcards = Forest::default();
        let prefixes = wildcards.plant::<Vec<u8>>(prefixes, |tree| paths.best(*tree));
        let suffixes = wildcards.plant::<Vec<u8>>(suffixes, |tree| paths.best(*tree));
        HostIndex { exact, wildcards, prefixes, suffixes, any }
    }
}
