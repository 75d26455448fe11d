//! What a machine and the functions in Rust that it calls have in common.

use crate::state::State;
use gateward_plugin::LocalResponse;
use mlua::MultiValue;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;

/// What functions in Rust that Lua calls have at hand.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) state: State,
    /// What `kong.response.exit` said last.
    pub(crate) answer: RefCell<Option<LocalResponse>>,
}

/// What a coroutine waits for; resumed with the values it comes to.
pub(crate) struct Op(Cell<Option<Operation>>);

/// The future of an [`Op`].
pub(crate) type Operation = Pin<Box<dyn Future<Output = mlua::Result<MultiValue>>>>;

impl Op {
    pub(crate) fn new(operation: impl Future<Output = mlua::Result<MultiValue>> + 'static) -> Self {
        Self(Cell::new(Some(Box::pin(operation))))
    }

    /// The future, once.
    pub(crate) fn take(&self) -> Option<Operation> {
        self.0.take()
    }
}
