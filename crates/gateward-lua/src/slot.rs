//! What the machine keeps of a request in its exchange.

use crate::shared::Shared;
use std::rc::Rc;

/// A request's place for its tables, given back when the exchange is reset.
pub(crate) struct Slot {
    /// Number of the request; never used twice.
    pub(crate) request: f64,
    pub(crate) number: u32,
    /// Of the machine.
    pub(crate) shared: Rc<Shared>,
    /// The instance that said that no more of the response body follows.
    pub(crate) body_ended: Option<u32>,
}

impl Slot {
    /// A free one of a machine.
    pub(crate) fn take(request: f64, shared: &Rc<Shared>) -> Self {
        let number = shared.slots.borrow_mut().take(request);
        Self { request, number, shared: shared.clone(), body_ended: None }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.sockets.close_of(self.number);
        self.shared.slots.borrow_mut().give_back(self.number);
    }
}
