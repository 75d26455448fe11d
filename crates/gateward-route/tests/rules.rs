//! Every rule of route selection, one small table each, through the public API.

use gateward_http::Headers;
use gateward_model::entity::CidrPort;
use gateward_model::{Config, Protocol, Route, RouterFlavor, Service};
use gateward_route::fuzzing::table::{blank_route, service};
use gateward_route::{Found, Input, PathMatch, Router, Scheme};
use std::net::SocketAddr;
use std::sync::Arc;

/// A route made from a blank one.
fn route(change: impl FnOnce(&mut Route)) -> Route {
    let mut route = blank_route(0);
    change(&mut route);
    route
}

fn texts(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| text.to_string()).collect())
}

fn hosts(hosts: &[&str]) -> Route {
    route(|route| route.hosts = texts(hosts))
}

fn paths(paths: &[&str]) -> Route {
    route(|route| route.paths = texts(paths))
}

fn header(name: &str, values: &[&str]) -> Route {
    route(|route| route.headers = Some([(name.to_owned(), texts(values).unwrap_or_default())].into()))
}

fn expression(text: &str, priority: u64) -> Route {
    route(|route| (route.expression, route.priority) = (Some(text.to_owned()), Some(priority)))
}

fn config(routes: Vec<Route>) -> Config {
    Config { routes: routes.into_iter().map(Arc::new).collect(), ..Config::default() }
}

fn router(routes: Vec<Route>) -> Router {
    Router::compile(&config(routes), RouterFlavor::TraditionalCompatible).expect("the table is valid")
}

fn expressions(routes: Vec<Route>) -> Router {
    Router::compile(&config(routes), RouterFlavor::Expressions).expect("the table is valid")
}

/// A request, described by what matters about it.
#[derive(Clone)]
struct Request<'a> {
    input: Input<'a>,
    headers: Headers,
}

fn get(target: &str) -> Request<'_> {
    static NO_HEADERS: std::sync::LazyLock<Headers> = std::sync::LazyLock::new(Headers::default);
    let (host, path) = target.find('/').map_or((target, "/"), |at| target.split_at(at));
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let input = Input {
        method: "GET",
        host,
        port: None,
        local_port: 8000,
        path,
        query,
        headers: &NO_HEADERS,
        scheme: Scheme::Http,
        sni: None,
        vpce_id: None,
        src: SocketAddr::from(([10, 0, 0, 1], 5000)),
        dst: SocketAddr::from(([192, 0, 2, 1], 8000)),
    };
    Request { input, headers: Headers::default() }
}

impl<'a> Request<'a> {
    fn with(mut self, change: impl FnOnce(&mut Input<'a>)) -> Self {
        change(&mut self.input);
        self
    }

    fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        assert!(self.headers.add(name, value));
        self
    }
}

fn find<'r>(router: &'r Router, request: &Request<'_>) -> Option<Found<'r>> {
    router.find(&Input { headers: &request.headers, ..request.input })
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "the callers read better")]
fn check(router: &Router, request: Request<'_>, expected: impl Into<Option<usize>>) {
    assert_eq!(find(router, &request).map(|found| found.index), expected.into(), "{:?}", request.input);
}

#[test]
fn hosts_compare_without_case_port_and_final_dot() {
    let router = router(vec![hosts(&["Example.com"])]);
    for host in ["example.com", "EXAMPLE.COM", "Example.com", "example.com."] {
        check(&router, get(host), 0);
        check(&router, get(host).with(|input| input.port = Some(1234)), 0);
    }
    for host in ["", "www.example.com", "example.com..", "example.co", "xexample.com"] {
        check(&router, get(host), None);
    }
}

#[test]
fn wildcards_match_at_either_end_and_rank_below_plain_hosts() {
    let router = router(vec![hosts(&["*.example.com"]), hosts(&["www.example.*"]), hosts(&["www.example.com"])]);
    check(&router, get("www.example.com"), 2);
    check(&router, get("api.example.com"), 0);
    check(&router, get("a.b.EXAMPLE.com"), 0);
    check(&router, get("www.example.org"), 1);
    check(&router, get("example.com"), None);
}

#[test]
fn a_mixed_list_of_hosts_ranks_as_wildcard() {
    let router = router(vec![hosts(&["a.com", "*.b.com"]), hosts(&["a.com"])]);
    check(&router, get("a.com"), 1);
    check(&router, get("x.b.com"), 0);
}

#[test]
fn a_host_with_port_wants_the_authoritys_port_or_the_listeners() {
    let router = router(vec![hosts(&["a.com:80", "*.b:80", "[::1]:80"])]);
    for host in ["a.com", "x.b", "[::1]"] {
        check(&router, get(host).with(|input| input.port = Some(80)), 0);
        check(&router, get(host).with(|input| input.port = Some(81)), None);
        check(&router, get(host).with(|input| input.local_port = 80), 0);
        check(&router, get(host).with(|input| (input.port, input.local_port) = (Some(81), 80)), None);
        check(&router, get(host), None);
    }
}

