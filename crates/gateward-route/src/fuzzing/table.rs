//! Small route tables and requests from bytes.
//!
//! Every value comes from a short list, so that rules collide and requests hit them.

use crate::{Input, Scheme};
use gateward_http::Headers;
use gateward_model::entity::CidrPort;
use gateward_model::{Config, EntityId, PathHandling, Protocol, Route, RouterFlavor, Service};
use std::net::SocketAddr;
use std::sync::Arc;

const MAX_ROUTES: u8 = 12;
const REQUESTS: usize = 6;

const HOSTS: [&str; 12] =
    ["a.b", "b", "A.b", "*.b", "a.*", "*b", "a.b:80", "*.b:81", "a.*:80", "b.", "x.a.b", "[::1]:80"];
const PATHS: [&str; 14] = [
    "/",
    "/a",
    "/ab",
    "/a/",
    "/a/b",
    "/b",
    "/aa",
    "~/a",
    "~/a/(?<n>b)",
    "~/(a|ab)$",
    "~/a|b",
    "~/\\w+/b",
    "~/ab?",
    "~/a$",
];
const METHODS: [&str; 3] = ["GET", "POST", "PURGE"];
const HEADERS: [(&str, &str); 6] =
    [("x-a", "1"), ("x-a", "V2"), ("x-a", "~*v."), ("X_B", "1"), ("X_B", "~*^1$"), ("x-c", "z")];
const SNIS: [&str; 3] = ["s.a", "S.b", "s.c."];
const EXPRESSIONS: [&str; 24] = [
    r#"http.host == "a.b""#,
    r#"http.host == "b" || http.host == "a.b""#,
    r#"http.host =^ ".b" && http.path ^= "/a""#,
    r#"http.host ^= "a" && http.path == "/a""#,
    r#"http.path ^= "/a" && (http.method == "GET" || http.method == "POST")"#,
    r#"http.path ^= "/a" || http.host == "b" && http.path ^= "/""#,
    r#"http.path ~ "^/a" && http.host == "a.b""#,
    r#"http.path ~ "b$""#,
    r##"lower(http.path) == r#"/ab"#"##,
    r#"http.path contains "b" && net.protocol == "https""#,
    r#"!(http.path ^= "/a") && http.host != "b""#,
    r#"any(http.headers.x_a) == "1""#,
    r#"http.headers.x_a == "1""#,
    r#"any(lower(http.headers.x_a)) ~ "v""#,
    r#"http.headers.x_b != "1""#,
    r#"tls.sni == "s.a""#,
    r#"net.src.ip in 10.0.0.0/8 && net.src.port >= 2"#,
    r#"net.dst.port == 80 || net.dst.ip == 192.0.2.1"#,
    r#"net.src.ip not in 10.0.0.0/8 && net.dst.port != 81"#,
    r#"http.path.segments.len == 2 && http.path.segments.0 == "a""#,
    r#"http.path.segments.0_1 == "a/b""#,
    r#"http.path.segments.1 != "b""#,
    r#"http.queries.q == "1""#,
    r#"any(http.queries.q) ^= "2""#,
];
const REQUEST_HOSTS: [&str; 12] = ["a.b", "b", "A.B", "a.b.", "x.b", "a.x", "xb", "x.a.b", "[::1]", "", "a", "never"];
const REQUEST_METHODS: [&str; 4] = ["GET", "POST", "PURGE", "get"];
const QUERIES: [Option<&str>; 5] = [None, Some("q=1"), Some("q=1&q=2"), Some("q=2&p=1"), Some("q")];

/// Routes of both kinds and requests for them.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Route>,
    services: Vec<Arc<Service>>,
    /// What to look up.
    pub requests: Vec<Request>,
}

/// An [`Input`] that owns its parts.
#[derive(Debug)]
pub struct Request {
    method: &'static str,
    host: &'static str,
    port: Option<u16>,
    local_port: u16,
    path: String,
    query: Option<&'static str>,
    headers: Headers,
    scheme: Scheme,
    sni: Option<&'static str>,
    src: SocketAddr,
    dst: SocketAddr,
}

impl Table {
    /// The table `data` stands for; every text stands for one.
    pub fn derive(data: &[u8]) -> Self {
        let mut dice = Dice { data: data.iter() };
        let services = vec![Arc::new(service(0, true)), Arc::new(service(1, false))];
        let count = 1 + dice.below(MAX_ROUTES);
        let routes = (0..count).map(|position| route(&mut dice, u64::from(position), &services)).collect();
        let requests = (0..REQUESTS).map(|_| request(&mut dice)).collect();
        Self { routes, services, requests }
    }

    /// The configuration for a flavour: expressions are left out where they are not known.
    pub fn config(&self, flavor: RouterFlavor) -> Config {
        let fits = |route: &&Route| flavor == RouterFlavor::Expressions || route.expression.is_none();
        let routes = self.routes.iter().filter(fits).cloned().map(Arc::new).collect();
        Config { routes, services: self.services.clone(), ..Config::default() }
    }
}

impl Request {
    /// The request as the router takes it.
    pub fn input(&self) -> Input<'_> {
        Input {
            method: self.method,
            host: self.host,
            port: self.port,
            local_port: self.local_port,
            path: &self.path,
            query: self.query,
            headers: &self.headers,
            scheme: self.scheme,
            vpce_id: None,
            sni: self.sni,
            src: self.src,
            dst: self.dst,
        }
    }
}

/// Bytes as choices; zeros when they run out.
struct Dice<'a> {
    data: std::slice::Iter<'a, u8>,
}

