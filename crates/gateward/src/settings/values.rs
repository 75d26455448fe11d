//! Parsers of values: texts in Kong's and nginx's syntax to types. Errors say what is allowed.

use gateward_balance::LimitRule;
use gateward_lua::UntrustedMode;
use gateward_model::RouterFlavor;
use gateward_net::proxy_protocol::Mode;
use gateward_net::{ListenerFlags, Probes};
use gateward_proxy::{HeaderTokens, RealIp, Underscores};
use gateward_telemetry::AccessLogTarget;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Longest time-out: what fits the data plane's arithmetic with room to spare.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Most worker threads.
const MOST_WORKERS: usize = 1024;
/// Most addresses of one kind.
const MOST_ADDRESSES: usize = 64;

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    /// The address.
    pub(crate) address: SocketAddr,
    /// Length of the queue of connections not yet accepted.
    pub(crate) backlog: i32,
    /// What is done about PROXY headers.
    pub(crate) proxy_protocol: Mode,
    /// How its connections are spoken to.
    pub(crate) flags: ListenerFlags,
    /// It is for datagrams, not for connections.
    pub(crate) udp: bool,
}

/// Form of log and standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// A log level under Kong's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLevel {
    /// Kong's name.
    pub(crate) name: &'static str,
    /// What it means here.
    pub(crate) filter: LevelFilter,
}

const LOG_LEVELS: &[(&str, LevelFilter)] = &[
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("notice", LevelFilter::INFO),
    ("warn", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("crit", LevelFilter::ERROR),
    ("alert", LevelFilter::ERROR),
    ("emerg", LevelFilter::ERROR),
];

impl LogLevel {
    /// The level of this name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = LOG_LEVELS.iter().find(|(name, _)| *name == text.trim());
        found.map(|(name, filter)| Self { name, filter: *filter }).ok_or_else(|| {
            let names: Vec<&str> = LOG_LEVELS.iter().map(|(name, _)| *name).collect();
            format!("'{text}' is not a log level; use one of {}", names.join(", "))
        })
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self { name: "notice", filter: LevelFilter::INFO }
    }
}

/// A list in Kong's syntax: `0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl`, or `off`.
pub(crate) fn listeners(text: &str) -> Result<Vec<Listen>, String> {
    list_of(text, listener)
}

/// Likewise for streams: `0.0.0.0:5432 reuseport, 0.0.0.0:8883 ssl, 0.0.0.0:53 udp`, or `off`.
pub(crate) fn stream_listeners(text: &str) -> Result<Vec<Listen>, String> {
    list_of(text, |entry| {
        let words = entry.split_ascii_whitespace();
        let udp = words.clone().any(|word| word == "udp");
        let others: Vec<&str> = words.filter(|word| *word != "udp").collect();
        let mut listen = Listen { udp, ..listener(&others.join(" "))? };
        if listen.flags.http2 {
            return Err(format!("'{entry}': http2 is not for streams; HTTP goes to the proxy's listeners"));
        }
        if listen.udp && (listen.flags.ssl || listen.proxy_protocol != Mode::Off) {
            return Err(format!("'{entry}': ssl and proxy_protocol are for connections, not for udp"));
        }
        listen.flags.stream = true;
        Ok(listen)
    })
}

fn list_of(text: &str, listener: impl Fn(&str) -> Result<Listen, String>) -> Result<Vec<Listen>, String> {
    let mut open: Vec<Listen> = Vec::new();
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(open);
    }
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let listen = listener(entry)?;
        let same = |other: &Listen| (other.address, other.udp) == (listen.address, listen.udp);
        if listen.address.port() == 0 || !open.iter().any(same) {
            open.push(listen);
        }
    }
    if open.len() > MOST_ADDRESSES {
        return Err(format!("more than {MOST_ADDRESSES} addresses"));
    }
    if open.is_empty() {
        return Err("no address; write 'off' to listen nowhere".to_owned());
    }
    Ok(open)
}

