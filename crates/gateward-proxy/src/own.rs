//! What the gateway calls itself, and the fields it adds to messages that pass.

use crate::settings::Settings;
use gateward_http::Headers;
use gateward_http::headers::{Name, NameSet};

/// How the gateway names itself in `Via` and `Server`.
pub(crate) const PSEUDONYM: &str = concat!("gateward/", env!("CARGO_PKG_VERSION"));

/// The list of proxies a message passed (RFC 9110 section 7.6.3).
const VIA: Name<'static> = Name::new("via");

/// What the gateway writes itself into requests, so never copies; the request id, whose name is a setting, comes
/// to it.
const REQUEST_FIELDS: [Name<'static>; 14] = [
    Name::new("host"),
    Name::new("content-length"),
    Name::new("transfer-encoding"),
    Name::new("connection"),
    Name::new("expect"),
    Name::new("forwarded"),
    Name::new("via"),
    Name::new("x-real-ip"),
    Name::new("x-forwarded-for"),
    Name::new("x-forwarded-proto"),
    Name::new("x-forwarded-host"),
    Name::new("x-forwarded-port"),
    Name::new("x-forwarded-path"),
    Name::new("x-forwarded-prefix"),
];

/// The gateway's own fields, named with the prefix from the settings.
pub(crate) struct OwnFields {
    pub(crate) response_latency: &'static str,
    pub(crate) request_id: &'static str,
    /// `Name: ` ready to be written.
    pub(crate) upstream_latency_start: String,
    pub(crate) proxy_latency_start: String,
    id_start: String,
    /// `Via: 1.1 <this gateway>` and the line's end.
    via_line: String,
    /// Both, one after the other.
    via_and_id_start: String,
    /// What is never copied from an upstream's response, because the gateway writes it.
    pub(crate) fields: NameSet,
    /// Likewise where `Content-Length` says something although no body follows.
    pub(crate) fields_keeping_length: NameSet,
    /// What is never copied from a client's request.
    pub(crate) request_fields: NameSet,
}

impl OwnFields {
    /// Made once per worker and needed until the process ends, hence leaked: a few hundred bytes.
    pub(crate) fn new(settings: &Settings) -> Self {
        let named = |suffix: &str| -> &'static str { format!("{}-{suffix}", settings.header_prefix).leak() };
        let (upstream_latency, proxy_latency) = (named("Upstream-Latency"), named("Proxy-Latency"));
        let (response_latency, request_id) = (named("Response-Latency"), named("Request-Id"));
        let mut names: Vec<Name<'static>> =
            ["content-length", "transfer-encoding", "connection", "via"].map(Name::new).to_vec();
        if settings.tokens.latency {
            names.extend([upstream_latency, proxy_latency].map(Name::new));
        }
        if settings.tokens.request_id_downstream {
            names.push(Name::new(request_id));
        }
        let names = names.leak();
        let mut request_names = REQUEST_FIELDS.to_vec();
        if settings.tokens.request_id_upstream {
            request_names.push(Name::new(request_id));
        }
        Self {
            response_latency,
            request_id,
            upstream_latency_start: format!("{upstream_latency}: "),
            proxy_latency_start: format!("{proxy_latency}: "),
            id_start: format!("{request_id}: "),
            via_line: format!("Via: 1.1 {PSEUDONYM}\r\n"),
            via_and_id_start: format!("Via: 1.1 {PSEUDONYM}\r\n{request_id}: "),
            fields: NameSet::new(names),
            fields_keeping_length: NameSet::new(&names[1..]),
            request_fields: NameSet::new(request_names.leak()),
        }
    }

    /// `Via` of a message with these `headers`, with `via` also naming this gateway, and with `id` the request id.
    pub(crate) fn write_passage(&self, headers: &Headers, via: bool, id: Option<&str>, out: &mut Vec<u8>) {
        let start = match (headers.contains(VIA), via, id) {
            (false, true, Some(_)) => &self.via_and_id_start,
            (false, true, None) => &self.via_line,
            (false, false, Some(_)) => &self.id_start,
            (false, false, None) => return,
            (true, _, _) => {
                continue_via(headers, via, out);
                if id.is_some() { &self.id_start } else { "" }
            }
        };
        out.extend_from_slice(start.as_bytes());
        if let Some(id) = id {
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// One `Via` line of what earlier proxies wrote and, with `own`, this one.
fn continue_via(headers: &Headers, own: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Via: ");
    for (index, value) in headers.get_all(VIA).enumerate() {
        out.extend_from_slice(if index > 0 { b", " } else { b"" });
        out.extend_from_slice(value);
    }
    if own {
        out.extend_from_slice(b", 1.1 ");
        out.extend_from_slice(PSEUDONYM.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
