//! Whole filters: from a module's bytes to the end of its streams.

mod hostile;
mod lifecycle;
mod loading;
mod replacement;

use crate::callout::Upstreams;
use crate::failure::Failure;
use crate::logging::LogSink;
use crate::types::LogLevel;
use crate::{Filter, FilterConfig, FilterError, Instance, Runtime, Services};
use std::sync::{Arc, Mutex};

/// Collects log lines.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<String>>);

impl Lines {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl LogSink for Lines {
    fn log(&self, _level: LogLevel, _filter: &str, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }

    fn least(&self) -> LogLevel {
        LogLevel::Trace
    }
}

struct Anywhere;

impl Upstreams for Anywhere {
    fn knows(&self, _upstream: &str) -> bool {
        true
    }
}

/// A runtime whose log a test reads.
pub(crate) struct Lab {
    runtime: Arc<Runtime>,
    pub(crate) lines: Arc<Lines>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lines = Arc::new(Lines::default());
        Self { runtime: Runtime::new(Services::new(lines.clone()), None).unwrap(), lines }
    }

    pub(crate) fn filter(&self, wat: &str) -> Arc<Filter> {
        self.try_filter(wat, |_| ()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_filter(&self, wat: &str, adjust: impl FnOnce(&mut FilterConfig)) -> Result<Arc<Filter>, FilterError> {
        let wasm = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}"));
        let module = self.runtime.load(&wasm).unwrap_or_else(|error| panic!("{error}"));
        let mut config = FilterConfig::new("test");
        adjust(&mut config);
        let filter = Filter::new(&self.runtime, &module, config, Arc::new(Anywhere));
        self.lines.take();
        filter
    }
}

pub(crate) fn instance(filter: &Arc<Filter>) -> Instance {
    filter.instantiate(Box::new(|| ())).unwrap_or_else(|failure| panic!("{failure}"))
}

/// A callback of a filter: its name, its parameters, and whether it returns a number.
const CALLBACKS: &[(&str, usize, bool)] = &[
    ("proxy_on_context_create", 2, false),
    ("proxy_on_vm_start", 2, true),
    ("proxy_on_configure", 2, true),
    ("proxy_on_tick", 1, false),
    ("proxy_on_done", 1, true),
    ("proxy_on_log", 1, false),
    ("proxy_on_delete", 1, false),
    ("proxy_on_new_connection", 1, true),
    ("proxy_on_downstream_data", 3, true),
    ("proxy_on_downstream_connection_close", 2, false),
    ("proxy_on_upstream_data", 3, true),
    ("proxy_on_upstream_connection_close", 2, false),
    ("proxy_on_request_headers", 3, true),
    ("proxy_on_request_body", 3, true),
    ("proxy_on_request_trailers", 2, true),
    ("proxy_on_response_headers", 3, true),
    ("proxy_on_response_body", 3, true),
    ("proxy_on_response_trailers", 2, true),
    ("proxy_on_http_call_response", 5, false),
    ("proxy_on_grpc_receive_initial_metadata", 3, false),
    ("proxy_on_grpc_receive", 3, false),
    ("proxy_on_grpc_receive_trailing_metadata", 3, false),
    ("proxy_on_grpc_close", 3, false),
    ("proxy_on_queue_ready", 2, false),
    ("proxy_on_foreign_function", 3, false),
];

/// A filter that logs the name of every callback, with other bodies for some: text of the function after its type.
fn logging(bodies: &[(&str, &str)]) -> String {
    let mut data = String::new();
    let mut functions = String::new();
    for (index, (name, parameters, returns)) in CALLBACKS.iter().enumerate() {
        let at = 1024 + index * 64;
        data.push_str(&format!("(data (i32.const {at}) \"{name}\")\n"));
        let result = if *returns { "(result i32)" } else { "" };
        let positive = ["proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"].contains(name);
        let default = if *returns { format!("(i32.const {})", u32::from(positive)) } else { String::new() };
        let body = bodies.iter().find(|(known, _)| known == name).map_or(default.as_str(), |(_, body)| body);
        let parameters = "i32 ".repeat(*parameters);
        functions.push_str(&format!(
            "(func (export \"{name}\") (param {parameters}) {result}
                (drop (call $log (i32.const 2) (i32.const {at}) (i32.const {})))
                {body})\n",
            name.len()
        ));
    }
    module(&format!("{data}{functions}"))
}

/// A module with what every filter needs, and this. Some imports have names; memory below 1024 is free.
fn module(rest: &str) -> String {
    format!(
        r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_done" (func $done (result i32)))
        (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (import "env" "proxy_register_shared_queue" (func $queue (param i32 i32 i32) (result i32)))
        (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_http_call"
            (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_grpc_call"
            (func $grpc (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 65536))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param $len i32) (result i32)
            global.get $next
            (global.set $next (i32.add (global.get $next) (local.get $len))))
        {rest})"#
    )
}

/// The kind of failure of a call that must fail.
pub(crate) fn failed<T: std::fmt::Debug>(result: Result<T, Failure>) -> Failure {
    result.expect_err("the filter works although it must not")
}
