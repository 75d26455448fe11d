//! Code in configurations, through the contract and the loader.

use super::*;
use crate::plugin::LuaPlugin;
use crate::testing::{Folder, run, status};
use crate::{LuaHost, LuaOptions, testing};
use gateward_model::Route;
use gateward_plugin::{Exchange, NativePlugins, Plugin, PluginHost};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn host(untrusted: Untrusted) -> LuaHost {
    LuaHost::new(LuaOptions { untrusted, ..LuaOptions::default() })
}

fn made(host: &LuaHost, name: &str, config: Value) -> LuaPlugin {
    testing::made(host, name, config).unwrap()
}

/// The status it answers with; 0: it goes on.
fn access(plugin: &LuaPlugin, exchange: &mut Exchange) -> u16 {
    status(&run(plugin.access(exchange))).unwrap_or_default()
}

#[test]
fn code_in_a_configuration_runs() {
    let host = host(Untrusted::default());
    assert_eq!((host.priority("pre-function"), host.priority("post-function")), (1_000_000, -1000));
    let counting =
        "local n = 0\nreturn function() n = n + 1 kong.service.request.set_header('X-N', n) ngx.ctx.n = n end";
    let plugin = made(
        &host,
        "pre-function",
        json!({"access": [counting, "kong.service.request.set_header('X-Ctx', ngx.ctx.n)",
            "if kong.request.get_header('exit') then kong.response.exit(418) end"]}),
    );
    let phases = plugin.needs().phases;
    assert!(phases.access && !phases.log && !phases.header_filter && !phases.body_filter && !phases.rewrite);
    for n in 1..=3 {
        let mut exchange = Exchange::new();
        assert_eq!(access(&plugin, &mut exchange), 0);
        let number = n.to_string();
        assert_eq!(exchange.request.headers.get("X-N"), Some(number.as_bytes()), "its variables stay");
        assert_eq!(exchange.request.headers.get("X-Ctx"), Some(number.as_bytes()));
    }
    let mut exchange = Exchange::new();
    exchange.request.headers.add("exit", "1");
    assert_eq!(access(&plugin, &mut exchange), 418);
    assert_eq!(access(&plugin, &mut Exchange::new()), 0);
}

#[test]
fn code_that_waits_at_first_is_not_run_twice_over() {
    let host = host(Untrusted::default());
    let plugin = made(
        &host,
        "post-function",
        json!({"access": ["ngx.sleep(0.01) return function() kong.service.request.set_header('X', 'ran') end"]}),
    );
    for _ in 0..2 {
        let mut exchange = Exchange::new();
        assert_eq!(access(&plugin, &mut exchange), 0);
        assert_eq!(exchange.request.headers.get("X"), Some(&b"ran"[..]));
    }
}

#[test]
fn the_sandbox_is_as_wide_as_it_is_told() {
    let run = |untrusted: &Untrusted, code: &str| {
        access(&made(&host(untrusted.clone()), "pre-function", json!({ "access": [code] })), &mut Exchange::new())
    };
    let narrow = Untrusted::default();
    for code in [
        "setmetatable({}, {})",
        "getmetatable('')",
        "rawset({}, 1, 1)",
        "load('x')",
        "require('cjson')",
        "require('kong.db.schema.typedefs')",
        "os.getenv('HOME')",
        "io.type(1)",
        "string.dump(print)",
        "debug.traceback()",
        "kong.request.get_header = print",
        "kong.mine = 1",
        "ngx.say = print",
        "kong.log.err = print",
    ] {
        assert_eq!(run(&narrow, code), 500, "{code}");
    }
    let viewed = "kong.ctx.shared.x = 1 ngx.ctx.y = 2 ngx.header['X-A'] = 'b' kong.log('said') ngx.status = 200 \
        kong.table.clear(kong) assert(kong.ctx.shared.x == 1 and ngx.ctx.y == 2 and kong.request.get_method())";
    assert_eq!(run(&narrow, viewed), 0);
    let shared = "string.mine = 1 x = 2 assert(_G.x == 2 and string.format('%d', 1) == '1' and math.max(1, 2) == 2)";
    assert_eq!(run(&narrow, shared), 0);
    assert_eq!(run(&narrow, "assert(x == nil and string.mine == nil and ('').mine == nil)"), 0, "its own globals only");
    let wide = Untrusted {
        requires: vec!["kong.db.schema.typedefs".into()],
        environment: vec!["setmetatable".into(), "os.getenv".into()],
        ..narrow
    };
    assert_eq!(run(&wide, "require('kong.db.schema.typedefs') setmetatable({}, {}) os.getenv('HOME') os.time()"), 0);
    assert_eq!(run(&wide, "require('kong.constants')"), 500);
    let on = Untrusted { mode: UntrustedMode::On, ..Untrusted::default() };
    assert_eq!(run(&on, "require('kong.db.schema.typedefs') setmetatable({}, {}) x = 1"), 0);
    assert_eq!(run(&on, "io.open('/etc/passwd')"), 500, "and never more than plugins have");
}

