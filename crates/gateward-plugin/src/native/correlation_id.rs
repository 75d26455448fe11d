//! correlation-id: every request gets an id that ties the logs of all parties together.
//!
//! What the client sent is kept. Log records show the id.

use crate::BuildError;
use crate::contract::{Definition, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::Exchange;
use crate::native::settings;
use crate::record::CorrelationId;
use gateward_model::schema::{Field, Schema};
use serde::Deserialize;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "correlation-id", priority: 100_001, schema, check_scope: settings::http, build }
}

/// The id of this exchange, once the plugin's access phase has run.
fn correlation_id(exchange: &Exchange) -> Option<&str> {
    exchange.kept::<CorrelationId>().map(|id| id.0.as_str())
}

fn schema() -> Schema {
    Schema::new([
        ("header_name", settings::header_name().default("Kong-Request-ID")),
        ("generator", Field::string().default("uuid#counter").one_of(&["uuid", "uuid#counter", "tracker"]).required()),
        ("echo_downstream", Field::boolean().default(false).required()),
    ])
}

#[derive(Deserialize)]
struct CorrelationIds {
    header_name: String,
    generator: Generator,
    echo_downstream: bool,
}

#[derive(Deserialize, Clone, Copy)]
enum Generator {
    #[serde(rename = "uuid")]
    Uuid,
    #[serde(rename = "uuid#counter")]
    UuidCounter,
    #[serde(rename = "tracker")]
    Tracker,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    Ok(Box::new(settings::read::<CorrelationIds>(context)?))
}

impl Plugin for CorrelationIds {
    fn needs(&self) -> Needs {
        Needs {
            phases: Phases { access: true, header_filter: self.echo_downstream, ..Phases::default() },
            ..Needs::default()
        }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let id = self.sent(exchange).unwrap_or_else(|| {
            let id = self.generator.generate(exchange);
            exchange.request.headers.set(&self.header_name, &id);
            id
        });
        exchange.put(CorrelationId(id));
        Step::Next
    }

    /// Also answers made before `access` could run carry an id.
    fn header_filter(&self, exchange: &mut Exchange) {
        let id = correlation_id(exchange).map(str::to_owned).or_else(|| self.sent(exchange));
        let id = id.unwrap_or_else(|| self.generator.generate(exchange));
        exchange.response.headers.set(&self.header_name, id);
    }
}

impl CorrelationIds {
    fn sent(&self, exchange: &Exchange) -> Option<String> {
        let sent = exchange.request.headers.get_str(&self.header_name);
        sent.filter(|id| !id.is_empty()).map(str::to_owned)
    }
}

impl Generator {
    fn generate(self, exchange: &Exchange) -> String {
        /// Requests this process gave an id, of which other processes do not know.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        static PROCESS: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);
        let next = || COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
        match self {
            Self::Uuid => Uuid::new_v4().to_string(),
            Self::UuidCounter => format!("{}#{}", *PROCESS, next()),
            // Kong: server address, port, worker, connection, requests on it, time. Here the client's address
            // and port name the connection.
            Self::Tracker => {
                let (peer, now) = (exchange.client.peer, exchange.started_at_ms);
                let (ip, peer_port, port) = (peer.ip(), peer.port(), exchange.client.port);
                let (seconds, millis) = (now / 1000, now % 1000);
                format!("{ip}-{port}-{}-{peer_port}-{}-{seconds}.{millis:03}", std::process::id(), next())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use serde_json::{Value, json};

    fn run(config: Value, headers: &[(&str, &str)]) -> Exchange {
        let plugin = testing::build(&definition(), config);
        let mut exchange = testing::request("GET", "/", headers);
        exchange.started_at_ms = 1_700_000_000_042;
        assert_eq!(testing::access(plugin.as_ref(), &mut exchange), None);
        if plugin.needs().phases.header_filter {
            plugin.header_filter(&mut exchange);
        }
        exchange
    }

    #[test]
    fn ids_are_made_and_kept() {
        let exchange = run(json!({}), &[]);
        let id = exchange.request.headers.get_str("Kong-Request-ID").unwrap().to_owned();
        let (uuid, counter) = id.split_once('#').unwrap();
        assert!(Uuid::try_parse(uuid).is_ok());
        assert!(counter.parse::<u64>().unwrap() > 0);
        assert_eq!(correlation_id(&exchange), Some(id.as_str()));
        assert_eq!(exchange.response.headers.len(), 0);

        let exchange = run(json!({"header_name": "X-Id"}), &[("x-id", "theirs")]);
        assert_eq!(testing::lines(&exchange.request.headers), ["x-id: theirs"]);
        assert_eq!(correlation_id(&exchange), Some("theirs"));

        let exchange = run(json!({"header_name": "X-Id", "generator": "uuid"}), &[("x-id", "")]);
        assert!(Uuid::try_parse(exchange.request.headers.get_str("x-id").unwrap()).is_ok());
    }

    #[test]
    fn counters_go_up() {
        let count = || {
            let exchange = run(json!({}), &[]);
            let id = correlation_id(&exchange).unwrap().to_owned();
            let (uuid, counter) = id.split_once('#').unwrap();
            (uuid.to_owned(), counter.parse::<u64>().unwrap())
        };
        let (first, second) = (count(), count());
        assert_eq!(first.0, second.0);
        assert!(second.1 > first.1);
    }

    #[test]
    fn trackers_have_six_parts() {
        let exchange = run(json!({"generator": "tracker"}), &[]);
        let id = correlation_id(&exchange).unwrap();
        assert_eq!(id.split('-').count(), 6, "{id}");
        assert!(id.ends_with("-1700000000.042"), "{id}");
    }

    #[test]
    fn ids_are_echoed() {
        let echo = json!({"echo_downstream": true, "header_name": "X-Id"});
        let exchange = run(echo.clone(), &[("X-Id", "theirs")]);
        assert_eq!(testing::lines(&exchange.response.headers), ["X-Id: theirs"]);
        let exchange = run(echo.clone(), &[]);
        assert_eq!(exchange.response.headers.get_str("X-Id"), correlation_id(&exchange));

        let plugin = testing::build(&definition(), echo);
        let mut unrouted = testing::request("GET", "/", &[]);
        plugin.header_filter(&mut unrouted);
        assert!(unrouted.response.headers.contains("X-Id"));
    }
}
