//! A virtual machine: one per worker and set of sources.
//!
//! A machine is made when its worker first needs it and lives until no plugin of its sources is configured any more.
//! `boot` fills it, `run` calls handlers in it.

mod adopt;
mod ask;
mod begin;
mod boot;
mod fields;
mod retry;
mod run;
mod schema;
mod template;
mod timers;
mod waiting;

pub(crate) use adopt::adopt;
pub(crate) use run::{Ended, Started};
pub(crate) use schema::{Said, ask, check_field, check_template, describe_here};
pub(crate) use waiting::Waiting;

use crate::code::Code;
use crate::convert::config_to_lua;
use crate::instance::{Calls, Counts, Info, Instance};
use crate::shared::Shared;
use crate::slot::Slot;
use crate::state::{Phase, Reach, Scene};
use crate::timing::Timed;
use crate::watchdog::Watched;
use adopt::Adopted;
use begin::Bound;
use gateward_model::PluginConfig;
use mlua::{Function, Lua, Table, Thread, Value};
use rustc_hash::FxHashMap;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{self, Rc};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Bytes of memory of one machine.
pub(crate) const MEMORY: usize = 256 << 20;
/// Coroutines kept for reuse.
const SPARE: usize = 64;

/// A machine. Fields are dropped in this order: the watchdog lets go first, what Lua points to goes last.
pub(crate) struct Vm {
    watched: Watched,
    handlers: RefCell<FxHashMap<String, Rc<Handler>>>,
    configurations: RefCell<FxHashMap<u32, Rc<Configuration>>>,
    /// Names and ids of the plugins of `configurations`, as Lua finds them.
    plugins: Table,
    spare: RefCell<Vec<Thread>>,
    /// `require` as plugins call it.
    require: Function,
    /// Makes of a function and two arguments a function that needs none.
    bind: Function,
    /// What describes schemas and asks the functions in them (`schema/describe.lua`).
    schemas: Table,
    /// What says what is in the machine (`check.lua`).
    about: Table,
    /// What renders templates (`template.lua`).
    templates: Table,
    /// What sets fields of log records (`record_fields.lua`).
    record_fields: Table,
    /// Makes an answer of what a handler printed (`ngx_http.lua`).
    answer_printed: Function,
    /// Asks what a request wants asked between two tries (`pdk/service.lua`).
    ask_before_retry: Function,
    /// The tables of requests, by slot (`core.lua`).
    tables: Table,
    lua: Lua,
    shared: Rc<Shared>,
    code: Weak<Code>,
    requests: Cell<f64>,
    adopted: RefCell<Adopted>,
    /// Functions of schemas that were stopped, and when.
    not_again: RefCell<FxHashMap<String, Instant>>,
    /// Where a worker's machine says how much memory it uses.
    memory: OnceCell<Arc<AtomicUsize>>,
}

/// A plugin's handler: the table it returned and its functions.
struct Handler {
    table: Table,
    functions: [Option<Function>; Phase::ALL.len()],
    info: Info,
    /// Where this machine counts its calls, once it is configured.
    calls: OnceCell<Arc<Calls>>,
}

/// What a call of an instance needs.
struct Configuration {
    instance: Weak<Instance>,
    entity: Arc<PluginConfig>,
    counts: Arc<Counts>,
    calls: Arc<Calls>,
    handler: Rc<Handler>,
    conf: Value,
    bound: Bound,
}

impl Configuration {
    /// Count a call; what times it, if it is one to time.
    fn called(&self, phase: Phase) -> Option<Timed> {
        self.counts.called(&self.calls, phase)
    }
}

thread_local! {
    static MACHINES: RefCell<Vec<Rc<Vm>>> = const { RefCell::new(Vec::new()) };
}

/// This thread's machine with `code`.
///
/// # Errors
/// It cannot be made: the sources of the gateway itself are broken, or memory is short.
pub(crate) fn of(code: &Arc<Code>) -> Result<Rc<Vm>, String> {
    MACHINES.with_borrow_mut(|machines| {
        if let Some(vm) = machines.iter().find(|vm| vm.code.as_ptr() == Arc::as_ptr(code)) {
            return Ok(vm.clone());
        }
        machines.retain(|vm| vm.code.strong_count() > 0);
        let vm = Rc::new(Vm::new(code)?);
        let machine: rc::Weak<Vm> = Rc::downgrade(&vm);
        let _ = vm.shared.machine.set(machine);
        let _ = vm.memory.set(code.machines.join());
        vm.tell_memory();
        machines.push(vm.clone());
        Ok(vm)
    })
}

/// Whether this thread has a machine with `code`.
fn is_made(code: &Arc<Code>) -> bool {
    MACHINES.with_borrow(|machines| machines.iter().any(|vm| vm.code.as_ptr() == Arc::as_ptr(code)))
}

