//! Beginning a handler, straight through the interface of LuaJIT.
//!
//! Each request begins some. Through mlua that is two dozen calls into the machine, most of which find out what is known
//! here: arguments go over three stacks one by one, and the coroutine is asked three times what became of it. Here it is
//! three calls: the function, with its arguments bound to it, is put on a stack that is empty, resumed, and the stack is
//! emptied again. docs/performance.md has what that saves.
#![expect(unsafe_code, reason = "measured; see SAFETY below")]

use super::Vm;
use crate::state::Phase;
use mlua::{Function, Lua, LuaString, MultiValue, Table, Thread, Value, ffi};
use std::ffi::c_int;
use std::ptr::null_mut;

/// What a coroutine did when it had its turn.
pub(super) enum Turn {
    Returned,
    Yielded(MultiValue),
}

/// The functions of one configured plugin with the handler and the configuration bound to them, as numbers in the
/// machine's registry: that has no bound, whereas mlua can hold 8000 values.
pub(super) struct Bound([c_int; Phase::ALL.len()]);

impl Bound {
    /// Bind `functions`.
    ///
    /// # Errors
    /// Memory is short.
    pub(super) fn new(
        vm: &Vm,
        functions: &[Option<Function>; Phase::ALL.len()],
        handler: &Table,
        conf: &Value,
    ) -> mlua::Result<Self> {
        let mut bound = Self([ffi::LUA_NOREF; Phase::ALL.len()]);
        for (number, function) in bound.0.iter_mut().zip(functions) {
            let Some(function) = function else { continue };
            let registered = vm.bind.call::<Function>((function, handler, conf)).and_then(|function| {
                // SAFETY: takes the value that was pushed for it.
                unsafe {
                    vm.lua.exec_raw::<()>(function, |state| *number = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX))
                }
            });
            if let Err(error) = registered {
                bound.release(&vm.lua);
                return Err(error);
            }
        }
        Ok(bound)
    }

    /// Let go of them; nothing of it is begun again.
    pub(super) fn release(&self, lua: &Lua) {
        // SAFETY: the numbers were given by `luaL_ref`, and the configuration is out of the machine's table: once.
        let released = unsafe {
            lua.exec_raw::<()>((), |state| {
                self.0.iter().for_each(|number| ffi::luaL_unref(state, ffi::LUA_REGISTRYINDEX, *number));
            })
        };
        if let Err(error) = released {
            tracing::error!(%error, "functions of a plugin that is gone are kept");
        }
    }

    /// Where the function of `phase` is.
    fn of(&self, phase: Phase) -> mlua::Result<c_int> {
        match self.0[phase.index()] {
            ffi::LUA_NOREF => Err(mlua::Error::runtime(format!("the handler has no function for {}", phase.as_str()))),
            number => Ok(number),
        }
    }
}

impl Vm {
    /// A coroutine with nothing on its stack.
    pub(super) fn empty_thread(&self) -> mlua::Result<Thread> {
        if let Some(thread) = self.spare.borrow_mut().pop() {
            return Ok(thread);
        }
        // Any function will do to make one.
        let thread = self.lua.create_thread(self.bind.clone())?;
        // SAFETY: nobody else knows the coroutine.
        unsafe { ffi::lua_settop(thread.state(), 0) };
        Ok(thread)
    }

    /// Let `thread`, which is empty, begin the function of `phase`. When it returns, it is empty again.
    pub(super) fn begin(&self, thread: &Thread, bound: &Bound, phase: Phase) -> mlua::Result<Turn> {
        let number = bound.of(phase)?;
        let coroutine = thread.state();
        let mut count = 0;
        // SAFETY: the coroutine lives as long as `thread`. It has returned or was never begun, so LuaJIT lets a function
        // be pushed and resumed; an empty stack has room for one. None of the three raises an error: the first reads
        // a number's place in a table, and what the function raises ends `lua_resume` with a status. No other state of
        // the machine is touched.
        unsafe {
            ffi::lua_rawgeti(coroutine, ffi::LUA_REGISTRYINDEX, number.into());
            match ffi::lua_resume(coroutine, null_mut(), 0, &raw mut count) {
                ffi::LUA_OK => {
                    ffi::lua_settop(coroutine, 0);
                    Ok(Turn::Returned)
                }
                ffi::LUA_YIELD => self.yielded(coroutine, count).map(Turn::Yielded),
                _ => Err(self.raised(coroutine)),
            }
        }
    }

