//! Coroutines, light threads, timers, semaphores, and what a worker does when it begins.

use super::*;
use gateward_net::dns::DnsSettings;
use gateward_net::tls::TlsSettings;
use std::future::Future;
use tokio::task::LocalSet;

/// Run `test` as a worker runs.
fn on_worker<R>(test: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// A plugin whose access phase is `body`, begun as a worker begins it, and called once.
pub(super) fn access(name: &str, body: &str) -> (Outcome, Exchange) {
    let handler = format!("local P = {{ PRIORITY = 5 }}\nfunction P:access(conf)\n{body}\nend\nreturn P");
    let (_folder, plugin) = plugin(name, &handler);
    on_worker(async {
        let code = plugin.instance().code.clone();
        vm::adopt(&code, &[configured(&plugin)], (&snapshot(), &Arc::default()), Some(&network()));
        let mut exchange = Exchange::new();
        let outcome = come_to(plugin.access(&mut exchange)).await;
        (outcome, exchange)
    })
}

fn network() -> Network {
    let runtime = tokio::runtime::Handle::current();
    let names = Names::new(DnsSettings::default(), runtime).unwrap();
    Network { names, tls: Arc::new(Context::new(TlsSettings::default()).unwrap()) }
}

fn snapshot() -> Arc<Snapshot> {
    let text = r#"{"_format_version": "3.0",
        "services": [{"name": "s", "url": "http://a.example", "routes": [{"name": "r", "paths": ["/"]}]}],
        "consumers": [{"username": "alice", "custom_id": "c1"}, {"username": "bob"}]}"#;
    let options = gateward_config::Options {
        plugins: &gateward_plugin::NativePlugins::new(),
        flavor: gateward_model::RouterFlavor::default(),
        vault: &|_| None,
        now: 0,
    };
    let loaded = gateward_config::load(text.as_bytes(), gateward_config::Format::Json, &options).unwrap();
    Arc::new(Snapshot { config: loaded.config, ..Snapshot::empty() })
}

fn configured(plugin: &LuaPlugin) -> Configured {
    let instance = plugin.instance().clone();
    Configured { name: instance.entity.name.clone(), instances: vec![instance] }
}

/// What `body` asserts holds.
pub(super) fn holds(name: &str, body: &str) {
    let outcome = access(name, body).0;
    assert_eq!(status(&outcome), None, "{name}: {}", vm::LAST_ERROR.take());
}

#[test]
fn coroutines_of_a_plugin_wait_for_the_handler() {
    holds(
        "coroutines",
        r##"
        local function numbers(...)
          assert(select("#", ...) == 2)
          for i = 1, 3 do
            ngx.sleep(0.001)
            local back = coroutine.yield(i, nil)
            assert(back == i * 10)
          end
          return "end", nil, nil
        end
        local co = coroutine.create(numbers)
        local given = { "first", 10, 20, 30 }
        for i = 1, 3 do
          local r = { n = 0 }
          local function pack(...) return { n = select("#", ...), ... } end
          if i == 1 then r = pack(coroutine.resume(co, "first", nil)) else r = pack(coroutine.resume(co, given[i])) end
          assert(r.n == 3 and r[1] == true and r[2] == i and r[3] == nil, tostring(r[2]))
        end
        local n = select("#", coroutine.resume(co, 30))
        assert(n == 4 and coroutine.status(co) == "dead")
        assert(coroutine.resume(co) == false)
        local outer = coroutine.wrap(function()
          local inner = coroutine.wrap(function() ngx.sleep(0.001) return "deep" end)
          coroutine.yield(inner())
          error("at the end", 0)
        end)
        assert(outer() == "deep")
        local fine, err = pcall(outer)
        assert(not fine and err == "at the end", err)
        coroutine.yield("to nobody")
        "##,
    );
}

#[test]
fn an_answer_from_any_depth_ends_the_handler() {
    for (name, how) in [
        ("exit-coroutine", "coroutine.wrap(function() ngx.sleep(0.001) kong.response.exit(418) end)()"),
        ("exit-thread", "ngx.thread.spawn(function() ngx.sleep(0.001) kong.response.exit(418) end) ngx.sleep(10)"),
        ("exit-thread-now", "ngx.thread.spawn(function() kong.response.exit(418) end)"),
        ("exit-both", "ngx.thread.spawn(coroutine.wrap(function() ngx.sleep(0.001) kong.response.exit(418) end))"),
    ] {
        assert_eq!(status(&access(name, how).0), Some(418), "{name}");
    }
}