fn listener(entry: &str) -> Result<Listen, String> {
    let mut words = entry.split_ascii_whitespace();
    let address = words.next().unwrap_or_default();
    let mut listen = Listen {
        address: address_of(address)?,
        backlog: gateward_net::listen::BACKLOG,
        proxy_protocol: Mode::Off,
        flags: ListenerFlags::default(),
        udp: false,
    };
    for flag in words {
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("ssl", "") => listen.flags.ssl = true,
            // Without ssl too: clients with prior knowledge are always taken.
            ("http2", "") => listen.flags.http2 = true,
            ("proxy_protocol", "") => listen.proxy_protocol = Mode::Require,
            ("proxy_protocol", "auto") => listen.proxy_protocol = Mode::Auto,
            ("proxy_protocol", _) => {
                return Err(format!(
                    "'{entry}': write proxy_protocol to require PROXY headers, or proxy_protocol=auto"
                ));
            }
            ("backlog", number) => {
                let parsed = number.parse().ok().filter(|backlog| (1..=65_535).contains(backlog));
                listen.backlog = parsed.ok_or_else(|| format!("'{entry}': backlog must be 1 to 65535"))?;
            }
            ("so_keepalive", value) => {
                listen.flags.probes = probes(value).map_err(|error| format!("'{entry}': {error}"))?;
            }
            // Every listener shares its port between workers, and is bound by itself.
            ("reuseport" | "bind" | "deferred" | "ipv6only", _) => {}
            _ => return Err(format!("'{entry}': unknown listener flag '{flag}'")),
        }
    }
    Ok(listen)
}

/// nginx's `on`, `off` or `[IDLE]:[INTERVAL]:[COUNT]`, of which only the idle time is taken.
fn probes(text: &str) -> Result<Probes, String> {
    match text.split(':').next().unwrap_or_default() {
        "on" | "" => Ok(Probes::AsSet),
        "off" => Ok(Probes::Off),
        idle => match keepalive(idle)? {
            idle if idle.is_zero() => Ok(Probes::Off),
            idle => Ok(Probes::After(idle)),
        },
    }
}

fn address_of(text: &str) -> Result<SocketAddr, String> {
    let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    named
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("'{text}' is not an address; write IP:PORT, such as 0.0.0.0:8000 or [::]:8000, or 'off'"))
}

/// A size in nginx's syntax: `0`, `8192`, `10m`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.len() - text.bytes().rev().take_while(u8::is_ascii_alphabetic).count();
    let (digits, unit) = text.split_at(split);
    let factor: Option<u64> = match unit.to_ascii_lowercase().as_str() {
        "" => Some(1),
        "k" => Some(1 << 10),
        "m" => Some(1 << 20),
        "g" => Some(1 << 30),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.ok_or_else(|| format!("'{text}' is not a size; write bytes, or a number with k, m or g, such as 10m"))
}

/// A time: seconds, or a number with `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.len() - text.bytes().rev().take_while(u8::is_ascii_alphabetic).count();
    let (digits, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => Some(0.001),
        "" | "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        "d" => Some(86_400.0),
        _ => None,
    };
    let seconds = digits.parse::<f64>().ok().zip(factor).map(|(number, factor)| number * factor);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| format!("'{text}' is not a time; write seconds, such as 60, or 500ms, 5m, 1h"))
}

/// Idle time before TCP probes: 0, or what the kernel takes (TCP_KEEPIDLE: whole seconds up to 32767).
pub(crate) fn keepalive(text: &str) -> Result<Duration, String> {
    let idle = duration(text)?;
    let fits = idle.is_zero() || (1..=32_767).contains(&idle.as_secs());
    fits.then_some(idle).ok_or_else(|| format!("'{text}' is not a time of 1 to 32767 seconds; 0 turns probes off"))
}

/// `off`, `adaptive`, or a number of requests.
pub(crate) fn concurrency_limit(text: &str) -> Result<Option<LimitRule>, String> {
    match text.trim() {
        "off" => Ok(None),
        "adaptive" => Ok(Some(LimitRule::Adaptive { least: 8, most: 10_000 })),
        number => match number.parse() {
            Ok(limit @ 1..=1_000_000) => Ok(Some(LimitRule::Fixed(limit))),
            _ => Err(format!("'{text}' is no limit of requests; write off, adaptive or a number from 1 to 1000000")),
        },
    }
}

/// `on` or `off`.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(format!("'{text}' is neither on nor off")),
    }
}

/// A whole number.
pub(crate) fn number(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("'{text}' is not a whole number from 0 to {}", u32::MAX))
}

