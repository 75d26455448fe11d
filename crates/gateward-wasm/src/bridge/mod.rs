//! A small module beside each filter that saves ways in and out.
//!
//! To call a function of a guest from the host costs as much as some ten calls between modules, and what a request usually
//! needs is several at once: a new context and its first callback, the three callbacks at its end, and for every field that a
//! filter reads its allocator. The bridge (`bridge.wat`) does each of these in one way in. Between two callbacks it asks the
//! host, which does there what it does before any callback.

use crate::abi::{find_value, hand_over};
use crate::host::{ContextId, Host, NOBODY};
use crate::types::Phase;
use crate::watch::FIRST_LOOK_TICKS;
use wasmtime::{
    AsContextMut, Caller, Engine, Func, Global, Instance, InstancePre, Linker, Module, Ref, Result, Store, Table,
    TypedFunc, Val,
};

/// The module, assembled from `bridge.wat`.
pub(crate) const MODULE: &[u8] = include_bytes!("bridge.wasm");

/// The function of the ABI that the bridge has.
const VALUE: (&str, &str) = ("env", "proxy_get_header_map_value");

/// What filters export for the bridge and how many parameters it has, by the places of the bridge's table behind the first. In
/// that is the allocator, which has two names.
const CALLBACKS: [(&str, usize); 5] = [
    ("proxy_on_context_create", 2),
    // In ABI 0.1.0 with one less.
    ("proxy_on_request_headers", 3),
    ("proxy_on_done", 1),
    ("proxy_on_log", 1),
    ("proxy_on_delete", 1),
];

/// Places of callbacks that the bridge goes on with.
const REQUEST_HEADERS: u32 = 2;
const LOG: u32 = 4;

/// What instances are linked with.
pub(crate) struct Bridge {
    /// Every function of the ABI.
    linker: Linker<Host>,
    pre: InstancePre<Host>,
}

/// One filter's bridge.
struct Beside {
    value: Option<Func>,
    callbacks: Table,
    busy: Global,
    begin: TypedFunc<(u32, u32, u32), u32>,
    end: TypedFunc<u32, u32>,
}

/// Callbacks that can be called together; `None` where the filter has not all of them.
pub(crate) struct Spans {
    /// `proxy_on_context_create` and `proxy_on_request_headers`: context, fields, whether nothing follows; the action.
    pub(crate) begin: Option<TypedFunc<(u32, u32, u32), u32>>,
    /// `proxy_on_done`, `proxy_on_log` and `proxy_on_delete`: context; whether it was done, and so told of the rest.
    pub(crate) end: Option<TypedFunc<u32, u32>>,
}

impl Bridge {
    /// The bridge of the functions in `linker`, from its compiled `module`.
    ///
    /// # Errors
    /// The module is not the one in this folder, which a test rules out.
    pub(crate) fn new(engine: &Engine, linker: Linker<Host>, module: &Module) -> Result<Self> {
        let mut own = Linker::new(engine);
        own.func_wrap("host", "find_value", find_value)?;
        own.func_wrap("host", "hand_over", hand_over)?;
        own.func_wrap("host", "next", next)?;
        let pre = own.instantiate_pre(module)?;
        Ok(Self { linker, pre })
    }

    /// Every function of the ABI.
    pub(crate) fn linker(&self) -> &Linker<Host> {
        &self.linker
    }

    /// An instance of a filter with its bridge. `filter` is linked as far as it needs no bridge.
    ///
    /// # Errors
    /// There are too many instances, or its start function fails.
    pub(crate) fn instantiate(&self, store: &mut Store<Host>, filter: &InstancePre<Host>) -> Result<(Instance, Spans)> {
        let beside = Beside::new(self.pre.instantiate(&mut *store)?, store)?;
        let module = filter.module();
        let reads = module.imports().any(|import| (import.module(), import.name()) == VALUE);
        let instance = match beside.value.filter(|_| reads) {
            Some(value) => {
                let mut linker = self.linker.clone();
                linker.allow_shadowing(true);
                linker.define(&mut *store, VALUE.0, VALUE.1, value)?;
                linker.instantiate(&mut *store, module)?
            }
            None => filter.instantiate(&mut *store)?,
        };
        let spans = beside.connect(&instance, store)?;
        Ok((instance, spans))
    }
}

impl Beside {
    fn new(bridge: Instance, store: &mut Store<Host>) -> Result<Self> {
        let missing = |what: &str| wasmtime::Error::msg(format!("the bridge has no {what}"));
        Ok(Self {
            value: bridge.get_func(&mut *store, VALUE.1),
            callbacks: bridge.get_table(&mut *store, "callbacks").ok_or_else(|| missing("table"))?,
            busy: bridge.get_global(&mut *store, "busy").ok_or_else(|| missing("global"))?,
            begin: bridge.get_typed_func(&mut *store, "begin")?,
            end: bridge.get_typed_func(&mut *store, "end")?,
        })
    }

    /// Make the callbacks of `filter` known to it.
    fn connect(self, filter: &Instance, store: &mut Store<Host>) -> Result<Spans> {
        let allocate = filter.get_func(&mut *store, "proxy_on_memory_allocate");
        if let Some(allocate) = allocate.or_else(|| filter.get_func(&mut *store, "malloc")) {
            self.callbacks.set(&mut *store, 0, Ref::Func(Some(allocate)))?;
            self.busy.set(&mut *store, Val::I32(0))?;
        }
        let mut has = [false; CALLBACKS.len()];
        for (place, (name, parameters)) in CALLBACKS.into_iter().enumerate() {
            let Some(callback) = filter.get_func(&mut *store, name) else { continue };
            if callback.ty(&*store).params().len() == parameters {
                self.callbacks.set(&mut *store, place as u64 + 1, Ref::Func(Some(callback)))?;
                has[place] = true;
            }
        }
        let [create, headers, done, log, delete] = has;
        let begin = Some(self.begin).filter(|_| create && headers);
        let end = Some(self.end).filter(|_| done && log && delete);
        Ok(Spans { begin, end })
    }
}

/// The bridge is about to go on with the callback at `place`, on behalf of `context`.
fn next(mut caller: Caller<'_, Host>, context: ContextId, place: u32) {
    let (phase, lent_to) = match place {
        REQUEST_HEADERS => (Phase::RequestHeaders, context),
        LOG => (Phase::Log, context),
        // There is nothing left to look at when a context is deleted.
        _ => (Phase::Done, NOBODY),
    };
    let host = caller.data_mut();
    let limit = host.setup.config.limits.callback;
    host.turn(phase, context, lent_to, limit);
    caller.as_context_mut().set_epoch_deadline(FIRST_LOOK_TICKS);
}

#[cfg(test)]
mod tests;
