//! Every setting of `gateward gateway`: its flag, Kong's variables for it, its default and what it means.
//!
//! The variable of a setting is `GATEWARD_` and the flag in capitals. Kong's variables take the same syntax as
//! ours, so one parser serves all places. Defaults are Kong's (kong.conf.default) where Kong has the setting.

use std::fmt::Write;

/// One setting.
pub(crate) struct Setting {
    /// Name of the flag, without dashes in front.
    pub(crate) flag: &'static str,
    /// What the value looks like.
    pub(crate) value: &'static str,
    /// Kong's variables for the same thing; the first that is set counts.
    pub(crate) kong: &'static [&'static str],
    /// Text of the default, in the syntax of the value; empty: none.
    pub(crate) default: &'static str,
    /// One or two sentences.
    pub(crate) meaning: &'static str,
}

impl Setting {
    /// `GATEWARD_PROXY_LISTEN` for `proxy-listen`.
    pub(crate) fn variable(&self) -> String {
        format!("GATEWARD_{}", self.flag.replace('-', "_").to_uppercase())
    }
}

/// The setting with this flag.
pub(crate) fn setting(flag: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.flag == flag).expect("only settings of the table are asked for")
}

const fn row(
    flag: &'static str,
    value: &'static str,
    kong: &'static [&'static str],
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { flag, value, kong, default, meaning }
}

