//! The declarative files that the gateway is measured with.

use std::fmt::Write as _;

/// The credential of the `plugins` row.
pub(crate) const KEY: &str = "bench-key";

/// Routes in the `routes10k` row.
const ROUTES: usize = 10_000;

/// One service, one route.
pub(crate) fn bare(backend: u16) -> String {
    format!(
        "_format_version: \"3.0\"\nservices:\n- name: backend\n  url: http://127.0.0.1:{backend}\n  routes:\n  \
         - name: all\n    paths: [/]\n"
    )
}

/// One service that speaks gRPC, one route.
pub(crate) fn grpc(backend: u16) -> String {
    format!(
        "_format_version: \"3.0\"\nservices:\n- name: backend\n  url: grpc://127.0.0.1:{backend}\n  routes:\n  \
         - name: all\n    protocols: [grpc]\n    paths: [/]\n"
    )
}

/// [`bare`] with key-auth, rate-limiting (local) and prometheus.
pub(crate) fn plugins(backend: u16) -> String {
    let plugins = "plugins:\n- name: key-auth\n- name: rate-limiting\n  config:\n    second: 1000000000\n    policy: local\n\
                   - name: prometheus\n  config:\n    per_consumer: true\n    status_code_metrics: true\n    \
                   latency_metrics: true\n    bandwidth_metrics: true\n";
    let consumers = format!("consumers:\n- username: bench\n  keyauth_credentials:\n  - key: {KEY}\n");
    bare(backend) + plugins + &consumers
}

/// [`bare`] with a chain of these filters.
pub(crate) fn filtered(backend: u16, filters: &[&str]) -> String {
    let chain = match filters {
        [] => String::new(),
        filters => {
            let filters: Vec<_> = filters.iter().map(|name| format!("{{name: {name}}}")).collect();
            format!("filter_chains:\n- {{name: chain, route: all, filters: [{}]}}\n", filters.join(", "))
        }
    };
    bare(backend) + &chain
}

/// One route with the Lua plugin of `bench/lua`.
pub(crate) fn lua(backend: u16) -> String {
    bare(backend) + "plugins:\n- name: bench\n"
}

/// Ten thousand routes over a thousand hosts; [`middle_path`] is one of those for any host.
pub(crate) fn routes(backend: u16) -> String {
    let mut text =
        format!("_format_version: \"3.0\"\nservices:\n- name: backend\n  url: http://127.0.0.1:{backend}\n  routes:\n");
    for number in 0..ROUTES {
        let kind = match number % 4 {
            0 => format!("hosts: [host-{}.example.com]\n    paths: [/area/{number}]", number / 10),
            1 => format!("paths: [/area/{number}]\n    methods: [GET, POST]"),
            _ => format!("paths: [/area/{number}]"),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "  - name: route-{number}\n    strip_path: false\n    {kind}\n");
    }
    text
}

/// A path that only the middle route matches.
pub(crate) fn middle_path() -> String {
    format!("/area/{}", ROUTES / 2 + 2)
}

/// A file for the soak test: a hundred routes, and one that tells which version is in force.
pub(crate) fn soak(backend: u16, version: u64) -> String {
    let mut text = bare(backend);
    for number in 0..100 {
        let _ = write!(text, "  - name: route-{number}\n    paths: [/area/{number}/{}]\n", version % 7);
    }
    let _ = write!(
        text,
        "routes:\n- name: version\n  paths: [/soak-version]\n  plugins:\n  - name: request-termination\n    config:\n      \
         status_code: 200\n      content_type: text/plain\n      body: version-{version}\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_path_belongs_to_one_route_for_any_host() {
        let text = routes(1);
        let line = format!("    paths: [{}]\n", middle_path());
        let at = text.find(&line).expect("the middle route exists");
        let route = &text[..at];
        assert!(route.ends_with("strip_path: false\n"), "the route has no host");
        assert_eq!(text.matches("  - name: ").count(), ROUTES);
    }
}