/// A number of connections, or `auto`.
pub(crate) fn connections(text: &str) -> Result<usize, String> {
    if text.trim() == "auto" {
        return Ok(gateward_proxy::Limits::default().connections);
    }
    number(text).map(|number| number as usize)
}

/// A number of threads, or `auto`.
pub(crate) fn workers(text: &str) -> Result<usize, String> {
    if text.trim() == "auto" {
        return Ok(gateward_net::worker::default_count());
    }
    let workers = text.trim().parse().ok().filter(|workers| (1..=MOST_WORKERS).contains(workers));
    workers.ok_or_else(|| format!("'{text}' is not a number of workers; write 1 to {MOST_WORKERS}, or auto"))
}

/// `text` or `json`.
pub(crate) fn output_format(text: &str) -> Result<OutputFormat, String> {
    match text {
        "text" => Ok(OutputFormat::Text),
        "json" => Ok(OutputFormat::Json),
        _ => Err(format!("'{text}' is neither text nor json")),
    }
}

/// Kong's router flavours that this build has.
pub(crate) fn router_flavor(text: &str) -> Result<RouterFlavor, String> {
    match text.trim() {
        "traditional_compatible" => Ok(RouterFlavor::TraditionalCompatible),
        "expressions" => Ok(RouterFlavor::Expressions),
        "traditional" => {
            Err("this build has no router flavour 'traditional'; use traditional_compatible, which reads \
                              the same files and is Kong's default"
                .to_owned())
        }
        _ => Err(format!("'{text}' is not a router flavour; use traditional_compatible or expressions")),
    }
}

/// A UUID, in the form in which Kong shows it.
pub(crate) fn node_id(text: &str) -> Result<Option<String>, String> {
    uuid::Uuid::try_parse(text.trim())
        .map(|id| Some(id.to_string()))
        .map_err(|_| format!("'{text}' is not a UUID, such as 0dc6f45b-8f8d-40d2-a504-473544ee190b"))
}

/// nginx's `on` and `off`, or `refuse`.
pub(crate) fn underscores(text: &str) -> Result<Underscores, String> {
    match text.trim() {
        "on" => Ok(Underscores::Allow),
        "off" => Ok(Underscores::Drop),
        "refuse" => Ok(Underscores::Refuse),
        _ => Err(format!("'{text}' is none of on, off, refuse")),
    }
}

/// `off`, `stdout` (Kong: `/dev/stdout`) or a path. nginx's log format may follow the path.
pub(crate) fn access_log(text: &str) -> Result<Option<AccessLogTarget>, String> {
    match text.split_ascii_whitespace().next() {
        None | Some("off") => Ok(None),
        Some("stdout" | "/dev/stdout") => Ok(Some(AccessLogTarget::Stdout)),
        Some(path) => Ok(Some(AccessLogTarget::File(path.into()))),
    }
}

/// Addresses and networks separated by commas.
pub(crate) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty() && *entry != "unix:");
    let parse = |entry: &str| match entry.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => entry.parse().map_err(|_| format!("'{entry}' is not an IP address or network such as 10.0.0.0/8")),
    };
    entries.map(parse).collect()
}

/// The part of [`HeaderTokens`] that concerns responses, and what has no effect.
pub(crate) fn response_tokens(text: &str) -> Result<(HeaderTokens, Vec<String>), String> {
    let mut tokens =
        HeaderTokens { server: false, latency: false, request_id_downstream: false, request_id_upstream: false };
    let mut warnings = Vec::new();
    for token in text.split(',').map(|token| token.trim().to_ascii_lowercase()) {
        match token.as_str() {
            "off" | "" => {}
            "server_tokens" | "server" | "via" => tokens.server = true,
            "latency_tokens"
            | "x-kong-proxy-latency"
            | "x-kong-upstream-latency"
            | "x-kong-response-latency"
            | "x-kong-total-latency"
            | "x-kong-third-party-latency"
            | "x-kong-client-latency" => tokens.latency = true,
            "x-kong-request-id" => tokens.request_id_downstream = true,
            "x-kong-upstream-status" | "x-kong-admin-latency" => {
                warnings.push(format!("'{token}' has no effect: this build does not send that header"));
            }
            _ => {
                return Err(format!(
                    "'{token}' is unknown; use server_tokens, latency_tokens, X-Kong-Request-Id or off"
                ));
            }
        }
    }
    Ok((tokens, warnings))
}