#[test]
fn requests_without_host_match_routes_without_hosts() {
    let router = router(vec![hosts(&["*a"]), paths(&["/"])]);
    check(&router, get("/x"), 1);
}

#[test]
fn prefixes_are_texts_and_the_longest_wins() {
    let router = router(vec![paths(&["/a"]), paths(&["/abc"]), paths(&["/ab/"])]);
    for (path, expected) in [
        ("/a", Some(0)),
        ("/ab", Some(0)),
        ("/abcd", Some(1)),
        ("/ab/c", Some(2)),
        ("/a/b", Some(0)),
        ("/", None),
        ("/A", None),
    ] {
        check(&router, get(path), expected);
    }
}

#[test]
fn found_says_what_of_the_path_matched() {
    let table = router(vec![paths(&["/a", "/abc", "~/x/(?<id>\\d+)"]), hosts(&["h"])]);
    let path = |target| find(&table, &get(target)).unwrap().path;
    assert!(matches!(path("/ab"), PathMatch::Prefix(2)));
    assert!(matches!(path("/abcd"), PathMatch::Prefix(4)));
    assert!(matches!(path("h"), PathMatch::None));
    let PathMatch::Regex(regex) = path("/x/12/y") else { panic!("not a regular expression") };
    let captures = regex.captures("/x/12/y").unwrap();
    assert_eq!((&captures[0], &captures["id"]), ("/x/12", "12"));
}

#[test]
fn regexes_are_anchored_at_the_start_and_rank_above_prefixes() {
    let router = router(vec![paths(&["/a/very/long/prefix"]), paths(&["~/a/\\w+"]), paths(&["~x"])]);
    check(&router, get("/a/very/long/prefix"), 1);
    check(&router, get("/a/b/c"), 1);
    check(&router, get("/b/a/b"), None);
    check(&router, get("/x"), None);
}

#[test]
fn regex_priority_orders_regexes() {
    let ranked = |path: &str, priority| route(|route| (route.paths, route.regex_priority) = (texts(&[path]), priority));
    let router = router(vec![ranked("~/a", 1), ranked("~/a.*", 2), ranked("~/.*", 2)]);
    check(&router, get("/ab"), 1);
    check(&router, get("/b"), 2);
}

#[test]
fn a_route_with_several_paths_ranks_by_the_one_that_matches() {
    let router = router(vec![paths(&["/a", "/a/b/c"]), paths(&["/a/b"])]);
    assert_eq!(router.routes().len(), 2);
    check(&router, get("/a/x"), 0);
    check(&router, get("/a/b/x"), 1);
    check(&router, get("/a/b/c"), 0);
}

#[test]
fn more_kinds_of_rules_win_over_longer_ones() {
    let both = route(|route| (route.hosts, route.paths) = (texts(&["*.com"]), texts(&["/"])));
    let router = router(vec![hosts(&["a.com"]), both, paths(&["/long/path"])]);
    check(&router, get("a.com/long/path"), 1);
    check(&router, get("b.org/long/path"), 2);
}

#[test]
fn equals_are_decided_by_the_order_of_the_file() {
    let mut table = vec![paths(&["/a"]), paths(&["/b", "/a"]), paths(&["/a"])];
    check(&router(table.clone()), get("/a"), 0);
    table.remove(0);
    check(&router(table), get("/a"), 0);
}

#[test]
fn methods_compare_with_case() {
    let router = router(vec![route(|route| route.methods = texts(&["GET", "PURGE"])), paths(&["/"])]);
    check(&router, get("/"), 1); // equal counts of kinds, but the path has a length
    let router_only = self::router(vec![route(|route| route.methods = texts(&["GET", "PURGE"]))]);
    for (method, expected) in [("GET", Some(0)), ("PURGE", Some(0)), ("POST", None), ("get", None), ("", None)] {
        check(&router_only, get("/").with(|input| input.method = method), expected);
    }
}

#[test]
fn a_header_rule_wants_one_of_its_values_in_any_occurrence() {
    let router = router(vec![header("X-Tenant", &["One", "two"])]);
    check(&router, get("/").header("x-tenant", "ONE"), 0);
    check(&router, get("/").header("x-tenant", "zero").header("X-Tenant", "two"), 0);
    check(&router, get("/").header("x_tenant", "two"), 0);
    check(&router, get("/").header("x-tenant", "two, three"), None);
    check(&router, get("/").header("x-tenant", b"\xff"), None);
    check(&router, get("/"), None);
}

