//! Which places for tables of requests are free.

/// Places for the tables of requests, as numbers; used again and again.
#[derive(Default)]
pub(crate) struct Slots {
    free: Vec<u32>,
    /// By slot, the request that has it; 0: none. None has the first: it stands for no slot.
    requests: Vec<f64>,
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
    pub(crate) fn take(&mut self, request: f64) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.requests.resize(self.requests.len().max(1) + 1, 0.0);
            self.requests.len() as u32 - 1
        });
        self.requests[number as usize] = request;
        number
    }

    /// Let another request have it.
    pub(crate) fn give_back(&mut self, number: u32) {
        self.requests[number as usize] = 0.0;
        self.free.push(number);
    }
}
