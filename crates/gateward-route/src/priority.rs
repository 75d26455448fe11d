//! The 64-bit priority of a matcher: which of several matching routes wins.
//!
//! Bits, most significant first (Kong `kong/router/transform.lua`, `get_priority`):
//!
//! | bits | meaning |
//! |---|---|
//! | 63..61 | how many kinds of matchers are set |
//! | 60 | hosts are set and none has a wildcard |
//! | 59..52 | number of header names, at most 255 |
//! | 51 | the paths are regular expressions |
//! | 50..19 | `regex_priority`, for regular expressions only |
//! | 18..0 | length of the path prefix in bytes |
//!
//! Equal priorities are decided by the order of the file, which is not this file's matter.

use gateward_model::Route;
use gateward_model::entity::CidrPort;

const MAX_HEADER_COUNT: usize = 255;
const PLAIN_HOSTS: u64 = 1 << 60;
const REGEX_PATH: u64 = 1 << 51;
const MAX_PREFIX_LEN: u64 = 0x7_ffff;
const STREAM_FIRST: u64 = 1 << 61;
const STREAM_IP: u64 = 8;
const STREAM_PORT: u64 = 4;
const STREAM_CIDR: u64 = 1;

/// The paths of one matcher: a route's paths are split into groups of equal rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathRank {
    /// No paths set.
    None,
    /// Prefixes of this many bytes.
    Prefix(usize),
    /// Regular expressions.
    Regex,
}

/// The priority of a route given by matchers, for one group of its paths.
pub(crate) fn of_fields(route: &Route, paths: PathRank) -> u64 {
    let headers = route.headers.as_ref().map_or(0, |headers| headers.len());
    let hosts = route.hosts.as_deref().unwrap_or_default();
    let kinds = [
        route.sources.as_ref().is_some_and(|list| !list.is_empty()),
        route.destinations.as_ref().is_some_and(|list| !list.is_empty()),
        route.methods.as_ref().is_some_and(|list| !list.is_empty()),
        !hosts.is_empty(),
        headers > 0,
        route.snis.as_ref().is_some_and(|list| !list.is_empty()),
        paths != PathRank::None,
    ];
    let kinds = kinds.into_iter().map(u64::from).sum::<u64>();
    let plain_hosts = !hosts.is_empty() && hosts.iter().all(|host| !host.contains('*'));
    let path_bits = match paths {
        PathRank::None => 0,
        PathRank::Prefix(len) => len as u64 & MAX_PREFIX_LEN,
        PathRank::Regex => REGEX_PATH | u64::from(route.regex_priority) << 19,
    };
    kinds << 61 | if plain_hosts { PLAIN_HOSTS } else { 0 } | (headers.min(MAX_HEADER_COUNT) as u64) << 52 | path_bits
}

/// The priority of a stream route given by matchers (Kong `stream_get_priority`): bit 61 for a server name, or for
/// sources and destinations together; below it 4 bits that say what sources name, then 4 for destinations.
pub(crate) fn of_stream_fields(route: &Route) -> u64 {
    let weight = |rules: Option<&Vec<CidrPort>>| {
        rules.into_iter().flatten().fold(0, |weight, rule| {
            let ip = match rule.ip.as_deref() {
                Some(ip) if ip.contains('/') => STREAM_CIDR,
                Some(_) => STREAM_IP,
                None => 0,
            };
            weight | ip | if rule.port.is_some() { STREAM_PORT } else { 0 }
        })
    };
    let (sources, destinations) = (weight(route.sources.as_ref()), weight(route.destinations.as_ref()));
    let named = route.snis.as_ref().is_some_and(|list| !list.is_empty());
    let first = if named || (sources > 0 && destinations > 0) { STREAM_FIRST } else { 0 };
    first | sources << 4 | destinations
}

/// The priority of a route given by an expression: above every route given by matchers.
pub(crate) fn of_expression(priority: u64) -> u64 {
    0xff << 56 | priority
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::table::blank_route;

    fn texts(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| text.to_string()).collect())
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Route), paths: PathRank, expected: u64) {
        let mut route = blank_route(0);
        change(&mut route);
        let found = of_fields(&route, paths);
        assert_eq!(found, expected, "{found:#066b} is not {expected:#066b}");
    }

    #[test]
    fn every_kind_of_matcher_counts_once() {
        let net = || Some(vec![CidrPort { ip: None, port: Some(1) }, CidrPort { ip: None, port: Some(2) }]);
        check(|_| {}, PathRank::None, 0);
        check(|_| {}, PathRank::Prefix(5), 1 << 61 | 5);
        check(|route| route.methods = texts(&["GET", "PUT"]), PathRank::None, 1 << 61);
        check(|route| route.snis = texts(&["a", "b"]), PathRank::None, 1 << 61);
        check(|route| route.sources = net(), PathRank::None, 1 << 61);
        check(|route| route.destinations = net(), PathRank::None, 1 << 61);
        let all = |route: &mut Route| {
            (route.methods, route.hosts, route.snis) = (texts(&["GET"]), texts(&["*.a"]), texts(&["a"]));
            (route.sources, route.destinations) = (net(), net());
            route.headers = Some([("a".to_owned(), vec!["b".to_owned()])].into());
        };
        check(all, PathRank::Prefix(1), 7 << 61 | 1 << 52 | 1);
    }

    #[test]
    fn empty_lists_do_not_count() {
        let empty = |route: &mut Route| {
            (route.methods, route.hosts, route.snis) = (texts(&[]), texts(&[]), texts(&[]));
            (route.sources, route.destinations, route.headers) = (Some(vec![]), Some(vec![]), Some([].into()));
        };
        check(empty, PathRank::None, 0);
    }

    #[test]
    fn plain_hosts_rank_above_wildcards() {
        check(|route| route.hosts = texts(&["a", "b:80"]), PathRank::None, 1 << 61 | 1 << 60);
        check(|route| route.hosts = texts(&["a", "*.b"]), PathRank::None, 1 << 61);
        check(|route| route.hosts = texts(&["a.*"]), PathRank::None, 1 << 61);
    }

    #[test]
    fn header_names_count_up_to_255() {
        let headers = |count: usize| (0..count).map(|index| (format!("h{index}"), vec!["v".to_owned()])).collect();
        check(|route| route.headers = Some(headers(3)), PathRank::None, 1 << 61 | 3 << 52);
        check(|route| route.headers = Some(headers(255)), PathRank::None, 1 << 61 | 255 << 52);
        check(|route| route.headers = Some(headers(300)), PathRank::None, 1 << 61 | 255 << 52);
    }

    #[test]
    fn regex_priority_counts_for_regexes_only() {
        check(|route| route.regex_priority = 7, PathRank::Regex, 1 << 61 | 1 << 51 | 7 << 19);
        check(|route| route.regex_priority = u32::MAX, PathRank::Regex, 1 << 61 | 1 << 51 | 0xffff_ffff << 19);
        check(|route| route.regex_priority = 7, PathRank::Prefix(3), 1 << 61 | 3);
    }

    #[test]
    fn prefix_lengths_wrap_at_19_bits() {
        check(|_| {}, PathRank::Prefix(0x7_ffff), 1 << 61 | 0x7_ffff);
        check(|_| {}, PathRank::Prefix(0x8_0001), 1 << 61 | 1);
    }

    #[test]
    fn expressions_rank_above_all_matchers() {
        assert_eq!(of_expression(5), 0xff00_0000_0000_0005);
        assert!(of_expression(0) > 7 << 61 | PLAIN_HOSTS | 0xf << 52 | REGEX_PATH);
    }
}