/// What untrusted code must not do to anybody.
const REFUSED: &[&str] = &[
    "ngx.shared = {}",
    "ngx.null = 1",
    "ngx.var = {}",
    "ngx.header = {}",
    "ngx.arg = {}",
    "ngx.ctx = nil",
    "ngx.shared.others = {}",
    "ngx.shared.others.get = print",
    "ngx.shared.others.zone = 1",
    "kong.xyz.shared = 1",
    "kong.shared = 1",
    "kong.ctx = {}",
    "kong.ctx.shared = {}",
    "kong.ctx.plugin = {}",
    "kong.ctx.mine = 1",
    "kong.cache.get = print",
    "kong.db.consumers.select = print",
    "kong.tracing.mine = 1",
    "kong.request.status = 1",
    "kong.response.header = 1",
    "kong.service.ctx = 1",
    "kong.service.request.var = 1",
    "ngx.req.arg = 1",
    "ngx.re.null = 1",
    "kong.table.clear(ngx.shared.others) ngx.shared.others.mine = 1",
    "('').mine = 1",
    "('').format = print",
    "getmetatable('').__index.format = print",
    "setmetatable(kong, {})",
    "rawset(ngx, 'shared', {})",
    "ngx.shared.others.get({}, 'key')",
];

#[test]
fn code_in_a_sandbox_changes_nothing_of_others() {
    let folder = Folder::new(
        "sandbox-others",
        &[(
            "p/handler.lua",
            r#"
            local P = { PRIORITY = 5 }
            local kept = { ngx.shared, ngx.null, ngx.arg, ngx.header, ngx.var, ngx.shared.others, kong.ctx, kong.router.get_route }
            function P:access()
              local now = { ngx.shared, ngx.null, ngx.arg, ngx.header, ngx.var, ngx.shared.others, kong.ctx, kong.router.get_route }
              for i = 1, #kept do assert(now[i] == kept[i], i) end
              assert(rawget(ngx, "status") == nil and rawget(ngx.arg, 1) == nil and rawget(ngx.header, 1) == nil)
              assert(next(ngx.var) == nil and rawget(kong.ctx, "shared") == nil and string.format("%d", 1) == "1")
              assert(ngx.shared.others.get ~= print and ngx.shared.others.mine == nil and kong.tracing.mine == nil)
              assert(ngx.shared.others:get("key") == "value" and ("x").mine == nil and kong.cache.get ~= nil)
              local route = kong.router.get_route()
              assert(route.mine == nil and route.paths[1] == "/")
            end
            return P
            "#,
        )],
    );
    let host = folder.host();
    let trusted = made(&host, "p", json!({}));
    let run = |code: &str| access(&made(&host, "pre-function", json!({ "access": [code] })), &mut routed());
    for code in REFUSED {
        assert_eq!(run(code), 500, "{code}");
    }
    for code in [
        "ngx.shared.others:set('key', 'value') assert(ngx.shared.others:get('key') == 'value')",
        "assert(ngx.shared.others == ngx.shared.others and ngx.shared.others:incr('n', 1, 0) == 1)",
        "ngx.status = 201 assert(ngx.status == 201) ngx.ctx = { a = 1 } assert(ngx.ctx.a == 1) ngx.ctx.b = 2",
        "ngx.header['X-A'] = { 'b', 'c' } assert(ngx.header['X-A'][2] == 'c') ngx.header.x_a = nil",
        "ngx.var.mine = 1 assert(ngx.var.mine == '1' and ngx.null ~= nil and type(ngx.null) == 'userdata')",
        "kong.ctx.shared.a = 1 kong.ctx.plugin.b = 2 assert(kong.ctx.shared.a == 1 and kong.ctx.plugin.b == 2)",
        "for _, of in ipairs { ngx.arg, ngx.header, ngx.var, ngx, kong, kong.request, ngx.shared } do table.insert(of, 1, 'x') end",
        "kong.table.clear(ngx.shared.others) kong.table.clear(ngx.header) kong.table.clear(kong)",
        "assert(ngx[1] == nil and ngx.arg[1] == nil and kong.request[1] == nil)",
        "local route = kong.router.get_route() assert(route.paths[1] == '/') route.mine = 1 route.paths[1] = '/other'",
        "kong.tracing('x').mine = 1 kong.tracing.start_span('x').mine = 1",
        "assert(kong.cache:get('key', nil, function() return 5 end) == 5 and ('x'):rep(2) == 'xx')",
        "string.format = nil string.mine = 1 string.mine2 = ('').format",
    ] {
        assert_eq!(run(code), 0, "{code}");
        assert_eq!(access(&trusted, &mut routed()), 0, "after {code}");
    }
}