/// The table, in the order of the help text.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    row("config", "FILE", &["KONG_DECLARATIVE_CONFIG"], "",
        "Declarative file in Kong's format (.json, otherwise YAML). It is watched for changes. Without one the gateway starts empty and waits for POST /config."),
    row("config-string", "TEXT", &["KONG_DECLARATIVE_CONFIG_STRING"], "",
        "The declarative configuration itself, YAML or JSON. A file, where given, wins."),
    row("proxy-listen", "ADDR", &["KONG_PROXY_LISTEN"], "0.0.0.0:8000, 0.0.0.0:8443 http2 ssl",
        "Addresses for clients, separated by commas, each with Kong's listener flags (ssl, http2, backlog=N; proxy_protocol requires PROXY headers, proxy_protocol=auto takes connections with and without); or off."),
    row("stream-listen", "ADDR", &["KONG_STREAM_LISTEN"], "off",
        "Addresses for streams (routes with tcp, tls, tls_passthrough and udp), each with Kong's listener flags (ssl, udp, backlog=N, so_keepalive=on|off|IDLE; proxy_protocol as for proxy-listen); or off."),
    row("stream-preread-timeout", "SECONDS",
        &["KONG_NGINX_SPROXY_PREREAD_TIMEOUT", "KONG_NGINX_STREAM_PREREAD_TIMEOUT"], "30",
        "Time for the TLS hello of a stream whose route its server name decides."),
    row("admin-listen", "ADDR", &["KONG_ADMIN_LISTEN"], "127.0.0.1:8001",
        "Addresses of the Admin API, perhaps with ssl, or off. It shows the configuration with its credentials: keep it on loopback."),
    row("status-listen", "ADDR", &["KONG_STATUS_LISTEN"], "127.0.0.1:8007",
        "Addresses of /status, /status/ready and /metrics, perhaps with ssl, or off."),
    row("workers", "N", &["KONG_NGINX_WORKER_PROCESSES", "KONG_NGINX_MAIN_WORKER_PROCESSES"], "auto",
        "Worker threads; auto: one per core."),
    row("format", "text|json", &[], "text",
        "Form of the log on standard error. With json, one line on standard output says when and where the gateway listens."),
    row("log-level", "LEVEL", &["KONG_LOG_LEVEL"], "notice",
        "Least level to log: debug, info, notice, warn, error, crit, alert or emerg."),
    row("access-log", "stdout|off|PATH", &["KONG_PROXY_ACCESS_LOG"], "off",
        "Where to write one JSON line per request and per stream. SIGUSR1 opens the file anew."),
    row("ssl-cert", "FILES", &["KONG_SSL_CERT"], "",
        "Files (PEM) of the certificate for clients that no SNI of the configuration serves; one per kind of key, separated by commas. Without one a self-signed certificate for localhost is made at the start."),
    row("ssl-cert-key", "FILES", &["KONG_SSL_CERT_KEY"], "",
        "Files of their keys, in the same order."),
    row("ssl-protocols", "VERSIONS", &["KONG_SSL_PROTOCOLS", "KONG_NGINX_HTTP_SSL_PROTOCOLS"], "TLSv1.2 TLSv1.3",
        "Versions of TLS for clients."),
    row("ssl-cipher-suite", "NAME", &["KONG_SSL_CIPHER_SUITE"], "intermediate",
        "modern: TLS 1.3 only; intermediate and old: every suite this build has, all of them with forward secrecy; custom: those of ssl-ciphers."),
    row("ssl-ciphers", "LIST", &["KONG_SSL_CIPHERS"], "",
        "OpenSSL names of cipher suites, separated by colons; counts with ssl-cipher-suite custom."),
    row("tls-client-verify", "off|request|require", &[], "off",
        "Ask clients for a certificate: request takes those without one too, require does not. One that cannot be verified ends the handshake."),
    row("tls-client-ca", "FILE", &[], "",
        "Authorities (PEM) of clients' certificates."),
    row("tls-handshake-timeout", "SECONDS", &[], "10",
        "Time for a whole TLS handshake with a client."),
    row("max-tls-handshakes", "N", &[], "4096",
        "TLS handshakes with clients under way at once, per worker."),
    row("tls-certificate-verify", "on|off", &["KONG_TLS_CERTIFICATE_VERIFY"], "off",
        "Verify the certificates of https upstreams whose service does not set tls_verify. Off is Kong's default; on is what you want."),
    row("tls-verify-depth", "N", &["KONG_LUA_SSL_VERIFY_DEPTH"], "1",
        "Most intermediate certificates in an upstream's chain where the service does not set tls_verify_depth."),
    row("trusted-certificate", "LIST", &["KONG_LUA_SSL_TRUSTED_CERTIFICATE"], "system",
        "Authorities for upstreams where the service does not set ca_certificates: files (PEM) and system, separated by commas."),
    row("trusted-ips", "CIDR", &["KONG_TRUSTED_IPS"], "",
        "Peers whose X-Forwarded-* and real-IP header are believed, separated by commas."),
    row("real-ip-header", "NAME", &["KONG_REAL_IP_HEADER", "KONG_NGINX_PROXY_REAL_IP_HEADER"], "X-Real-IP",
        "Header in which a trusted peer says the client's address; proxy_protocol: the PROXY header of its connection."),
    row("real-ip-recursive", "on|off", &["KONG_REAL_IP_RECURSIVE", "KONG_NGINX_PROXY_REAL_IP_RECURSIVE"], "off",
        "Skip trusted addresses from the right of that header's list."),
    row("router-flavor", "FLAVOR", &["KONG_ROUTER_FLAVOR"], "traditional_compatible",
        "Rules that select routes: traditional_compatible or expressions."),
    row("headers", "TOKENS", &["KONG_HEADERS"], "server_tokens, latency_tokens, X-Kong-Request-Id",
        "Which of its own headers the gateway adds to responses, or off."),
    row("headers-upstream", "TOKENS", &["KONG_HEADERS_UPSTREAM"], "X-Kong-Request-Id",
        "Which of its own headers the gateway adds to requests, or off."),
    row("header-prefix", "PREFIX", &[], "X-Kong",
        "Beginning of the names of those headers."),
    row("upgrade-protocols", "NAMES", &[], "",
        "Protocols besides websocket that a request may switch to with Upgrade, separated by commas. HTTP/2 (h2c) is never one of them."),
    row("underscores-in-headers", "on|off|refuse",
        &["KONG_NGINX_PROXY_UNDERSCORES_IN_HEADERS", "KONG_NGINX_HTTP_UNDERSCORES_IN_HEADERS"], "on",
        "Request headers with an underscore in their name: on passes them, except those a backend could mistake for one the gateway writes (X_Forwarded_For); off removes them; refuse answers 400."),
    row("allow-debug-header", "on|off", &["KONG_ALLOW_DEBUG_HEADER"], "off",
        "Answer the request header Kong-Debug: 1 with the names of route and service."),
    row("upstream-keepalive-pool-size", "N", &["KONG_UPSTREAM_KEEPALIVE_POOL_SIZE"], "512",
        "Idle upstream connections kept per address and worker; 0: none."),
    row("upstream-keepalive-max-requests", "N", &["KONG_UPSTREAM_KEEPALIVE_MAX_REQUESTS"], "10000",
        "Requests after which an upstream connection is closed; 0: no limit."),
    row("upstream-keepalive-idle-timeout", "SECONDS", &["KONG_UPSTREAM_KEEPALIVE_IDLE_TIMEOUT"], "60",
        "How long an upstream connection may be idle; 0: no limit."),
    row("dns-resolver", "LIST", &["KONG_DNS_RESOLVER", "KONG_RESOLVER_ADDRESS"], "",
        "DNS servers, IP or IP:PORT, separated by commas. Without any, those of /etc/resolv.conf, from which search domains, ndots and time-outs come in any case."),
    row("dns-hostsfile", "FILE", &["KONG_DNS_HOSTSFILE", "KONG_RESOLVER_HOSTS_FILE"], "/etc/hosts",
        "Names in this file are not looked up in DNS. It is read again when it changes."),
    row("dns-order", "KINDS", &["KONG_DNS_ORDER"], "LAST,SRV,A,CNAME",
        "Kinds of records in the order in which they are asked for: LAST (the one that answered last time), SRV, A, AAAA, CNAME. Aliases are followed whether CNAME is there or not. Names with IPv6 addresses alone need AAAA."),
    row("dns-valid-ttl", "SECONDS", &["KONG_DNS_VALID_TTL", "KONG_RESOLVER_VALID_TTL"], "",
        "How long every answer is used, instead of its own time to live; at least a second in any case."),
    row("dns-stale-ttl", "SECONDS", &["KONG_DNS_STALE_TTL", "KONG_RESOLVER_STALE_TTL"], "3600",
        "How long past its time an answer goes on being used while asking again fails."),
    row("dns-not-found-ttl", "SECONDS", &["KONG_DNS_NOT_FOUND_TTL"], "30",
        "How long it is remembered that a name does not exist or has no records."),
    row("dns-error-ttl", "SECONDS", &["KONG_DNS_ERROR_TTL", "KONG_RESOLVER_ERROR_TTL"], "1",
        "How long it is remembered that a name could not be looked up."),
    row("dns-cache-size", "N", &["KONG_DNS_CACHE_SIZE", "KONG_RESOLVER_LRU_CACHE_SIZE"], "10000",
        "Names remembered besides those of the configuration."),
    row("keepalive-requests", "N",
        &["KONG_NGINX_PROXY_KEEPALIVE_REQUESTS", "KONG_NGINX_HTTP_KEEPALIVE_REQUESTS"], "10000",
        "Requests on one client connection; 0: no limit."),
    row("keepalive-timeout", "SECONDS",
        &["KONG_NGINX_PROXY_KEEPALIVE_TIMEOUT", "KONG_NGINX_HTTP_KEEPALIVE_TIMEOUT"], "75",
        "How long a client connection may be idle."),
    row("client-header-timeout", "SECONDS",
        &["KONG_NGINX_PROXY_CLIENT_HEADER_TIMEOUT", "KONG_NGINX_HTTP_CLIENT_HEADER_TIMEOUT"], "60",
        "Time for a whole request head."),
    row("client-body-timeout", "SECONDS",
        &["KONG_NGINX_PROXY_CLIENT_BODY_TIMEOUT", "KONG_NGINX_HTTP_CLIENT_BODY_TIMEOUT"], "60",
        "Time between two reads of a request body."),
    row("client-body-rate", "SIZE", &[], "64",
        "Least average bytes per second of a request body once client-body-timeout has passed; slower clients get 408. 0: none."),
    row("send-timeout", "SECONDS", &["KONG_NGINX_PROXY_SEND_TIMEOUT", "KONG_NGINX_HTTP_SEND_TIMEOUT"], "60",
        "Time between two writes to a client."),
    row("client-max-body-size", "SIZE",
        &["KONG_CLIENT_MAX_BODY_SIZE", "KONG_NGINX_PROXY_CLIENT_MAX_BODY_SIZE", "KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE"],
        "0", "Longest request body, with k, m or g; 0: no limit."),
    row("plugin-body-size", "SIZE", &[], "8m",
        "Longest body held in memory for a plugin that asks for it whole."),
    row("plugins-dir", "DIRS", &[], "",
        "Folders of Lua plugins, separated by commas; plugins are found as kong/plugins/NAME/handler.lua anywhere below, or as NAME/handler.lua. They are watched for changes."),
    row("plugins", "NAMES", &["KONG_PLUGINS"], "bundled",
        "Lua plugins that may be used, separated by commas; the word bundled stands for those the gateway brings. With no other name all plugins of the folders may be used."),
    row("lua-package-path", "PATH", &["KONG_LUA_PACKAGE_PATH"], "",
        "Kong's search path for Lua, DIR/?.lua;DIR/?/init.lua: every DIR is a folder of Lua plugins as well."),
    row("untrusted-lua", "off|sandbox|on", &["KONG_UNTRUSTED_LUA"], "sandbox",
        "What Lua in a configuration (pre-function, post-function) may do: nothing, run with kong, ngx and the language, or use all that plugins have."),
    row("untrusted-lua-sandbox-requires", "NAMES", &["KONG_UNTRUSTED_LUA_SANDBOX_REQUIRES"], "",
        "Modules that Lua in a configuration may require in the sandbox, separated by commas."),
    row("untrusted-lua-sandbox-environment", "NAMES", &["KONG_UNTRUSTED_LUA_SANDBOX_ENVIRONMENT"], "",
        "What else of a plugin's environment Lua in a configuration has in the sandbox, separated by commas, such as table.pack."),
    row("wasm", "on|off", &["KONG_WASM"], "off",
        "Run Wasm filters, as plugins and in filter chains."),
    row("wasm-filters-path", "DIR", &["KONG_WASM_FILTERS_PATH"], "",
        "Folder of the filters: NAME.wasm, with NAME.meta.json beside it for settings of the filter. It is watched for changes."),
    row("wasm-cache-path", "DIR", &[], "",
        "Folder for compiled filters, so that a start need not compile them; made with access for this user only. Without it they are compiled at each start."),
    row("max-connections", "N", &["KONG_NGINX_EVENTS_WORKER_CONNECTIONS"], "65536",
        "Client connections per worker; auto: the default."),
    row("max-connections-per-address", "N", &[], "0",
        "Client connections per client address on this node; 0: no limit."),
    row("max-udp-sessions", "N", &[], "16384",
        "Clients per worker whose datagrams are passed on at a time; those of further ones are dropped."),
    row("concurrency-limit", "off|adaptive|N", &[], "off",
        "Requests each worker serves at the same time; more get 503, those of routes with the tag gateward:priority=low before those with normal, high and critical. adaptive finds the number from latency."),
    row("max-connection-age", "SECONDS", &[], "0",
        "Age at which a client connection is closed with its next response, less up to a fifth at random, so that clients spread anew over the nodes; 0: never."),
    row("tcp-keepalive", "SECONDS", &[], "60",
        "Idle time after which the kernel probes the other side of client and upstream connections; 0: never. Keep it below the idle time-out of balancers on the way (350 seconds for an AWS NLB)."),
    row("shutdown-grace", "SECONDS", &[], "10",
        "After SIGTERM, how long to go on accepting while /status/ready already fails."),
    row("shutdown-timeout", "SECONDS", &["KONG_NGINX_MAIN_WORKER_SHUTDOWN_TIMEOUT"], "30",
        "After the grace, how long requests under way may take to end."),
    row("upgrade-socket", "PATH", &[], "",
        "Unix socket over which a new process takes the listening sockets over from the running one. Without it neither that nor SIGUSR2 works."),
    row("node-id", "UUID", &["KONG_NODE_ID"], "",
        "Id of this node in /status and metrics; a random one for each start if not set."),
];

