//! Light threads: `adopt(coroutine, operation)` hands one to the driver, `kill(coroutine)` takes it back, and flags tell
//! when one has ended: `flag()`, `any_flag(...)`.

use crate::shared::{LANES, Op, Shared, next_turn};
use mlua::{AnyUserData, Lua, Result, Table, Thread, UserData, UserDataMethods, UserDataRef, Variadic};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Light threads that a handler may start before it waits; the rest is refused.
const THREADS: usize = 1000;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let adopt = lua.create_function(move |_, (thread, op): (Thread, Option<AnyUserData>)| {
        let mut adopted = own.adopted.borrow_mut();
        if adopted.len() >= THREADS || own.lanes.get() + adopted.len() >= LANES {
            return Ok(Some("too many light threads wait".to_owned()));
        }
        let operation = op.and_then(|op| op.borrow::<Op>().ok()?.take());
        adopted.push((thread, operation.unwrap_or_else(next_turn)));
        Ok(None)
    })?;
    functions.raw_set("adopt", adopt)?;
    let own = shared.clone();
    let kill = lua.create_function(move |_, thread: Thread| {
        let mut adopted = own.adopted.borrow_mut();
        let before = adopted.len();
        adopted.retain(|(other, _)| *other != thread);
        if adopted.len() == before {
            own.killed.borrow_mut().push(thread.to_pointer());
        }
        Ok(())
    })?;
    functions.raw_set("kill", kill)?;
    let own = shared.clone();
    let prints = shared.clone();
    functions.raw_set(
        "prints",
        lua.create_function(move |_, ()| {
            prints.printed.set(true);
            Ok(())
        })?,
    )?;
    let unyielding = shared.clone();
    functions.raw_set(
        "is_unyielding",
        lua.create_function(move |_, thread: Thread| Ok(thread.state() == unyielding.unyielding.get()))?,
    )?;
    functions.raw_set(
        "expose",
        lua.create_function(move |_, ()| {
            own.exposed.set(true);
            Ok(())
        })?,
    )?;
    functions.raw_set("flag", lua.create_function(|_, ()| Ok(Flag::default()))?)?;
    let any = lua.create_function(|lua, flags: Variadic<UserDataRef<Flag>>| {
        let flags: Vec<Flag> = flags.iter().map(|flag| (**flag).clone()).collect();
        Ok(Op::giving(lua, async move { any_raised(&flags).await }))
    })?;
    functions.raw_set("any_flag", any)
}

/// Whether something has happened.
#[derive(Clone, Default)]
struct Flag(Rc<Raised>);

#[derive(Default)]
struct Raised {
    raised: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl UserData for Flag {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("raise", |_, Flag(flag), ()| {
            flag.raised.set(true);
            flag.wakers.take().into_iter().for_each(Waker::wake);
            Ok(())
        });
    }
}

/// Which of them is raised first, counted from 1.
async fn any_raised(flags: &[Flag]) -> usize {
    poll_fn(|context| {
        if let Some(index) = flags.iter().position(|flag| flag.0.raised.get()) {
            return Poll::Ready(index + 1);
        }
        for Flag(flag) in flags {
            let mut wakers = flag.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    })
    .await
}
