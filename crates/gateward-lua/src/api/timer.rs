//! Timers: `on_timer(function)` says what to call, `timer(delay, again, number)` when; `timer_counts()`,
//! whether the machine is `exiting()`, and its `worker_id()`.
//!
//! What a timer calls is kept in Lua: a machine has room for a few thousand values that Rust holds.

use super::time::duration;
use crate::shared::Shared;
use crate::timers::Timer;
use mlua::{Function, Lua, Result, Table};
use std::rc::Rc;

/// Longest delay in seconds: a year.
const LONGEST: f64 = 31_536_000.0;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let on_timer = lua.create_function(move |_, function: Function| {
        *own.timers.function.borrow_mut() = Some(function);
        Ok(())
    })?;
    functions.raw_set("on_timer", on_timer)?;
    let own = shared.clone();
    let timer = lua.create_function(move |_, (delay, again, number): (f64, bool, f64)| {
        let delay = duration(delay, LONGEST);
        let timer = Timer { delay, again, number, instance: own.state.instance.get() };
        Ok(own.timers.start(timer).err())
    })?;
    functions.raw_set("timer", timer)?;
    let own = shared.clone();
    let counts = lua.create_function(move |_, ()| Ok((own.timers.pending(), own.timers.running())))?;
    functions.raw_set("timer_counts", counts)?;
    let own = shared.clone();
    functions.raw_set("exiting", lua.create_function(move |_, ()| Ok(own.timers.ending.get()))?)?;
    let own = shared.clone();
    functions.raw_set("worker_id", lua.create_function(move |_, ()| Ok(own.worker.get()))?)
}