/// End all machines of this thread: timers that wait are called with `premature`, and those that run are waited for while
/// that takes a sensible time.
pub(crate) async fn stop_all() {
    let machines = MACHINES.with_borrow(Clone::clone);
    for vm in machines {
        timers::stop(&vm).await;
    }
}

impl Vm {
    /// A new machine.
    ///
    /// # Errors
    /// As for [`of`].
    pub(crate) fn new(code: &Arc<Code>) -> Result<Self, String> {
        boot::machine(code).map_err(|error| format!("the Lua machine does not start: {error}"))
    }

    /// Load `plugin` and say what it is.
    ///
    /// # Errors
    /// It does not load, or its handler is none; with file and line.
    pub(crate) fn inspect(&self, plugin: &str) -> Result<Info, String> {
        let (handler, stopped) = self.watched.during(|| self.handler(plugin));
        match handler {
            Ok(handler) => Ok(handler.info.clone()),
            Err(error) if stopped => Err(format!("kong.plugins.{plugin}.handler does not load: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn handler(&self, plugin: &str) -> mlua::Result<Rc<Handler>> {
        if let Some(handler) = self.handlers.borrow().get(plugin) {
            return Ok(handler.clone());
        }
        let module = format!("kong.plugins.{plugin}.handler");
        // A file that is loaded in the middle of a request has nothing to do with it.
        let mut scene =
            Scene { reach: Reach::Nothing, chunk: None, phase: Phase::InitWorker, instance: 0, request: (0.0, 0) };
        let table: Value = self.shared.state.enter(&mut scene, || self.require.call(module.as_str()))?;
        let Value::Table(table) = table else {
            return Err(mlua::Error::runtime(format!(
                "{module} returns a {}, not the handler's table",
                table.type_name()
            )));
        };
        let handler = Rc::new(Handler::of(table).map_err(|error| mlua::Error::runtime(format!("{module}: {error}")))?);
        self.handlers.borrow_mut().insert(plugin.to_owned(), handler.clone());
        Ok(handler)
    }

    /// The handler and `conf` of an instance. They are shared: a reference to a Lua value is dear to make.
    fn prepared(&self, instance: &Arc<Instance>) -> mlua::Result<Rc<Configuration>> {
        if let Some(known) = self.configurations.borrow().get(&instance.number) {
            return Ok(known.clone());
        }
        let handler = self.handler(&instance.entity.name)?;
        let conf = match config_to_lua(&self.lua, &instance.entity.config)? {
            // Handlers find a table, as in Kong, also where there is no schema that would have made one.
            Value::Nil => Value::Table(self.lua.create_table()?),
            conf => conf,
        };
        if let Value::Table(conf) = &conf {
            identify(conf, instance)?;
        }
        let mut configurations = self.configurations.borrow_mut();
        let plugin = self.lua.create_table()?;
        plugin.raw_set("name", instance.entity.name.as_str())?;
        plugin.raw_set("id", instance.entity.id.to_string())?;
        self.plugins.raw_set(instance.number, plugin)?;
        for (number, gone) in configurations.extract_if(|_, known| known.instance.strong_count() == 0) {
            gone.bound.release(&self.lua);
            self.plugins.raw_set(number, Value::Nil)?;
        }
        let (entity, counts) = (instance.entity.clone(), instance.counts.clone());
        let calls = handler.calls.get_or_init(|| counts.join()).clone();
        let bound = Bound::new(self, &handler.functions, &handler.table, &conf)?;
        let instance_of = Arc::downgrade(instance);
        let known = Rc::new(Configuration { instance: instance_of, entity, counts, calls, handler, conf, bound });
        configurations.insert(instance.number, known.clone());
        Ok(known)
    }

    /// Likewise of the instance of this number, if it is still configured.
    fn configuration(&self, number: u32) -> Option<Rc<Configuration>> {
        self.configurations.borrow().get(&number).filter(|known| known.instance.strong_count() > 0).cloned()
    }

    /// For fuzzing: the machine itself.
    pub(crate) fn machine(&self) -> &Lua {
        &self.lua
    }

    /// For fuzzing: `require` as plugins call it.
    pub(crate) fn require(&self) -> &Function {
        &self.require
    }

    /// For fuzzing: run `call` under the watchdog; whether it was stopped.
    pub(crate) fn watched_during<R>(&self, call: impl FnOnce() -> R) -> (R, bool) {
        self.watched.during(call)
    }

    /// What the functions in Rust have in common.
    pub(crate) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// Whether anything made of its sources is still configured.
    pub(crate) fn is_wanted(&self) -> bool {
        self.code.strong_count() > 0
    }

    /// Let it end with the last call that is under way in it.
    pub(crate) fn forget(&self) {
        MACHINES.with_borrow_mut(|machines| machines.retain(|vm| !std::ptr::eq(&**vm, self)));
    }

    /// A place for tables that belongs to no exchange.
    fn own_slot(&self) -> Slot {
        let request = self.requests.get() + 1.0;
        self.requests.set(request);
        Slot::take(request, &self.shared)
    }

    /// Number and slot of the request of `exchange`.
    fn request(&self, exchange: &mut gateward_plugin::Exchange) -> (f64, u32) {
        if let Some(slot) = exchange.kept::<Slot>()
            && Rc::ptr_eq(&slot.shared, &self.shared)
        {
            return (slot.request, slot.number);
        }
        let slot = self.own_slot();
        let request = (slot.request, slot.number);
        exchange.put(slot);
        if slot_is_due(request.0) {
            self.tell_memory();
        }
        request
    }

    /// Let go of what requests that are over left in their slots.
    pub(crate) fn clear_slots(&self) {
        for slot in self.shared.slots.borrow().free() {
            if let Err(error) = self.tables.raw_set(*slot, Value::Nil) {
                tracing::error!(%error, "tables of a request are kept");
            }
        }
    }

    fn tell_memory(&self) {
        if let Some(memory) = self.memory.get() {
            memory.store(self.lua.used_memory(), Ordering::Relaxed);
        }
    }

    /// Likewise of one that is over.
    fn past_request(&self, exchange: &gateward_plugin::Exchange) -> (f64, u32) {
        match exchange.kept::<Slot>() {
            Some(slot) if Rc::ptr_eq(&slot.shared, &self.shared) => (slot.request, slot.number),
            _ => (0.0, 0),
        }
    }
}

/// Whether the request is one of those after which memory is looked at.
fn slot_is_due(request: f64) -> bool {
    (request as u64).is_multiple_of(64)
}

/// What Kong adds to a configuration (kong/runloop/plugins_iterator.lua).
fn identify(conf: &Table, instance: &Instance) -> mlua::Result<()> {
    let entity = &instance.entity;
    conf.raw_set("__plugin_id", entity.id.to_string())?;
    conf.raw_set("plugin_instance_name", entity.instance_name.as_deref())?;
    for (name, id) in [("route_id", entity.route), ("service_id", entity.service), ("consumer_id", entity.consumer)] {
        conf.raw_set(name, id.map(|id| id.to_string()))?;
    }
    Ok(())
}

impl Handler {
    fn of(table: Table) -> Result<Self, String> {
        let priority = match table.get::<Value>("PRIORITY") {
            Ok(Value::Integer(number)) => number as i32,
            Ok(Value::Number(number)) if number.fract() == 0.0 => number as i32,
            Ok(Value::Nil) => {
                return Err("PRIORITY is missing: a whole number that says when the plugin runs".to_owned());
            }
            Ok(other) => return Err(format!("PRIORITY is a {}, not a whole number", other.type_name())),
            Err(error) => return Err(error.to_string()),
        };
        let version = match table.get::<Value>("VERSION") {
            Ok(Value::String(text)) => Some(text.to_string_lossy()),
            _ => None,
        };
        let mut functions = [const { None }; Phase::ALL.len()];
        let mut phases = 0;
        for (function, phase) in functions.iter_mut().zip(Phase::ALL) {
            if phase == Phase::Balancer {
                continue;
            }
            match table.get::<Value>(phase.as_str()) {
                Ok(Value::Function(found)) => {
                    *function = Some(found);
                    phases |= phase as u32;
                }
                Ok(Value::Nil) => {}
                Ok(other) => return Err(format!("{} is a {}, not a function", phase.as_str(), other.type_name())),
                Err(error) => return Err(error.to_string()),
            }
        }
        if phases & Phase::Response as u32 != 0 && phases & (Phase::HeaderFilter as u32 | Phase::BodyFilter as u32) != 0
        {
            return Err("a handler with `response` cannot have `header_filter` or `body_filter` as well".to_owned());
        }
        Ok(Self { table, functions, info: Info { priority, version, phases }, calls: OnceCell::new() })
    }
}

#[cfg(test)]
thread_local! {
    /// For tests to say why they failed.
    pub(crate) static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

#[cfg(test)]
impl Vm {
    pub(crate) fn lua(&self) -> &Lua {
        &self.lua
    }

    /// What a global function of plugins returns.
    pub(crate) fn evaluate(&self, function: &str) -> String {
        let env: Table = self.require.call("_G").expect("the environment of plugins");
        env.get::<Function>(function).and_then(|function| function.call(())).expect("a function without arguments")
    }
}
