//! What a plugin wants asked before a try that follows a failed one (`kong.service.set_target_retry_callback`).
//!
//! The function stays in Lua with the tables of its request; what the proxy holds says only which machine to ask, and for whom.

use super::Vm;
use crate::state::{Phase, Reach, Scene};
use crate::timing;
use gateward_plugin::{BeforeRetry, Exchange};
use std::fmt::{Debug, Formatter};
use std::rc::Weak;
use std::sync::atomic::Ordering;

/// Asks the function that an instance has set for the request.
pub(crate) struct RetryCallback {
    machine: Weak<Vm>,
    /// Number of the instance.
    instance: u32,
}

impl RetryCallback {
    pub(crate) fn new(machine: Weak<Vm>, instance: u32) -> Self {
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
        self.machine.upgrade().is_some_and(|vm| vm.ask_before_retry(self.instance, exchange))
    }
}

impl Vm {
    /// Whether the next try goes by what the function said; why not is logged.
    fn ask_before_retry(&self, number: u32, exchange: &mut Exchange) -> bool {
        let instance = self.configurations.borrow().get(&number).and_then(|known| known.instance.upgrade());
        let Some(instance) = instance else { return false };
        let request = self.request(exchange);
        let timed = instance.counts.called(Phase::Balancer);
        let reach = Reach::Exchange(exchange);
        let mut scene = Scene { reach, chunk: None, phase: Phase::Balancer, instance: number, request };
        let ask = || self.ask_before_retry.call::<Option<String>>(());
        let (asked, stopped) =
            timing::during(timed.as_ref(), || self.watched.during(|| self.shared.state.enter(&mut scene, ask)));
        if stopped {
            instance.counts.stopped.fetch_add(1, Ordering::Relaxed);
        }
        let refused = match asked {
            Ok(None) => return true,
            Ok(Some(refused)) => refused,
            Err(error) => error.to_string(),
        };
        self.failed(&instance, Phase::Balancer, &format!("retry callback: {refused}"));
        false
    }
}