/// Whether requests to the upstream carry the request id.
pub(crate) fn request_tokens(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" => Ok(false),
        "x-kong-request-id" => Ok(true),
        _ => Err(format!("'{text}' is unknown; use X-Kong-Request-Id or off")),
    }
}

/// A header name, or the beginning of one.
pub(crate) fn header_name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let valid = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    valid.then(|| text.to_owned()).ok_or_else(|| format!("'{text}' is not a header name of at most 64 characters"))
}

/// Names of protocols for `Upgrade`.
pub(crate) fn upgrades(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let check = |name: &str| match name.to_ascii_lowercase().as_str() {
        "h2c" | "h2" => Err(format!("'{name}' cannot be an upgrade: HTTP/2 is served, not tunnelled")),
        _ if name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte)) => {
            Err(format!("'{name}' is not the name of a protocol; write it without a version, such as websocket"))
        }
        _ => Ok(name.to_owned()),
    };
    names.map(check).collect()
}

/// The header of the client's address, or `proxy_protocol`.
pub(crate) fn real_ip(text: &str) -> Result<RealIp, String> {
    if text.trim() == "proxy_protocol" {
        return Ok(RealIp::ProxyProtocol);
    }
    header_name(text).map(RealIp::Header)
}

/// Names of Lua plugins that may be used; `None`: all that are found.
pub(crate) fn lua_plugins(text: &str) -> Result<Option<Vec<String>>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    if text.trim() == "off" {
        return Ok(Some(Vec::new()));
    }
    let own = |name: &&str| *name != "bundled" && gateward_plugin::definition(name).is_none();
    let names: Vec<String> = names.filter(own).map(str::to_owned).collect();
    Ok(Some(names).filter(|names| !names.is_empty()))
}

/// What Lua in a configuration may do.
pub(crate) fn untrusted_lua(text: &str) -> Result<UntrustedMode, String> {
    match text.trim() {
        "off" => Ok(UntrustedMode::Off),
        // Newer versions of Kong call theirs so.
        "sandbox" | "strict" => Ok(UntrustedMode::Sandbox),
        "on" => Ok(UntrustedMode::On),
        other => Err(format!("'{other}' is none of: off, sandbox, on")),
    }
}