/// An exchange with a route, which is the same for all of them.
fn routed() -> Exchange {
    static ROUTE: LazyLock<Arc<Route>> = LazyLock::new(|| {
        let options = gateward_config::Options {
            plugins: &NativePlugins::new(),
            flavor: gateward_model::RouterFlavor::default(),
            vault: &|_| None,
            now: 0,
        };
        let file = r#"{"_format_version": "3.0", "routes": [{"name": "r", "paths": ["/"]}]}"#;
        let loaded = gateward_config::load(file.as_bytes(), gateward_config::Format::Json, &options).unwrap();
        loaded.config.routes[0].clone()
    });
    let mut exchange = Exchange::new();
    exchange.route = Some(ROUTE.clone());
    exchange
}

#[test]
fn mistakes_are_found_when_the_file_is_loaded() {
    let problems = |untrusted: Untrusted, entity: Value| {
        let plugins = NativePlugins::and(Arc::new(host(untrusted)));
        let options = gateward_config::Options {
            plugins: &plugins,
            flavor: gateward_model::RouterFlavor::default(),
            vault: &|_| None,
            now: 0,
        };
        let file = json!({"_format_version": "3.0", "consumers": [{"username": "a"}], "plugins": [entity]}).to_string();
        match gateward_config::load(file.as_bytes(), gateward_config::Format::Json, &options) {
            Ok(_) => String::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    };
    let access = |code: &str| json!({"name": "pre-function", "config": {"access": ["return 1", code]}});
    assert_eq!(problems(Untrusted::default(), access("kong.log('x')")), "");
    for (untrusted, entity, expected) in [
        (UntrustedMode::Sandbox, access("x ="), "config.access[1]: error parsing pre-function: pre-function:1: "),
        (UntrustedMode::Sandbox, access("\u{1b}LJ\u{2}"), "error parsing pre-function"),
        (UntrustedMode::Off, access("x = 1"), "'untrusted_lua' config option is set to 'off'"),
        (UntrustedMode::Sandbox, json!({"name": "post-function"}), "at least one of these is needed"),
        (
            UntrustedMode::Sandbox,
            json!({"name": "pre-function", "config": {"certificate": ["x ="]}}),
            "config.certificate[0]: error parsing pre-function",
        ),
        (
            UntrustedMode::Sandbox,
            json!({"name": "pre-function", "consumer": "a", "config": {"log": ["x = 1"]}}),
            "for a consumer",
        ),
    ] {
        let found = problems(Untrusted { mode: untrusted, ..Untrusted::default() }, entity.clone());
        assert!(found.contains(expected), "{entity}: {found}\nexpected {expected}");
    }
}
