//! What a worker does when it begins to serve a snapshot: `init_worker` once for each plugin of a machine, `configure` of
//! each plugin with all its configurations whenever they may have changed.

use super::{Vm, of, timers};
use crate::code::{Code, Served};
use crate::instance::{Configured, Instance};
use crate::socket::Network;
use crate::state::{Phase, Reach, Scene};
use crate::timing;
use gateward_model::Snapshot;
use mlua::{Function, IntoLuaMulti, Value};
use rustc_hash::FxHashSet;
use std::rc::Rc;
use std::sync::Arc;

/// What was called before.
#[derive(Default)]
pub(super) struct Adopted {
    /// Plugins whose `init_worker` was called.
    begun: FxHashSet<String>,
    /// Plugins whose `configure` was called with configurations.
    configured: FxHashSet<String>,
}

/// Begin to serve `plugins` on this thread, a worker's.
pub(crate) fn adopt(
    code: &Arc<Code>,
    plugins: &[Configured],
    (snapshot, served): (&Arc<Snapshot>, &Arc<Served>),
    network: Option<&Network>,
) {
    if plugins.is_empty() && !super::is_made(code) {
        return;
    }
    match of(code) {
        Ok(vm) => {
            *vm.shared.snapshot.borrow_mut() = Some(snapshot.clone());
            vm.shared.served.borrow_mut().clone_from(served);
            vm.number_worker(code);
            vm.adopt(plugins, network);
        }
        Err(error) => tracing::error!("{error}"),
    }
}

impl Vm {
    /// Give a worker's machine its number, once.
    fn number_worker(&self, code: &Code) {
        if self.shared.timers.receiver.borrow().is_some() {
            self.shared.worker.set(code.next_worker());
        }
    }

    fn adopt(self: &Rc<Self>, plugins: &[Configured], network: Option<&Network>) {
        if let Some(network) = network {
            self.shared.sockets.set_network(network);
        }
        timers::serve(self);
        for Configured { name, instances } in plugins {
            if self.adopted.borrow_mut().begun.insert(name.clone()) {
                self.call_once(&instances[0], Phase::InitWorker.as_str(), ());
            }
        }
        for Configured { name, instances } in plugins {
            self.adopted.borrow_mut().configured.insert(name.clone());
            let configurations: Result<Vec<Value>, _> =
                instances.iter().map(|instance| Ok(self.prepared(instance)?.conf.clone())).collect();
            match configurations.and_then(|configurations| self.lua.create_sequence_from(configurations)) {
                Ok(list) => self.call_once(&instances[0], "configure", list),
                Err(error) => drop(self.not_prepared(&instances[0], Phase::InitWorker, &error)),
            }
        }
        self.deconfigure(plugins);
    }

    /// Tell plugins that are not configured any more.
    fn deconfigure(&self, plugins: &[Configured]) {
        let known = |name: &String| plugins.iter().any(|plugin| plugin.name == *name);
        let gone: Vec<String> = self.adopted.borrow().configured.iter().filter(|name| !known(name)).cloned().collect();
        for name in gone {
            self.adopted.borrow_mut().configured.remove(&name);
            let called = self.handler(&name).and_then(|handler| {
                let Value::Function(function) = handler.table.get::<Value>("configure")? else { return Ok(()) };
                self.call_in_init(0, &function, &handler.table, ())
            });
            if let Err(error) = called {
                tracing::error!(plugin = name, phase = "configure", "a Lua plugin failed: {error}");
            }
        }
    }

    fn call_once(&self, instance: &Arc<Instance>, function: &str, arguments: impl IntoLuaMulti) {
        let known = match self.prepared(instance) {
            Ok(known) => known,
            Err(error) => return drop(self.not_prepared(instance, Phase::InitWorker, &error)),
        };
        let table = &known.handler.table;
        let called = match table.get::<Value>(function) {
            Ok(Value::Function(function)) => {
                let timed = known.called(Phase::InitWorker);
                timing::during(timed.as_ref(), || self.call_in_init(instance.number, &function, table, arguments))
            }
            found => found.map(drop),
        };
        if let Err(error) = called {
            self.failed(&known.entity, &known.counts, Phase::InitWorker, &error.to_string());
        }
    }

    fn call_in_init(
        &self,
        number: u32,
        function: &Function,
        table: &mlua::Table,
        arguments: impl IntoLuaMulti,
    ) -> mlua::Result<()> {
        let slot = self.own_slot();
        let request = (slot.request, slot.number);
        let mut scene =
            Scene { reach: Reach::Nothing, chunk: None, phase: Phase::InitWorker, instance: number, request };
        let mut arguments = arguments.into_lua_multi(&self.lua)?;
        arguments.push_front(Value::Table(table.clone()));
        let (called, _) =
            self.watched.during(|| self.shared.state.enter(&mut scene, || function.call::<()>(arguments)));
        called
    }
}
