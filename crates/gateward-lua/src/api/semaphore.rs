//! Semaphores of one worker: `semaphore(n)`, `semaphore_take`, `semaphore_wait`, `semaphore_post`, `semaphore_count`;
//! and `under_way(slot, request)`: whether who would post is still there.

use super::time::duration;
use crate::shared::{Op, Shared};
use mlua::{Lua, Table, UserData, UserDataRef};
use std::cell::Cell;
use std::rc::Rc;

/// Most resources, of all that were ever posted and not taken.
const MOST: usize = 1 << 30;
/// Longest wait in seconds.
const LONGEST: f64 = 3600.0;

struct Semaphore {
    free: Rc<tokio::sync::Semaphore>,
    waiting: Rc<Cell<i64>>,
}

impl UserData for Semaphore {}

/// Who waits is counted, however the waiting ends.
struct Waits(Rc<Cell<i64>>);

impl Waits {
    fn new(waiting: &Rc<Cell<i64>>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> mlua::Result<()> {
    let own = shared.clone();
    let under_way = lua
        .create_function(move |_, (slot, request): (usize, f64)| Ok(own.slots.borrow().is_under_way(slot, request)))?;
    functions.raw_set("under_way", under_way)?;
    let new = lua.create_function(|_, n: f64| {
        let free = Rc::new(tokio::sync::Semaphore::new((n as usize).min(MOST)));
        Ok(Semaphore { free, waiting: Rc::default() })
    })?;
    functions.raw_set("semaphore", new)?;
    let post = lua.create_function(|_, (own, n): (UserDataRef<Semaphore>, f64)| {
        let room = MOST.saturating_sub(own.free.available_permits());
        own.free.add_permits((n as usize).min(room));
        Ok(())
    })?;
    functions.raw_set("semaphore_post", post)?;
    let take = lua.create_function(|_, own: UserDataRef<Semaphore>| {
        Ok(own.free.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok())
    })?;
    functions.raw_set("semaphore_take", take)?;
    let wait = lua.create_function(|lua, (own, seconds): (UserDataRef<Semaphore>, f64)| {
        let (free, waits) = (own.free.clone(), Waits::new(&own.waiting));
        let time = duration(seconds, LONGEST);
        Ok(Op::giving(lua, async move {
            let taken = tokio::time::timeout(time, free.acquire()).await;
            drop(waits);
            let taken = taken.ok().and_then(Result::ok).map(tokio::sync::SemaphorePermit::forget);
            taken.is_some()
        }))
    })?;
    functions.raw_set("semaphore_wait", wait)?;
    let count = lua.create_function(|_, own: UserDataRef<Semaphore>| {
        let free = own.free.available_permits() as i64;
        Ok(if free > 0 { free } else { -own.waiting.get() })
    })?;
    functions.raw_set("semaphore_count", count)
}
