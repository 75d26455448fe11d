//! Filling a new machine: limits, the functions in Rust, the sandbox, and the PDK in Lua.

use super::{MEMORY, Vm};
use crate::api;
use crate::code::Code;
use crate::fast;
use crate::functions;
use crate::sandbox;
use crate::shared::Shared;
use crate::state::Phase;
use crate::watchdog::Watched;
use mlua::{Function, LightUserData, Lua, LuaOptions, StdLib, Table, Value};
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::c_void;
use std::ptr::{from_ref, null_mut};
use std::rc::Rc;
use std::sync::Arc;

/// The PDK and what it stands on, by the names under which the files find each other.
const FILES: &[(&str, &str)] = &[
    ("check", include_str!("../lua/check.lua")),
    ("core", include_str!("../lua/core.lua")),
    ("coroutine", include_str!("../lua/coroutine.lua")),
    ("lib.aes", include_str!("../lua/lib/aes.lua")),
    ("lib.buffer", include_str!("../lua/lib/buffer.lua")),
    ("lib.cjson", include_str!("../lua/lib/cjson.lua")),
    ("lib.digest", include_str!("../lua/lib/digest.lua")),
    ("lib.http", include_str!("../lua/lib/http.lua")),
    ("lib.jwt", include_str!("../lua/lib/jwt.lua")),
    ("lib.jwt_validators", include_str!("../lua/lib/jwt_validators.lua")),
    ("lib.lock", include_str!("../lua/lib/lock.lua")),
    ("lib.lrucache", include_str!("../lua/lib/lrucache.lua")),
    ("lib.openssl", include_str!("../lua/lib/openssl.lua")),
    ("lib.queue", include_str!("../lua/lib/queue.lua")),
    ("lib.redis", include_str!("../lua/lib/redis.lua")),
    ("lib.ssl", include_str!("../lua/lib/ssl.lua")),
    ("lib.tools", include_str!("../lua/lib/tools.lua")),
    ("lib.x509", include_str!("../lua/lib/x509.lua")),
    ("lib.url", include_str!("../lua/lib/url.lua")),
    ("lib.yaml", include_str!("../lua/lib/yaml.lua")),
    ("modules", include_str!("../lua/modules.lua")),
    ("ngx", include_str!("../lua/ngx.lua")),
    ("pdk.cache", include_str!("../lua/pdk/cache.lua")),
    ("ngx_http", include_str!("../lua/ngx_http.lua")),
    ("ngx_re", include_str!("../lua/ngx_re.lua")),
    ("ngx_variables", include_str!("../lua/ngx_variables.lua")),
    ("pdk.base", include_str!("../lua/pdk/base.lua")),
    ("pdk.body", include_str!("../lua/pdk/body.lua")),
    ("pdk.client", include_str!("../lua/pdk/client.lua")),
    ("pdk.ctx", include_str!("../lua/pdk/ctx.lua")),
    ("pdk.db", include_str!("../lua/pdk/db.lua")),
    ("pdk.log", include_str!("../lua/pdk/log.lua")),
    ("pdk.node", include_str!("../lua/pdk/node.lua")),
    ("pdk.request", include_str!("../lua/pdk/request.lua")),
    ("pdk.response", include_str!("../lua/pdk/response.lua")),
    ("pdk.service", include_str!("../lua/pdk/service.lua")),
    ("pdk.service_request", include_str!("../lua/pdk/service_request.lua")),
    ("pdk.service_response", include_str!("../lua/pdk/service_response.lua")),
    ("pdk.table", include_str!("../lua/pdk/table.lua")),
    ("pdk.tracing", include_str!("../lua/pdk/tracing.lua")),
    ("record_fields", include_str!("../lua/record_fields.lua")),
    ("sandbox", include_str!("../lua/sandbox.lua")),
    ("schema.describe", include_str!("../lua/schema/describe.lua")),
    ("schema.queue", include_str!("../lua/schema/queue.lua")),
    ("schema.redis", include_str!("../lua/schema/redis.lua")),
    ("schema.typedefs", include_str!("../lua/schema/typedefs.lua")),
    ("semaphore", include_str!("../lua/semaphore.lua")),
    ("shared", include_str!("../lua/shared.lua")),
    ("socket", include_str!("../lua/socket.lua")),
    ("template", include_str!("../lua/template.lua")),
    ("thread", include_str!("../lua/thread.lua")),
    ("timer", include_str!("../lua/timer.lua")),
    ("tools.sandbox", include_str!("../lua/tools/sandbox.lua")),
    ("work", include_str!("../lua/work.lua")),
    ("boot", include_str!("../lua/boot.lua")),
];

