//! Rules on whole entities that a schema cannot say as data, mostly on services and routes
//! (kong/db/schema/entities/routes_subschemas.lua and the `entity_checks` of each entity).

use crate::diagnostic::{EntityRef, Report};
use crate::kinds::EntityKind;
use crate::{names, walk};
use gateward_model::RouterFlavor;
use gateward_yaml::{Node, Path};
use serde_json::{Map, Value};

/// An entity being checked: its fields as far as they were right, defaults filled.
pub(crate) struct Subject<'a, 'r> {
    pub(crate) kind: &'static EntityKind,
    pub(crate) fields: &'a Map<String, Value>,
    pub(crate) node: &'a Node,
    pub(crate) path: &'a str,
    pub(crate) entity: &'a EntityRef,
    pub(crate) report: &'r mut Report,
}

impl Subject<'_, '_> {
    /// An error at a field (`paths[1]`; empty for the entity).
    pub(crate) fn error(&mut self, field: &str, message: impl Into<String>) {
        let path = self.field_path(field);
        self.report.error(self.node.locate(field), &Path::Text(&path), message.into(), Some(self.entity));
    }

    pub(crate) fn warn(&mut self, field: &str, message: impl Into<String>) {
        let path = self.field_path(field);
        self.report.warning(self.node.locate(field), &Path::Text(&path), message.into(), Some(self.entity));
    }

    fn field_path(&self, field: &str) -> String {
        let path = Path::Text(self.path);
        if field.is_empty() { path.to_string() } else { walk::join(&path, field) }
    }

    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }

    pub(crate) fn flag(&self, field: &str) -> bool {
        self.fields.get(field) == Some(&Value::Bool(true))
    }

    /// The texts of a list field.
    pub(crate) fn list(&self, field: &str) -> Vec<String> {
        let items = self.fields.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }
}

/// Check one entity.
pub(crate) fn check(subject: &mut Subject<'_, '_>, flavor: RouterFlavor) {
    match subject.kind.name {
        "services" => service(subject),
        "routes" => route(subject, flavor),
        "certificates" => {
            for (cert, key) in [("cert", "key"), ("cert_alt", "key_alt")] {
                pem(subject, cert, |label| label == "CERTIFICATE");
                pem(subject, key, |label| label.ends_with("PRIVATE KEY"));
            }
        }
        "ca_certificates" => ca_certificate(subject),
        "keyauth_credentials" => generated(subject, &["key"]),
        "hmacauth_credentials" => generated(subject, &["secret"]),
        "oauth2_credentials" => generated(subject, &["client_id", "client_secret"]),
        "jwt_secrets" => jwt_secret(subject),
        "filter_chains" if subject.has("route") == subject.has("service") => {
            subject.error("", "exactly one of these must be set: route, service");
        }
        _ => {}
    }
}

/// Fields that Kong fills with a random text.
fn generated(subject: &mut Subject<'_, '_>, fields: &[&str]) {
    for field in fields {
        if !subject.has(field) && subject.node.get(field).is_none_or(Node::is_null) {
            let message = "required in a file: one that was generated would differ on every node and reload";
            let path = subject.field_path(field);
            let at = subject.node.position;
            subject.report.error(at, &Path::Text(&path), message.to_owned(), Some(subject.entity));
        }
    }
}

fn jwt_secret(subject: &mut Subject<'_, '_>) {
    generated(subject, &["key"]);
    match subject.text("algorithm") {
        Some(algorithm) if algorithm.starts_with("HS") => generated(subject, &["secret"]),
        Some(algorithm) if !subject.has("rsa_public_key") => {
            let message = format!("'rsa_public_key' must be set when 'algorithm' is '{algorithm}'");
            subject.error("", message);
        }
        _ => {}
    }
}

fn service(subject: &mut Subject<'_, '_>) {
    let Some(protocol) = subject.text("protocol").map(str::to_owned) else { return };
    if subject.has("path") && !matches!(protocol.as_str(), "http" | "https") {
        subject.error("path", format!("must not be set when 'protocol' is '{protocol}'"));
    }
    http2(subject, &protocol);
    if matches!(protocol.as_str(), "https" | "grpcs" | "tls") {
        return;
    }
    for field in ["client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates"] {
        // `false` is what a file dumped by older versions says for "not set".
        if subject.has(field) && subject.fields.get(field) != Some(&Value::Bool(false)) {
            let message = format!("must not be set when 'protocol' is '{protocol}'; it is for https, grpcs and tls");
            subject.error(field, message);
        }
    }
}