#[test]
fn header_values_can_be_regexes() {
    let router = router(vec![header("x-version", &["~*^v[12]$"]), header("x-any", &["~*\\S"])]);
    check(&router, get("/").header("X-Version", "V2"), 0);
    check(&router, get("/").header("X-Version", "v3"), None);
    check(&router, get("/").header("X-Any", "x"), 1);
    check(&router, get("/").header("X-Any", ""), None);
    check(&router, get("/").header("X-Any", b"x\xff"), None);
}

#[test]
fn every_header_rule_must_hold_and_more_of_them_rank_higher() {
    let two = route(|route| {
        route.headers = Some([("a".to_owned(), vec!["1".to_owned()]), ("b".to_owned(), vec!["2".to_owned()])].into());
    });
    let router = router(vec![header("a", &["1"]), two]);
    check(&router, get("/").header("a", "1"), 0);
    check(&router, get("/").header("a", "1").header("b", "2"), 1);
    check(&router, get("/").header("b", "2"), None);
}

#[test]
fn snis_constrain_encrypted_connections_only() {
    let router = router(vec![route(|route| route.snis = texts(&["A.com."]))]);
    let with = |scheme, sni| get("/").with(move |input| (input.scheme, input.sni) = (scheme, sni));
    check(&router, with(Scheme::Https, Some("a.COM")), 0);
    check(&router, with(Scheme::Grpcs, Some("a.com")), 0);
    check(&router, with(Scheme::Https, Some("b.com")), None);
    check(&router, with(Scheme::Https, None), None);
    check(&router, with(Scheme::Http, None), 0);
}

#[test]
fn sources_and_destinations_are_addresses_networks_and_ports() {
    let net = |ip: Option<&str>, port| Some(vec![CidrPort { ip: ip.map(str::to_owned), port }]);
    let router = router(vec![
        route(|route| route.sources = net(Some("10.0.0.0/30"), None)),
        route(|route| route.destinations = net(None, Some(443))),
    ]);
    check(&router, get("/"), 0);
    let outside = SocketAddr::from(([10, 0, 0, 4], 1));
    check(&router, get("/").with(|input| input.src = outside), None);
    check(&router, get("/").with(|input| (input.src, input.port) = (outside, Some(443))), 1);
}

#[test]
fn the_protocol_is_not_part_of_the_match() {
    let router = router(vec![route(|route| {
        (route.paths, route.protocols) = (texts(&["/"]), vec![Protocol::Https]);
    })]);
    check(&router, get("/"), 0);
}

#[test]
fn routes_of_disabled_services_and_stream_routes_are_left_out() {
    let with = |service: &Arc<Service>, path: &str| {
        let id = service.id;
        route(move |route| (route.service, route.paths) = (Some(id), texts(&[path])))
    };
    let (on, off) = (Arc::new(service(0, true)), Arc::new(service(1, false)));
    let stream = route(|route| route.protocols = vec![Protocol::Tcp]);
    let mut config = config(vec![with(&off, "/a/b"), stream, with(&on, "/a"), paths(&["/"])]);
    config.services = vec![Arc::clone(&on), off];
    let router = Router::compile(&config, RouterFlavor::TraditionalCompatible).unwrap();
    check(&router, get("/a/b"), 0);
    check(&router, get("/b"), 1);
    assert_eq!(router.routes().len(), 2);
    assert_eq!(router.routes()[0].service.as_ref(), Some(&on));
    assert_eq!(router.routes()[1].service, None);
}

#[test]
fn nothing_is_found_in_an_empty_table() {
    check(&router(vec![]), get("a.com/"), None);
}