/// What binds a handler's function to its arguments. The call leaves nothing of itself in tracebacks.
const BIND: &str = "local handle, handler, conf = ... return function() return handle(handler, conf) end";

/// A machine with everything but plugins in it.
pub(super) fn machine(code: &Arc<Code>) -> mlua::Result<Vm> {
    let lua = bare();
    let main = main_state(&lua)?;
    let shared = Rc::new(Shared::default());
    let boot = lua.create_table()?;
    boot.raw_set("state", LightUserData(from_ref(&shared.state).cast::<c_void>().cast_mut()))?;
    boot.raw_set("fast", fast::functions(&lua)?)?;
    boot.raw_set("host", host_functions(&lua, code, &shared)?)?;
    boot.raw_set("phases", phases(&lua)?)?;
    boot.raw_set("untrusted", functions::settings(&lua, &code.untrusted)?)?;
    let plugins = lua.create_table()?;
    boot.raw_set("plugins", plugins.clone())?;
    let files = lua.create_table()?;
    for (name, text) in FILES {
        // Named after the file, for tracebacks.
        files.raw_set(*name, lua.load(*text).set_name(format!("=gateward/{name}")).into_function()?)?;
    }
    boot.raw_set("files", files.clone())?;
    let start: Function = files.raw_get("boot")?;
    let require: Function = start.call(boot.clone())?;
    let (schemas, about) = (boot.raw_get("schema")?, boot.raw_get("about")?);
    let (templates, record_fields) = (boot.raw_get("templates")?, boot.raw_get("record_fields")?);
    let (answer_printed, tables) = (boot.raw_get("answer_printed")?, boot.raw_get("tables")?);
    let ask_before_retry = boot.raw_get("ask_before_retry")?;
    let bind = lua.load(BIND).set_name("=gateward/bind").into_function()?;
    lua.set_memory_limit(MEMORY)?;
    Ok(Vm {
        watched: Watched::new(main),
        handlers: RefCell::default(),
        configurations: RefCell::default(),
        spare: RefCell::default(),
        plugins,
        require,
        bind,
        schemas,
        about,
        templates,
        record_fields,
        answer_printed,
        ask_before_retry,
        tables,
        lua,
        shared,
        code: Arc::downgrade(code),
        requests: Cell::new(0.0),
        adopted: RefCell::default(),
        not_again: RefCell::default(),
        memory: OnceCell::new(),
    })
}

/// A machine with LuaJIT's own libraries. What of them plugins get is for the sandbox.
#[expect(unsafe_code, reason = "the FFI library, which plugins do not get")]
fn bare() -> Lua {
    // SAFETY: the libraries that can break memory safety (ffi, debug, package) stay with the files above.
    unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::default()) }
}

#[expect(unsafe_code, reason = "only looks where the state is")]
fn main_state(lua: &Lua) -> mlua::Result<*mut mlua::lua_State> {
    let mut state = null_mut();
    // SAFETY: nothing is done to the state.
    unsafe { lua.exec_raw::<()>((), |main| state = main) }?;
    Ok(state)
}

/// Kong's names and bits.
fn phases(lua: &Lua) -> mlua::Result<Table> {
    lua.create_table_from(Phase::ALL.map(|phase| (phase.as_str(), phase as u32)))
}

/// The functions in Rust that are not worth the FFI.
fn host_functions(lua: &Lua, code: &Arc<Code>, shared: &Rc<Shared>) -> mlua::Result<Table> {
    let functions = lua.create_table()?;
    sandbox::add(lua, &functions, code)?;
    api::add(lua, &functions, code, shared)?;
    functions.raw_set("null", Value::NULL)?;
    // An address of ours, which is nothing but different from null.
    static EMPTY_ARRAY: u8 = 0;
    functions.raw_set("empty_array", LightUserData((&raw const EMPTY_ARRAY).cast_mut().cast::<c_void>()))?;
    Ok(functions)
}