    /// The `count` values that a coroutine yielded.
    ///
    /// # Safety
    /// They are on the stack of `coroutine`, which belongs to this machine.
    unsafe fn yielded(&self, coroutine: *mut ffi::lua_State, count: c_int) -> mlua::Result<MultiValue> {
        // SAFETY: room is made for what is moved; an error is caught by `exec_raw`, and no value waits to be dropped.
        unsafe {
            self.lua.exec_raw((), |state| {
                ffi::luaL_checkstack(state, count, c"too many values".as_ptr());
                ffi::lua_xmove(coroutine, state, count);
            })
        }
    }

    /// The error with which a coroutine ended, with where it was, as mlua tells it.
    ///
    /// # Safety
    /// It is on the top of the stack of `coroutine`, which belongs to this machine.
    unsafe fn raised(&self, coroutine: *mut ffi::lua_State) -> mlua::Error {
        // SAFETY: as in `yielded`. Texts stay on the stack while they are used.
        let told = unsafe {
            self.lua.exec_raw::<LuaString>((), |state| {
                ffi::lua_xmove(coroutine, state, 1);
                if ffi::lua_type(state, -1) == ffi::LUA_TUSERDATA {
                    // An error or a panic of a function in Rust: mlua knows which.
                    ffi::lua_error(state);
                }
                let text = ffi::luaL_tolstring(state, -1, null_mut());
                ffi::luaL_traceback(state, coroutine, text, 0);
                ffi::lua_replace(state, 1);
                ffi::lua_settop(state, 1);
            })
        };
        match told {
            Ok(told) => mlua::Error::RuntimeError(told.to_string_lossy()),
            Err(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::LuaPlugin;
    use crate::testing::{Folder, entity, made, run, status};
    use crate::vm;
    use gateward_model::{EntityId, PluginConfig};
    use gateward_plugin::{Exchange, Plugin};
    use serde_json::json;

    const HANDLER: &str = r##"local P = { PRIORITY = 5 }
local function breaks(how)
  if how == "text" then error("broken") end
  if how == "bare" then error("broken", 0) end
  if how == "nothing" then error() end
  if how == "table" then error(setmetatable({}, { __tostring = function() return "told" end })) end
  if how == "rust" then ngx.sleep({}) end
end
function P:access(conf)
  if conf.how == "deep" then local function deep() return 1 + deep() end deep() end
  if conf.how == "waits" then ngx.sleep(0) breaks("text") end
  breaks(conf.how)
  if conf.how == "polite" then assert(select("#", coroutine.yield(1, 2, 3)) == 0) end
  kong.service.request.set_header("Done", conf.how)
  return "what nobody asks for", 2, 3
end
function P:header_filter(conf)
  assert(coroutine.running() == nil and not coroutine.isyieldable())
  coroutine.wrap(function() assert(coroutine.running() and coroutine.isyieldable()) end)()
  if conf.how == "yields" then coroutine.yield() end
  if conf.how == "breaks" then breaks("text") end
  kong.response.set_header("Passed", conf.how)
end
return P"##;

    /// What the handler's access phase fails with.
    fn failure(plugin: &LuaPlugin) -> String {
        vm::LAST_ERROR.take();
        assert_eq!(status(&run(plugin.access(&mut Exchange::new()))), Some(500));
        vm::LAST_ERROR.take()
    }

    /// The handler's access phase runs to its end.
    fn serves(plugin: &LuaPlugin, how: &str) {
        let mut exchange = Exchange::new();
        assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{}", vm::LAST_ERROR.take());
        assert_eq!(exchange.request.headers.get_str("Done"), Some(how));
    }

    #[test]
    fn errors_say_what_and_where_and_the_next_request_is_served() {
        let folder = Folder::new("begin", &[("kong/plugins/p/handler.lua", HANDLER)]);
        let host = folder.host();
        let how = |how: &str| made(&host, "p", json!({ "how": how })).unwrap();
        let plugins: Vec<_> = [
            ("text", "p/handler.lua:3: broken\nstack traceback:", "p/handler.lua:12:"),
            ("bare", "runtime error: broken\nstack traceback:", "p/handler.lua:4:"),
            ("nothing", "nil\nstack traceback:", "p/handler.lua:5:"),
            ("table", "told\nstack traceback:", "p/handler.lua:6:"),
            ("rust", "", "p/handler.lua:7:"),
            ("deep", "stack overflow", "p/handler.lua:"),
            ("waits", "p/handler.lua:3: broken\nstack traceback:", "p/handler.lua:11:"),
        ]
        .into_iter()
        .map(|(word, what, place)| (how(word), what, place))
        .collect();
        let fine = how("not at all");
        for _ in 0..100 {
            for (plugin, what, place) in &plugins {
                let error = failure(plugin);
                assert!(error.contains(what) && error.contains(place), "{what} at {place}: {error}");
            }
            serves(&fine, "not at all");
        }
    }

    #[test]
    fn what_yields_for_no_reason_goes_on() {
        let folder = Folder::new("polite", &[("kong/plugins/p/handler.lua", HANDLER)]);
        let plugin = made(&folder.host(), "p", json!({ "how": "polite" })).unwrap();
        for _ in 0..3 {
            serves(&plugin, "polite");
        }
    }

    #[test]
    fn phases_that_cannot_wait_do_not_seem_to_run_in_coroutines() {
        let folder = Folder::new("plain", &[("kong/plugins/p/handler.lua", HANDLER)]);
        let host = folder.host();
        for _ in 0..3 {
            for (how, fails) in
                [("fine", ""), ("yields", "attempt to yield in header_filter"), ("breaks", "p/handler.lua:3: broken")]
            {
                let plugin = made(&host, "p", json!({ "how": how })).unwrap();
                let mut exchange = Exchange::new();
                exchange.response.status = 200;
                vm::LAST_ERROR.take();
                plugin.header_filter(&mut exchange);
                let error = vm::LAST_ERROR.take();
                assert!(error.contains(fails) && error.is_empty() == fails.is_empty(), "{how}: {error}");
                let passed = exchange.response.headers.get_str("Passed");
                assert_eq!(passed, fails.is_empty().then_some(how));
            }
        }
    }

    #[test]
    fn configurations_that_are_gone_leave_nothing_behind() {
        let folder = Folder::new("gone", &[("kong/plugins/p/handler.lua", HANDLER)]);
        let host = folder.host();
        let serve = |index: usize| {
            let id = EntityId::derived("test", &index.to_string());
            let entity = PluginConfig { id, ..entity("p", json!({ "how": format!("{index}") })) };
            let plugin = LuaPlugin::new(host.instance(&entity).unwrap());
            serves(&plugin, &index.to_string());
            let mut count = 0;
            // SAFETY: only counts.
            let counting = unsafe {
                let machine = plugin.vm().unwrap();
                machine.lua().exec_raw::<()>((), |state| count = ffi::lua_objlen(state, ffi::LUA_REGISTRYINDEX))
            };
            counting.unwrap();
            count
        };
        let few = (0..10).map(serve).max();
        let many = (10..1000).map(serve).max();
        assert!(many.unwrap() <= few.unwrap() + 10, "{few:?} then {many:?}");
    }
}
