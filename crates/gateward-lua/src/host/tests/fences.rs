//! What a plugin must not reach: the machine's memory, other requests, the worker's time.

use super::*;
use std::task::{Context, Waker};

/// A handler with this access phase, and the functions before it.
fn handler(name: &str, before: &str, access: &str) -> (Folder, LuaPlugin) {
    plugin(name, &format!("local P = {{ PRIORITY = 5 }}\n{before}\nfunction P:access(conf)\n{access}\nend\nreturn P"))
}

#[test]
fn buffers_of_plugins_have_no_pointers() {
    let (_folder, plugin) = handler(
        "buffers",
        "local buffer = require 'string.buffer'",
        "local b = buffer.new(100):put('a', 1, 'b'):putf('%03d', 7)\n\
         assert(b.ref == nil and b.reserve == nil and b.commit == nil and b.putcdata == nil)\n\
         assert(#b == 6 and tostring(b) == 'a1b007' and b .. '!' == 'a1b007!' and b:tostring() == 'a1b007')\n\
         local x, y = b:get(1, 2)\n\
         assert(x == 'a' and y == '1b' and b:get() == '007' and #b == 0)\n\
         assert(b:set('abc'):skip(1):put(b):tostring() == 'bcbc' and b:reset():tostring() == '')\n\
         assert(not pcall(b.put, b, {}) and not pcall(b.put, b, print))",
    );
    assert_eq!(status(&run(plugin.access(&mut Exchange::new()))), None);
}

#[test]
fn a_coroutine_that_a_plugin_kept_serves_nobody_else() {
    let (_folder, plugin) = handler(
        "kept",
        "local kept = {}",
        "local what = kong.request.get_header('what')\n\
         if what == 'thread' then kept[1] = ngx.thread.spawn(function() ngx.sleep(0.001) end) end\n\
         if what == 'own' then kept[2] = coroutine.running() ngx.sleep(0.001) end\n\
         if what == 'wait' then\n\
           for _, co in pairs(kept) do assert(coroutine.running() ~= co and coroutine.status(co) == 'dead') end\n\
           ngx.sleep(0.001)\n\
           kong.service.request.set_header('Done', '1')\n\
         end",
    );
    for what in ["thread", "own", "", "wait", "wait"] {
        let mut exchange = Exchange::new();
        exchange.request.headers.add("what", what);
        assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{what}");
        assert_eq!(exchange.request.headers.contains("Done"), what == "wait");
    }
}

