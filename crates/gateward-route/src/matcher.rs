//! The tests of one matcher that the index does not answer by itself: methods, headers, addresses and the like.
//!
//! A matcher's tests are ANDed, the values of one test are ORed (Kong `kong/router/transform.lua`,
//! `get_expression`). The host and the path prefix are not here: reaching a matcher through the index proves
//! these.

use crate::expression::Program;
use crate::operand::{HeaderName, Network};
use crate::{Input, PathMatch};
use regex::Regex;
use rustc_hash::FxHashSet;
use std::net::IpAddr;

/// One route, or the part of a route whose paths have one rank.
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) priority: u64,
    /// Position of the route in [`crate::Router::routes`], which is in file order.
    pub(crate) entry: u32,
    pub(crate) tests: Vec<Test>,
    pub(crate) path: PathTest,
}

/// A condition on the request. Values are never empty.
#[derive(Debug)]
pub(crate) enum Test {
    Methods(MethodSet),
    Header(HeaderName, Vec<HeaderValue>),
    /// Constrains encrypted connections only.
    Snis(Vec<String>),
    Sources(Vec<NetRule>),
    Destinations(Vec<NetRule>),
    /// Whether the connection must (or must not) be encrypted.
    Tls(bool),
}

/// What a matcher asks of the path.
#[derive(Debug)]
pub(crate) enum PathTest {
    /// Nothing.
    None,
    /// One of several prefixes of this length in bytes, found through the index.
    Prefix(usize),
    /// The same for a matcher filed under its hosts alone.
    UnindexedPrefix(usize, FxHashSet<Vec<u8>>),
    /// One of these, tried in order.
    Regexes(Vec<Regex>),
    /// Whatever the expression says, of the path and of everything else.
    Expression(Program),
}

impl Matcher {
    /// Whether the request passes; if so what of the path was matched. `host` is canonical.
    pub(crate) fn matches(&self, input: &Input<'_>, host: &str) -> Option<PathMatch<'_>> {
        if !self.tests.iter().all(|test| test.passes(input)) {
            return None;
        }
        match &self.path {
            PathTest::None => Some(PathMatch::None),
            PathTest::Prefix(len) => Some(PathMatch::Prefix(*len)),
            PathTest::UnindexedPrefix(len, prefixes) => {
                let prefix = input.path.as_bytes().get(..*len)?;
                prefixes.contains(prefix).then_some(PathMatch::Prefix(*len))
            }
            PathTest::Regexes(regexes) => regexes.iter().find(|regex| regex.is_match(input.path)).map(PathMatch::Regex),
            PathTest::Expression(program) => program.run(input, host),
        }
    }
}

impl Test {
    fn passes(&self, input: &Input<'_>) -> bool {
        match self {
            Self::Methods(methods) => methods.contains(input.method),
            Self::Header(name, wanted) => {
                name.values(input).any(|value| wanted.iter().any(|wanted| wanted.matches(value)))
            }
            Self::Snis(names) => {
                !input.scheme.is_tls()
                    || input.sni.is_some_and(|sni| names.iter().any(|name| name.eq_ignore_ascii_case(sni)))
            }
            Self::Sources(rules) => rules.iter().any(|rule| rule.matches(input.src.ip(), input.src.port())),
            Self::Destinations(rules) => {
                rules.iter().any(|rule| rule.matches(input.dst.ip(), input.destination_port()))
            }
            Self::Tls(wanted) => input.scheme.is_tls() == *wanted,
        }
    }
}

/// A set of methods: the common ones as bits, the others as texts. Methods have case (RFC 9110 section 9.1).
#[derive(Debug, Default)]
pub(crate) struct MethodSet {
    common: u16,
    others: Vec<String>,
}

const COMMON_METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"];

impl MethodSet {
    pub(crate) fn new(methods: &[String]) -> Self {
        let mut set = Self::default();
        for method in methods {
            match common_bit(method) {
                Some(bit) => set.common |= bit,
                None => set.others.push(method.clone()),
            }
        }
        set
    }

    fn contains(&self, method: &str) -> bool {
        match common_bit(method) {
            Some(bit) => self.common & bit != 0,
            None => self.others.iter().any(|other| other == method),
        }
    }
}

fn common_bit(method: &str) -> Option<u16> {
    COMMON_METHODS.iter().position(|common| *common == method).map(|index| 1 << index)
}

/// A header value a rule asks for, in any case.
#[derive(Debug)]
pub(crate) enum HeaderValue {
    Text(String),
    /// Written `~*pattern`; matches anywhere in the value.
    Regex(Regex),
}

impl HeaderValue {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.as_bytes().eq_ignore_ascii_case(value),
            Self::Regex(regex) => str::from_utf8(value).is_ok_and(|value| regex.is_match(value)),
        }
    }
}

/// An address, a network or a port of `sources` or `destinations`.
#[derive(Debug)]
pub(crate) struct NetRule {
    pub(crate) network: Option<Network>,
    pub(crate) port: Option<u16>,
}

impl NetRule {
    pub(crate) fn matches(&self, ip: IpAddr, port: u16) -> bool {
        self.network.is_none_or(|network| network.contains(ip)) && self.port.is_none_or(|wanted| wanted == port)
    }
}

/// Whether a route's protocols are those of the stream proxy.
pub(crate) fn is_stream(protocols: &[gateward_model::Protocol]) -> bool {
    use gateward_model::Protocol::{Tcp, Tls, TlsPassthrough, Udp};
    protocols.first().is_some_and(|first| matches!(first, Tcp | Tls | Udp | TlsPassthrough))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_sets_hold_common_and_other_methods() {
        let set = MethodSet::new(&["GET".into(), "PURGE".into()]);
        for (method, expected) in [("GET", true), ("PURGE", true), ("POST", false), ("get", false), ("LINK", false)] {
            assert_eq!(set.contains(method), expected, "{method}");
        }
    }
}
