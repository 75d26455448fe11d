//! Configuration files of nginx, HAProxy and Envoy, for each kind of service.

use std::path::Path;

use super::load::{Certificate, Service};
use super::peers::address;

/// What every configuration is made for.
pub(crate) struct Site<'a> {
    pub(crate) service: Service,
    /// The proxy's port.
    pub(crate) port: u16,
    /// The port of what is behind it.
    pub(crate) backend: u16,
    /// Client connections that must be possible.
    pub(crate) connections: u64,
    pub(crate) certificate: &'a Certificate,
    /// The Wasm filter to run, for those that can.
    pub(crate) filter: Option<&'a Path>,
    /// Run the work of `bench/lua`, in nginx.
    pub(crate) lua: bool,
}

/// Where Debian puts nginx's Lua module.
pub(crate) const NGINX_LUA: &str = "/usr/lib/nginx/modules/ngx_http_lua_module.so";

/// What `bench/lua` does, for nginx's Lua module.
const LUA_WORK: &str = "access_by_lua_block {\n        local var = ngx.var\n        \
    local agent, accept, kind = var.http_user_agent or \"\", var.http_accept or \"\", var.http_content_type or \"\"\n        \
    ngx.req.set_header(\"X-Device\", #agent > 3 and accept ~= kind and \"mobile\" or \"other\")\n      }\n      \
    header_filter_by_lua_block { ngx.header[\"X-Kind\"] = \"plain\" }";

/// nginx; `folder` holds its temporary files.
pub(crate) fn nginx(site: &Site<'_>, folder: &str) -> String {
    let Certificate { certificate, key, .. } = site.certificate;
    let (backend, listen) = (address(site.backend), address(site.port));
    let tls = format!(
        "ssl_protocols TLSv1.3; ssl_session_cache shared:tls:10m; ssl_certificate {certificate}; ssl_certificate_key {key};"
    );
    let (flags, tls) = match site.service {
        Service::Plain | Service::Fields | Service::WebSocket => ("", ""),
        Service::Tls => (" ssl", tls.as_str()),
        Service::H2 => (" ssl http2", tls.as_str()),
        Service::H2c | Service::Grpc => (" http2", ""),
    };
    let (pass, set) = match site.service {
        Service::Grpc => ("grpc_pass grpc://backend;", "grpc_set_header"),
        _ => ("proxy_pass http://backend;\n      proxy_http_version 1.1;", "proxy_set_header"),
    };
    let (modules, work) = match site.lua {
        true => {
            (format!("load_module /usr/lib/nginx/modules/ndk_http_module.so;\nload_module {NGINX_LUA};\n"), LUA_WORK)
        }
        false => (String::new(), ""),
    };
    let connection = match site.service {
        Service::Grpc => String::new(),
        Service::WebSocket => format!("{set} Upgrade $http_upgrade;\n      {set} Connection upgrade;"),
        _ => format!("{set} Connection \"\";"),
    };
    format!(
        "{modules}worker_processes 1;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx-error.log;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{\n  access_log off;\n  server_tokens off;\n  tcp_nodelay on;\n  keepalive_requests 1000000000;\n  \
         client_body_temp_path {folder}/nginx-body;\n  proxy_temp_path {folder}/nginx-proxy;\n  \
         fastcgi_temp_path {folder}/nginx-fastcgi;\n  uwsgi_temp_path {folder}/nginx-uwsgi;\n  \
         scgi_temp_path {folder}/nginx-scgi;\n  \
         upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000000; }}\n  \
         server {{\n    listen {listen}{flags};\n    {tls}\n    location / {{\n      {work}\n      {pass}\n      {connection}\n      \
         {set} Host {backend};\n      \
         {set} X-Forwarded-For $proxy_add_x_forwarded_for;\n      \
         {set} X-Request-Id $request_id;\n    }}\n  }}\n}}\n",
        connections = site.connections + 512,
    )
}

/// HAProxy.
pub(crate) fn haproxy(site: &Site<'_>) -> String {
    let bind = match site.service {
        Service::Plain | Service::Fields | Service::WebSocket => String::new(),
        Service::Tls => format!(" ssl crt {} alpn http/1.1", site.certificate.both),
        Service::H2 => format!(" ssl crt {} alpn h2", site.certificate.both),
        Service::H2c | Service::Grpc => " proto h2".to_owned(),
    };
    let server = if site.service == Service::Grpc { " proto h2" } else { "" };
    format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn {connections}\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 60s\n  \
         option http-keep-alive\n  http-reuse always\n\
         frontend in\n  bind {listen}{bind}\n  option forwardfor\n  http-request set-header Host {backend}\n  \
         http-request set-header X-Request-Id %[uuid()]\n  default_backend out\n\
         backend out\n  server one {backend}{server}\n",
        connections = site.connections,
        listen = address(site.port),
        backend = address(site.backend),
    )
}

/// Envoy.
pub(crate) fn envoy(site: &Site<'_>) -> String {
    let tls = envoy_tls(site);
    let filter = site.filter.map(envoy_filter).unwrap_or_default();
    let upgrade = match site.service {
        Service::WebSocket => "\n          upgrade_configs: [{ upgrade_type: websocket }]",
        _ => "",
    };
    let cluster = match site.service {
        Service::Grpc => {
            r#"
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }"#
        }
        _ => "",
    };
    format!(
        r#"static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          use_remote_address: true
          generate_request_id: true
          http_protocol_options: {{ accept_http_10: true, default_host_for_http_10: bench }}{upgrade}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: backend, host_rewrite_literal: "{backend}" }}
          http_filters:{filter}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true{tls}
  clusters:
  - name: backend
    connect_timeout: 5s
    type: STATIC{cluster}
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {backend_port} }} }} }}
"#,
        port = site.port,
        backend = address(site.backend),
        backend_port = site.backend,
    )
}

/// The part of Envoy's configuration that runs a Wasm filter.
fn envoy_filter(module: &Path) -> String {
    format!(
        r#"
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: bench
                vm_config:
                  vm_id: bench
                  runtime: envoy.wasm.runtime.v8
                  code: {{ local: {{ filename: "{}" }} }}"#,
        module.display()
    )
}

/// The part of Envoy's configuration that ends TLS, if any.
fn envoy_tls(site: &Site<'_>) -> String {
    let Certificate { certificate, key, .. } = site.certificate;
    let alpn = match site.service {
        Service::Tls => Some("http/1.1"),
        Service::H2 => Some("h2"),
        _ => None,
    };
    alpn.map_or_else(String::new, |alpn| {
        format!(
            r#"
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [{alpn}]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: "{certificate}" }}
              private_key: {{ filename: "{key}" }}"#
        )
    })
}