#[test]
fn light_threads_run_beside_the_handler() {
    holds(
        "threads",
        r##"
        local began = ngx.now()
        local function slow(n) ngx.sleep(n / 100) return n, nil, "x" end
        local threads = {}
        for i = 1, 10 do threads[i] = ngx.thread.spawn(slow, 4) end
        for i = 1, 10 do
          local ok, n, nothing, x = ngx.thread.wait(threads[i])
          assert(ok and n == 4 and nothing == nil and x == "x")
        end
        assert(ngx.now() - began < 0.35, "they ran one after another")
        local nothing, err = ngx.thread.wait(threads[1])
        assert(nothing == nil and err == "already waited or killed")
        local a, b = ngx.thread.spawn(slow, 500), ngx.thread.spawn(slow, 1)
        local ok, n = ngx.thread.wait(a, b)
        assert(ok and n == 1)
        assert(ngx.thread.kill(a) == 1)
        nothing, err = ngx.thread.kill(a)
        assert(nothing == nil and err == "already waited or killed")
        local failing = ngx.thread.spawn(function() ngx.sleep(0.001) error({ code = 5 }) end)
        ok, err = ngx.thread.wait(failing)
        assert(ok == false and err.code == 5)
        local now = ngx.thread.spawn(function() return "at once" end)
        assert(coroutine.status(now) == "dead" and select(2, ngx.thread.wait(now)) == "at once")
        assert(not pcall(ngx.thread.spawn, 5) and not pcall(ngx.thread.wait) and not pcall(ngx.thread.wait, 5))
        "##,
    );
}

#[test]
fn a_handler_is_over_when_its_threads_are() {
    let (outcome, exchange) = access(
        "outlive",
        "ngx.thread.spawn(function() ngx.sleep(0.02) kong.service.request.set_header('X-Late', 1) end)",
    );
    assert_eq!(status(&outcome), None);
    assert!(exchange.request.headers.contains("X-Late"));
}

#[test]
fn the_number_of_light_threads_is_bounded() {
    holds(
        "flood",
        r##"
        local threads = {}
        local fine, err = pcall(function()
          for i = 1, 2000 do threads[i] = ngx.thread.spawn(ngx.sleep, 5) end
        end)
        assert(not fine and err:find("light threads", 1, true), err)
        for i, thread in ipairs(threads) do
          ngx.thread.kill(thread)
          if i % 100 == 0 then ngx.sleep(0) end
        end
        "##,
    );
}

#[test]
fn timers_run_later_and_without_the_request() {
    holds(
        "timers",
        r##"
        local seen, sum = {}, 0
        assert(ngx.timer.at(0, function(premature, a, b, c)
          assert(premature == false and a == 1 and b == nil and c == 3)
          assert(ngx.get_phase() == "timer" and not pcall(kong.request.get_method))
          ngx.ctx.mine = "own"
          kong.ctx.plugin.x = 1
          ngx.sleep(0.001)
          seen.once = ngx.ctx.mine
        end, 1, nil, 3))
        assert(ngx.timer.pending_count() >= 1)
        assert(ngx.timer.every(0.005, function() sum = sum + 1 end))
        ngx.timer.at(0, function() error("a timer fails") end)
        for i = 1, 200 do
          if seen.once and sum >= 3 then break end
          ngx.sleep(0.01)
        end
        assert(seen.once == "own" and sum >= 3, sum)
        assert(not pcall(ngx.timer.at, -1, print) and not pcall(ngx.timer.at, 0) and not pcall(ngx.timer.every, 0, print))
        local refused
        for i = 1, 20000 do
          local ok, err = ngx.timer.at(100, print)
          if not ok then refused = err break end
        end
        assert(refused == "too many pending timers", refused)
        "##,
    );
}

