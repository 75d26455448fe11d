//! The oracle written from the specification: every route, every rule, in order.
//!
//! Slow and plain on purpose. Routes given by expressions are not its matter.

use super::{Answer, AnswerPath};
use crate::{Input, Scheme};
use gateward_model::entity::CidrPort;
use gateward_model::{Config, Protocol, Route};
use regex::Regex;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// The right answer for a request.
pub fn find(config: &Config, input: &Input<'_>) -> Option<Answer> {
    let mut best: Option<(u64, Answer)> = None;
    for (index, route) in served(config).enumerate() {
        let paths = route.paths.as_deref().unwrap_or_default();
        // One candidate per prefix length, one (0) for all regular expressions or no path at all.
        let groups: BTreeSet<usize> = paths.iter().map(|path| group_of(path)).collect();
        let groups = if groups.is_empty() { BTreeSet::from([0]) } else { groups };
        for group in groups {
            let paths: Vec<&String> = paths.iter().filter(|path| group_of(path) == group).collect();
            let Some(path) = path_match(&paths, input.path) else { continue };
            let priority = priority(route, &paths);
            let beaten = best.as_ref().is_some_and(|(best, _)| *best >= priority);
            if !beaten && fields_match(route, input) {
                best = Some((priority, Answer { index, path }));
            }
        }
    }
    best.map(|(_, answer)| answer)
}

/// The routes that can be found, in file order.
pub fn served(config: &Config) -> impl Iterator<Item = &Route> {
    let off = |route: &Route| config.services.iter().any(|it| Some(it.id) == route.service && !it.enabled);
    let stream = [Protocol::Tcp, Protocol::Tls, Protocol::Udp, Protocol::TlsPassthrough];
    config.routes.iter().map(|route| &**route).filter(move |route| !off(route) && !stream.contains(&route.protocols[0]))
}

/// The priority of the part of a route that has these paths (all of one group).
pub fn priority(route: &Route, paths: &[&String]) -> u64 {
    let mut priority = 0_u64;
    let kinds = [
        route.sources.is_some(),
        route.destinations.is_some(),
        route.methods.is_some(),
        route.hosts.is_some(),
        route.headers.is_some(),
        route.snis.is_some(),
        !paths.is_empty(),
    ];
    priority += kinds.iter().filter(|set| **set).count() as u64 * (1 << 61);
    if let Some(hosts) = &route.hosts
        && !hosts.concat().contains('*')
    {
        priority += 1 << 60;
    }
    priority += route.headers.as_ref().map_or(0, |headers| headers.len()).min(255) as u64 * (1 << 52);
    match paths.first() {
        Some(path) if path.starts_with('~') => priority += (1 << 51) + u64::from(route.regex_priority) * (1 << 19),
        Some(path) => priority += path.len() as u64 % (1 << 19),
        None => {}
    }
    priority
}

/// The group a path is in: its length, or 0 for a regular expression.
pub fn group_of(path: &str) -> usize {
    if path.starts_with('~') { 0 } else { path.len() }
}

fn path_match(paths: &[&String], path: &str) -> Option<AnswerPath> {
    if paths.is_empty() {
        return Some(AnswerPath::None);
    }
    paths.iter().find_map(|rule| match rule.strip_prefix('~') {
        Some(pattern) => {
            let pattern = format!("^{pattern}");
            with_regex(&pattern, |regex| regex.is_match(path)).then_some(AnswerPath::Regex(pattern))
        }
        None => path.starts_with(rule.as_str()).then_some(AnswerPath::Prefix(rule.len())),
    })
}

fn fields_match(route: &Route, input: &Input<'_>) -> bool {
    let tls = matches!(input.scheme, Scheme::Https | Scheme::Grpcs);
    let methods = route.methods.as_ref().is_none_or(|methods| methods.iter().any(|method| method == input.method));
    let hosts = route.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|host| host_matches(host, input)));
    let snis = !tls
        || route.snis.as_ref().is_none_or(|snis| {
            input.sni.is_some_and(|sent| snis.iter().any(|sni| sni.trim_end_matches('.').eq_ignore_ascii_case(sent)))
        });
    let headers = route.headers.iter().flatten().all(|(name, values)| {
        let sent = header_values(input, name);
        sent.iter().any(|sent| values.iter().any(|value| header_matches(value, sent)))
    });
    let port = input.port.unwrap_or(input.local_port);
    let sources = net_matches(route.sources.as_ref(), input.src.ip(), input.src.port());
    let destinations = net_matches(route.destinations.as_ref(), input.dst.ip(), port);
    methods && hosts && snis && headers && sources && destinations
}

fn host_matches(rule: &str, input: &Input<'_>) -> bool {
    let sent = input.host.to_lowercase();
    let sent = sent.strip_suffix('.').unwrap_or(&sent);
    let (name, port) = match rule.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port.parse::<u16>().ok()),
        _ => (rule, None),
    };
    let name = name.to_lowercase();
    let name_fits = match (name.strip_prefix('*'), name.strip_suffix('*')) {
        (Some(suffix), _) => sent.ends_with(suffix),
        (_, Some(prefix)) => sent.starts_with(prefix),
        _ => sent == name.strip_suffix('.').unwrap_or(&name),
    };
    !sent.is_empty() && name_fits && port.is_none_or(|port| port == input.port.unwrap_or(input.local_port))
}

/// The values of a header rule's name: `-` and `_` are the same, underscores as sent come first.
pub fn header_values(input: &Input<'_>, name: &str) -> Vec<String> {
    let underscored = name.to_lowercase().replace('-', "_");
    let values = |wanted: &str| -> Vec<String> {
        let fields = input.headers.iter().filter(|(name, _)| name.to_lowercase() == wanted);
        fields.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    };
    let raw = values(&underscored);
    if raw.is_empty() { values(&underscored.replace('_', "-")) } else { raw }
}

fn header_matches(rule: &str, sent: &str) -> bool {
    match rule.strip_prefix("~*") {
        Some(pattern) => with_regex(&format!("(?i){pattern}"), |regex| regex.is_match(sent)),
        None => rule.to_lowercase() == sent.to_lowercase(),
    }
}

fn net_matches(rules: Option<&Vec<CidrPort>>, ip: IpAddr, port: u16) -> bool {
    rules.is_none_or(|rules| {
        rules.iter().any(|rule| {
            rule.port.is_none_or(|wanted| wanted == port) && rule.ip.as_ref().is_none_or(|rule| ip_matches(rule, ip))
        })
    })
}

fn ip_matches(rule: &str, ip: IpAddr) -> bool {
    let (network, bits) = rule.split_once('/').unwrap_or((rule, "32"));
    let (Ok(IpAddr::V4(network)), IpAddr::V4(ip), Ok(bits)) = (network.parse(), ip, bits.parse::<usize>()) else {
        return false;
    };
    let text = |ip: std::net::Ipv4Addr| ip.octets().map(|octet| format!("{octet:08b}")).concat();
    text(network)[..bits] == text(ip)[..bits]
}

/// Patterns come from a short list and are costly to compile.
fn with_regex<T>(pattern: &str, run: impl FnOnce(&Regex) -> T) -> T {
    thread_local! {
        static CACHE: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    CACHE.with_borrow_mut(|cache| {
        let regex = cache.entry(pattern.to_owned());
        run(regex.or_insert_with(|| Regex::new(pattern).expect("the patterns of the table are valid")))
    })
}
