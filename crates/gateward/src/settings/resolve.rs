//! From what was said to what it means: every mistake at once, each with the flag or variable it stands in.

use crate::settings::dns;
use crate::settings::kong_env;
use crate::settings::sources::Given;
use crate::settings::tls;
use crate::settings::values::{self, Listen, LogLevel, OutputFormat};
use gateward_lua::{LuaOptions, Untrusted};
use gateward_net::PoolSettings;
use gateward_net::proxy_protocol::Mode;
use gateward_proxy::{HeaderTokens, Limits, Settings};
use gateward_telemetry::AccessLogTarget;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the declarative configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    /// A file, watched.
    File(PathBuf),
    /// A text given with the process.
    Text(String),
}

/// Whether and where there are Wasm filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WasmOptions {
    /// Whether filters are run at all.
    pub(crate) enabled: bool,
    /// The folder of `NAME.wasm`.
    pub(crate) filters_path: Option<PathBuf>,
    /// Where compiled modules are kept.
    pub(crate) cache_path: Option<PathBuf>,
}

/// Settings of the process, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The configuration to start with, if any.
    pub(crate) config: Option<ConfigSource>,
    /// Addresses for clients.
    pub(crate) proxy: Vec<Listen>,
    /// Addresses for streams.
    pub(crate) stream: Vec<Listen>,
    /// Addresses of the Admin API.
    pub(crate) admin: Vec<Listen>,
    /// Addresses of the status port.
    pub(crate) status: Vec<Listen>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// Form of the log and of standard output.
    pub(crate) format: OutputFormat,
    /// Least level to log.
    pub(crate) log_level: LogLevel,
    /// Where access log lines go.
    pub(crate) access_log: Option<AccessLogTarget>,
    /// What the data plane is told.
    pub(crate) data_plane: Settings,
    /// How long a shutdown goes on accepting.
    pub(crate) grace: Duration,
    /// How long requests may take to end after that.
    pub(crate) timeout: Duration,
    /// Where a new process takes over, if anywhere.
    pub(crate) upgrade_socket: Option<PathBuf>,
    /// Lua plugins.
    pub(crate) lua: LuaOptions,
    /// Wasm filters.
    pub(crate) wasm: WasmOptions,
    /// Id of this node, if one is set.
    pub(crate) node_id: Option<String>,
    /// For the log, once there is one.
    pub(crate) warnings: Vec<String>,
    /// For the log, of less weight.
    pub(crate) notes: Vec<String>,
}

/// Read every setting.
///
/// # Errors
/// All values that cannot be read, as texts for the user.
pub(crate) fn resolve(given: &Given) -> Result<Options, Vec<String>> {
    let mut reader = Reader { given, errors: Vec::new(), warnings: Vec::new() };
    let stream = reader.read("stream-listen", values::stream_listeners);
    let data_plane = data_plane(&mut reader, !stream.is_empty());
    let options = Options {
        config: config(&reader),
        proxy: reader.listeners("proxy-listen"),
        stream,
        admin: reader.listeners("admin-listen"),
        status: reader.listeners("status-listen"),
        workers: reader.read("workers", values::workers),
        format: reader.read("format", values::output_format),
        log_level: reader.read("log-level", LogLevel::parse),
        access_log: reader.read("access-log", values::access_log),
        data_plane,
        grace: reader.read("shutdown-grace", values::duration),
        timeout: reader.read("shutdown-timeout", values::duration),
        upgrade_socket: reader.given.value("upgrade-socket").map(|value| value.text.into()),
        lua: LuaOptions {
            folders: lua_folders(&reader),
            enabled: reader.read("plugins", values::lua_plugins),
            untrusted: Untrusted {
                mode: reader.read("untrusted-lua", values::untrusted_lua),
                requires: reader.read("untrusted-lua-sandbox-requires", values::names),
                environment: reader.read("untrusted-lua-sandbox-environment", values::names),
            },
            ..LuaOptions::default()
        },
        wasm: WasmOptions {
            enabled: reader.read("wasm", values::switch),
            filters_path: reader.given.value("wasm-filters-path").map(|value| value.text.into()),
            cache_path: reader.given.value("wasm-cache-path").map(|value| value.text.into()),
        },
        node_id: reader.read("node-id", values::node_id),
        warnings: Vec::new(),
        notes: Vec::new(),
    };
    finish(reader, options)
}

