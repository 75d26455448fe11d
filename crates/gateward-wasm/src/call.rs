//! One call into a guest: deadline, counting, lending, and what becomes of an instance when it fails.

use crate::failure::{Failure, FailureKind};
use crate::host::{ContextId, Exited, Host, NOBODY, ROOT};
use crate::lend::lend;
use crate::observe::{Counters, Observed};
use crate::stream::Stream;
use crate::types::Phase;
use crate::watch::{FIRST_LOOK_TICKS, Overtime};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use wasmtime::{Store, Trap, TypedFunc, WasmParams, WasmResults};

/// Bytes of a failure's text; the rest is cut off.
const FAILURE_TEXT_BYTES: usize = 4096;

/// What calls need besides the function.
pub(crate) struct Core {
    pub(crate) store: Store<Host>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) observed: Arc<Observed>,
    pub(crate) dead: Option<Failure>,
    /// What it died of.
    pub(crate) cause: Option<FailureKind>,
    pub(crate) memory_bytes: usize,
    /// With so much memory it is replaced.
    pub(crate) grown_bytes: usize,
    pub(crate) living: Arc<AtomicUsize>,
}

/// Whose call it is and what it works on.
pub(crate) struct Scope<'s> {
    pub(crate) phase: Phase,
    /// The effective context at first.
    pub(crate) context: ContextId,
    /// Whose stream is at hand.
    pub(crate) lent_to: ContextId,
    pub(crate) stream: Option<&'s mut dyn Stream>,
}

impl<'s> Scope<'s> {
    pub(crate) fn root(phase: Phase) -> Self {
        Self { phase, context: ROOT, lent_to: ROOT, stream: None }
    }

    /// For several callbacks, in the first of which the stream is not at hand yet.
    pub(crate) fn span(phase: Phase, context: ContextId, stream: &'s mut dyn Stream) -> Self {
        Self { phase, context, lent_to: NOBODY, stream: Some(stream) }
    }

    pub(crate) fn stream(phase: Phase, context: ContextId, stream: Option<&'s mut dyn Stream>) -> Self {
        Self { phase, context, lent_to: context, stream }
    }
}

impl Core {
    pub(crate) fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
        scope: Scope<'_>,
    ) -> Result<R, Failure> {
        let limit = self.store.data().setup.config.limits.callback;
        self.call_within(function, parameters, scope, limit)
    }

    pub(crate) fn call_within<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
        scope: Scope<'_>,
        limit: Duration,
    ) -> Result<R, Failure> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone());
        }
        self.store.data_mut().turn(scope.phase, scope.context, scope.lent_to, limit);
        self.store.set_epoch_deadline(FIRST_LOOK_TICKS);
        let result = match scope.stream {
            Some(stream) => lend(&mut self.store, stream, |store| function.call(store, parameters)),
            None => function.call(&mut self.store, parameters),
        };
        let host = self.store.data_mut();
        host.rest();
        let (bytes, phase) = (host.meter.memory_bytes, host.phase);
        if bytes != self.memory_bytes {
            self.memory_bytes = bytes;
            self.counters.set_memory(bytes);
        }
        result.map_err(|error| self.die(phase, &error))
    }

    /// The instance is of no use any more.
    pub(crate) fn die(&mut self, phase: Phase, error: &wasmtime::Error) -> Failure {
        let kind = classify(error, self.store.data());
        let mut text = format!("{} in {}: {error:#}", self.store.data().setup.config.name, phase.as_str());
        text.truncate(text.floor_char_boundary(FAILURE_TEXT_BYTES));
        self.fail(phase, kind, text)
    }

    pub(crate) fn fail(&mut self, phase: Phase, kind: FailureKind, text: String) -> Failure {
        self.counters.failure(phase, kind);
        self.store.data_mut().outbox.clear();
        self.cause = Some(kind);
        self.dead = Some(Failure { kind: FailureKind::Dead, text: text.clone() });
        Failure { kind, text }
    }
}

fn classify(error: &wasmtime::Error, host: &Host) -> FailureKind {
    if error.downcast_ref::<Overtime>().is_some() {
        FailureKind::Timeout
    } else if error.downcast_ref::<Exited>().is_some() {
        FailureKind::Exit
    } else if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        FailureKind::Stack
    } else if host.meter.refused {
        FailureKind::Memory
    } else {
        FailureKind::Trap
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.observed.leave(&self.counters);
        self.living.fetch_sub(1, Ordering::Relaxed);
    }
}
