//! In which phases Kong lets a function be called: every function in every phase.

use super::*;
use gateward_model::Protocol;
use gateward_plugin::{Admission, Preread, RequestRecord, Soon};

/// Functions and the phases they are for. `balancer` and others are no phases of Lua plugins here.
const ALLOWED: &[(&str, &str)] = &[
    (
        "rewrite access response header_filter body_filter log",
        "request.get_scheme request.get_host request.get_forwarded_scheme request.get_forwarded_host \
         request.get_forwarded_port request.get_forwarded_path request.get_forwarded_prefix request.get_http_version \
         request.get_method request.get_path request.get_raw_path request.get_path_with_query request.get_raw_query \
         request.get_query_arg request.get_query request.get_header request.get_headers request.get_start_time \
         request.get_uri_captures log.set_serialize_value",
    ),
    (
        "init_worker certificate preread rewrite access response header_filter body_filter log",
        "nginx.get_subsystem nginx.get_statistics node.get_id node.get_hostname node.get_memory_stats ip.is_trusted plugin.get_id \
         cluster.get_id table.new table.clear table.merge log log.err log.inspect log.deprecation \
         vault.is_reference telemetry.log tracing.start_span tracing.active_span",
    ),
    (
        "certificate preread rewrite access response header_filter body_filter log",
        "request.get_port client.get_ip client.get_forwarded_ip client.get_port client.get_forwarded_port",
    ),
    ("rewrite access response", "request.get_raw_body request.get_body"),
    (
        "response header_filter body_filter log",
        "response.get_status response.get_header response.get_headers response.get_source \
         service.response.get_status service.response.get_headers service.response.get_header \
         service.response.get_raw_body service.response.get_body",
    ),
    (
        "rewrite access response header_filter",
        "response.set_status response.set_header response.add_header response.clear_header response.set_headers \
         response.error",
    ),
    ("preread rewrite access response header_filter", "response.exit"),
    ("body_filter", "response.get_raw_body response.set_raw_body"),
    ("access", "service.set_upstream service.set_retries service.set_timeouts client.authenticate"),
    (
        "preread rewrite access",
        "service.set_target service.set_tls_cert_key service.set_tls_verify service.set_tls_verify_depth \
         service.set_tls_verify_store service.set_target_retry_callback",
    ),
    (
        "rewrite access",
        "service.request.enable_buffering \
         service.request.set_scheme service.request.set_path service.request.set_raw_query \
         service.request.set_method service.request.set_query service.request.clear_query_arg \
         service.request.set_header service.request.add_header service.request.clear_header \
         service.request.set_headers service.request.set_raw_body service.request.set_body \
         client.tls.set_client_verify",
    ),
    ("preread", "service.request.disable_tls"),
    (
        "certificate",
        "client.tls.request_client_certificate client.tls.disable_session_reuse client.tls.set_client_ca_list",
    ),
    (
        "access response header_filter body_filter log",
        "client.get_credential client.load_consumer client.get_consumer client.get_protocol",
    ),
    // Kong has no routes in preread; here a stream has one by then.
    ("preread access response header_filter body_filter log", "router.get_route router.get_service"),
    ("rewrite access response header_filter body_filter log", "client.tls.get_full_client_certificate_chain"),
    ("log", "log.serialize"),
];

/// Calls every function without arguments, which is enough to be refused for the phase, and keeps the refusals.
const HANDLER: &str = r#"
local P = { PRIORITY = 5 }
local refused = {}
function P.try(names, phase)
  for name in names:gmatch("%S+") do
    local found = kong
    for part in name:gmatch("[^.]+") do found = found[part] end
    local ok, err = pcall(function(...) local result = found(...) return result end)
    err = tostring(err)
    local wrong = not ok and err:find("function cannot be called in", 1, true)
    if wrong then
      assert(err:find("cannot be called in " .. phase .. " phase", 1, true), err)
      -- The error is the plugin's line.
      assert(err:find("handler.lua", 1, true), err)
    end
    refused[#refused + 1] = name .. "@" .. phase .. (wrong and "-" or "+")
  end
end
for _, phase in ipairs { "init_worker", "certificate", "preread", "rewrite", "access", "header_filter", "body_filter", "log" } do
  P[phase] = function(self, conf) P.try(conf and conf.names or names, phase) end
end
function P.report() return table.concat(refused, " ") end
_G.report = P.report
return P
"#;

#[test]
fn every_function_has_kongs_phases() {
    let names: Vec<&str> = ALLOWED.iter().flat_map(|(_, names)| names.split_whitespace()).collect();
    let response = HANDLER.replace(r#""header_filter", "body_filter","#, r#""response","#);
    let folder = Folder::new(
        "phase-table",
        &[("p/handler.lua", HANDLER), ("q/handler.lua", &response.replace("_G.report", "_G.report_of_response"))],
    );
    let host = folder.host();
    let config = json!({"names": names.join(" ")});
    let first = made(&host, "p", config.clone()).unwrap();
    let second = made(&host, "q", config).unwrap();
    let mut exchange = Exchange::new();
    assert!(matches!(first.certificate(&mut streams::handshake()), Soon::Now(Admission::Next)));
    // It leaves with what it asked for last.
    assert!(matches!(first.preread(&mut streams::stream(Protocol::Tcp)), Soon::Now(Preread::Next)));
    run(first.rewrite(&mut exchange));
    run(first.access(&mut exchange));
    exchange.response.status = 200;
    run(second.response(&mut exchange));
    first.header_filter(&mut exchange);
    first.body_filter(&mut exchange, &mut b"body".to_vec(), true);
    let record = RequestRecord::of(&exchange);
    first.log(&record);
    let code = host.state().code.clone().unwrap();
    let vm = vm::of(&code).unwrap();
    let report: String = {
        let both: Vec<String> = ["report", "report_of_response"].map(|name| vm.evaluate(name)).to_vec();
        both.join(" ")
    };
    let mut wrong = Vec::new();
    for (phases, names) in ALLOWED {
        for name in names.split_whitespace() {
            for phase in
                ["certificate", "preread", "rewrite", "access", "response", "header_filter", "body_filter", "log"]
            {
                let sign = if phases.split(' ').any(|allowed| allowed == phase) { '+' } else { '-' };
                let expected = format!("{name}@{phase}{sign}");
                if !report.split(' ').any(|found| found == expected) {
                    wrong.push(expected);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