/// HTTP/2 is agreed on in TLS, and the only thing that gRPC knows.
fn http2(subject: &mut Subject<'_, '_>, protocol: &str) {
    let Some(wanted) = subject.fields.get("http2").and_then(Value::as_bool) else { return };
    match (protocol, wanted) {
        ("grpc" | "grpcs", false) => {
            subject
                .error("http2", format!("must not be false when 'protocol' is '{protocol}', which is always HTTP/2"));
        }
        ("https" | "grpc" | "grpcs", _) | (_, false) => {}
        (_, true) => {
            let message =
                format!("must not be true when 'protocol' is '{protocol}'; HTTP/2 is agreed on in TLS: use https");
            subject.error("http2", message);
        }
    }
}

/// Which protocols may stand together in one route, and what it may then match by.
struct Family {
    protocols: &'static [&'static str],
    /// At least one of these must be set.
    matchers: &'static [&'static str],
    forbidden: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        protocols: &["http", "https"],
        matchers: &["methods", "hosts", "headers", "paths"],
        forbidden: &["sources", "destinations"],
    },
    Family {
        protocols: &["grpc", "grpcs"],
        matchers: &["hosts", "headers", "paths"],
        forbidden: &["methods", "sources", "destinations"],
    },
    Family {
        protocols: &["tcp", "tls", "udp"],
        matchers: &["sources", "destinations", "snis"],
        forbidden: &["methods", "hosts", "headers", "paths"],
    },
    Family {
        protocols: &["tls_passthrough"],
        matchers: &["snis"],
        forbidden: &["methods", "hosts", "headers", "paths", "sources", "destinations"],
    },
];

const MATCHERS: &[&str] = &["methods", "hosts", "headers", "paths", "snis", "sources", "destinations"];

/// Tags are free text, but for one that means something here: a misspelt priority would be none.
fn priority(subject: &mut Subject<'_, '_>) {
    const NAMES: [&str; 4] = ["critical", "high", "normal", "low"];
    for (index, tag) in subject.list("tags").iter().enumerate() {
        if let Some(name) = tag.strip_prefix("gateward:priority=").filter(|name| !NAMES.contains(name)) {
            let message = format!("'{}' is no priority; use one of: {}", gateward_yaml::quote(name), NAMES.join(", "));
            subject.error(&format!("tags[{index}]"), message);
        }
    }
}

fn route(subject: &mut Subject<'_, '_>, flavor: RouterFlavor) {
    let protocols = subject.list("protocols");
    let family = FAMILIES.iter().find(|family| protocols.iter().any(|one| family.protocols.contains(&one.as_str())));
    if let Some(family) = family {
        if let Some(index) = protocols.iter().position(|one| !family.protocols.contains(&one.as_str())) {
            let message = "protocols of different kinds; a route has one of: http/https, grpc/grpcs, tcp/tls/udp, tls_passthrough";
            subject.error(&format!("protocols[{index}]"), message);
        } else if expression(subject, flavor) {
            matchers(subject, family, &protocols);
        }
        if family.protocols.contains(&"grpc") && subject.flag("strip_path") {
            subject.error("strip_path", "must not be true when 'protocols' is grpc or grpcs");
        }
    }
    hosts(subject);
    priority(subject);
    for (index, path) in subject.list("paths").iter().enumerate() {
        let field = format!("paths[{index}]");
        match names::route_path(path) {
            Err(message) => subject.error(&field, message),
            Ok(()) if path.starts_with('/') && path.contains(['\\', '^', '$', '|', '{', '}']) => {
                subject.warn(&field, "looks like a regular expression but is matched as a prefix; begin it with '~'");
            }
            Ok(()) => {}
        }
    }
    let headers = subject.fields.get("headers").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, values) in &headers {
        let values = values.as_array().map_or(&[][..], Vec::as_slice);
        for (index, value) in values.iter().enumerate() {
            let pattern = value.as_str().and_then(|value| value.strip_prefix("~*"));
            if let Some(message) = pattern.and_then(|pattern| crate::rules::regex(pattern).err()) {
                subject.error(&format!("headers.{name}[{index}]"), message);
            }
        }
    }
    if flavor == RouterFlavor::TraditionalCompatible && subject.text("path_handling") == Some("v1") {
        subject.warn(
            "path_handling",
            "'v1' has no effect with router_flavor=traditional_compatible; paths are joined as 'v0'",
        );
    }
}

