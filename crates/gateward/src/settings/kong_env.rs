//! `KONG_*` variables beyond the table: which settings of Kong are known and have no effect here, and which names
//! mean nothing. A Kong container's environment must work as it is, and nobody should wonder what became of it.

use crate::settings::sources::Given;
use crate::settings::table::SETTINGS;

/// Beginnings of groups of Kong's settings (kong.conf.default) that have no counterpart in this build.
const GROUPS: &[&str] = &[
    "ADMIN_",
    "ANALYTICS_",
    "CASSANDRA_",
    "CLUSTER_",
    "DEBUG_",
    "DNS_",
    "ERROR_TEMPLATE_",
    "LUA_",
    "NGINX_",
    "OPENTELEMETRY_",
    "PG_",
    "PLUGINSERVER_",
    "PROXY_SERVER",
    "PROXY_STREAM_",
    "REQUEST_DEBUG",
    "RESOLVER_",
    "SSL",
    "STATUS_",
    "STREAM_",
    "TRACING_",
    "UPSTREAM_KEEPALIVE",
    "VAULT_",
    "WASM_DYNAMIC_MODULE",
    "WASM_MODULES",
    "WORKER_",
    "AI_",
    "PORTAL_",
    "RBAC",
    "VITALS",
    "AUDIT_LOG",
    "KEYRING_",
    "SMTP_",
    "CLIENT_SSL",
];

/// Single settings of Kong that have no counterpart in this build.
const SINGLE: &[&str] = &[
    "ALLOW_INCONSISTENT_DATA_PLANE_PLUGINS",
    "ANONYMOUS_REPORTS",
    "CLIENT_BODY_BUFFER_SIZE",
    "DATABASE",
    "DATA_PLANE_CONFIG_CACHE_MODE",
    "DB_CACHE_NEG_TTL",
    "DB_CACHE_TTL",
    "DB_CACHE_WARMUP_ENTITIES",
    "DB_RESURRECT_TTL",
    "DB_UPDATE_FREQUENCY",
    "DB_UPDATE_PROPAGATION",
    "DEDICATED_CONFIG_PROCESSING",
    "DECLARATIVE_CONFIG_ENCRYPTION_MODE",
    "ERROR_DEFAULT_TYPE",
    "EVENTS_MAX_PAYLOAD_SIZE",
    "EVENT_HOOKS_ENABLED",
    "FEATURE_CONF_PATH",
    "FIPS",
    "GENERATE_TRACE_DETAILS",
    "HOST_PORTS",
    "KIC",
    "KONNECT_MODE",
    "LEGACY_WORKER_EVENTS",
    "LICENSE_DATA",
    "LICENSE_PATH",
    "LMDB_ENVIRONMENT_PATH",
    "LMDB_MAP_SIZE",
    "MAX_QUEUED_BATCHES",
    "MEM_CACHE_SIZE",
    "OPENRESTY_PATH",
    "PASSWORD",
    "PLUGINS",
    "PORT_MAPS",
    "PREFIX",
    "PRIVILEGED_AGENT",
    "PROXY_ERROR_LOG",
    "PROXY_URL",
    "ROLE",
    "ROUTE_VALIDATION_STRATEGY",
    "ENFORCE_RBAC",
    "VERSION",
    "CONF",
    "LOGGING_LEVEL",
    "VAULTS",
];

/// What became of the `KONG_*` variables that are set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Settings of Kong without effect here.
    pub(crate) without_effect: Vec<String>,
    /// Names that Kong does not know either.
    pub(crate) unknown: Vec<String>,
    /// Settings that this build cannot honour and that must not be ignored.
    pub(crate) errors: Vec<String>,
}

/// Go through the variables that are set.
pub(crate) fn report(given: &Given) -> Report {
    let mut report = Report::default();
    for name in given.variables() {
        let Some(rest) = name.strip_prefix("KONG_") else {
            if !SETTINGS.iter().any(|setting| setting.variable() == name) && !OWN.contains(&name) {
                report.unknown.push(name.to_owned());
            }
            continue;
        };
        if SETTINGS.iter().any(|setting| setting.kong.contains(&name)) {
            continue;
        }
        let known = SINGLE.contains(&rest) || GROUPS.iter().any(|group| rest.starts_with(group));
        let list = if known { &mut report.without_effect } else { &mut report.unknown };
        list.push(name.to_owned());
    }
    report.errors.extend(unservable(given));
    report
}

/// Variables of ours that are not settings of the process: those of the tests.
const OWN: &[&str] = &["GATEWARD_BIN", "GATEWARD_SKIP"];

fn unservable(given: &Given) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(database) = given.variable("KONG_DATABASE").filter(|database| *database != "off") {
        errors.push(format!(
            "KONG_DATABASE: '{database}' is not supported: this gateway needs no database; export the configuration with \
             'kong config db_export kong.yml', set KONG_DATABASE=off and KONG_DECLARATIVE_CONFIG=kong.yml"
        ));
    }
    if let Some(role) = given.variable("KONG_ROLE").filter(|role| *role != "traditional") {
        errors.push(format!("KONG_ROLE: '{role}' is not supported: there is no hybrid mode; use traditional"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(environment: &[(&str, &str)], without_effect: &[&str], unknown: &[&str], errors: usize) {
        let report = report(&Given::of(&[], environment));
        assert_eq!(report.without_effect, without_effect, "{environment:?}");
        assert_eq!(report.unknown, unknown, "{environment:?}");
        assert_eq!(report.errors.len(), errors, "{:?}", report.errors);
    }

    #[test]
    fn variables_are_sorted_into_known_unknown_and_impossible() {
        check(&[("KONG_PROXY_LISTEN", "off"), ("KONG_LOG_LEVEL", "debug"), ("HOME", "/")], &[], &[], 0);
        check(
            &[
                ("KONG_DATABASE", "off"),
                ("KONG_PREFIX", "/x"),
                ("KONG_LUA_PACKAGE_CPATH", "x"),
                ("KONG_STREAM_LISTEN", "off"),
            ],
            &["KONG_DATABASE", "KONG_LUA_PACKAGE_CPATH", "KONG_PREFIX"],
            &[],
            0,
        );
        check(&[("GATEWARD_BIN", "x"), ("GATEWARD_SKIP", "x")], &[], &[], 0);
        check(&[("KONG_PROXY_LISTN", "x"), ("GATEWARD_WORKER", "1")], &[], &["GATEWARD_WORKER", "KONG_PROXY_LISTN"], 0);
        check(
            &[("KONG_ERROR_DEFAULT_TYPE", "x"), ("KONG_VAULTS", "x")],
            &["KONG_ERROR_DEFAULT_TYPE", "KONG_VAULTS"],
            &[],
            0,
        );
        check(&[("KONG_DATABASE", "postgres"), ("KONG_ROLE", "data_plane")], &["KONG_DATABASE", "KONG_ROLE"], &[], 2);
    }
}
