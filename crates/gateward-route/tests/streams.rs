//! Stream routes: every rule of their order, and random tables against a scan written from Kong's text.

use gateward_model::entity::CidrPort;
use gateward_model::{Config, Protocol, Route, RouterFlavor};
use gateward_route::fuzzing::table::{blank_route, service};
use gateward_route::{StreamInput, StreamProtocol, StreamRouter};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

fn place(text: &str) -> CidrPort {
    // `ip`, `ip:port`, `:port`; networks have a slash.
    let (ip, port) = match text.split_once(':') {
        Some((ip, port)) => (ip, Some(port.parse().expect("a port"))),
        None => (text, None),
    };
    CidrPort { ip: (!ip.is_empty()).then(|| ip.to_owned()), port }
}

fn places(texts: &[&str]) -> Option<Vec<CidrPort>> {
    (!texts.is_empty()).then(|| texts.iter().map(|text| place(text)).collect())
}

fn route(protocols: &[Protocol], snis: &[&str], sources: &[&str], destinations: &[&str]) -> Route {
    Route {
        protocols: protocols.to_vec(),
        snis: (!snis.is_empty()).then(|| snis.iter().map(|name| (*name).to_owned()).collect()),
        sources: places(sources),
        destinations: places(destinations),
        ..blank_route(0)
    }
}

fn expression(protocols: &[Protocol], text: &str, priority: u64) -> Route {
    let (expression, priority) = (Some(text.to_owned()), Some(priority));
    Route { protocols: protocols.to_vec(), expression, priority, ..blank_route(0) }
}

fn config(routes: Vec<Route>) -> Config {
    Config { routes: routes.into_iter().map(Arc::new).collect(), ..Config::default() }
}

fn stream<'a>(protocol: StreamProtocol, sni: Option<&'a str>, src: &str, dst: &str) -> StreamInput<'a> {
    StreamInput {
        protocol,
        sni,
        vpce_id: None,
        src: src.parse().expect("an address"),
        dst: dst.parse().expect("an address"),
    }
}

#[track_caller]
fn check(routes: &[Route], input: &StreamInput<'_>, expected: Option<usize>) {
    let router =
        StreamRouter::compile(&config(routes.to_vec()), RouterFlavor::Expressions).expect("rules that compile");
    assert_eq!(router.find(input), expected, "{input:?}");
}

const TCP: &[Protocol] = &[Protocol::Tcp];
const TLS: &[Protocol] = &[Protocol::Tls];
const PASS: &[Protocol] = &[Protocol::TlsPassthrough];

#[test]
fn addresses_rank_above_ports_and_ports_above_networks() {
    let routes = [
        route(TCP, &[], &[], &["10.0.0.0/8"]),
        route(TCP, &[], &[], &[":5432"]),
        route(TCP, &[], &[], &["10.0.0.1"]),
        route(TCP, &[], &[], &["10.0.0.1:5432"]),
        route(TCP, &[], &["192.0.2.0/24"], &[]),
        route(TCP, &[], &["192.0.2.0/24"], &["10.0.0.0/8"]),
    ];
    let input = |src: &str, dst: &str| stream(StreamProtocol::Tcp, None, src, dst);
    check(&routes, &input("203.0.113.1:9", "10.0.0.2:1"), Some(0));
    check(&routes, &input("203.0.113.1:9", "10.0.0.2:5432"), Some(1));
    check(&routes, &input("203.0.113.1:9", "10.0.0.1:1"), Some(2));
    check(&routes, &input("203.0.113.1:9", "10.0.0.1:5432"), Some(3));
    // Sources outweigh destinations, and both together everything but a name.
    check(&routes, &input("192.0.2.7:9", "172.16.0.1:5432"), Some(4));
    check(&routes, &input("192.0.2.7:9", "10.0.0.1:5432"), Some(5));
    check(&routes, &input("203.0.113.1:9", "172.16.0.1:1"), None);
}

