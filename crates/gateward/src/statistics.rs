//! Connections and requests of the process by Kong's names: for `/status` and for plugins.

use gateward_telemetry::Telemetry;
use serde_json::{Value, json};

/// The figures as they are. `connections_reading` is not told apart from waiting.
pub(crate) fn statistics(telemetry: &Telemetry) -> Value {
    let connections = telemetry.connections();
    json!({
        "connections_accepted": connections.accepted,
        "connections_active": connections.active,
        "connections_handled": connections.accepted.saturating_sub(connections.refused),
        "connections_reading": 0,
        "connections_waiting": connections.active - connections.busy,
        "connections_writing": connections.busy,
        "total_requests": telemetry.live().requests_total,
    })
}