impl Dice<'_> {
    fn below(&mut self, limit: u8) -> u8 {
        self.data.next().copied().unwrap_or(0) % limit
    }

    fn one_in(&mut self, limit: u8) -> bool {
        self.below(limit) == limit - 1
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.below(from.len() as u8))]
    }

    /// One to three of `from`, or nothing.
    fn some(&mut self, chance: u8, from: &[&str]) -> Option<Vec<String>> {
        if !self.one_in(chance) {
            return None;
        }
        let count = 1 + self.below(3);
        Some((0..count).map(|_| self.pick(from).to_owned()).collect())
    }
}

fn route(dice: &mut Dice<'_>, position: u64, services: &[Arc<Service>]) -> Route {
    let mut route = blank_route(position);
    route.service = match dice.below(8) {
        0 => None,
        7 => Some(services[1].id),
        _ => Some(services[0].id),
    };
    route.protocols = match dice.below(5) {
        0 => vec![Protocol::Https],
        1 => vec![Protocol::Http],
        2 => vec![Protocol::Grpc, Protocol::Grpcs],
        3 => vec![Protocol::Grpcs],
        _ => vec![Protocol::Http, Protocol::Https],
    };
    if dice.one_in(4) {
        route.expression = Some(dice.pick(&EXPRESSIONS).to_owned());
        route.priority = Some(u64::from(dice.below(3)));
        return route;
    }
    route.hosts = dice.some(2, &HOSTS);
    route.paths = dice.some(2, &PATHS);
    route.methods = dice.some(4, &METHODS);
    route.snis = dice.some(6, &SNIS);
    route.regex_priority = u32::from(dice.below(2));
    if dice.one_in(4) {
        let picks: Vec<_> = (0..1 + dice.below(3)).map(|_| dice.pick(&HEADERS)).collect();
        let headers = route.headers.get_or_insert_default();
        for (name, value) in picks {
            headers.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    route.sources = nets(dice, ["10.0.0.0/8", "10.1.2.3"], [1, 2]);
    route.destinations = nets(dice, ["192.0.2.1", "192.0.2.77/24"], [80, 81]);
    let ruleless = route.hosts.is_none() && route.paths.is_none() && route.methods.is_none() && route.headers.is_none();
    if ruleless && route.snis.is_none() {
        route.paths = Some(vec!["/".to_owned()]);
    }
    route
}

fn nets(dice: &mut Dice<'_>, ips: [&str; 2], ports: [u16; 2]) -> Option<Vec<CidrPort>> {
    if !dice.one_in(8) {
        return None;
    }
    let rule = match dice.below(4) {
        0 => CidrPort { ip: Some(ips[0].to_owned()), port: None },
        1 => CidrPort { ip: None, port: Some(ports[0]) },
        _ => CidrPort { ip: Some(ips[1].to_owned()), port: Some(ports[1]) },
    };
    Some(vec![rule])
}

fn request(dice: &mut Dice<'_>) -> Request {
    let mut headers = Headers::default();
    for _ in 0..dice.below(3) {
        let (name, value) = dice.pick(&[("X-A", "1"), ("x-a", "v2"), ("X-B", "1"), ("x_b", "2"), ("X-C", "Z")]);
        headers.add(name, value);
    }
    let mut path = "/".to_owned();
    (0..dice.below(6)).for_each(|_| path.push(dice.pick(&['a', 'b', '/', 'A'])));
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    Request {
        method: dice.pick(&REQUEST_METHODS),
        host: dice.pick(&REQUEST_HOSTS),
        port: dice.pick(&[None, Some(80), Some(81)]),
        local_port: dice.pick(&[8000, 80]),
        path,
        query: dice.pick(&QUERIES),
        headers,
        scheme: dice.pick(&[Scheme::Http, Scheme::Https, Scheme::Grpc, Scheme::Grpcs]),
        sni: dice.pick(&[None, Some("s.a"), Some("s.b"), Some("s.c")]),
        src: dice.pick(&[SocketAddr::from(([10, 1, 2, 3], 2)), SocketAddr::from(([11, 1, 2, 3], 1))]),
        dst: dice.pick(&[SocketAddr::from(([192, 0, 2, 1], 1)), SocketAddr::from(([192, 0, 3, 1], 1))]),
    }
}

/// A route without rules.
pub fn blank_route(position: u64) -> Route {
    Route {
        id: EntityId::derived("routes", &position.to_string()),
        name: None,
        protocols: vec![Protocol::Http, Protocol::Https],
        methods: None,
        hosts: None,
        paths: None,
        headers: None,
        snis: None,
        sources: None,
        destinations: None,
        regex_priority: 0,
        strip_path: true,
        preserve_host: false,
        path_handling: PathHandling::V0,
        https_redirect_status_code: 426,
        request_buffering: true,
        response_buffering: true,
        expression: None,
        priority: None,
        service: None,
        tags: None,
        created_at: 0,
        updated_at: 0,
    }
}

/// A service with nothing special about it.
pub fn service(position: u64, enabled: bool) -> Service {
    Service {
        id: EntityId::derived("services", &position.to_string()),
        name: None,
        protocol: Protocol::Http,
        host: "backend.internal".to_owned(),
        port: 80,
        path: None,
        retries: 5,
        connect_timeout: 60_000,
        write_timeout: 60_000,
        read_timeout: 60_000,
        client_certificate: None,
        tls_verify: None,
        tls_verify_depth: None,
        proxy_protocol: None,
        http2: None,
        ca_certificates: None,
        enabled,
        tags: None,
        created_at: 0,
        updated_at: 0,
    }
}