#[test]
fn expressions_rank_above_fields_and_by_priority() {
    let router = expressions(vec![
        route(|route| (route.hosts, route.paths) = (texts(&["a.com"]), texts(&["/a/b"]))),
        expression(r#"http.path ^= "/a""#, 1),
        expression(r#"http.host == "A.com""#, 2),
        expression(r#"http.host == "a.com""#, 2),
    ]);
    check(&router, get("A.COM/a/b"), 2);
    check(&router, get("b.com/a/b"), 1);
    check(&router, get("b.com/b"), None);
}

#[test]
fn protocols_are_part_of_the_match_of_expressions() {
    let table = |protocols: &[Protocol]| {
        let mut route = expression(r#"http.path ^= "/""#, 0);
        route.protocols = protocols.to_vec();
        expressions(vec![route])
    };
    let http = || get("/");
    let https = || get("/").with(|input| input.scheme = Scheme::Https);
    check(&table(&[Protocol::Http]), http(), 0);
    check(&table(&[Protocol::Http]), https(), None);
    check(&table(&[Protocol::Grpcs]), http(), None);
    check(&table(&[Protocol::Grpcs]), https(), 0);
    // Kept for redirects.
    check(&table(&[Protocol::Https]), http(), 0);
    check(&table(&[Protocol::Http, Protocol::Https]), https(), 0);
}

#[test]
fn expressions_say_what_of_the_path_matched() {
    let table = expressions(vec![
        expression(r#"http.path ^= "/a" && http.path =^ "z""#, 3),
        expression(r#"http.path ~ "^/(b+)""#, 2),
        expression(r#"http.host == "h""#, 1),
    ]);
    let path = |target| find(&table, &get(target)).unwrap().path;
    assert!(matches!(path("/abz"), PathMatch::Prefix(2)));
    assert!(matches!(path("h/c"), PathMatch::None));
    let PathMatch::Regex(regex) = path("/bbc") else { panic!("not a regular expression") };
    assert_eq!(&regex.captures("/bbc").unwrap()[1], "bb");
}

#[test]
fn expression_fields_read_the_request() {
    let holds = |text: &str, request: Request<'_>, expected: bool| {
        check(&expressions(vec![expression(text, 0)]), request, expected.then_some(0));
    };
    holds(r#"http.queries.a == "1 2""#, get("/?b=0&a=1+2"), true);
    holds(r#"http.queries.a == "1""#, get("/?a=1&a=2"), false);
    holds(r#"any(http.queries.a) == "2""#, get("/?a=1&a=2"), true);
    holds(r#"http.queries.a == """#, get("/?a"), true);
    holds(r#"http.queries.a != "1""#, get("/"), false);
    holds(r#"http.headers.x_y == "1""#, get("/").header("X-Y", "1").header("x-y", "1"), true);
    holds(r#"http.headers.x_y == "1""#, get("/").header("X-Y", "1").header("x-y", "2"), false);
    holds(r#"lower(http.headers.x_y) == "é""#, get("/").header("X-Y", "É"), true);
    holds(r#"http.path.segments.0_1 == "a/b" && http.path.segments.len == 3"#, get("/a/b/c/"), true);
    holds(r#"net.src.ip in 10.0.0.0/8 && net.dst.port == 8000"#, get("/"), true);
    holds(
        r#"net.src.ip in 10.0.0.0/8"#,
        get("/").with(|input| input.src = "[::ffff:10.1.1.1]:1".parse().unwrap()),
        true,
    );
    holds(r#"net.src.ip in fd00::/8 || net.dst.ip == 192.0.2.1"#, get("/"), true);
    holds(r#"http.host ~ "^API""#, get("api.com"), true);
    holds(r#"http.host != "a""#, get("/"), false);
    holds(r#"!(http.host == "a")"#, get("/"), true);
}

#[test]
fn bad_routes_are_all_reported_by_name() {
    let named = |name: &str, mut route: Route| {
        route.name = Some(name.to_owned());
        route
    };
    let net = |route: &mut Route| route.sources = Some(vec![CidrPort { ip: Some("x".to_owned()), port: None }]);
    let config = config(vec![
        named("regex", paths(&["~/(?=a)"])),
        named("fine", paths(&["/"])),
        named("header", header("a", &["~*("])),
        named("rules", route(|_| {})),
        named("expression", expression(r#"http.path == "/""#, 0)),
        named("net", route(net)),
        named("service", route(|route| route.service = Some(service(9, true).id))),
    ]);
    let errors = Router::compile(&config, RouterFlavor::TraditionalCompatible).unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        ("regex", "look-around"),
        ("header", "`headers.a`"),
        ("rules", "no rule"),
        ("expression", "router_flavor"),
        ("net", "`sources`"),
        ("service", "does not exist"),
    ];
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, (name, problem)) in texts.iter().zip(expected) {
        assert!(text.starts_with(&format!("route `{name}` (")) && text.contains(problem), "{text}");
    }
}

#[test]
fn many_hosts_times_many_paths_stay_small_and_right() {
    let names = |kind: &str| (0..500).map(|index| format!("{kind}{index:03}")).collect::<Vec<_>>();
    let product = route(|route| (route.hosts, route.paths) = (Some(names("h")), Some(names("/p"))));
    let router = router(vec![product, paths(&["/"])]);
    let found = find(&router, &get("h499/p499/x")).unwrap();
    assert!(found.index == 0 && matches!(found.path, PathMatch::Prefix(5)));
    check(&router, get("h000/p500"), 1);
    check(&router, get("h500/p000"), 1);
    check(&router, get("h000/p"), 1);
}

#[test]
fn long_paths_and_hosts_are_looked_up_in_linear_time() {
    let deep: Vec<Route> = (1..2_000).map(|depth| paths(&[&"/a".repeat(depth)])).collect();
    let router = router(deep);
    let path = "/a".repeat(32_000);
    let host = "a.".repeat(32_000);
    let started = std::time::Instant::now();
    for _ in 0..10 {
        check(&router, get(&path).with(|input| input.host = &host), 1_998);
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
}
