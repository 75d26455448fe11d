//! The oracle that is Kong's own engine: routes as the expressions Kong generates, run by `atc-router`.
//!
//! Equal priorities are decided there by id, the greatest first, so ids are made from the position in the file.

use super::linear::{group_of, header_values, priority, served};
use crate::{Input, Scheme};
use atc_router::ast::{Type, Value};
use atc_router::context::Context;
use atc_router::router::Router;
use atc_router::schema::Schema;
use gateward_model::entity::CidrPort;
use gateward_model::{Config, Protocol, Route, RouterFlavor};
use std::collections::BTreeSet;
use std::sync::LazyLock;
use uuid::Uuid;

static SCHEMA: LazyLock<Schema> = LazyLock::new(schema);

/// The engine with the matchers of a configuration.
pub struct Oracle {
    router: Router<'static>,
}

impl Oracle {
    /// Generate the expressions.
    ///
    /// # Panics
    /// When the engine refuses one.
    pub fn new(config: &Config, flavor: RouterFlavor) -> Self {
        let mut router = Router::new(&SCHEMA);
        let mut add = |priority: u64, index: usize, expression: &str| {
            let id = Uuid::from_u128(u128::MAX - index as u128);
            let added = router.add_matcher(priority as usize, id, expression);
            added.unwrap_or_else(|error| panic!("{expression}: {error}"));
        };
        for (index, route) in served(config).enumerate() {
            let protocols = (flavor == RouterFlavor::Expressions).then(|| protocol_test(&route.protocols)).flatten();
            let with_protocols =
                |expression: String| [expression].into_iter().chain(protocols.clone()).collect::<Vec<_>>().join(" && ");
            if let Some(expression) = &route.expression {
                let priority = 0xff << 56 | route.priority.unwrap_or(0);
                add(priority, index, &with_protocols(expression.clone()));
                continue;
            }
            let paths = route.paths.as_deref().unwrap_or_default();
            let groups: BTreeSet<usize> = paths.iter().map(|path| group_of(path)).collect();
            for group in if groups.is_empty() { BTreeSet::from([0]) } else { groups } {
                let paths: Vec<&String> = paths.iter().filter(|path| group_of(path) == group).collect();
                add(priority(route, &paths), index, &with_protocols(expression_of(route, &paths)));
            }
        }
        Self { router }
    }

    /// The position of the right route.
    pub fn find(&self, input: &Input<'_>) -> Option<usize> {
        let mut context = Context::new(&SCHEMA);
        fill(&mut context, input);
        if !self.router.execute(&mut context) {
            return None;
        }
        context.result.map(|found| (u128::MAX - found.uuid.as_u128()) as usize)
    }
}

fn schema() -> Schema {
    let mut schema = Schema::default();
    let texts = ["net.protocol", "tls.sni", "http.method", "http.host", "http.path"];
    let families = ["http.path.segments.*", "http.headers.*", "http.queries.*"];
    texts.into_iter().chain(families).for_each(|field| schema.add_field(field, Type::String));
    let numbers = ["net.src.port", "net.dst.port", "http.path.segments.len"];
    numbers.into_iter().for_each(|field| schema.add_field(field, Type::Int));
    ["net.src.ip", "net.dst.ip"].into_iter().for_each(|field| schema.add_field(field, Type::IpAddr));
    schema
}