#[test]
fn names_select_encrypted_streams_in_any_case_and_with_wildcards() {
    let routes = [
        route(PASS, &["a.example", "Shout.Example."], &[], &[]),
        route(PASS, &["*.wild.example", "wild.*"], &[], &[]),
        route(TLS, &["a.example"], &[], &[]),
    ];
    let pass = |name| stream(StreamProtocol::TlsPassthrough, name, "192.0.2.7:9", "10.0.0.1:443");
    check(&routes, &pass(Some("a.example")), Some(0));
    check(&routes, &pass(Some("A.EXAMPLE")), Some(0));
    check(&routes, &pass(Some("shout.example")), Some(0));
    check(&routes, &pass(Some("x.y.wild.example")), Some(1));
    check(&routes, &pass(Some("wild.net")), Some(1));
    check(&routes, &pass(Some(".wild.example")), None);
    check(&routes, &pass(Some("b.example")), None);
    check(&routes, &pass(None), None);
    check(&routes, &stream(StreamProtocol::Tls, Some("a.example"), "192.0.2.7:9", "10.0.0.1:443"), Some(2));
}

#[test]
fn a_route_serves_its_protocols_only() {
    let routes = [route(&[Protocol::Udp], &[], &[], &[":53"]), route(TCP, &[], &[], &[":53"])];
    for (protocol, expected) in
        [(StreamProtocol::Udp, Some(0)), (StreamProtocol::Tcp, Some(1)), (StreamProtocol::Tls, None)]
    {
        check(&routes, &stream(protocol, None, "192.0.2.7:9", "10.0.0.1:53"), expected);
    }
    let router = StreamRouter::compile(&config(routes.to_vec()), RouterFlavor::TraditionalCompatible).unwrap();
    assert!(router.serves(StreamProtocol::Udp) && !router.serves(StreamProtocol::TlsPassthrough));
}

