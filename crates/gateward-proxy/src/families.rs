//! HTTP and streams are families of their own: which protocols belong to which, and what of a configuration mixes them.

use crate::instance::Instance;
use gateward_model::{Config, EntityId, Protocol, Route, Service};
use gateward_route::{CompileError, RouteEntry};
use std::collections::{HashMap, HashSet};

/// Routes and plugins that a warning names.
const NAMED: usize = 5;

fn is_stream(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Tls | Protocol::TlsPassthrough | Protocol::Udp)
}

/// Whether a plugin with these protocols acts on requests. None at all stands for all of HTTP.
pub(crate) fn has_http(protocols: &[Protocol]) -> bool {
    use Protocol::{Grpc, Grpcs, Http, Https};
    protocols.is_empty() || protocols.iter().any(|protocol| matches!(protocol, Http | Https | Grpc | Grpcs))
}

/// Whether a plugin acts on streams: it can, and one of their protocols is among its own. Which one makes no difference,
/// as in Kong (kong/runloop/plugins_iterator.lua).
pub(crate) fn acts_on_streams(instance: &Instance) -> bool {
    instance.needs.phases.of_streams() && instance.entity.protocols.iter().copied().any(is_stream)
}

/// Routes whose service speaks what they cannot carry.
pub(crate) fn errors(config: &Config) -> impl Iterator<Item = CompileError> {
    let services: HashMap<EntityId, &Service> = config.services.iter().map(|it| (it.id, &**it)).collect();
    config.routes.iter().filter_map(move |route| {
        let streams = route.protocols.first().copied().is_some_and(is_stream);
        let service = services.get(&route.service?).filter(|service| is_stream(service.protocol) != streams)?;
        Some(CompileError { route: route.id, name: route.name.clone(), message: mixed(route, service) })
    })
}

fn mixed(route: &Route, service: &Service) -> String {
    let word = |protocol: &Protocol| {
        serde_json::to_value(protocol).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let route: Vec<String> = route.protocols.iter().map(word).collect();
    format!(
        "`protocols` {} cannot lead to a service with `protocol` {}: a route of streams needs a service with tcp, tls or \
         udp, one of requests a service with http, https, grpc or grpcs",
        route.join(", "),
        word(&service.protocol)
    )
}

/// What does nothing on the streams of `routes`, although somebody may rely on it. `listening`: there are listeners.
pub(crate) fn warnings(routes: &[RouteEntry], instances: &[Instance], listening: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !listening && !routes.is_empty() {
        warnings.push(format!(
            "{} route(s) of streams cannot be reached: no listener is set with --stream-listen",
            routes.len()
        ));
    }
    let ids: HashSet<EntityId> = routes.iter().map(|entry| entry.route.id).collect();
    let services: HashSet<EntityId> = routes.iter().filter_map(|entry| entry.route.service).collect();
    let scoped = |instance: &&Instance| match (instance.entity.route, instance.entity.service) {
        (Some(route), _) => ids.contains(&route),
        (None, Some(service)) => services.contains(&service),
        (None, None) => false,
    };
    let idle: Vec<&Instance> = instances.iter().filter(|it| !acts_on_streams(it)).filter(scoped).collect();
    for (capable, advice) in [
        (true, "name the protocols of streams in their `protocols`"),
        (false, "remove them, or do what they are for otherwise"),
    ] {
        let names = idle.iter().filter(|instance| instance.needs.phases.of_streams() == capable);
        let names: Vec<&str> = names.map(|instance| instance.entity.name.as_str()).collect();
        if !names.is_empty() {
            let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = if names.len() > NAMED { ", ..." } else { "" };
            warnings.push(format!(
                "{} plugin(s) of routes or services of streams do not act on them ({shown}{more}): {advice}",
                names.len()
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use crate::Settings;
    use crate::testing::{local, plan};
    use gateward_telemetry::{Limits, Telemetry};

    fn check(routes: &str, plugins: &str, streams: bool, expected: &[&str]) {
        let config = format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, protocol: tcp, host: 127.0.0.1, port: 1, routes: [{routes}]}}\nplugins: [{plugins}]\n"
        );
        local(async {
            let settings = Settings { streams, ..Settings::default() };
            let plan = plan(&config, 1, &settings, &Telemetry::new(1, Limits::default()));
            let warnings = plan.stream_warnings();
            assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
            for (warning, part) in warnings.iter().zip(expected) {
                assert!(warning.contains(part), "{warning}");
            }
        });
    }

    #[test]
    fn what_does_nothing_on_streams_is_told() {
        let route = "{name: r, protocols: [tcp], destinations: [{port: 1}]}";
        check("", "", false, &[]);
        check(route, "", false, &["1 route(s) of streams"]);
        check(route, "{name: key-auth}, {name: file-log, config: {path: /dev/null}}", true, &[]);
        check(
            route,
            "{name: key-auth, route: r}, {name: file-log, service: s, config: {path: /dev/null}}, {name: cors, service: s}",
            true,
            &["1 plugin(s) of routes or services of streams do not act on them (file-log): name", "2 plugin(s)"],
        );
        let acting = "{name: ip-restriction, route: r, config: {deny: [192.0.2.1]}}, \
                      {name: file-log, route: r, protocols: [udp], config: {path: /dev/null}}";
        check(route, acting, true, &[]);
    }
}
