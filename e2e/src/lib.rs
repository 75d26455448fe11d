//! Tests that drive real gateward processes and real peers.
//!
//! The tests are in `tests/`, one subject per file; here is what several of them need: configurations of one
//! route, exchanges on one connection, and reading the metrics. Every test starts its own gateway and back ends
//! on free ports, so that tests run side by side. Helpers panic, because that is how a test fails.

#![forbid(unsafe_code)]

mod certificates;
mod curl;
pub mod dial;
pub mod filters;
pub mod fronted;
pub mod grpc;
mod metrics;
pub mod name_daemons;
pub mod names;
mod nginx;
pub mod nlb;
pub mod protocol_load;
mod redis;
pub mod resilience;
pub mod streams;
pub mod websocket;

pub use certificates::{Authority, Issued, indented};
pub use curl::{curl, has_program, has_tool};
pub use metrics::Metrics;
pub use nginx::{Nginx, large};
pub use redis::redis_with_tls;

use gateward_testkit::{RawClient, RawResponse, eventually};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A configuration with the service `origin` at `url` and the route `all`, which takes every path unchanged.
pub fn one_route(url: &str) -> String {
    with_route_fields(url, "")
}

/// Likewise, with further fields of the route, as YAML in flow style: `preserve_host: true, methods: [GET]`.
pub fn with_route_fields(url: &str, fields: &str) -> String {
    let fields = if fields.is_empty() { String::new() } else { format!(", {fields}") };
    format!(
        "_format_version: '3.0'\n\
         services:\n\
         - name: origin\n  \
           url: {url}\n  \
           routes:\n  \
           - {{name: all, paths: [/], strip_path: false{fields}}}\n"
    )
}

/// Likewise, with further fields of the service: `retries: 0, read_timeout: 100`.
pub fn with_service_fields(url: &str, fields: &str) -> String {
    format!(
        "_format_version: '3.0'\n\
         services:\n\
         - {{name: origin, url: '{url}', {fields}, routes: [{{name: all, paths: [/], strip_path: false}}]}}\n"
    )
}

/// Appends plugins, each in YAML flow style, to a configuration.
pub fn with_plugins(config: &str, plugins: &[&str]) -> String {
    let list: String = plugins.iter().map(|plugin| format!("- {plugin}\n")).collect();
    format!("{config}plugins:\n{list}")
}

/// Sends `bytes`, a complete request of method `method`, on a connection of its own, and gives the final response.
///
/// # Panics
/// When there is none in time.
#[track_caller]
pub fn exchange(addr: SocketAddr, method: &str, bytes: &[u8]) -> RawResponse {
    let mut client = RawClient::connect(addr);
    // The server may have answered and closed before all is sent.
    let _ = client.try_send(bytes);
    client.read_final_response(method)
}

/// The value of the field `name` in what an echo back end says it received; `None` when it did not come.
///
/// # Panics
/// When the response is not an echo's.
#[track_caller]
pub fn echoed_header(response: &RawResponse, name: &str) -> Option<String> {
    let json = response.json();
    let fields = json["headers"].as_array().unwrap_or_else(|| panic!("not an echo: {json}"));
    fields.iter().find_map(|field| {
        let matches = field[0].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name));
        matches.then(|| field[1].as_str().unwrap_or_default().to_owned())
    })
}

/// The target an echo back end says it received.
///
/// # Panics
/// When the response is not an echo's.
#[track_caller]
pub fn echoed_target(response: &RawResponse) -> String {
    match response.json()["target"].as_str() {
        Some(target) => target.to_owned(),
        None => panic!("not an echo: {}", response.text()),
    }
}

/// Waits, if need be, until the minute of the wall clock has a third of its time left: limits by the minute count
/// anew when it turns, so requests that are to be counted together must not have the turn between them.
///
/// # Panics
/// When the clock stands still.
#[track_caller]
pub fn await_room_in_the_minute() {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() % 60);
    eventually(Duration::from_secs(61), || second() < 40);
}
