//! What a machine and the functions in Rust that it calls have in common.

use crate::code::Served;
use crate::retry::Machine;
use crate::slots::Slots;
use crate::socket::Sockets;
use crate::state::State;
use crate::timers::Timers;
use gateward_model::Snapshot;
use gateward_plugin::LocalResponse;
use mlua::{IntoLuaMulti, Lua, MultiValue, Thread, UserData, Value, lua_State};
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::c_void;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;

/// What functions in Rust that Lua calls have at hand.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) state: State,
    /// What `kong.response.exit` said last.
    pub(crate) answer: RefCell<Option<LocalResponse>>,
    /// The handler under way said that it ends here.
    pub(crate) left: Cell<bool>,
    /// A plugin got hold of a handler's coroutine: none is used again, it could be resumed from elsewhere.
    pub(crate) exposed: Cell<bool>,
    /// The coroutine of a handler that cannot wait, during its call.
    pub(crate) unyielding: Cell<*mut lua_State>,
    /// A plugin printed an answer, as `ngx.say` does.
    pub(crate) printed: Cell<bool>,
    /// What waits for the request body since the call under way.
    pub(crate) bodies: RefCell<Vec<Rc<Cell<Option<bool>>>>>,
    /// Coroutines that wait, of all calls.
    pub(crate) lanes: Cell<usize>,
    /// Light threads that the call under way started, with what they wait for.
    pub(crate) adopted: RefCell<Vec<(Thread, Operation)>>,
    /// Light threads that it ended.
    pub(crate) killed: RefCell<Vec<*const c_void>>,
    /// Number of the worker among those with a machine of these sources, from 0.
    pub(crate) worker: Cell<u32>,
    pub(crate) timers: Timers,
    pub(crate) sockets: Rc<Sockets>,
    /// What the worker serves.
    pub(crate) snapshot: RefCell<Option<Arc<Snapshot>>>,
    /// What plugins look up of it.
    pub(crate) served: RefCell<Arc<Served>>,
    /// The machine, when it is a worker's.
    pub(crate) machine: OnceCell<Weak<dyn Machine>>,
    pub(crate) slots: RefCell<Slots>,
}

/// Coroutines of one machine that may wait at a time: Rust has room for 8000 values of a machine.
pub(crate) const LANES: usize = 4000;

impl Shared {
    /// Forget what the call that ended said, started and asked for: the next one is another request's.
    pub(crate) fn forget(&self) {
        self.answer.take();
        self.left.set(false);
        self.bodies.borrow_mut().clear();
        self.adopted.borrow_mut().clear();
        self.killed.borrow_mut().clear();
    }
}

/// What a coroutine waits for; resumed with the values it comes to.
pub(crate) struct Op(Cell<Option<Operation>>);

impl UserData for Op {}

/// The future of an [`Op`].
pub(crate) type Operation = Pin<Box<dyn Future<Output = mlua::Result<MultiValue>>>>;

impl Op {
    pub(crate) fn new(operation: impl Future<Output = mlua::Result<MultiValue>> + 'static) -> Self {
        Self(Cell::new(Some(Box::pin(operation))))
    }

    /// Likewise, resumed with what `operation` comes to. It does not keep the machine alive.
    pub(crate) fn giving<R: IntoLuaMulti>(lua: &Lua, operation: impl Future<Output = R> + 'static) -> Self {
        let lua = lua.weak();
        Self::new(async move {
            let result = operation.await;
            let lua = lua.try_upgrade().ok_or_else(|| mlua::Error::runtime("the machine has ended"))?;
            result.into_lua_multi(&lua)
        })
    }

    /// Waits for the request body, which the gateway receives; resumed with whether it is there.
    pub(crate) fn request_body(shared: &Shared) -> Self {
        let came = Rc::new(Cell::new(None));
        shared.bodies.borrow_mut().push(came.clone());
        // Nobody is woken: who has the body polls.
        Self::new(poll_fn(move |_| match came.get() {
            Some(whole) => Poll::Ready(Ok(MultiValue::from_iter([Value::Boolean(whole)]))),
            None => Poll::Pending,
        }))
    }

    /// The future, once.
    pub(crate) fn take(&self) -> Option<Operation> {
        self.0.take()
    }
}

/// What a coroutine comes to that yielded nothing to wait for: it goes on at the next turn.
pub(crate) fn next_turn() -> Operation {
    Box::pin(async {
        tokio::task::yield_now().await;
        Ok(MultiValue::new())
    })
}