/// Folders named by themselves, then those of the package path.
fn lua_folders(reader: &Reader<'_>) -> Vec<PathBuf> {
    let text = |name| reader.given.value(name).map(|value| value.text).unwrap_or_default();
    let plugins_dir = text("plugins-dir");
    let named = plugins_dir.split(',').map(str::trim).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let mut folders: Vec<PathBuf> = named.collect();
    for folder in text("lua-package-path").split(';').filter_map(|pattern| pattern.split_once('?')) {
        let folder = PathBuf::from(folder.0.trim());
        // Kong's own default, the folder it is started in, would read whatever lies there.
        if !folder.as_os_str().is_empty() && folder != Path::new("./") && !folders.contains(&folder) && folder.is_dir()
        {
            folders.push(folder);
        }
    }
    folders
}

fn finish(reader: Reader<'_>, mut options: Options) -> Result<Options, Vec<String>> {
    let Reader { given, mut errors, warnings } = reader;
    let report = kong_env::report(given);
    errors.extend(report.errors);
    errors.extend(shared_ports(&options));
    errors.extend(misplaced_proxy_protocol(&options));
    if !errors.is_empty() {
        return Err(errors);
    }
    options.warnings = warnings;
    if !report.unknown.is_empty() {
        let names = report.unknown.join(", ");
        options.warnings.push(format!("variables without meaning to this gateway: {names}; check their spelling"));
    }
    if !report.without_effect.is_empty() {
        options.notes.push(format!("settings of Kong without effect here: {}", report.without_effect.join(", ")));
    }
    if options.data_plane.trusted.is_empty() {
        for listen in options.proxy.iter().chain(&options.stream).filter(|listen| listen.proxy_protocol != Mode::Off) {
            options.warnings.push(format!(
                "the listener {} takes PROXY headers and believes none: name the load balancer's addresses with --trusted-ips",
                listen.address
            ));
        }
    }
    for listen in options.admin.iter().filter(|listen| !listen.address.ip().is_loopback()) {
        options.warnings.push(format!(
            "the Admin API on {} can be reached from other machines and shows credentials; keep it on 127.0.0.1",
            listen.address
        ));
    }
    Ok(options)
}

/// Listeners of the control side with the flag of the PROXY protocol, which only the data plane reads.
fn misplaced_proxy_protocol(options: &Options) -> Vec<String> {
    let kinds = [("admin-listen", &options.admin), ("status-listen", &options.status)];
    let listens = kinds.iter().flat_map(|(flag, listens)| listens.iter().map(move |listen| (flag, listen)));
    let misplaced = listens.filter(|(_, listen)| listen.proxy_protocol != Mode::Off);
    misplaced
        .map(|(flag, listen)| {
            format!(
                "--{flag} {}: proxy_protocol is for --proxy-listen and --stream-listen only; remove it",
                listen.address
            )
        })
        .collect()
}

/// Ports that two kinds of listeners name. The kernel would let them share it, and requests would go to either.
fn shared_ports(options: &Options) -> Vec<String> {
    let kinds = [
        ("proxy-listen", &options.proxy),
        ("stream-listen", &options.stream),
        ("admin-listen", &options.admin),
        ("status-listen", &options.status),
    ];
    let overlap = |one: &Listen, other: &Listen| {
        if one.udp || other.udp {
            return false;
        }
        let (one, other) = (one.address, other.address);
        let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
        one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
    };
    let mut errors = Vec::new();
    for (at, (first, listens)) in kinds.iter().enumerate() {
        for (second, others) in &kinds[at + 1..] {
            for listen in listens.iter() {
                errors.extend(others.iter().filter(|other| overlap(listen, other)).map(|other| {
                    let (one, other) = (listen.address, other.address);
                    format!("--{first} {one} and --{second} {other} share a port; give each its own")
                }));
            }
        }
    }
    errors
}

fn config(reader: &Reader<'_>) -> Option<ConfigSource> {
    let file = reader.given.value("config").map(|value| ConfigSource::File(value.text.into()));
    file.or_else(|| reader.given.value("config-string").map(|value| ConfigSource::Text(value.text)))
}

