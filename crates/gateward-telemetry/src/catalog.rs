//! Every metric the gateway can export: the one table behind the exporter, dashboards, alerts and docs.
//!
//! `kong_*` names, labels and types are those of Kong 3.x's prometheus plugin, odd ones included (a gauge called
//! `kong_nginx_connections_total`, a counter without `_total`): existing dashboards key on them. What Kong reports
//! of its Lua VMs and shared dictionaries has no counterpart here and is left out. `process_*` names are those of
//! Prometheus' client libraries.

/// What a metric's value means over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values by upper bound.
    Histogram,
}

impl Kind {
    /// The word on a `# TYPE` line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric's value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: requests, connections, files.
    Count,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Seconds since 1970-01-01 UTC.
    UnixSeconds,
    /// 1 for yes, 0 for no; or always 1 when only the labels matter.
    Flag,
}

/// A metric's name, type, unit, help and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Name as exported.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: Unit,
    /// One sentence for people.
    pub help: &'static str,
    /// Names of its labels, in the order in which they are written; `le` of histograms not included.
    pub labels: &'static [&'static str],
}

/// Defines each metric as a constant of its own, and [`ALL`] of them.
macro_rules! catalog {
    ($($id:ident = $name:literal $kind:ident $unit:ident [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                help: $help,
                labels: &[$($label),*],
            };
        )*

        /// Every metric, in the order of the table.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

catalog! {
    KONG_HTTP_REQUESTS = "kong_http_requests_total" Counter Count ["service", "route", "code", "source", "workspace", "consumer"]
        "Requests by status code; source is service when the upstream answered and kong when the gateway did.";
    KONG_KONG_LATENCY = "kong_kong_latency_ms" Histogram Milliseconds ["service", "route", "workspace"]
        "Latency added by the gateway and its plugins.";
    KONG_UPSTREAM_LATENCY = "kong_upstream_latency_ms" Histogram Milliseconds ["service", "route", "workspace"]
        "Time from asking the upstream to its response head.";
    KONG_REQUEST_LATENCY = "kong_request_latency_ms" Histogram Milliseconds ["service", "route", "workspace"]
        "Time from the first byte of a request to the last byte of its response.";
    KONG_BANDWIDTH = "kong_bandwidth_bytes" Counter Bytes ["service", "route", "direction", "workspace", "consumer"]
        "Bytes received from clients (ingress) and sent to them (egress).";
    KONG_STREAM_SESSIONS = "kong_stream_sessions_total" Counter Count ["service", "route", "code", "source", "workspace"]
        "Sessions of streams by nginx's status; source is service when the upstream was reached and kong when it was not.";
    KONG_SESSION_DURATION = "kong_session_duration_ms" Histogram Milliseconds ["service", "route", "workspace"]
        "Time from the first byte of a stream to its last.";
    KONG_UPSTREAM_TARGET_HEALTH = "kong_upstream_target_health" Gauge Flag ["upstream", "target", "address", "state", "subsystem"]
        "1 for the state a target is in, of healthchecks_off, healthy, unhealthy and dns_error.";
    KONG_NGINX_CONNECTIONS = "kong_nginx_connections_total" Gauge Count ["node_id", "subsystem", "state"]
        "Client connections by state; total is the number of requests, as in nginx.";
    KONG_NGINX_REQUESTS = "kong_nginx_requests_total" Gauge Count ["node_id", "subsystem"]
        "Requests since the start.";
    KONG_NODE_INFO = "kong_node_info" Gauge Flag ["node_id", "version"]
        "The node and its version; always 1.";
    KONG_DATASTORE_REACHABLE = "kong_datastore_reachable" Gauge Flag []
        "Always 1: the gateway needs no datastore to serve.";
    KONG_METRIC_ERRORS = "kong_nginx_metric_errors_total" Counter Count []
        "Metrics left out of this scrape because they were not valid.";
    REQUESTS = "gateward_requests_total" Counter Count ["outcome"]
        "Requests by outcome: ok, or whose fault the failure was. The success rate is ok / (ok + gateway + upstream).";
    REQUESTS_IN_FLIGHT = "gateward_requests_in_flight" Gauge Count []
        "Requests being served now.";
    REQUEST_DURATION = "gateward_request_duration_seconds" Histogram Seconds []
        "Time from the first byte of a request to the last byte of its response.";
    GATEWAY_LATENCY = "gateward_gateway_latency_seconds" Histogram Seconds []
        "Latency added by the gateway and its plugins.";
    UPSTREAM_LATENCY = "gateward_upstream_latency_seconds" Histogram Seconds []
        "Time from asking the upstream to its response head.";
    GRPC_CALLS = "gateward_grpc_calls_total" Counter Count ["grpc_status"]
        "gRPC calls by the status with which they ended; none: the response ended without one.";
    REFUSALS = "gateward_refusals_total" Counter Count ["reason"]
        "Requests and connections the gateway turned down, by reason.";
    CLIENT_RECEIVED_BYTES = "gateward_client_received_bytes_total" Counter Bytes []
        "Bytes of requests received from clients.";
    CLIENT_SENT_BYTES = "gateward_client_sent_bytes_total" Counter Bytes []
        "Bytes of responses sent to clients.";
    CONNECTIONS_ACCEPTED = "gateward_connections_accepted_total" Counter Count []
        "Client connections accepted, those refused included.";
    CONNECTIONS_REFUSED = "gateward_connections_refused_total" Counter Count []
        "Client connections closed at once because a limit was reached.";
    TLS_HANDSHAKES = "gateward_tls_handshakes_total" Counter Count []
        "TLS handshakes with clients that succeeded; those that failed are refusals with a reason tls_*.";
    TLS_RESUMPTIONS = "gateward_tls_resumptions_total" Counter Count []
        "TLS handshakes with clients that resumed an earlier session.";
    CONNECTIONS_CLOSED = "gateward_connections_closed_total" Counter Count []
        "Client connections that ended.";
    CONNECTIONS_ACTIVE = "gateward_connections_active" Gauge Count []
        "Client connections open now.";
    PROXY_PROTOCOL_CONNECTIONS = "gateward_proxy_protocol_connections_total" Counter Count ["mode", "outcome"]
        "Connections to listeners that take PROXY headers, by the listener's mode and what came of the header.";
    PROXY_PROTOCOL_ENDPOINTS = "gateward_proxy_protocol_endpoint_connections_total" Counter Count ["vpce_id"]
        "Connections by the AWS VPC endpoint that their trusted PROXY header named.";
    TUNNELS_ACTIVE = "gateward_tunnels_active" Gauge Count []
        "Connections that were upgraded, to WebSocket for instance, and are open now.";
    TUNNELS_ENDED = "gateward_tunnels_ended_total" Counter Count ["reason"]
        "Upgraded connections that ended, by what ended them.";
    STREAM_SESSIONS = "gateward_stream_sessions_total" Counter Count ["protocol", "end"]
        "Sessions of streams that ended, by what ended them or kept them from being served.";
    STREAMS_ACTIVE = "gateward_stream_sessions_active" Gauge Count []
        "Sessions of streams open now.";
    STREAM_RECEIVED_BYTES = "gateward_stream_received_bytes_total" Counter Bytes []
        "Bytes of streams received from clients.";
    STREAM_SENT_BYTES = "gateward_stream_sent_bytes_total" Counter Bytes []
        "Bytes of streams sent to clients.";
    STREAM_DATAGRAMS_DROPPED = "gateward_stream_datagrams_dropped_total" Counter Count []
        "Datagrams not passed on: without a session, or with a receiver that took none.";
    CLIENT_TIMEOUTS = "gateward_connections_timed_out_total" Counter Count []
        "Client connections cut because the client missed a deadline.";
    CONNECTIONS_AGED = "gateward_connections_aged_total" Counter Count []
        "Client connections closed after a response because they had reached max-connection-age.";
    CONCURRENCY_LIMIT = "gateward_concurrency_limit" Gauge Count []
        "Requests that all workers together may serve at the same time; 0 without a limit.";
    UPSTREAM_CONNECTIONS_ACTIVE = "gateward_upstream_connections_active" Gauge Count []
        "Upstream connections in use by a request.";
    UPSTREAM_CONNECTIONS_IDLE = "gateward_upstream_connections_idle" Gauge Count []
        "Upstream connections waiting in a pool.";
    UPSTREAM_CONNECTS = "gateward_upstream_connects_total" Counter Count []
        "Upstream connections established.";
    UPSTREAM_CONNECT_FAILURES = "gateward_upstream_connect_failures_total" Counter Count []
        "Upstream connections that could not be established.";
    UPSTREAM_REUSES = "gateward_upstream_reuses_total" Counter Count []
        "Requests sent on a pooled upstream connection.";
    UPSTREAM_IDLE_DISCARDED = "gateward_upstream_idle_discarded_total" Counter Count []
        "Pooled upstream connections found closed or expired.";
    UPSTREAM_RETRIES = "gateward_upstream_retries_total" Counter Count []
        "Further attempts to reach an upstream after a failed one.";
    UPSTREAM_RETRIES_OVER_BUDGET = "gateward_upstream_retries_over_budget_total" Counter Count []
        "Further attempts and hedges not made because the upstream's retry budget was used up.";
    UPSTREAM_TRIES_ABANDONED = "gateward_upstream_tries_abandoned_total" Counter Count []
        "Attempts given up because no response head came within per_try_timeout.";
    UPSTREAM_HEDGES = "gateward_upstream_hedges_total" Counter Count []
        "Second attempts started beside a slow first one.";
    UPSTREAM_HEDGES_WON = "gateward_upstream_hedges_won_total" Counter Count []
        "Second attempts that answered before the first.";
    UPSTREAM_POOL_EVICTIONS = "gateward_upstream_pool_evictions_total" Counter Count []
        "Idle upstream connections closed to keep a pool within its size.";
    UPSTREAM_SENT_BYTES = "gateward_upstream_sent_bytes_total" Counter Bytes []
        "Bytes sent to upstreams.";
    UPSTREAM_RECEIVED_BYTES = "gateward_upstream_received_bytes_total" Counter Bytes []
        "Bytes received from upstreams.";
    PLUGIN_PANICS = "gateward_plugin_panics_total" Counter Count []
        "Panics caught in plugins, each answered with 500.";
    CONFIG_GENERATION = "gateward_config_generation" Gauge Count []
        "Generation of the configuration being served.";
    CONFIG_INFO = "gateward_config_info" Gauge Flag ["configuration_hash"]
        "Hash of the configuration being served; always 1.";
    CONFIG_RELOADS = "gateward_config_reloads_total" Counter Count ["result"]
        "Configurations offered, by what became of them: ok, failed or rolled_back.";
    CONFIG_LAST_RELOAD_SUCCESS = "gateward_config_last_reload_success" Gauge Flag []
        "1 unless the last configuration offered was refused.";
    BUILD_INFO = "gateward_build_info" Gauge Flag ["version"]
        "Version of the gateway; always 1.";
    NODE_INFO = "gateward_node_info" Gauge Flag ["node_id", "hostname"]
        "Identity of the node; always 1.";
    ACCESS_LOG_LINES = "gateward_access_log_lines_total" Counter Count []
        "Access log lines written.";
    ACCESS_LOG_DROPPED = "gateward_access_log_dropped_total" Counter Count []
        "Access log lines lost because the queue was full, the line too long or the file not writable.";
    LOG_ENTRIES_DELIVERED = "gateward_log_entries_delivered_total" Counter Count []
        "Records that log plugins delivered.";
    LOG_ENTRIES_DROPPED = "gateward_log_entries_dropped_total" Counter Count []
        "Records that log plugins did not queue because a queue was full.";
    LOG_ENTRIES_FAILED = "gateward_log_entries_failed_total" Counter Count []
        "Records that log plugins queued and could not deliver.";
    LOG_BATCHES_FAILED = "gateward_log_batches_failed_total" Counter Count []
        "Batches that log plugins gave up after their retries.";
    TARGET_HEALTH_TURNS = "gateward_target_health_transitions_total" Counter Count ["to", "reason"]
        "Targets that became healthy or unhealthy, by who found it: active and passive checks, outlier detection, manual.";
    DNS_LOOKUPS = "gateward_dns_lookups_total" Counter Count ["outcome"]
        "Look-ups of names: found, not_found, failed, failed_stale (failed while earlier addresses stay in use), refused (not made because dns-cache-size names are known).";
    DNS_NAMES = "gateward_dns_names" Gauge Count ["state"]
        "Names known, by state: fresh, stale (past their time, because asking fails), failed (no address) and pending.";
    RATE_LIMIT_EVICTIONS = "gateward_rate_limit_evictions_total" Counter Count []
        "Rate-limit counters lost because the table was full; while this stands still, limits are exact.";
    RATE_LIMIT_REDIS_DECISIONS = "gateward_rate_limit_redis_decisions_total" Counter Count ["outcome"]
        "Requests under a rate limit in Redis: passed, limited, or, because Redis failed, unchecked or failed.";
    RATE_LIMIT_REDIS_UNCOUNTED = "gateward_rate_limit_redis_uncounted_total" Counter Count []
        "Requests that passed a rate limit with sync_rate and that Redis may never hear of.";
    REDIS_ERRORS = "gateward_redis_errors_total" Counter Count ["reason"]
        "Questions to Redis without an answer: unavailable, timeout, lost, busy or refused.";
    REDIS_ANSWERS = "gateward_redis_answers_total" Counter Count []
        "Questions to Redis that were answered, each one round trip.";
    REDIS_ANSWER_SECONDS = "gateward_redis_answer_seconds_total" Counter Seconds []
        "Time spent waiting for these answers; divided by their number, the mean.";
    LUA_CALLS = "gateward_lua_calls_total" Counter Count ["plugin", "phase"]
        "Calls of Lua plugins' handlers, by phase.";
    LUA_TIME = "gateward_lua_timed_seconds" Histogram Seconds ["plugin", "phase"]
        "Time of Lua plugins' handlers in the machine, without what they wait for; one in 64 calls is timed, so counts are those of timed ones.";
    LUA_ERRORS = "gateward_lua_errors_total" Counter Count ["plugin", "phase"]
        "Calls of Lua plugins' handlers that ended with an error.";
    LUA_STOPPED = "gateward_lua_stopped_total" Counter Count ["plugin"]
        "Calls of Lua plugins' handlers that were stopped because they ran too long.";
    LUA_MEMORY = "gateward_lua_memory_bytes" Gauge Bytes ["machine"]
        "Memory of the Lua machines, one per worker, looked at with every 64th request.";
    WASM_CALLS = "gateward_wasm_calls_total" Counter Count ["filter", "phase"]
        "Calls into Wasm filters, by callback.";
    WASM_TIME = "gateward_wasm_timed_seconds" Histogram Seconds ["filter", "phase"]
        "Time of calls into Wasm filters, by callback; one in 64 calls is timed, so counts are those of timed ones.";
    WASM_FAILURES = "gateward_wasm_failures_total" Counter Count ["filter", "phase", "kind"]
        "Failures of Wasm filters by callback and kind: trap, timeout, memory, stack, exit, start.";
    WASM_MEMORY = "gateward_wasm_memory_bytes" Gauge Bytes ["filter"]
        "Linear memory of the live instances of Wasm filters.";
    WASM_INSTANCES = "gateward_wasm_instances" Gauge Count ["filter"]
        "Live instances of Wasm filters.";
    WASM_CALLOUTS = "gateward_wasm_callouts_total" Counter Count ["filter", "protocol", "outcome"]
        "Callouts of Wasm filters that ended: answered, failed, timed_out, cancelled by the filter or the end of its request; or refused at its limits.";
    WASM_CALLOUTS_UNDER_WAY = "gateward_wasm_callouts_under_way" Gauge Count ["filter", "protocol"]
        "Callouts of Wasm filters that have not ended.";
    WASM_CALLOUT_SECONDS = "gateward_wasm_callout_seconds" Histogram Seconds ["filter", "protocol"]
        "Time from a callout of a Wasm filter to its end, those cancelled left out.";
    WASM_OWN = "gateward_wasm_filter_metric" Gauge Count ["name"]
        "Metrics that Wasm filters define, by their own names; of histograms the sum.";
    PROCESS_CPU = "process_cpu_seconds_total" Counter Seconds []
        "CPU time used by the process.";
    PROCESS_RESIDENT_MEMORY = "process_resident_memory_bytes" Gauge Bytes []
        "Resident memory of the process.";
    PROCESS_VIRTUAL_MEMORY = "process_virtual_memory_bytes" Gauge Bytes []
        "Virtual memory of the process.";
    PROCESS_OPEN_FDS = "process_open_fds" Gauge Count []
        "File descriptors the process has open.";
    PROCESS_MAX_FDS = "process_max_fds" Gauge Count []
        "File descriptors the process may have open.";
    PROCESS_START_TIME = "process_start_time_seconds" Gauge UnixSeconds []
        "When the process started.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut names = HashSet::new();
        for metric in ALL {
            assert!(names.insert(metric.name), "{} is defined twice", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "help of {}", metric.name);
            let suffix = match (metric.kind, metric.unit) {
                _ if metric.name.starts_with("kong_") => continue,
                (Kind::Counter, _) => "_total",
                (_, Unit::Seconds | Unit::UnixSeconds) => "_seconds",
                (_, Unit::Bytes) => "_bytes",
                _ => "",
            };
            assert!(metric.name.ends_with(suffix), "{} must end in {suffix}", metric.name);
        }
    }
}
