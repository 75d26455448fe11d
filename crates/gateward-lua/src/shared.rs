//! What a machine and the functions in Rust that it calls have in common.

use crate::socket::Sockets;
use crate::state::State;
use crate::timers::Timers;
use gateward_model::Snapshot;
use gateward_plugin::LocalResponse;
use mlua::{IntoLuaMulti, Lua, MultiValue, Thread, UserData, Value};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
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
    /// What waits for the request body since the call under way.
    pub(crate) bodies: RefCell<Vec<Rc<Cell<Option<bool>>>>>,
    /// Light threads that the call under way started, with what they wait for.
    pub(crate) adopted: RefCell<Vec<(Thread, Operation)>>,
    /// Light threads that it ended.
    pub(crate) killed: RefCell<Vec<*const c_void>>,
    pub(crate) timers: Timers,
    pub(crate) sockets: Rc<Sockets>,
    /// What the worker serves.
    pub(crate) snapshot: RefCell<Option<Arc<Snapshot>>>,
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