/// `streams`: there are listeners for them.
fn data_plane(reader: &mut Reader<'_>, streams: bool) -> Settings {
    let request_id_upstream = reader.read("headers-upstream", values::request_tokens);
    let (tokens, ignored): (HeaderTokens, Vec<String>) = reader.read("headers", values::response_tokens);
    reader.warnings.extend(ignored);
    Settings {
        flavor: reader.read("router-flavor", values::router_flavor),
        trusted: reader.read("trusted-ips", values::networks),
        real_ip: reader.read("real-ip-header", values::real_ip),
        real_ip_recursive: reader.read("real-ip-recursive", values::switch),
        header_prefix: reader.read("header-prefix", values::header_name),
        tokens: HeaderTokens { request_id_upstream, ..tokens },
        pool: PoolSettings {
            size: reader.read("upstream-keepalive-pool-size", values::number) as usize,
            max_requests: reader.read("upstream-keepalive-max-requests", values::number),
            idle_timeout_ms: reader.milliseconds("upstream-keepalive-idle-timeout"),
        },
        keepalive_requests: reader.read("keepalive-requests", values::number),
        upgrades: reader.read("upgrade-protocols", values::upgrades),
        underscores: reader.read("underscores-in-headers", values::underscores),
        allow_debug_header: reader.read("allow-debug-header", values::switch),
        concurrency: reader.read("concurrency-limit", values::concurrency_limit),
        max_connection_age_ms: reader.milliseconds("max-connection-age"),
        tcp_keepalive: Some(reader.read("tcp-keepalive", values::keepalive)).filter(|idle| !idle.is_zero()),
        dns: dns::read(reader),
        streams,
        tls: tls::read(reader),
        limits: limits(reader),
    }
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    Limits {
        body_bytes: reader.read("client-max-body-size", values::size),
        body_buffer_bytes: usize::try_from(reader.read("plugin-body-size", values::size)).unwrap_or(usize::MAX),
        header_timeout_ms: reader.milliseconds("client-header-timeout"),
        preread_timeout_ms: reader.milliseconds("stream-preread-timeout"),
        udp_sessions: reader.read("max-udp-sessions", values::number) as usize,
        tls_handshake_timeout_ms: reader.milliseconds("tls-handshake-timeout"),
        tls_handshakes: reader.read("max-tls-handshakes", values::number) as usize,
        body_timeout_ms: reader.milliseconds("client-body-timeout"),
        body_rate: reader.read("client-body-rate", values::size),
        send_timeout_ms: reader.milliseconds("send-timeout"),
        keepalive_timeout_ms: reader.milliseconds("keepalive-timeout"),
        connections: reader.read("max-connections", values::connections),
        connections_per_address: reader.read("max-connections-per-address", values::number),
        ..Limits::default()
    }
}