fn expression_of(route: &Route, paths: &[&String]) -> String {
    let mut parts = Vec::new();
    let any_of = |tests: Vec<String>| format!("({})", tests.join(" || "));
    if let Some(snis) = &route.snis {
        let tests = snis.iter().map(|sni| format!("tls.sni == {:?}", sni.trim_end_matches('.').to_lowercase()));
        parts.push(any_of([r#"net.protocol != "https""#.to_owned()].into_iter().chain(tests).collect()));
    }
    for (side, rules) in [("src", &route.sources), ("dst", &route.destinations)] {
        if let Some(rules) = rules {
            parts.push(any_of(rules.iter().map(|rule| net_test(side, rule)).collect()));
        }
    }
    if let Some(methods) = &route.methods {
        parts.push(any_of(methods.iter().map(|method| format!("http.method == {method:?}")).collect()));
    }
    if let Some(hosts) = &route.hosts {
        parts.push(any_of(hosts.iter().map(|host| host_test(&host.to_lowercase())).collect()));
    }
    if !paths.is_empty() {
        let test = |path: &&String| match path.strip_prefix('~') {
            Some(pattern) => format!("http.path ~ r#\"^{}\"#", pattern.replace("?<", "?P<")),
            None => format!("http.path ^= {path:?}"),
        };
        parts.push(any_of(paths.iter().map(test).collect()));
    }
    for (name, values) in route.headers.iter().flatten() {
        let field = format!("any(lower(http.headers.{}))", name.to_lowercase().replace('-', "_"));
        let test = |value: &String| match value.strip_prefix("~*") {
            Some(pattern) => format!("{field} ~ r#\"{}\"#", pattern.to_lowercase()),
            None => format!("{field} == {:?}", value.to_lowercase()),
        };
        parts.push(any_of(values.iter().map(test).collect()));
    }
    parts.join(" && ")
}

fn host_test(host: &str) -> String {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, Some(port)),
        _ => (host, None),
    };
    let test = if let Some(suffix) = name.strip_prefix('*') {
        format!("http.host =^ {suffix:?}")
    } else if let Some(prefix) = name.strip_suffix('*') {
        format!("http.host ^= {prefix:?}")
    } else {
        format!("http.host == {:?}", name.trim_end_matches('.'))
    };
    port.map_or(test.clone(), |port| format!("({test} && net.dst.port == {port})"))
}

fn net_test(side: &str, rule: &CidrPort) -> String {
    let ip = rule.ip.as_ref().map(|ip| match ip.split_once('/') {
        // The engine wants the bits behind the network's to be zero.
        Some((ip, "24")) => format!("net.{side}.ip in {}.0/24", ip.rsplit_once('.').map_or(ip, |(head, _)| head)),
        Some(_) => format!("net.{side}.ip in {ip}"),
        None => format!("net.{side}.ip == {ip}"),
    });
    let port = rule.port.map(|port| format!("net.{side}.port == {port}"));
    format!("({})", ip.into_iter().chain(port).collect::<Vec<_>>().join(" && "))
}

fn protocol_test(protocols: &[Protocol]) -> Option<String> {
    if protocols == [Protocol::Https] {
        return None;
    }
    let name = |protocol: &Protocol| match protocol {
        Protocol::Https | Protocol::Grpcs => "https",
        _ => "http",
    };
    let tests: Vec<String> = protocols.iter().map(|it| format!("net.protocol == {:?}", name(it))).collect();
    Some(format!("({})", tests.join(" || ")))
}

fn fill(context: &mut Context<'_>, input: &Input<'_>) {
    let mut text = |field: &str, value: &str| context.add_value(field, Value::String(value.to_owned()));
    let host = input.host.to_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if !host.is_empty() {
        text("http.host", host);
    }
    text("http.method", input.method);
    text("http.path", input.path);
    text("net.protocol", if matches!(input.scheme, Scheme::Https | Scheme::Grpcs) { "https" } else { "http" });
    if let Some(sni) = input.sni {
        text("tls.sni", sni);
    }
    for name in ["x_a", "x_b", "x_c"] {
        header_values(input, name).iter().for_each(|value| text(&format!("http.headers.{name}"), value));
    }
    for argument in input.query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        text(&format!("http.queries.{name}"), value);
    }
    let segments: Vec<&str> = input.path.split('/').filter(|segment| !segment.is_empty()).collect();
    for (index, segment) in segments.iter().enumerate() {
        text(&format!("http.path.segments.{index}"), segment);
    }
    if segments.len() > 1 {
        text("http.path.segments.0_1", &segments[..2].join("/"));
    }
    context.add_value("http.path.segments.len", Value::Int(segments.len() as i64));
    context.add_value("net.src.port", Value::Int(i64::from(input.src.port())));
    context.add_value("net.dst.port", Value::Int(i64::from(input.port.unwrap_or(input.local_port))));
    context.add_value("net.src.ip", Value::IpAddr(input.src.ip()));
    context.add_value("net.dst.ip", Value::IpAddr(input.dst.ip()));
}