/// Check `expression` and `priority`; whether the route matches by its other fields.
fn expression(subject: &mut Subject<'_, '_>, flavor: RouterFlavor) -> bool {
    let failed = |field: &str, subject: &Subject<'_, '_>| !subject.has(field) && subject.node.get(field).is_some();
    if flavor != RouterFlavor::Expressions {
        for field in ["expression", "priority"] {
            if subject.has(field) && subject.node.get(field).is_some() {
                subject.error(field, "needs router_flavor=expressions");
            }
        }
        return !subject.has("expression");
    }
    if !subject.has("expression") {
        if subject.node.get("priority").is_some_and(|node| !node.is_null()) {
            subject.error("priority", "is for routes with an 'expression'; use 'regex_priority'");
        }
        return !failed("expression", subject);
    }
    for field in MATCHERS.iter().filter(|field| subject.fields.contains_key(**field)).collect::<Vec<_>>() {
        subject.error(field, "must not be set together with 'expression'");
    }
    false
}

fn matchers(subject: &mut Subject<'_, '_>, family: &Family, protocols: &[String]) {
    for field in family.forbidden {
        if subject.has(field) {
            subject.error(field, format!("must not be set when 'protocols' is {}", protocols.join(", ")));
        }
    }
    let tls = protocols.iter().any(|protocol| matches!(protocol.as_str(), "https" | "grpcs"));
    let mut wanted = family.matchers.to_vec();
    if tls {
        wanted.push("snis");
    }
    // One that was wrong has been reported and counts as set.
    let given = |field: &&str| subject.has(field) || subject.node.get(field).is_some_and(non_empty);
    if !wanted.iter().any(given) {
        let message = format!("must set one of {} when 'protocols' is {}", wanted.join(", "), protocols.join(", "));
        subject.error("", message);
    }
}

fn non_empty(node: &Node) -> bool {
    use gateward_yaml::Tree;
    match &node.value {
        Tree::Null => false,
        Tree::Seq(items) => !items.is_empty(),
        Tree::Map(entries) => !entries.is_empty(),
        _ => true,
    }
}

fn hosts(subject: &mut Subject<'_, '_>) {
    for (index, host) in subject.list("hosts").iter().enumerate() {
        let field = format!("hosts[{index}]");
        if !host.contains('*') {
            if names::host_port(host).is_none() {
                subject.error(&field, "not a valid host; expected a host name or address, perhaps with ':port'");
            }
            continue;
        }
        let (name, port) = host.split_once(':').map_or((host.as_str(), None), |(name, port)| (name, Some(port)));
        let port = port.is_none_or(|port| !port.starts_with('+') && port.parse::<u16>().is_ok());
        if !port || !names::is_wildcard_host(name) {
            subject
                .error(&field, "not a valid host; one '*' may stand for the first or the last label: '*.x' or 'x.*'");
        }
    }
}

fn pem(subject: &mut Subject<'_, '_>, field: &str, label: impl Fn(&str) -> bool) {
    let Some(text) = subject.text(field) else { return };
    if !crate::pem::is_pem(text, label) {
        let what = if field.starts_with("key") { "a private key" } else { "a certificate" };
        subject.error(field, format!("not {what} in PEM form (-----BEGIN ...----- to -----END ...-----)"));
    }
}

fn ca_certificate(subject: &mut Subject<'_, '_>) {
    let Some(text) = subject.text("cert") else { return };
    match crate::pem::digest(text) {
        Err(message) => subject.error("cert", message),
        Ok(digest) => {
            if subject.text("cert_digest").is_some_and(|given| given != digest) {
                subject.error("cert_digest", "is not the SHA-256 of 'cert'; remove this field, it is computed");
            }
        }
    }
}