/// The table as a page of the user guide.
pub(crate) fn reference() -> String {
    let mut out = String::from(
        "# Settings\n\nEvery setting of `gateward gateway`. A flag wins over its `GATEWARD_*` variable, which wins over \
         Kong's.\nThis page is written by `gateward settings`; change the table in the source, not the page.\n\n\
         | flag | variables | default | meaning |\n|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let variables: Vec<String> = std::iter::once(setting.variable())
            .chain(setting.kong.iter().map(|name| (*name).to_owned()))
            .map(|name| format!("`{name}`"))
            .collect();
        let default = if setting.default.is_empty() { "none".to_owned() } else { format!("`{}`", setting.default) };
        let value = setting.value.replace('|', "\\|");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `--{} {value}` | {} | {default} | {} |",
            setting.flag,
            variables.join(", "),
            setting.meaning
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        let mut names = HashSet::new();
        for setting in SETTINGS {
            assert!(names.insert(setting.variable()), "{}", setting.flag);
            for name in setting.kong {
                assert!(name.starts_with("KONG_") && names.insert((*name).to_owned()), "{name}");
            }
        }
    }

    #[test]
    fn the_user_guide_holds_the_reference() {
        let page = include_str!("../../../../docs/guide/settings.md");
        assert!(page == reference(), "write it anew: cargo run -- settings > docs/guide/settings.md");
    }
}
