//! What the machine keeps of a request in its exchange.

use crate::shared::Shared;
use std::cell::RefCell;
use std::rc::Rc;

/// Places for the tables of requests, as numbers; used again and again.
#[derive(Default)]
pub(crate) struct FreeSlots {
    free: Vec<u32>,
    next: u32,
}

/// A request's place for its tables, given back when the exchange is reset.
pub(crate) struct Slot {
    /// Number of the request; never used twice.
    pub(crate) request: f64,
    pub(crate) number: u32,
    pub(crate) of: Rc<RefCell<FreeSlots>>,
    shared: Rc<Shared>,
    /// The instance that said that no more of the response body follows.
    pub(crate) body_ended: Option<u32>,
}

impl FreeSlots {
    /// Those that no request has.
    pub(crate) fn free(&self) -> &[u32] {
        &self.free
    }
}

impl Slot {
    /// A free one of these.
    pub(crate) fn take(request: f64, of: &Rc<RefCell<FreeSlots>>, shared: &Rc<Shared>) -> Self {
        let mut slots = of.borrow_mut();
        let number = slots.free.pop().unwrap_or_else(|| {
            slots.next += 1;
            slots.next
        });
        let mut under_way = shared.under_way.borrow_mut();
        if under_way.len() <= number as usize {
            under_way.resize(number as usize + 1, 0.0);
        }
        under_way[number as usize] = request;
        Self { request, number, of: of.clone(), shared: shared.clone(), body_ended: None }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.sockets.close_of(self.number);
        self.shared.under_way.borrow_mut()[self.number as usize] = 0.0;
        self.of.borrow_mut().free.push(self.number);
    }
}
