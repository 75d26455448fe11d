//! What this build cannot serve yet, said aloud instead of silently ignored. The one place to shrink as the
//! gateway learns more.
//!
//! An error where serving would do something else than the file says; a warning where data is only carried.

use crate::checks::Subject;

/// Plugins bundled with Kong; some of them this build has not.
const BUNDLED_WITH_KONG: &[&str] = &[
    "acl",
    "acme",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-request-transformer",
    "ai-response-transformer",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "bot-detection",
    "correlation-id",
    "cors",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "hmac-auth",
    "http-log",
    "ip-restriction",
    "jwt",
    "key-auth",
    "ldap-auth",
    "loggly",
    "oauth2",
    "opentelemetry",
    "post-function",
    "pre-function",
    "prometheus",
    "proxy-cache",
    "rate-limiting",
    "redirect",
    "request-size-limiting",
    "request-termination",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
    "session",
    "standard-webhooks",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// Why there is no plugin of this name.
pub(crate) fn missing_plugin(name: &str, known: &[String]) -> String {
    let shown = gateward_yaml::quote(name);
    if BUNDLED_WITH_KONG.contains(&name) {
        return format!("the plugin '{shown}' is bundled with Kong but not served by this build; remove it");
    }
    let hint = gateward_yaml::did_you_mean(name, known.iter().map(String::as_str));
    format!("there is no plugin '{shown}'{hint}")
}

/// Report what of an entity this build does not serve.
pub(crate) fn check(subject: &mut Subject<'_, '_>) {
    match subject.kind.name {
        "services" => service(subject),
        "routes" => route(subject),
        "jwt_secrets" | "hmacauth_credentials" | "oauth2_credentials" | "keys" | "key_sets" => {
            subject.warn("", "loaded, but without effect: no plugin of this build reads it");
        }
        "keyauth_credentials" if subject.fields.contains_key("ttl") => {
            subject.warn("ttl", "not enforced for credentials from a file");
        }
        _ => {}
    }
}

fn service(subject: &mut Subject<'_, '_>) {
    match subject.text("protocol") {
        Some("http" | "https" | "grpc" | "grpcs" | "tcp" | "tls" | "udp" | "tls_passthrough") | None => {}
        Some(protocol) => {
            let message = format!("this build has no upstreams that speak '{protocol}'");
            subject.error("protocol", message);
        }
    }
    if subject.text("protocol") == Some("udp") && subject.fields.contains_key("proxy_protocol") {
        subject.warn("proxy_protocol", "without effect on datagrams: a header begins connections only");
    }
}

fn route(subject: &mut Subject<'_, '_>) {
    let protocols = subject.list("protocols");
    if let Some(index) = protocols.iter().position(|protocol| matches!(protocol.as_str(), "ws" | "wss")) {
        let message = "this build has no routes of this kind; WebSocket goes through http and https routes";
        subject.error(&format!("protocols[{index}]"), message);
    }
}
