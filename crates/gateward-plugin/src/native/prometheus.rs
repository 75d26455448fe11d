//! `prometheus`: which metric groups a request is counted in.
//!
//! The figures themselves are kept by the node's telemetry and shown at the status port; an instance of this
//! plugin only switches the optional groups on for the requests in its scope. It does so in both phases because
//! requests without a route only have the second, and requests that end early may not reach it.
//!
//! `upstream_health_metrics` is about the node and not about a request: the node reads it from the configuration.
//! `ai_metrics` and `wasm_metrics` are accepted and have nothing to show.

use crate::native::settings;
use crate::{
    BuildContext, BuildError, Definition, Exchange, MetricGroups, Needs, Phases, Plugin, Preread, Soon, Step,
    StreamExchange,
};
use gateward_model::schema::{Field, Schema};
use serde::Deserialize;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "prometheus", priority: 13, schema, check_scope: |_| Ok(()), build }
}

fn schema() -> Schema {
    let off = || Field::boolean().default(false);
    Schema::new([
        ("per_consumer", off()),
        ("status_code_metrics", off()),
        ("ai_metrics", off()),
        ("latency_metrics", off()),
        ("bandwidth_metrics", off()),
        ("upstream_health_metrics", off()),
        ("wasm_metrics", off()),
    ])
}

#[derive(Deserialize)]
struct Settings {
    per_consumer: bool,
    status_code_metrics: bool,
    latency_metrics: bool,
    bandwidth_metrics: bool,
}

struct Prometheus {
    groups: MetricGroups,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let Settings { per_consumer, status_code_metrics, latency_metrics, bandwidth_metrics } = settings::read(context)?;
    let groups = MetricGroups { per_consumer, status_code_metrics, latency_metrics, bandwidth_metrics };
    Ok(Box::new(Prometheus { groups }))
}

impl Plugin for Prometheus {
    fn needs(&self) -> Needs {
        Needs {
            phases: Phases { access: true, header_filter: true, preread: true, ..Phases::default() },
            ..Needs::default()
        }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        exchange.metrics = self.groups;
        Step::Next
    }

    fn header_filter(&self, exchange: &mut Exchange) {
        exchange.metrics = self.groups;
    }

    fn preread<'a>(&'a self, stream: &'a mut StreamExchange) -> Soon<'a, Preread> {
        stream.metrics = self.groups;
        Soon::Now(Preread::Next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing::{access, build, request};
    use serde_json::json;

    #[test]
    fn switches_the_configured_groups_on_in_either_phase() {
        let on = MetricGroups { per_consumer: true, latency_metrics: true, ..MetricGroups::default() };
        for (config, expected) in [
            (json!({}), MetricGroups::default()),
            (json!({ "per_consumer": true, "latency_metrics": true, "upstream_health_metrics": true }), on),
        ] {
            let plugin = build(&definition(), config);
            let mut exchange = request("GET", "/", &[]);
            assert!(access(&*plugin, &mut exchange).is_none());
            assert_eq!(exchange.metrics, expected);
            exchange.metrics = MetricGroups::default();
            plugin.header_filter(&mut exchange);
            assert_eq!(exchange.metrics, expected);
            let mut stream = crate::stream::testing::stream("::1");
            assert!(matches!(plugin.preread(&mut stream), Soon::Now(Preread::Next)));
            assert_eq!(stream.metrics, expected);
        }
    }
}