#[test]
fn expressions_see_addresses_names_and_the_protocol() {
    let routes = [
        route(PASS, &["a.example"], &[], &[]),
        expression(PASS, r#"tls.sni =^ ".example" && net.src.ip in 192.0.2.0/24"#, 1),
        expression(PASS, r#"net.dst.port == 444 && net.protocol == "tls_passthrough""#, 2),
    ];
    let pass = |name, dst: &str| stream(StreamProtocol::TlsPassthrough, name, "192.0.2.7:9", dst);
    check(&routes, &pass(Some("a.example"), "10.0.0.1:443"), Some(1));
    check(&routes, &pass(Some("a.example"), "10.0.0.1:444"), Some(2));
    check(
        &routes,
        &stream(StreamProtocol::TlsPassthrough, Some("a.example"), "203.0.113.1:1", "10.0.0.1:443"),
        Some(0),
    );
    check(&routes, &stream(StreamProtocol::Tcp, None, "192.0.2.7:9", "10.0.0.1:444"), None);
}

#[test]
fn what_cannot_be_used_is_refused_and_what_is_disabled_left_out() {
    let refused = |route: Route, flavor, text: &str| {
        let errors = StreamRouter::compile(&config(vec![route]), flavor).unwrap_err();
        assert!(errors[0].message.contains(text), "{errors:?}");
    };
    let expressions = RouterFlavor::Expressions;
    refused(route(TCP, &[], &[], &[]), expressions, "no rule");
    refused(expression(TCP, r#"http.path == "/""#, 0), expressions, "Unknown");
    refused(expression(TCP, "net.dst.port == 1", 0), RouterFlavor::TraditionalCompatible, "router_flavor");
    let mut config = config(vec![Route { service: Some(service(0, false).id), ..route(TCP, &[], &[], &[":1"]) }]);
    config.services.push(Arc::new(service(0, false)));
    assert!(StreamRouter::compile(&config, expressions).unwrap().routes().is_empty());
}

/// Kong's text, as a scan: the greatest priority wins, then the earlier in the file.
fn reference(routes: &[Route], input: &StreamInput<'_>) -> Option<usize> {
    let within = |network: &str, ip: IpAddr| {
        let (base, bits) = network.split_once('/').unwrap_or((network, "32"));
        let (IpAddr::V4(base), IpAddr::V4(ip)) = (base.parse().expect("an address"), ip) else { return false };
        let bits: u32 = bits.parse().expect("a number of bits");
        bits == 0 || u32::from(base) >> (32 - bits) == u32::from(ip) >> (32 - bits)
    };
    let here = |rules: &Option<Vec<CidrPort>>, address: SocketAddr| {
        rules.as_ref().is_none_or(|rules| {
            rules.iter().any(|rule| {
                rule.ip.as_ref().is_none_or(|ip| within(ip, address.ip()))
                    && rule.port.is_none_or(|port| port == address.port())
            })
        })
    };
    let encrypted = matches!(input.protocol, StreamProtocol::Tls | StreamProtocol::TlsPassthrough);
    let protocol = match input.protocol {
        StreamProtocol::Tcp => Protocol::Tcp,
        StreamProtocol::Tls => Protocol::Tls,
        StreamProtocol::TlsPassthrough => Protocol::TlsPassthrough,
        StreamProtocol::Udp => Protocol::Udp,
    };
    let weight = |rules: &Option<Vec<CidrPort>>| {
        let rules = rules.as_deref().unwrap_or_default();
        let any = |test: fn(&CidrPort) -> bool| u64::from(rules.iter().any(test));
        let ip = any(|rule| rule.ip.as_ref().is_some_and(|ip| !ip.contains('/')));
        let network = any(|rule| rule.ip.as_ref().is_some_and(|ip| ip.contains('/')));
        8 * ip + 4 * any(|rule| rule.port.is_some()) + network
    };
    let rank = |route: &Route| {
        let both = route.sources.is_some() && route.destinations.is_some();
        (u64::from(route.snis.is_some() || both) << 61) + (weight(&route.sources) << 4) + weight(&route.destinations)
    };
    let matches = |route: &Route| {
        let named = route.snis.as_ref().is_none_or(|names| {
            !encrypted || input.sni.is_some_and(|sni| names.iter().any(|name| name.eq_ignore_ascii_case(sni)))
        });
        route.protocols.contains(&protocol)
            && named
            && here(&route.sources, input.src)
            && here(&route.destinations, input.dst)
    };
    let mut best: Option<(u64, usize)> = None;
    for (index, route) in routes.iter().enumerate().filter(|(_, route)| matches(route)) {
        if best.is_none_or(|(highest, _)| rank(route) > highest) {
            best = Some((rank(route), index));
        }
    }
    best.map(|(_, index)| index)
}

fn any_place() -> impl Strategy<Value = CidrPort> {
    let ip = proptest::option::of(prop_oneof![
        Just("10.0.0.1".to_owned()),
        Just("10.0.0.2".to_owned()),
        Just("10.0.0.0/24".to_owned()),
        Just("0.0.0.0/0".to_owned()),
    ]);
    (ip, proptest::option::of(1_u16..4))
        .prop_map(|(ip, port)| CidrPort { port: if ip.is_none() { port.or(Some(1)) } else { port }, ip })
}

fn any_route() -> impl Strategy<Value = Route> {
    let protocols = prop_oneof![
        Just(vec![Protocol::Tcp]),
        Just(vec![Protocol::Tls]),
        Just(vec![Protocol::Tcp, Protocol::Tls, Protocol::Udp]),
        Just(vec![Protocol::TlsPassthrough]),
    ];
    let names = proptest::option::of(proptest::collection::vec("[ab]\\.x", 1..3));
    let places = || proptest::option::of(proptest::collection::vec(any_place(), 1..3));
    (protocols, names, places(), places()).prop_map(|(protocols, snis, sources, destinations)| {
        let nothing = snis.is_none() && sources.is_none() && destinations.is_none();
        let destinations = if nothing { places_of_port(2) } else { destinations };
        Route { protocols, snis, sources, destinations, ..blank_route(0) }
    })
}

fn places_of_port(port: u16) -> Option<Vec<CidrPort>> {
    Some(vec![CidrPort { ip: None, port: Some(port) }])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_index_finds_what_a_scan_finds(
        routes in proptest::collection::vec(any_route(), 0..12),
        streams in proptest::collection::vec((0..4_u8, proptest::option::of("[abAB]\\.x"), 1..4_u8, 1..4_u16, 1..4_u8, 1..4_u16), 1..12),
    ) {
        let router = StreamRouter::compile(&config(routes.clone()), RouterFlavor::TraditionalCompatible).unwrap();
        for (protocol, sni, src, src_port, dst, dst_port) in &streams {
            let protocol = [StreamProtocol::Tcp, StreamProtocol::Tls, StreamProtocol::TlsPassthrough, StreamProtocol::Udp]
                [usize::from(*protocol)];
            let input = StreamInput {
                protocol,
                sni: sni.as_deref(),
                vpce_id: None,
                src: ([10, 0, 0, *src], *src_port).into(),
                dst: ([10, 0, 0, *dst], *dst_port).into(),
            };
            prop_assert_eq!(router.find(&input), reference(&routes, &input), "{:?}", input);
        }
    }
}
