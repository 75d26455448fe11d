//! From configured routes to matchers with their places in the index.
//!
//! A route given by matchers becomes one matcher per length of its path prefixes and one for all its regular
//! expressions, because these differ in priority (Kong `split_routes_and_services_by_path`). A route given by
//! an expression becomes one matcher.

use crate::expression::{self, Program};
use crate::host::{HostPattern, HostRule};
use crate::literal::literal_start;
use crate::matcher::{HeaderValue, Matcher, MethodSet, NetRule, PathTest, Test, is_stream};
use crate::operand::{HeaderName, Network};
use crate::priority::{self, PathRank};
use crate::{CompileError, RouteEntry};
use gateward_model::entity::CidrPort;
use gateward_model::{Config, EntityId, Protocol, Route, RouterFlavor, Service};
use regex::Regex;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A matcher and the places it belongs in.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) matcher: Matcher,
    /// None: every host.
    pub(crate) hosts: Vec<HostRule>,
    /// Every path the matcher accepts starts with one of these; none: any path.
    pub(crate) path_keys: Vec<Vec<u8>>,
}

/// Paths of one route that have one rank.
struct PathGroup<'a> {
    rank: PathRank,
    paths: Vec<&'a str>,
}

/// Compile every route of an enabled service and every route without service.
pub(crate) fn compile(
    config: &Config,
    flavor: RouterFlavor,
) -> Result<(Vec<RouteEntry>, Vec<Draft>), Vec<CompileError>> {
    let mut compiler = Compiler { flavor, regexes: FxHashMap::default() };
    let services: FxHashMap<EntityId, &Arc<Service>> = config.services.iter().map(|it| (it.id, it)).collect();
    let (mut entries, mut drafts, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for route in &config.routes {
        let service = match route.service.map(|id| services.get(&id).ok_or(id)) {
            None => None,
            Some(Ok(service)) if service.enabled => Some(Arc::clone(service)),
            Some(Ok(_)) => continue,
            Some(Err(id)) => {
                errors.push(error_of(route, format!("`service` names {id}, which does not exist; add the service")));
                continue;
            }
        };
        if is_stream(&route.protocols) {
            continue;
        }
        match compiler.drafts_of(route, entries.len() as u32) {
            Ok(new) => drafts.extend(new),
            Err(message) => errors.push(error_of(route, message)),
        }
        entries.push(RouteEntry { route: Arc::clone(route), service });
    }
    if errors.is_empty() { Ok((entries, drafts)) } else { Err(errors) }
}

pub(crate) fn error_of(route: &Route, message: String) -> CompileError {
    CompileError { route: route.id, name: route.name.clone(), message }
}

/// What compiling the routes of one configuration shares.
struct Compiler {
    flavor: RouterFlavor,
    /// By pattern: many routes use the same few, and each takes kilobytes.
    regexes: FxHashMap<String, Regex>,
}

impl Compiler {
    fn drafts_of(&mut self, route: &Route, entry: u32) -> Result<Vec<Draft>, String> {
        match (&route.expression, self.flavor) {
            (Some(_), RouterFlavor::TraditionalCompatible) => Err("`expression` is not known to the router flavour \
                 `traditional_compatible`; set `router_flavor` to `expressions`, or use `hosts`, `paths` and the like"
                .to_owned()),
            (Some(text), RouterFlavor::Expressions) => Ok(vec![draft_of_expression(route, text, entry)?]),
            (None, _) => {
                let groups = group_paths(list(route.paths.as_ref()));
                groups.into_iter().map(|group| self.draft_of_fields(route, &group, entry)).collect()
            }
        }
    }

    fn draft_of_fields(&mut self, route: &Route, group: &PathGroup<'_>, entry: u32) -> Result<Draft, String> {
        let mut tests = self.field_tests(route)?;
        let hosts: Vec<HostRule> = list(route.hosts.as_ref()).iter().map(|host| HostRule::parse(host)).collect();
        if hosts.is_empty() && tests.is_empty() && group.rank == PathRank::None {
            return Err("the route has no rule, so nothing would select it; set one of `hosts`, `paths`, `methods`, \
                 `headers` or `snis`"
                .to_owned());
        }
        if self.flavor == RouterFlavor::Expressions {
            tests.extend(tls_test(&route.protocols));
        }
        let (path, path_keys) = match group.rank {
            PathRank::None => (PathTest::None, Vec::new()),
            PathRank::Prefix(len) => {
                (PathTest::Prefix(len), group.paths.iter().map(|path| path.as_bytes().to_vec()).collect())
            }
            PathRank::Regex => self.regex_paths(&group.paths)?,
        };
        let matcher = Matcher { priority: priority::of_fields(route, group.rank), entry, tests, path };
        Ok(Draft { matcher, hosts, path_keys })
    }

    fn field_tests(&mut self, route: &Route) -> Result<Vec<Test>, String> {
        let mut tests = Vec::new();
        let methods = list(route.methods.as_ref());
        if !methods.is_empty() {
            tests.push(Test::Methods(MethodSet::new(methods)));
        }
        for (name, values) in route.headers.iter().flatten() {
            let values: Result<_, String> = values.iter().map(|value| self.header_value(name, value)).collect();
            tests.push(Test::Header(HeaderName::new(name), values?));
        }
        let snis = list(route.snis.as_ref());
        if !snis.is_empty() {
            tests.push(Test::Snis(snis.iter().map(|sni| sni.strip_suffix('.').unwrap_or(sni).to_owned()).collect()));
        }
        let sources = net_rules("sources", list(route.sources.as_ref()))?;
        if !sources.is_empty() {
            tests.push(Test::Sources(sources));
        }
        let destinations = net_rules("destinations", list(route.destinations.as_ref()))?;
        if !destinations.is_empty() {
            tests.push(Test::Destinations(destinations));
        }
        Ok(tests)
    }

    fn header_value(&mut self, name: &str, value: &str) -> Result<HeaderValue, String> {
        let Some(pattern) = value.strip_prefix("~*") else { return Ok(HeaderValue::Text(value.to_owned())) };
        let regex = self.regex(&format!("(?i){pattern}"));
        regex.map(HeaderValue::Regex).map_err(|error| format!("`headers.{name}`: {}", regex_problem(value, &error)))
    }

    /// Regular expressions are anchored at the start, as in Kong.
    fn regex_paths(&mut self, paths: &[&str]) -> Result<(PathTest, Vec<Vec<u8>>), String> {
        let mut regexes = Vec::with_capacity(paths.len());
        let mut keys = Vec::with_capacity(paths.len());
        for path in paths {
            let pattern = format!("^{}", path.strip_prefix('~').unwrap_or(path));
            let regex = self.regex(&pattern).map_err(|error| format!("`paths`: {}", regex_problem(path, &error)))?;
            regexes.push(regex);
            keys.push(literal_start(&pattern));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok((PathTest::Regexes(regexes), keys))
    }

    fn regex(&mut self, pattern: &str) -> Result<Regex, regex::Error> {
        if let Some(regex) = self.regexes.get(pattern) {
            return Ok(regex.clone());
        }
        let regex = Regex::new(pattern)?;
        self.regexes.insert(pattern.to_owned(), regex.clone());
        Ok(regex)
    }
}

fn draft_of_expression(route: &Route, text: &str, entry: u32) -> Result<Draft, String> {
    let problem = |problem: String| format!("`expression` cannot be used: {problem}");
    let tree = expression::parse(text).map_err(problem)?;
    let program = Program::compile(&tree).map_err(problem)?;
    let keys = expression::keys::of(&tree);
    let hosts = keys.hosts.unwrap_or_default();
    Ok(Draft {
        matcher: Matcher {
            priority: priority::of_expression(route.priority.unwrap_or(0)),
            entry,
            tests: tls_test(&route.protocols).into_iter().collect(),
            path: PathTest::Expression(program),
        },
        hosts: hosts.into_iter().map(|name| HostRule { pattern: HostPattern::Exact(name), port: None }).collect(),
        path_keys: keys.paths.unwrap_or_default(),
    })
}

/// Split paths into groups of equal rank, in the order of their first members.
fn group_paths(paths: &[String]) -> Vec<PathGroup<'_>> {
    if paths.is_empty() {
        return vec![PathGroup { rank: PathRank::None, paths: Vec::new() }];
    }
    let mut groups: Vec<PathGroup<'_>> = Vec::new();
    let mut positions = FxHashMap::default();
    for path in paths {
        let rank = if path.starts_with('~') { PathRank::Regex } else { PathRank::Prefix(path.len()) };
        let key = if rank == PathRank::Regex { usize::MAX } else { path.len() };
        let position = *positions.entry(key).or_insert_with(|| {
            groups.push(PathGroup { rank, paths: Vec::new() });
            groups.len() - 1
        });
        groups[position].paths.push(path);
    }
    groups
}

pub(crate) fn net_rules(field: &str, rules: &[CidrPort]) -> Result<Vec<NetRule>, String> {
    let rule = |rule: &CidrPort| {
        let network = rule.ip.as_deref().map(|ip| {
            Network::parse(ip).ok_or_else(|| {
                format!("`{field}`: `{ip}` is neither an address nor a network; write 10.0.0.1 or 10.0.0.0/8")
            })
        });
        Ok(NetRule { network: network.transpose()?, port: rule.port })
    };
    rules.iter().map(rule).collect()
}

fn regex_problem(text: &str, error: &regex::Error) -> String {
    format!("`{text}` is not a usable regular expression (look-around and back-references do not exist here): {error}")
}

/// The condition `protocols` puts on the connection in the `expressions` flavour.
///
/// A route for https alone accepts both, so that requests in the clear can be redirected (Kong
/// `kong/router/expressions.lua`).
fn tls_test(protocols: &[Protocol]) -> Option<Test> {
    let is_tls = |protocol: &Protocol| matches!(protocol, Protocol::Https | Protocol::Grpcs | Protocol::Wss);
    if protocols == [Protocol::Https] {
        return None;
    }
    match (protocols.iter().any(is_tls), protocols.iter().any(|protocol| !is_tls(protocol))) {
        (true, false) => Some(Test::Tls(true)),
        (false, true) => Some(Test::Tls(false)),
        _ => None,
    }
}

fn list<T>(field: Option<&Vec<T>>) -> &[T] {
    field.map_or(&[], Vec::as_slice)
}