/// Reads settings and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    given: &'a Given,
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Reader<'_> {
    /// The setting's value; the type's default when there is none or when it is wrong, which fails in the end.
    pub(super) fn read<T: Default>(&mut self, flag: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let Some(value) = self.given.value(flag) else { return T::default() };
        parse(&value.text).unwrap_or_else(|error| {
            self.errors.push(format!("{}: {error}", value.origin.unwrap_or_else(|| format!("--{flag}"))));
            T::default()
        })
    }

    fn milliseconds(&mut self, flag: &str) -> u64 {
        u64::try_from(self.read(flag, values::duration).as_millis()).unwrap_or(u64::MAX)
    }

    fn listeners(&mut self, flag: &str) -> Vec<Listen> {
        self.read(flag, values::listeners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kongs() {
        let options = resolve(&Given::default()).unwrap();
        let addresses = |listens: &[Listen]| listens.iter().map(|it| it.address.to_string()).collect::<Vec<_>>();
        assert_eq!(addresses(&options.proxy), ["0.0.0.0:8000", "0.0.0.0:8443"]);
        assert_eq!(
            options.proxy.iter().map(|it| (it.flags.ssl, it.flags.http2)).collect::<Vec<_>>(),
            [(false, false), (true, true)]
        );
        assert_eq!(addresses(&options.admin), ["127.0.0.1:8001"]);
        assert_eq!(addresses(&options.status), ["127.0.0.1:8007"]);
        assert_eq!(options.grace, Duration::from_secs(10));
        assert!(options.warnings.is_empty() && options.notes.is_empty());
        // The table's defaults are the data plane's own.
        assert_eq!(format!("{:?}", options.data_plane), format!("{:?}", Settings::default()));
    }

    #[test]
    fn a_kong_containers_environment_works() {
        let options = resolve(&Given::of(
            &[],
            &[
                ("KONG_DATABASE", "off"),
                ("KONG_DECLARATIVE_CONFIG", "/kong/kong.yml"),
                ("KONG_PROXY_LISTEN", "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport"),
                ("KONG_ADMIN_LISTEN", "0.0.0.0:8001"),
                ("KONG_STATUS_LISTEN", "off"),
                ("KONG_STREAM_LISTEN", "0.0.0.0:5432 reuseport backlog=16384, 0.0.0.0:5433 ssl so_keepalive=30s::10"),
                ("KONG_TRUSTED_IPS", "0.0.0.0/0,::/0"),
                ("KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE", "10m"),
                ("KONG_NGINX_WORKER_PROCESSES", "2"),
                ("KONG_PROXY_ACCESS_LOG", "/dev/stdout"),
                ("KONG_UPSTREAM_KEEPALIVE_IDLE_TIMEOUT", "5"),
                ("KONG_HEADERS", "off"),
                ("KONG_PLUGINS", "bundled"),
                ("KONG_LOG_LEVEL", "warn"),
            ],
        ))
        .unwrap();
        assert_eq!(options.config, Some(ConfigSource::File("/kong/kong.yml".into())));
        assert_eq!((options.proxy.len(), options.status.len(), options.workers), (2, 0, 2));
        assert_eq!(options.stream.iter().map(|it| it.flags.ssl).collect::<Vec<_>>(), [false, true]);
        assert!(options.data_plane.streams && options.stream.iter().all(|it| it.flags.stream));
        assert_eq!(options.data_plane.limits.body_bytes, 10 << 20);
        assert_eq!(options.data_plane.pool.idle_timeout_ms, 5000);
        assert_eq!(options.data_plane.trusted.len(), 2);
        assert!(!options.data_plane.tokens.server && options.data_plane.tokens.request_id_upstream);
        assert_eq!(options.access_log, Some(AccessLogTarget::Stdout));
        assert!(options.warnings.iter().any(|text| text.contains("Admin API on 0.0.0.0:8001")));
        assert_eq!(options.notes, ["settings of Kong without effect here: KONG_DATABASE"]);
    }

    #[test]
    fn all_mistakes_are_told_with_their_place() {
        let errors = resolve(&Given::of(
            &[("workers", "many")],
            &[
                ("KONG_PROXY_LISTEN", "8000"),
                ("GATEWARD_FORMAT", "xml"),
                ("KONG_DATABASE", "postgres"),
                ("KONG_NODE_ID", "me"),
            ],
        ))
        .unwrap_err();
        for origin in ["--workers: ", "KONG_PROXY_LISTEN: ", "GATEWARD_FORMAT: ", "KONG_DATABASE: ", "KONG_NODE_ID: "] {
            assert!(errors.iter().any(|error| error.starts_with(origin)), "{origin} in {errors:?}");
        }
        assert_eq!(errors.len(), 5);
    }

    #[test]
    fn ports_that_cannot_serve_what_was_meant_are_mistakes() {
        let check = |environment: &[(&str, &str)], expected: &str| {
            let errors = resolve(&Given::of(&[], environment)).unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].contains(expected), "{errors:?}");
        };
        check(
            &[("GATEWARD_PROXY_LISTEN", "0.0.0.0:9000"), ("GATEWARD_ADMIN_LISTEN", "127.0.0.1:9000")],
            "--proxy-listen 0.0.0.0:9000 and --admin-listen 127.0.0.1:9000 share a port",
        );
        check(&[("GATEWARD_STREAM_LISTEN", "0.0.0.0:8000")], "--proxy-listen 0.0.0.0:8000 and --stream-listen");
        check(&[("GATEWARD_STATUS_LISTEN", "127.0.0.1:8001")], "--admin-listen 127.0.0.1:8001 and --status-listen");
        let apart = [("GATEWARD_ADMIN_LISTEN", "127.0.0.1:0"), ("GATEWARD_STATUS_LISTEN", "127.0.0.1:0")];
        assert!(resolve(&Given::of(&[], &apart)).is_ok());
        let apart = [("GATEWARD_ADMIN_LISTEN", "127.0.0.1:9000"), ("GATEWARD_STATUS_LISTEN", "127.0.0.2:9000")];
        assert!(resolve(&Given::of(&[], &apart)).is_ok());
        let off = [("KONG_PROXY_LISTEN", "off")];
        assert!(resolve(&Given::of(&[], &off)).unwrap().proxy.is_empty());
    }
}
