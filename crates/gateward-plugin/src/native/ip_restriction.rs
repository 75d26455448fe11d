//! ip-restriction: who may pass is a question of the client's address.
//!
//! Lists may be long (block lists of tens of thousands of networks), so that a list is a hash set of networks
//! with the prefix lengths that occur: a look-up costs one probe per length, whatever the list's size. IPv4
//! addresses mapped into IPv6 are IPv4 addresses here, in lists and in clients.

use crate::BuildError;
use crate::contract::Soon;
use crate::contract::{Definition, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::Exchange;
use crate::native::settings;
use crate::stream::{Preread, StreamExchange};
use gateward_model::schema::{Check, Field, Rule, Schema};
use ipnet::{IpNet, Ipv4Net};
use rustc_hash::FxHashSet;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

/// Prefix length of `::ffff:0:0/96`, where IPv4 addresses are mapped (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "ip-restriction", priority: 990, schema, check_scope: settings::http_and_streams, build }
}

fn schema() -> Schema {
    let networks = || Field::array(Field::string().rule(Rule::Custom(check_network)));
    Schema::new([
        ("allow", networks()),
        ("deny", networks()),
        ("status", Field::integer().between(200, 599)),
        ("message", Field::string()),
    ])
    .check(Check::AtLeastOneOf(vec!["allow".into(), "deny".into()]))
}

fn check_network(value: &Value) -> Result<(), String> {
    match value.as_str().and_then(parse_network) {
        Some(_) => Ok(()),
        None => {
            Err(format!("invalid ip or cidr range: {value}: write it like 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"))
        }
    }
}

fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(unmapped(network).trunc())
}

/// A network of mapped addresses as the IPv4 network it means.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let short = v6.prefix_len().checked_sub(MAPPED_PREFIX);
    match (short, v6.addr().to_ipv4_mapped()) {
        (Some(prefix), Some(address)) => Ipv4Net::new(address, prefix).map_or(network, IpNet::V4),
        _ => network,
    }
}

#[derive(Deserialize)]
struct Settings {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    status: Option<u16>,
    message: Option<String>,
}

struct IpRestriction {
    allow: Networks,
    deny: Networks,
    status: u16,
    message: Option<String>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let networks = |list: Option<Vec<String>>| {
        let unreadable = |text: &String| settings::refuse(context, format!("invalid ip or cidr range: {text}"));
        let parsed =
            list.unwrap_or_default().into_iter().map(|text| parse_network(&text).ok_or_else(|| unreadable(&text)));
        parsed.collect::<Result<Vec<_>, _>>().map(Networks::new)
    };
    Ok(Box::new(IpRestriction {
        allow: networks(settings.allow)?,
        deny: networks(settings.deny)?,
        status: settings.status.unwrap_or(403),
        message: settings.message,
    }))
}

impl Plugin for IpRestriction {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, preread: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let address = exchange.client.ip.to_canonical();
        if !self.denies(address) {
            return Step::Next;
        }
        let message = self.message.clone().unwrap_or_else(|| format!("IP address not allowed: {address}"));
        Step::Respond(LocalResponse::message(self.status, message))
    }

    /// There is nobody to read a message: the connection is closed.
    fn preread<'a>(&'a self, stream: &'a mut StreamExchange) -> Soon<'a, Preread> {
        let denied = self.denies(stream.client.ip().to_canonical());
        Soon::Now(if denied { Preread::Close(self.status) } else { Preread::Next })
    }
}

impl IpRestriction {
    fn denies(&self, address: IpAddr) -> bool {
        self.deny.contains(address) || !(self.allow.is_empty() || self.allow.contains(address))
    }
}

/// A set of networks, truncated to their prefix.
struct Networks {
    networks: FxHashSet<IpNet>,
    v4_lengths: Vec<u8>,
    v6_lengths: Vec<u8>,
}

impl Networks {
    fn new(list: Vec<IpNet>) -> Self {
        let lengths = |v4: bool| {
            let mut lengths: Vec<u8> =
                list.iter().filter(|network| network.addr().is_ipv4() == v4).map(IpNet::prefix_len).collect();
            lengths.sort_unstable();
            lengths.dedup();
            lengths
        };
        Self { v4_lengths: lengths(true), v6_lengths: lengths(false), networks: list.into_iter().collect() }
    }

    fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    fn contains(&self, address: IpAddr) -> bool {
        let lengths = if address.is_ipv4() { &self.v4_lengths } else { &self.v6_lengths };
        lengths
            .iter()
            .any(|length| IpNet::new(address, *length).is_ok_and(|network| self.networks.contains(&network.trunc())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(config: Value, address: &str, expected: &str) {
        let case = format!("{config} {address}");
        let mut exchange = testing::request("GET", "/", &[]);
        exchange.client.ip = address.parse().unwrap();
        let plugin = testing::build(&definition(), config);
        let response = testing::access(plugin.as_ref(), &mut exchange);
        assert_eq!(testing::summary(response.as_ref()), expected, "{case}");
    }

    #[test]
    fn lists_decide_and_deny_goes_first() {
        let lists = json!({"allow": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"], "deny": ["10.1.2.3", "10.9.9.9/16"]});
        check(lists.clone(), "10.1.2.4", "next");
        check(lists.clone(), "192.0.2.7", "next");
        check(lists.clone(), "2001:db8:1::1", "next");
        check(lists.clone(), "10.1.2.3", "403 IP address not allowed: 10.1.2.3");
        check(lists.clone(), "10.9.0.1", "403 IP address not allowed: 10.9.0.1");
        check(lists.clone(), "192.0.2.8", "403 IP address not allowed: 192.0.2.8");
        check(lists, "2001:db9::1", "403 IP address not allowed: 2001:db9::1");
        check(json!({"deny": ["0.0.0.0/0"]}), "::1", "next");
        check(json!({"deny": ["::/0"], "allow": []}), "127.0.0.1", "next");
        check(json!({"deny": ["::1"], "status": 418, "message": "no"}), "::1", "418 no");
    }

    #[test]
    fn streams_are_closed() {
        let plugin = testing::build(&definition(), json!({"allow": ["10.0.0.0/8"], "deny": ["10.1.2.3"]}));
        let preread = |address: &str| match plugin.preread(&mut crate::stream::testing::stream(address)) {
            Soon::Now(said) => said,
            Soon::Later(_) => panic!("nothing to wait for"),
        };
        for address in ["10.1.2.4", "::ffff:10.1.2.4"] {
            assert_eq!(preread(address), Preread::Next, "{address}");
        }
        for address in ["10.1.2.3", "192.0.2.1", "::1"] {
            assert_eq!(preread(address), Preread::Close(403), "{address}");
        }
    }

    #[test]
    fn mapped_addresses_are_v4() {
        check(json!({"deny": ["10.0.0.1"]}), "::ffff:10.0.0.1", "403 IP address not allowed: 10.0.0.1");
        check(json!({"deny": ["::ffff:10.0.0.1"]}), "10.0.0.1", "403 IP address not allowed: 10.0.0.1");
        check(json!({"deny": ["::ffff:10.0.0.0/104"]}), "10.2.0.1", "403 IP address not allowed: 10.2.0.1");
        check(json!({"deny": ["::ffff:10.0.0.0/104"]}), "11.2.0.1", "next");
    }

    #[test]
    fn networks_are_checked() {
        for (text, good) in [
            ("1.2.3.4", true),
            ("1.2.3.4/32", true),
            ("::/0", true),
            ("1.2.3.4/33", false),
            ("1.2.3", false),
            ("", false),
            ("host", false),
        ] {
            assert_eq!(testing::problems(&schema(), json!({"allow": [text]})).is_empty(), good, "{text:?}");
        }
        assert!(!testing::problems(&schema(), json!({})).is_empty());
        assert!(!testing::problems(&schema(), json!({"allow": []})).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sets_agree_with_a_scan(networks in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..8), address in any::<u32>(), near in any::<bool>()) {
            let nets: Vec<IpNet> = networks
                .iter()
                .filter_map(|(bits, length)| IpNet::new(IpAddr::from(bits.to_be_bytes()), *length).ok())
                .collect();
            let bits = match networks.first() {
                Some((bits, _)) if near => bits ^ 1,
                _ => address,
            };
            let address = IpAddr::from(bits.to_be_bytes());
            let set = Networks::new(nets.iter().map(IpNet::trunc).collect());
            prop_assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address)));
        }
    }
}