/// Names separated by commas.
#[expect(clippy::unnecessary_wraps, reason = "the shape of all readers of settings")]
pub(crate) fn names(text: &str) -> Result<Vec<String>, String> {
    Ok(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_listeners(text: &str, expected: &[&str]) {
        let found = listeners(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let flag = |set: bool, name: &'static str| if set { name } else { "" };
        let described = found.iter().map(|Listen { address, flags, .. }| {
            format!("{address}{}{}", flag(flags.ssl, " ssl"), flag(flags.http2, " http2"))
        });
        assert_eq!(described.collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn kongs_listener_strings() {
        check_listeners(
            "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport deferred bind",
            &["0.0.0.0:8000", "0.0.0.0:8443 ssl http2"],
        );
        check_listeners("0.0.0.0:8000 http2", &["0.0.0.0:8000 http2"]);
        check_listeners("127.0.0.1:8001,127.0.0.1:8001", &["127.0.0.1:8001"]);
        check_listeners("127.0.0.1:0,127.0.0.1:0", &["127.0.0.1:0", "127.0.0.1:0"]);
        check_listeners("localhost:9, [::]:8000 ipv6only=on", &["127.0.0.1:9", "[::]:8000"]);
        check_listeners("off", &[]);
        check_listeners("0.0.0.0:8443 ssl", &["0.0.0.0:8443 ssl"]);
        assert_eq!(listeners("0.0.0.0:1 backlog=7").unwrap()[0].backlog, 7);
        for (text, mode) in [("", Mode::Off), (" proxy_protocol", Mode::Require), (" proxy_protocol=auto", Mode::Auto)]
        {
            assert_eq!(listeners(&format!("0.0.0.0:1{text}")).unwrap()[0].proxy_protocol, mode);
        }
        for (text, expected) in [
            ("on", Probes::AsSet),
            ("off", Probes::Off),
            ("30m::10", Probes::After(Duration::from_secs(1800))),
            ("::5", Probes::AsSet),
        ] {
            assert_eq!(listeners(&format!("0.0.0.0:1 so_keepalive={text}")).unwrap()[0].flags.probes, expected);
        }
        assert!(stream_listeners("0.0.0.0:1 ssl, 0.0.0.0:2").unwrap().iter().all(|listen| listen.flags.stream));
        let both = stream_listeners("0.0.0.0:53, 0.0.0.0:53 udp reuseport, 0.0.0.0:53 udp").unwrap();
        assert_eq!(both.iter().map(|listen| listen.udp).collect::<Vec<_>>(), [false, true]);
        assert!(
            stream_listeners("0.0.0.0:1 udp ssl").is_err() && stream_listeners("0.0.0.0:1 udp proxy_protocol").is_err()
        );
        assert!(stream_listeners("0.0.0.0:1 ssl http2").is_err() && stream_listeners("off").unwrap().is_empty());
        for wrong in [
            "0.0.0.0:1 so_keepalive=x",
            "8000",
            "",
            "a.example:8000",
            "0.0.0.0:1 udp",
            "0.0.0.0:1 ssl=1",
            "0.0.0.0:1 backlog=x",
            "0.0.0.0:1 proxy_protocol=on",
        ] {
            assert!(listeners(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nginx_sizes_and_times() {
        for (text, expected) in [("0", Some(0)), ("8192", Some(8192)), ("10m", Some(10 << 20)), ("1G", Some(1 << 30))] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
        for wrong in ["", "m", "-1", "1mb", "99999999999999999999", "18446744073709551615k"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for (text, expected) in [("60", 60_000), ("0.5", 500), ("75s", 75_000), ("10ms", 10), ("2m", 120_000)] {
            assert_eq!(duration(text).unwrap().as_millis(), expected, "{text}");
        }
        for wrong in ["", "-1", "NaN", "inf", "1y", "1e300"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words() {
        assert_eq!(workers("3"), Ok(3));
        assert!(workers("auto").is_ok() && workers("0").is_err() && workers("x").is_err());
        assert_eq!(concurrency_limit("off"), Ok(None));
        assert_eq!(concurrency_limit("300"), Ok(Some(LimitRule::Fixed(300))));
        assert!(matches!(concurrency_limit("adaptive"), Ok(Some(LimitRule::Adaptive { .. }))));
        assert!(concurrency_limit("0").is_err() && concurrency_limit("auto").is_err());
        assert!(keepalive("0").unwrap().is_zero() && keepalive("0.5").is_err() && keepalive("60").is_ok());
        assert_eq!(access_log("/dev/stdout combined"), Ok(Some(AccessLogTarget::Stdout)));
        assert_eq!(access_log("off"), Ok(None));
        assert_eq!(networks("10.0.0.0/8, ::1").unwrap().len(), 2);
        assert!(networks("10.0.0.0/99").is_err());
        assert!(router_flavor("traditional").unwrap_err().contains("traditional_compatible"));
        assert!(LogLevel::parse("notice").is_ok() && LogLevel::parse("loud").is_err());
        assert_eq!(real_ip("proxy_protocol"), Ok(RealIp::ProxyProtocol));
        assert_eq!(real_ip("X-Forwarded-For"), Ok(RealIp::Header("X-Forwarded-For".to_owned())));
        assert!(real_ip("no header").is_err());
    }

    #[test]
    fn upgrade_names() {
        assert_eq!(upgrades("").unwrap(), Vec::<String>::new());
        assert_eq!(upgrades("ftp, x-y").unwrap(), ["ftp", "x-y"]);
        assert!(upgrades("h2c").is_err() && upgrades("a/1").is_err() && upgrades("websocket, H2").is_err());
    }

    #[test]
    fn header_tokens() {
        let tokens = |text| {
            response_tokens(text)
                .map(|(tokens, warnings)| (tokens.server, tokens.latency, tokens.request_id_downstream, warnings.len()))
        };
        assert_eq!(tokens("server_tokens, latency_tokens, X-Kong-Request-Id"), Ok((true, true, true, 0)));
        assert_eq!(tokens("off"), Ok((false, false, false, 0)));
        assert_eq!(tokens("Via,X-Kong-Upstream-Status"), Ok((true, false, false, 1)));
        assert!(tokens("nonsense").is_err());
    }
}
