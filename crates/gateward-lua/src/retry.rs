//! What a plugin wants asked before a try that follows a failed one (`kong.service.set_target_retry_callback`).
//!
//! The function stays in Lua with the tables of its request; what the proxy holds says only which machine to ask, and for whom.

use gateward_plugin::{BeforeRetry, Exchange};
use std::fmt::{Debug, Formatter};
use std::rc::Weak;

/// A machine that can be asked.
pub(crate) trait Machine {
    /// Call what the instance of this number has set for the request: whether the next try goes by what the function said; why
    /// not is logged.
    fn ask_before_retry(&self, instance: u32, exchange: &mut Exchange) -> bool;
}

/// Asks the function that an instance has set for the request.
pub(crate) struct RetryCallback {
    machine: Weak<dyn Machine>,
    /// Number of the instance.
    instance: u32,
}

impl RetryCallback {
    pub(crate) fn new(machine: Weak<dyn Machine>, instance: u32) -> Self {
        Self { machine, instance }
    }
}

impl Debug for RetryCallback {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RetryCallback({})", self.instance)
    }
}

impl BeforeRetry for RetryCallback {
    fn ask(&self, exchange: &mut Exchange) -> bool {
        self.machine.upgrade().is_some_and(|machine| machine.ask_before_retry(self.instance, exchange))
    }
}