#[test]
fn threads_that_end_at_once_leave_others_their_turn() {
    let (_folder, plugin) = handler("turns", "", "while true do ngx.thread.wait(ngx.thread.spawn(function() end)) end");
    let mut exchange = Exchange::new();
    let Step::Wait(mut waiting) = plugin.access(&mut exchange) else { panic!("it waits") };
    for _ in 0..20 {
        let began = Instant::now();
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[test]
fn a_killed_thread_of_one_request_is_no_other_requests() {
    let (_folder, plugin) = handler(
        "killed",
        "",
        "if kong.request.get_header('first') then\n\
           local thread = ngx.thread.spawn(ngx.sleep, 3600)\n\
           ngx.sleep(0)\n\
           -- It waits beside the handler by now, so that the handler's driver is told that it is gone.\n\
           assert(ngx.thread.kill(thread) == 1)\n\
           kong.response.exit(204)\n\
         end\n\
         local threads, ended = {}, 0\n\
         for i = 1, 50 do threads[i] = ngx.thread.spawn(function() ngx.sleep(0.001) ended = ended + 1 end) end\n\
         for i = 1, 50 do assert(ngx.thread.wait(threads[i])) end\n\
         assert(ended == 50, ended)",
    );
    for _ in 0..5 {
        let mut exchange = Exchange::new();
        exchange.request.headers.add("first", "1");
        assert_eq!(status(&within_a_minute(&plugin, &mut exchange)), Some(204), "{}", vm::LAST_ERROR.take());
        assert!(plugin.vm().unwrap().shared().killed.borrow().is_empty(), "it is told to nobody else");
        let outcome = within_a_minute(&plugin, &mut Exchange::new());
        assert_eq!(status(&outcome), None, "{}", vm::LAST_ERROR.take());
    }
}

/// The access phase, which must come to its end.
fn within_a_minute(plugin: &LuaPlugin, exchange: &mut Exchange) -> Outcome {
    let patience = Duration::from_secs(60);
    let ended = async { tokio::time::timeout(patience, come_to(plugin.access(exchange))).await };
    block_on(ended).expect("it does not end")
}

#[test]
fn a_call_that_finds_no_place_leaves_nothing_to_the_next() {
    let what = "if kong.request.get_header('first') then kong.request.get_raw_body() else ngx.sleep(0) end";
    let (_folder, plugin) = handler("no-place", "", what);
    let shared = plugin.vm().unwrap().shared().clone();
    let mut exchange = Exchange::new();
    exchange.request.headers.add("first", "1");
    exchange.request.framing = gateward_http::BodyFraming::Chunked;
    shared.lanes.set(crate::shared::LANES);
    let refused = run(plugin.access(&mut exchange));
    shared.lanes.set(0);
    assert_eq!(status(&refused), Some(500));
    assert!(vm::LAST_ERROR.take().contains("more than 4000 handlers"));
    let outcome = run(plugin.access(&mut Exchange::new()));
    assert_eq!(status(&outcome), None, "it does not ask for a body that another wanted");
}

#[test]
fn what_was_printed_is_the_answer_and_an_error_is_one_too() {
    let (_folder, plugin) = handler(
        "printed",
        "",
        "local what = kong.request.get_header('what')\n\
         if what == 'say' then ngx.status = 202 ngx.say('a', 1) ngx.sleep(0.001) ngx.print('b') end\n\
         if what == 'error' then ngx.exit(ngx.ERROR) end",
    );
    let ask = |what: &str| {
        let mut exchange = Exchange::new();
        exchange.request.headers.add("what", what);
        run(plugin.access(&mut exchange))
    };
    assert_eq!(status(&ask("nothing")), None);
    for _ in 0..2 {
        let Outcome::Respond(response) = ask("say") else { panic!("no answer") };
        assert_eq!((response.status, response.body), (202, LocalBody::Bytes(String::new(), b"a1\nb".to_vec())));
        assert_eq!(status(&ask("error")), Some(500));
        assert_eq!(status(&ask("nothing")), None, "nothing is left for the next request");
    }
}

#[test]
fn what_is_printed_is_the_answer_when_the_last_thread_is_over() {
    let (_folder, plugin) = handler(
        "printed-late",
        "",
        "local what = kong.request.get_header('what')\n\
         local function late() ngx.sleep(0.005) ngx.print('late') end\n\
         if what == 'after' then ngx.thread.spawn(late) ngx.print('early ') end\n\
         if what == 'only' then ngx.thread.spawn(late) end\n\
         if what == 'coroutine' then coroutine.wrap(function() late() end)() ngx.print(' and after') end\n\
         if what == 'exit' then ngx.thread.spawn(function() ngx.print('said ') ngx.sleep(0) ngx.print('all') ngx.exit(201) end) ngx.sleep(3600) end",
    );
    for (what, expected) in [
        ("after", Some((200, "early late"))),
        ("only", Some((200, "late"))),
        ("coroutine", Some((200, "late and after"))),
        ("exit", Some((201, "said all"))),
        ("nothing", None),
    ] {
        let mut exchange = Exchange::new();
        exchange.request.headers.add("what", what);
        let found = match within_a_minute(&plugin, &mut exchange) {
            Outcome::Respond(response) => Some((response.status, response.body)),
            _ => None,
        };
        let body = |text: &str| LocalBody::Bytes(String::new(), text.as_bytes().to_vec());
        assert_eq!(found, expected.map(|(status, text)| (status, body(text))), "{what}");
    }
}

#[test]
fn a_request_whose_answer_cannot_be_made_does_not_go_on() {
    // Each piece is the same text, all of them together are longer than a machine may be.
    let body = "local text = ('x'):rep(2e7) for _ = 1, 20 do ngx.print(text) end";
    let (_folder, plugin) = handler("printed-too-much", "", body);
    assert_eq!(status(&run(plugin.access(&mut Exchange::new()))), Some(500));
    assert!(vm::LAST_ERROR.take().contains("not enough memory"));
    assert_eq!(plugin.instance().counts.errors(Phase::Access), 1);
}

#[test]
fn tables_that_are_answered_are_what_cjson_makes_of_them() {
    let (_folder, plugin) = handler(
        "json",
        "local cjson = require 'cjson'",
        "kong.response.exit(200, { a = cjson.empty_array, b = setmetatable({}, cjson.empty_array_mt) })",
    );
    let Outcome::Respond(response) = run(plugin.access(&mut Exchange::new())) else { panic!("no answer") };
    let LocalBody::Bytes(content_type, body) = response.body else { panic!("no body") };
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((content_type.as_str(), body), ("application/json; charset=utf-8", json!({"a": [], "b": []})));
}

#[test]
fn a_piece_that_is_said_to_be_the_last_is() {
    let (_folder, plugin) = plugin(
        "last",
        "local P = { PRIORITY = 5 }\nfunction P:body_filter() ngx.arg[1] = 'once' ngx.arg[2] = true end\nreturn P",
    );
    let mut exchange = Exchange::new();
    let mut body = Vec::new();
    for last in [false, false, true] {
        let mut piece = b"piece".to_vec();
        plugin.body_filter(&mut exchange, &mut piece, last);
        body.extend(piece);
    }
    assert_eq!(String::from_utf8(body).unwrap(), "once");
}

#[test]
fn what_a_request_left_is_let_go() {
    let (_folder, plugin) = handler("left", "", "kong.ctx.shared.big = ('x'):rep(1e6) .. kong.request.get_header('n')");
    let mut exchanges: Vec<Exchange> = (0..20).map(|_| Exchange::new()).collect();
    for (n, exchange) in exchanges.iter_mut().enumerate() {
        exchange.request.headers.add("n", n.to_string());
        assert_eq!(status(&run(plugin.access(exchange))), None);
    }
    nothing_is_kept(&plugin, exchanges);
}
