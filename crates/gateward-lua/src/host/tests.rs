//! Plugins from files through the contract.

use super::*;
use crate::testing::{Folder, block_on, come_to, entity, made, run, status, wait_for};
use gateward_model::EntityId;
use gateward_plugin::{BodyRead, Exchange, LocalBody, Outcome, Step, Try};
use serde_json::{Value, json};
use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

mod fences;
mod ngx;
mod pdk;
mod phases;
mod streams;
mod ways;

/// One handler in a file, and the plugin made of it.
fn plugin(name: &str, handler: &str) -> (Folder, LuaPlugin) {
    let folder = Folder::new(name, &[("kong/plugins/p/handler.lua", handler)]);
    let plugin = made(&folder.host(), "p", json!({"word": "hello", "list": [1, 2]})).unwrap();
    (folder, plugin)
}

/// A try that took so many microseconds to connect.
fn tried(address: &str, connect_us: u64, failure: Option<&'static str>) -> Try {
    let address = address.parse().unwrap();
    Try { address, started_at_ms: 1_700_000_000_123, connect_us, keepalive: false, failure, status: None }
}

/// What these exchanges left in the machine goes with them.
#[track_caller]
fn nothing_is_kept(plugin: &LuaPlugin, exchanges: Vec<Exchange>) {
    let vm = plugin.vm().unwrap();
    drop(exchanges);
    vm.clear_slots();
    vm.lua().gc_collect().unwrap();
    vm.lua().gc_collect().unwrap();
    assert!(vm.lua().used_memory() < 10 << 20, "{}", vm.lua().used_memory());
}

/// The access phase to its end; `body` is what the client sends when somebody asks for it.
fn access(plugin: &LuaPlugin, exchange: &mut Exchange, body: Result<&str, BodyRead>) -> Outcome {
    block_on(async {
        let mut outcome = come_to(plugin.access(exchange)).await;
        while let Outcome::Body(after) = outcome {
            let read = match body {
                Ok(body) => {
                    exchange.body.get_or_insert_with(|| body.as_bytes().to_vec());
                    BodyRead::Whole
                }
                Err(read) => read,
            };
            outcome = come_to(after.resume(exchange, read)).await;
        }
        outcome
    })
}

#[test]
fn a_handler_reads_and_changes_the_exchange() {
    let (_folder, plugin) = plugin(
        "changes",
        r#"
        local P = { PRIORITY = 5, VERSION = "1.2" }
        function P:access(conf)
          assert(self == P and conf.word == "hello" and conf.list[2] == 2 and conf.absent == nil)
          assert(kong.request.get_header("X-In") == "in" and kong.request.get_header("none") == nil)
          assert(kong.request.get_method() == "GET" and kong.request.get_path() == "/a")
          kong.service.request.set_header("X-Up", conf.word)
          kong.response.set_header("X-Down", 12)
          kong.ctx.plugin.seen = true
          kong.ctx.shared.all = "everybody"
          ngx.ctx.mine = 1
        end
        function P:header_filter(conf)
          assert(kong.ctx.plugin.seen and kong.ctx.shared.all == "everybody" and ngx.ctx.mine == 1)
          kong.response.set_header("X-Late", "late")
        end
        return P
        "#,
    );
    let mut exchange = Exchange::new();
    exchange.path = "/a".to_owned();
    exchange.request.headers.add("x-in", "in");
    let gateward_plugin::Needs { phases, .. } = Plugin::needs(&plugin);
    assert!(phases.access && phases.header_filter && !phases.log);
    assert_eq!(status(&run(plugin.access(&mut exchange))), None);
    assert_eq!(exchange.request.headers.get("X-Up"), Some(&b"hello"[..]));
    assert_eq!(exchange.response.early.get("x-down"), Some(&b"12"[..]));
    exchange.response.status = 200;
    plugin.header_filter(&mut exchange);
    assert_eq!(exchange.response.headers.get("x-late"), Some(&b"late"[..]));
    // Another request finds nothing of the first.
    exchange.reset();
    exchange.path = "/a".to_owned();
    exchange.response.status = 200;
    plugin.header_filter(&mut exchange);
    assert!(!exchange.response.headers.contains("x-late"), "the handler failed, because its tables are empty");
}

