//! What the machine keeps of a request in its exchange.

use crate::shared::Shared;
use std::rc::Rc;

/// Places for the tables of requests, as numbers; used again and again.
#[derive(Default)]
pub(crate) struct Slots {
    free: Vec<u32>,
    /// By slot, the request that has it; 0: none. None has the first: it stands for no slot.
    requests: Vec<f64>,
}

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

impl Slots {
    /// Those that no request has.
    pub(crate) fn free(&self) -> &[u32] {
        &self.free
    }

    /// Whether the request that had this slot is still there.
    pub(crate) fn is_under_way(&self, slot: usize, request: f64) -> bool {
        self.requests.get(slot).is_some_and(|known| *known == request)
    }

    /// A free one, for `request`.
    fn take(&mut self, request: f64) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.requests.resize(self.requests.len().max(1) + 1, 0.0);
            self.requests.len() as u32 - 1
        });
        self.requests[number as usize] = request;
        number
    }

    fn give_back(&mut self, number: u32) {
        self.requests[number as usize] = 0.0;
        self.free.push(number);
    }
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