#[test]
fn a_machine_that_is_not_wanted_any_more_ends_its_timers_early() {
    let handler = r##"
        local P = { PRIORITY = 5 }
        function P:init_worker()
          ngx.timer.at(1000, function(premature) ngx.shared.ending:set("premature", premature) end)
        end
        function P:access() end
        return P"##;
    let (folder, plugin) = plugin("premature", handler);
    on_worker(async move {
        let code = plugin.instance().code.clone();
        vm::adopt(&code, &[configured(&plugin)], (&snapshot(), &Arc::default()), Some(&network()));
        drop((plugin, code, folder));
        let said = || crate::dict::named("ending").unwrap().get(b"premature", crate::dict::now_ms(), false);
        for _ in 0..300 {
            if matches!(said(), Ok(Some(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(said().unwrap().map(|found| found.value), Some(crate::dict::Value::Flag(true)));
    });
}

#[test]
fn a_timer_that_goes_on_for_ever_is_broken_off_with_its_machine() {
    let handler = r##"
        local P = { PRIORITY = 5 }
        function P:init_worker()
          ngx.timer.at(0, function() ngx.shared.forever:set("began", true) while true do ngx.sleep(0.01) end end)
        end
        function P:access() end
        return P"##;
    let (_folder, plugin) = plugin("forever", handler);
    on_worker(async move {
        let code = plugin.instance().code.clone();
        vm::adopt(&code, &[configured(&plugin)], (&snapshot(), &Arc::default()), Some(&network()));
        let shared = plugin.vm().unwrap().shared().clone();
        let patience = tokio::time::timeout(Duration::from_secs(60), async {
            while shared.timers.running() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            vm::stop_all().await;
            while shared.timers.running() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        patience.await.expect("it ends");
    });
}

#[test]
fn init_worker_runs_once_and_configure_with_every_snapshot() {
    let handler = r##"
        local P = { PRIORITY = 5 }
        local begun, seen = 0, {}
        function P:init_worker()
          begun = begun + 1
          assert(ngx.get_phase() == "init_worker" and not pcall(ngx.sleep, 0))
          ngx.timer.at(0, function() seen[#seen + 1] = "timer" end)
        end
        function P:configure(configs)
          if configs == nil then seen[#seen + 1] = "nothing" return end
          seen[#seen + 1] = #configs .. configs[1].word .. (configs[1].__plugin_id and "!" or "")
        end
        function P:access()
          for i = 1, 200 do
            if seen[#seen] == "timer" then break end
            ngx.sleep(0.01)
          end
          kong.service.request.set_header("X-Seen", begun .. ":" .. table.concat(seen, ","))
        end
        return P"##;
    let (_folder, plugin) = plugin("begins", handler);
    on_worker(async {
        let code = plugin.instance().code.clone();
        for plugins in [vec![configured(&plugin)], vec![configured(&plugin)], vec![], vec![]] {
            vm::adopt(&code, &plugins, (&snapshot(), &Arc::default()), None);
        }
        let mut exchange = Exchange::new();
        come_to(plugin.access(&mut exchange)).await;
        assert_eq!(exchange.request.headers.get_str("X-Seen"), Some("1:1hello!,1hello!,nothing,timer"));
    });
}

#[test]
fn a_failing_init_worker_is_counted_and_stops_nobody() {
    let handler =
        "local P = { PRIORITY = 5 }\nfunction P:init_worker() while true do end end\nfunction P:access() end\nreturn P";
    let (_folder, plugin) = plugin("begins-badly", handler);
    on_worker(async {
        vm::adopt(&plugin.instance().code.clone(), &[configured(&plugin)], (&snapshot(), &Arc::default()), None);
        let counts = &plugin.instance().counts;
        assert_eq!((counts.calls(Phase::InitWorker), counts.errors(Phase::InitWorker)), (1, 1));
        assert_eq!(status(&come_to(plugin.access(&mut Exchange::new())).await), None);
    });
}

#[test]
fn semaphores_are_waited_for() {
    holds(
        "semaphores",
        r##"
        local semaphore = require "ngx.semaphore"
        local sema = semaphore.new(1)
        assert(sema:count() == 1 and sema:wait(0) and sema:count() == 0)
        local ok, err = sema:wait(0)
        assert(ok == nil and err == "timeout")
        ok, err = sema:wait(0.005)
        assert(ok == nil and err == "timeout")
        local got = 0
        local threads = {}
        for i = 1, 2 do threads[i] = ngx.thread.spawn(function() assert(sema:wait(1)) got = got + 1 end) end
        assert(sema:count() == -2)
        sema:post(2)
        for i = 1, 2 do assert(ngx.thread.wait(threads[i])) end
        assert(got == 2 and sema:count() == 0)
        "##,
    );
}

#[test]
fn what_is_shared_is_shared() {
    holds(
        "shared",
        r##"
        local d = ngx.shared.unit_test
        assert(d == ngx.shared.unit_test and d:capacity() > 1000000 and d:free_space() <= d:capacity())
        assert(d:set("a", "text") and d:get("a") == "text")
        local ok, err, forced = d:set("n", 5, 100, 7)
        assert(ok == true and err == nil and forced == false)
        local value, flags = d:get("n")
        assert(value == 5 and flags == 7)
        assert(select("#", d:get("none")) == 1 and d:get("none") == nil)
        ok, err = d:add("n", 1)
        assert(ok == false and err == "exists")
        ok, err = d:replace("none", 1)
        assert(ok == false and err == "not found")
        assert(d:safe_set("b", true) and d:get("b") == true and d:safe_add("c", false) and d:get("c") == false)
        assert(d:incr("n", 2.5) == 7.5)
        value, err = d:incr("none", 1)
        assert(value == nil and err == "not found")
        value, err, forced = d:incr("new", 1, 10, 0.001)
        assert(value == 11 and err == nil and forced == false)
        ngx.sleep(0.01)
        assert(d:get("new") == nil)
        local stale, _, over = d:get_stale("new")
        assert(stale == 11 and over == true)
        assert(d:ttl("a") == 0 and d:ttl("n") > 99 and select(2, d:ttl("none")) == "not found")
        assert(d:expire("a", 50) and d:ttl("a") > 49)
        assert(d:rpush("l", "x") == 1 and d:lpush("l", 2) == 2 and d:llen("l") == 2)
        value, err = d:get("l")
        assert(value == nil and err == "value is a list")
        assert(d:lpop("l") == 2 and d:rpop("l") == "x" and d:lpop("l") == nil and d:llen("l") == 0)
        value, err = d:lpush("a", 1)
        assert(value == nil and err == "value not a list")
        value, err = d:set(nil, 1)
        assert(value == nil and err == "nil key")
        assert(select(2, d:get("")) == "empty key" and select(2, d:set("k", {})) == "bad value type")
        assert(d:set("a", nil) and d:get("a") == nil)
        assert(#d:get_keys() >= 3 and #d:get_keys(1) == 1)
        d:flush_all()
        assert(d:get("n") == nil and d:flush_expired() > 2 and #d:get_keys(0) == 0)
        assert(not pcall(d.get, {}, "a") and not pcall(d.incr, d, "n", "x") and getmetatable(d) == "shared dict")
        "##,
    );
}

/// Begin `plugin`'s access phase with this header and give it up after a moment, as when the client goes.
fn given_up(plugin: &LuaPlugin) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut exchange = Exchange::new();
    exchange.request.headers.add("x-hang", "1");
    runtime.block_on(async {
        let Step::Wait(waiting) = plugin.access(&mut exchange) else { panic!("it waits") };
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err(), "it hangs");
    });
}

#[test]
fn a_value_is_made_by_the_next_when_its_maker_is_gone() {
    let (_folder, plugin) = plugin(
        "cache-gone",
        r#"
        local P = { PRIORITY = 5 }
        function P:access(conf)
          local hang = kong.request.get_header("x-hang")
          local value = kong.cache:get("gone", nil, function()
            if hang then ngx.sleep(30) end
            return "made"
          end)
          assert(value == "made")
        end
        return P
        "#,
    );
    given_up(&plugin);
    let began = Instant::now();
    let outcome = super::access(&plugin, &mut Exchange::new(), Ok(""));
    assert_eq!(status(&outcome), None, "{}", vm::LAST_ERROR.take());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn an_exchange_is_broken_off_without_an_answer() {
    for body in ["ngx.exit(444)", "ngx.sleep(0.01) ngx.exit(ngx.HTTP_CLOSE)", "ngx.say('never seen') ngx.exit(444)"] {
        let handler = format!("local P = {{ PRIORITY = 5 }}\nfunction P:access(conf)\n{body}\nend\nreturn P");
        let (_folder, plugin) = plugin("breaks-off", &handler);
        let mut exchange = Exchange::new();
        assert_eq!(status(&super::access(&plugin, &mut exchange, Ok(""))), None, "{body}");
        assert!(exchange.response.broken, "{body}");
    }
}