#[test]
fn an_answer_ends_the_handler_whoever_catches_errors() {
    let (_folder, plugin) = plugin(
        "exit",
        r#"
        local P = { PRIORITY = 5 }
        function P:access(conf)
          pcall(kong.response.exit, 403, { message = "no" }, { ["X-Why"] = "because" })
          kong.service.request.set_header("X-After", "1")
        end
        return P
        "#,
    );
    let mut exchange = Exchange::new();
    let Outcome::Respond(response) = run(plugin.access(&mut exchange)) else { panic!("no answer") };
    assert_eq!(response.status, 403);
    assert_eq!(response.headers, [("X-Why".into(), "because".to_owned())]);
    let body = LocalBody::Bytes("application/json; charset=utf-8".into(), br#"{"message":"no"}"#.to_vec());
    assert_eq!(response.body, body);
    assert!(!exchange.request.headers.contains("X-After"));
}

#[test]
fn a_handler_that_waits_holds_nobody_up() {
    let (_folder, plugin) = plugin(
        "waits",
        r#"
        local P = { PRIORITY = 5 }
        function P:access(conf)
          local began = ngx.now()
          local fine = pcall(function() ngx.sleep(0.05) end)
          assert(fine and ngx.now() - began >= 0.04)
          kong.service.request.set_header("X-Slept", kong.request.get_header("x-in"))
        end
        return P
        "#,
    );
    let began = Instant::now();
    let mut exchanges: Vec<Exchange> = (0..20).map(|_| Exchange::new()).collect();
    for (index, exchange) in exchanges.iter_mut().enumerate() {
        exchange.request.headers.add("x-in", index.to_string());
    }
    let mut waiting: Vec<_> = exchanges
        .iter_mut()
        .map(|exchange| match plugin.access(exchange) {
            Step::Wait(waiting) => waiting,
            _ => panic!("it sleeps"),
        })
        .collect();
    block_on(poll_fn(|context| {
        waiting.retain_mut(|waiting| match waiting.as_mut().poll(context) {
            Poll::Ready(outcome) => status(&outcome).is_some(),
            Poll::Pending => true,
        });
        if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }));
    drop(waiting);
    assert!(began.elapsed() < Duration::from_millis(900), "all at the same time: {:?}", began.elapsed());
    for (index, exchange) in exchanges.iter().enumerate() {
        assert_eq!(exchange.request.headers.get("X-Slept"), Some(index.to_string().as_bytes()));
    }
}

#[test]
fn a_body_is_changed_piece_by_piece() {
    let (_folder, plugin) = plugin(
        "pieces",
        r#"
        local P = { PRIORITY = 5 }
        function P:body_filter(conf)
          ngx.arg[1] = ngx.arg[1]:upper() .. (ngx.arg[2] and "!" or "")
        end
        return P
        "#,
    );
    let mut exchange = Exchange::new();
    let mut body = Vec::new();
    for (piece, last) in [("ab", false), ("c", false), ("", true)] {
        let mut piece = piece.as_bytes().to_vec();
        plugin.body_filter(&mut exchange, &mut piece, last);
        body.extend(piece);
    }
    assert_eq!(body, b"ABC!");
}

#[test]
fn an_error_is_a_500_and_the_machine_goes_on() {
    let (_folder, plugin) = plugin(
        "errors",
        r#"
        local P = { PRIORITY = 5 }
        function P:access(conf)
          local what = kong.request.get_header("what")
          if what == "error" then error("broken") end
          if what == "loop" then while true do end end
          if what == "memory" then local t = {} while true do t[#t + 1] = ("x"):rep(1000) .. #t end end
          if what == "deep" then local function f(n) return 1 + f(n + 1) end f(1) end
          if what == "phase" then kong.response.get_status() end
          if what == "name" then kong.service.request.set_header("a b", "c") end
        end
        return P
        "#,
    );
    for what in ["error", "loop", "memory", "deep", "phase", "name"] {
        let mut exchange = Exchange::new();
        exchange.request.headers.add("what", what);
        let began = Instant::now();
        assert_eq!(status(&run(plugin.access(&mut exchange))), Some(500), "{what}");
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
        let mut exchange = Exchange::new();
        assert_eq!(status(&run(plugin.access(&mut exchange))), None, "after {what}");
    }
}

#[test]
fn plugins_cannot_reach_what_breaks_out() {
    let (_folder, plugin) = plugin(
        "sandbox",
        r#"
        local P = { PRIORITY = 5 }
        function P:access(conf)
          assert(debug == nil and ffi == nil and jit == nil and dofile == nil and loadfile == nil and os.execute == nil)
          assert(io.open == nil and string.dump == nil and package.loadlib == nil)
          assert(not pcall(require, "ffi") and not pcall(require, "debug") and not pcall(require, "jit"))
          assert(getfenv(kong.response.exit) == _G and getfenv(1) == _G and getfenv(getfenv) == _G)
          assert(not pcall(setfenv, kong.response.exit, {}))
          assert(load("\27LJ\2") == nil)
          assert(load("return kong")() == kong)
          assert(loadstring("x = 1; return _G")() == _G and x == 1)
        end
        return P
        "#,
    );
    assert_eq!(status(&run(plugin.access(&mut Exchange::new()))), None);
}

#[test]
fn what_does_not_load_says_file_and_line() {
    let folder = Folder::new(
        "broken",
        &[
            ("syntax/handler.lua", "local P = {\nreturn P"),
            ("raises/handler.lua", "\n\nerror('at load')"),
            ("missing/handler.lua", "local x = require 'not.there'\nreturn { PRIORITY = 1 }"),
            ("nothing/handler.lua", "return 5"),
            ("unordered/handler.lua", "return { access = function() end }"),
            ("both/handler.lua", "return { PRIORITY = 1, response = function() end, body_filter = function() end }"),
            ("endless/handler.lua", "while true do end"),
        ],
    );
    let host = folder.host();
    for (name, expected) in [
        ("syntax", "syntax/handler.lua:2:"),
        ("raises", "raises/handler.lua:3: at load"),
        ("missing", "module 'not.there' not found"),
        ("nothing", "returns a integer"),
        ("unordered", "PRIORITY is missing"),
        ("both", "cannot have `header_filter`"),
        ("endless", "stopped"),
    ] {
        let error = made(&host, name, json!({})).err().unwrap_or_default();
        assert!(
            error.contains(expected) || (name == "nothing" && error.contains("returns a number")),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_changed_file_makes_new_machines_and_old_instances_end() {
    let handler = |word: &str| {
        format!(
            "local P = {{ PRIORITY = 5 }}\nfunction P:access() kong.service.request.set_header('W', '{word}') end\nreturn P"
        )
    };
    let folder = Folder::new("replaced", &[("p/handler.lua", &handler("first"))]);
    let host = folder.host();
    let before = host.refresh();
    let old = made(&host, "p", json!({})).unwrap();
    let said = |plugin: &LuaPlugin| {
        let mut exchange = Exchange::new();
        run(plugin.access(&mut exchange));
        exchange.request.headers.get_str("W").unwrap_or_default().to_owned()
    };
    assert_eq!(said(&old), "first");
    folder.write("p/handler.lua", &handler("second, and longer"));
    assert_ne!(host.refresh(), before);
    let new = made(&host, "p", json!({})).unwrap();
    assert_eq!((said(&old).as_str(), said(&new).as_str()), ("first", "second, and longer"));
    let code = Arc::downgrade(&host.state().code.clone().unwrap());
    drop((old, new, host));
    assert_eq!(code.strong_count(), 0, "nothing keeps the sources");
    assert!(Path::new(&folder.0).exists());
}

#[test]
fn five_hundred_configurations_are_small() {
    let folder = Folder::new(
        "many",
        &[(
            "p/handler.lua",
            "local P = { PRIORITY = 5 }\nfunction P:access(conf) assert(conf.list[9] == 9) end\nreturn P",
        )],
    );
    let host = folder.host();
    let config = |index: u32| json!({"name": format!("name {index}"), "list": [1, 2, 3, 4, 5, 6, 7, 8, 9], "deep": {"a": {"b": index}}});
    let plugins: Vec<_> = (0..500)
        .map(|index| {
            let entity =
                PluginConfig { id: EntityId::derived("test", &index.to_string()), ..entity("p", config(index)) };
            LuaPlugin::new(host.instance(&entity).unwrap())
        })
        .collect();
    let code = host.state().code.clone().unwrap();
    let before = vm::of(&code).unwrap().lua().used_memory();
    for plugin in &plugins {
        assert_eq!(status(&run(plugin.access(&mut Exchange::new()))), None);
    }
    let vm = vm::of(&code).unwrap();
    vm.lua().gc_collect().unwrap();
    let used = vm.lua().used_memory();
    assert!(used < 20 << 20 && used - before < 2 << 20, "{before} then {used}");
}

mod modules;
mod sockets;
mod waiting;
