//! One running instance of a filter, and the calls into it.
//!
//! An instance belongs to one worker and serves all its streams, each with a context of its own. A call that fails
//! kills the instance: its memory may be in any state. Its other streams find that out with their next call.

mod callouts;

use crate::bridge::Spans;
use crate::call::{Core, Scope};
use crate::callout::Callout;
use crate::config::Setup;
use crate::exports::{Exports, HeaderCallback};
use crate::failure::{Failure, FailureKind};
use crate::host::{Context, ContextId, Host, Life, Parts, ROOT};
use crate::module::Code;
use crate::observe::Observed;
use crate::shared::{Listener, Space};
use crate::stream::{LocalReply, Stream};
use crate::types::{Action, DataBuffer, Direction, FieldMap, Peer, Phase};
use crate::watch::FIRST_LOOK_TICKS;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wasmtime::Store;

/// One instance. Dropping it gives its memory back.
pub struct Instance {
    core: Core,
    exports: Exports,
    pub(crate) spans: Spans,
    next_context: ContextId,
}

/// What a guest did to a stream, besides what its callback returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signals {
    /// It answers in place of the upstream.
    pub reply: Option<Box<LocalReply>>,
    resumed: u8,
    closed: u8,
}

impl Signals {
    /// Whether this direction goes on.
    pub fn resumes(&self, direction: Direction) -> bool {
        self.resumed & direction.bit() != 0
    }

    /// Whether any direction is broken off.
    pub fn closes_any(&self) -> bool {
        self.closed != 0
    }

    /// Whether the guest did nothing.
    pub fn is_empty(&self) -> bool {
        self.reply.is_none() && self.resumed == 0 && self.closed == 0
    }
}

impl Instance {
    /// Make, start and configure an instance.
    pub(crate) fn start(
        code: &Code,
        setup: Setup,
        space: Arc<Space>,
        listener: Arc<Listener>,
        observed: Arc<Observed>,
    ) -> Result<Self, Failure> {
        let counters = observed.join();
        let parts = Parts { setup, abi: code.abi, space, listener, counters: counters.clone() };
        let mut store = Store::new(code.pre.module().engine(), Host::new(parts));
        store.limiter(|host| &mut host.meter);
        store.epoch_deadline_callback(|mut context| context.data_mut().watch.look());
        let limit = store.data().setup.config.limits.start;
        store.data_mut().watch.begin(limit);
        store.set_epoch_deadline(FIRST_LOOK_TICKS);
        let living = code.living.clone();
        living.fetch_add(1, Ordering::Relaxed);
        let mut core = Core {
            store,
            counters,
            observed,
            dead: None,
            cause: None,
            memory_bytes: 0,
            grown_bytes: usize::MAX,
            living,
        };
        let linked = code.bridge.instantiate(&mut core.store, &code.pre);
        let (linked, spans) = linked.map_err(|error| core.die(Phase::Start, &error))?;
        let memory = linked.get_memory(&mut core.store, "memory");
        core.store.data_mut().memory = memory;
        let allocate = linked.get_typed_func(&mut core.store, "proxy_on_memory_allocate");
        let allocate = allocate.or_else(|_| linked.get_typed_func(&mut core.store, "malloc"));
        core.store.data_mut().allocate = allocate.ok();
        let exports = Exports::of(&linked, &mut core.store);
        let mut instance = Self { core, exports, spans, next_context: ROOT };
        instance.run_start(limit)?;
        let core = &mut instance.core;
        let Host { meter, setup, .. } = core.store.data();
        core.grown_bytes = setup.config.limits.grown_from(meter.memory_bytes);
        Ok(instance)
    }

    fn run_start(&mut self, limit: Duration) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        let scope = || Scope::root(Phase::Start);
        if let Some(initialize) = &exports.initialize {
            core.call_within(initialize, (), scope(), limit)?;
            if let Some(main) = &exports.main {
                core.call_within(main, (0, 0), scope(), limit)?;
            }
        } else if let Some(start) = &exports.start {
            core.call_within(start, (), scope(), limit)?;
        }
        core.store.data_mut().contexts.insert(ROOT, Context::default());
        if let Some(create) = &exports.context_create {
            core.call_within(create, (ROOT, 0), Scope::root(Phase::Create), limit)?;
        }
        let config = core.store.data().setup.config.clone();
        let steps = [
            (&exports.vm_start, Phase::Start, config.vm_configuration.len(), "proxy_on_vm_start"),
            (&exports.configure, Phase::Configure, config.configuration.len(), "proxy_on_configure"),
        ];
        for (function, phase, len, name) in steps {
            let Some(function) = function else { continue };
            if core.call_within(function, (ROOT, len as u32), Scope::root(phase), limit)? == 0 {
                let text = format!("{}: {name} refused the configuration", config.name);
                return Err(core.fail(phase, FailureKind::Start, text));
            }
        }
        Ok(())
    }

    /// From now on the instance takes its turn when queues get items.
    pub(crate) fn listen(&self) {
        let host = self.core.store.data();
        host.space.listen(&host.listener);
    }

    /// Tell the guest that the instance ends. Not needed after a failure.
    pub fn shut_down(&mut self) {
        let Self { core, exports, .. } = self;
        if core.dead.is_some() {
            return;
        }
        if let Some(done) = &exports.done
            && core.call(done, ROOT, Scope::root(Phase::Done)).is_err()
        {
            return;
        }
        if let Some(delete) = &exports.delete {
            // The instance ends anyway.
            let _ = core.call(delete, ROOT, Scope::root(Phase::Done));
        }
    }

    /// Why the instance is of no use any more, if it is not.
    pub fn dead(&self) -> Option<&Failure> {
        self.core.dead.as_ref()
    }

    /// What it died of.
    pub fn cause(&self) -> Option<FailureKind> {
        self.core.cause
    }

    /// Whether new streams should go to a new instance, because this one's memory has grown since its start.
    pub fn is_grown(&self) -> bool {
        self.core.memory_bytes >= self.core.grown_bytes
    }

    /// A panic in the host went through a call into the guest, whose memory may be in any state.
    pub(crate) fn panicked(&mut self) {
        let Host { setup, phase, .. } = self.core.store.data();
        let (phase, text) = (*phase, format!("{} in {}: a panic in the gateway", setup.config.name, phase.as_str()));
        self.core.fail(phase, FailureKind::Trap, text);
    }

    /// Bytes of linear memory.
    pub fn memory_bytes(&self) -> usize {
        self.core.memory_bytes
    }

    /// Streams under way, with those that the guest wants to be waited for.
    pub fn streams(&self) -> usize {
        self.core.store.data().contexts.len().saturating_sub(1)
    }

    /// Milliseconds between calls of [`Self::tick`]; `None`: none are wanted.
    pub fn tick_ms(&self) -> Option<u32> {
        Some(self.core.store.data().tick_ms).filter(|period| *period > 0 && self.exports.tick.is_some())
    }

    /// Callouts that were asked for since the last time.
    pub fn take_callouts(&mut self) -> Vec<Callout> {
        std::mem::take(&mut self.core.store.data_mut().outbox)
    }

    /// Whether [`Self::take_callouts`] has any.
    pub fn has_callouts(&self) -> bool {
        !self.core.store.data().outbox.is_empty()
    }

    /// What was done to stream `id` since the last time, as far as it concerns this `direction`.
    pub fn take_signals(&mut self, id: ContextId, direction: Direction) -> Signals {
        let Some(context) = self.core.store.data_mut().contexts.get_mut(&id) else { return Signals::default() };
        let resumed = context.resumed & direction.bit();
        context.resumed &= !direction.bit();
        Signals { reply: context.reply.take(), resumed, closed: std::mem::take(&mut context.closed) }
    }

    /// Callouts of stream `id` that are not answered yet.
    pub fn open_calls(&self, id: ContextId) -> u16 {
        self.core.store.data().contexts.get(&id).map_or(0, |context| context.calls)
    }

    /// A context for a new stream, of which the guest is to be told.
    pub fn open_stream(&mut self) -> ContextId {
        let Self { core, next_context, .. } = self;
        let host = core.store.data_mut();
        let id = loop {
            *next_context = next_context.wrapping_add(1).max(ROOT + 1);
            if let Entry::Vacant(free) = host.contexts.entry(*next_context) {
                free.insert(Context::default());
                break *next_context;
            }
        };
        let streams = host.contexts.len() - 1;
        core.counters.set_streams(streams);
        id
    }

    /// Begin a stream.
    ///
    /// # Errors
    /// The guest failed.
    pub fn create_stream(&mut self) -> Result<ContextId, Failure> {
        let id = self.open_stream();
        self.create(id)?;
        Ok(id)
    }

    fn create(&mut self, id: ContextId) -> Result<(), Failure> {
        match &self.exports.context_create {
            Some(create) => self.core.call(create, (id, ROOT), Scope::stream(Phase::Create, id, None)),
            None => Ok(()),
        }
    }

    /// Tell the guest of the stream that was opened as `id`, and of its request's headers. `end`: nothing follows.
    ///
    /// # Errors
    /// The guest failed.
    pub fn begin_stream(&mut self, id: ContextId, stream: &mut dyn Stream, end: bool) -> Result<Action, Failure> {
        let Some(begin) = &self.spans.begin else {
            self.create(id)?;
            return self.headers(id, stream, FieldMap::RequestHeaders, end);
        };
        let count = stream.count_fields(FieldMap::RequestHeaders);
        let action = self.core.call(begin, (id, count, u32::from(end)), Scope::span(Phase::Create, id, stream))?;
        self.settle()?;
        Ok(Action::from_guest(action))
    }

    /// End a stream: done, log, delete. A guest that wants to be waited for gets the last two when it is done.
    ///
    /// # Errors
    /// The guest failed.
    pub fn end_stream(&mut self, id: ContextId, stream: &mut dyn Stream) -> Result<(), Failure> {
        let Self { core, exports, spans, .. } = self;
        if !core.store.data().contexts.contains_key(&id) {
            return Ok(());
        }
        if let Some(end) = &spans.end {
            if core.call(end, id, Scope::stream(Phase::Done, id, Some(stream)))? != 0 {
                core.store.data_mut().end_context(id);
                return self.settle();
            }
        } else {
            let done = match &exports.done {
                Some(done) => core.call(done, id, Scope::stream(Phase::Done, id, Some(&mut *stream)))? != 0,
                None => true,
            };
            if done {
                self.finalise(id, Some(stream))?;
                return self.settle();
            }
        }
        self.wait_for(id)?;
        self.settle()
    }

    /// The guest wants stream `id` to be waited for.
    fn wait_for(&mut self, id: ContextId) -> Result<(), Failure> {
        let host = self.core.store.data_mut();
        if let Some(context) = host.contexts.get_mut(&id) {
            context.life = Life::Finishing;
            host.unfinished.push_back(id);
        }
        let most = host.setup.config.limits.unfinished_streams;
        if host.unfinished.len() > most
            && let Some(oldest) = host.unfinished.pop_front()
        {
            self.finalise(oldest, None)?;
        }
        Ok(())
    }

    /// Forget a stream without telling the guest, which was interrupted or is dead.
    pub fn abandon(&mut self, id: ContextId) {
        self.core.store.data_mut().end_context(id);
    }

    fn finalise(&mut self, id: ContextId, mut stream: Option<&mut dyn Stream>) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        if let Some(log) = &exports.log {
            let stream = stream.as_mut().map(|stream| &mut **stream as &mut dyn Stream);
            core.call(log, id, Scope::stream(Phase::Log, id, stream))?;
        }
        if let Some(delete) = &exports.delete {
            core.call(delete, id, Scope::stream(Phase::Done, id, None))?;
        }
        core.store.data_mut().end_context(id);
        Ok(())
    }

    /// Finalise the streams whose guests said meanwhile that they are done.
    fn settle(&mut self) -> Result<(), Failure> {
        while let Some(id) = self.core.store.data_mut().finished.pop() {
            self.core.store.data_mut().unfinished.retain(|waiting| *waiting != id);
            self.finalise(id, None)?;
        }
        Ok(())
    }

    /// Request or response headers. `end`: nothing follows.
    ///
    /// # Errors
    /// The guest failed.
    pub fn headers(
        &mut self,
        id: ContextId,
        stream: &mut dyn Stream,
        map: FieldMap,
        end: bool,
    ) -> Result<Action, Failure> {
        let Self { core, exports, .. } = self;
        let (function, phase) = match map {
            FieldMap::RequestHeaders | FieldMap::RequestTrailers => (&exports.request_headers, Phase::RequestHeaders),
            _ => (&exports.response_headers, Phase::ResponseHeaders),
        };
        let count = stream.count_fields(map);
        let scope = Scope::stream(phase, id, Some(stream));
        let action = match function {
            HeaderCallback::None => return Ok(Action::Continue),
            HeaderCallback::WithEnd(function) => core.call(function, (id, count, u32::from(end)), scope)?,
            HeaderCallback::WithoutEnd(function) => core.call(function, (id, count), scope)?,
        };
        self.settle()?;
        Ok(Action::from_guest(action))
    }

    /// Trailers of the request or the response.
    ///
    /// # Errors
    /// The guest failed.
    pub fn trailers(&mut self, id: ContextId, stream: &mut dyn Stream, map: FieldMap) -> Result<Action, Failure> {
        let Self { core, exports, .. } = self;
        let (function, phase) = match map {
            FieldMap::RequestHeaders | FieldMap::RequestTrailers => (&exports.request_trailers, Phase::RequestTrailers),
            _ => (&exports.response_trailers, Phase::ResponseTrailers),
        };
        let Some(function) = function else { return Ok(Action::Continue) };
        let count = stream.count_fields(map);
        let action = core.call(function, (id, count), Scope::stream(phase, id, Some(stream)))?;
        self.settle()?;
        Ok(Action::from_guest(action))
    }

    /// A piece of a body, or of what a TCP connection carries, `len` bytes of which are held. `end`: it was the last.
    ///
    /// # Errors
    /// The guest failed.
    pub fn data(
        &mut self,
        id: ContextId,
        stream: &mut dyn Stream,
        buffer: DataBuffer,
        end: bool,
    ) -> Result<Action, Failure> {
        let Self { core, exports, .. } = self;
        let (function, phase) = match buffer {
            DataBuffer::RequestBody => (&exports.request_body, Phase::RequestBody),
            DataBuffer::ResponseBody => (&exports.response_body, Phase::ResponseBody),
            DataBuffer::Downstream => (&exports.downstream_data, Phase::Data),
            DataBuffer::Upstream => (&exports.upstream_data, Phase::Data),
        };
        let Some(function) = function else { return Ok(Action::Continue) };
        let len = stream.data(buffer).map_or(0, <[u8]>::len) as u32;
        let scope = Scope::stream(phase, id, Some(stream));
        let action = core.call(function, (id, len, u32::from(end)), scope)?;
        self.settle()?;
        Ok(Action::from_guest(action))
    }

    /// A TCP connection was accepted.
    ///
    /// # Errors
    /// The guest failed.
    pub fn new_connection(&mut self, id: ContextId, stream: &mut dyn Stream) -> Result<Action, Failure> {
        let Self { core, exports, .. } = self;
        let Some(function) = &exports.new_connection else { return Ok(Action::Continue) };
        let action = core.call(function, id, Scope::stream(Phase::Connection, id, Some(stream)))?;
        self.settle()?;
        Ok(Action::from_guest(action))
    }

    /// One side of a TCP connection was closed.
    ///
    /// # Errors
    /// The guest failed.
    pub fn connection_closed(
        &mut self,
        id: ContextId,
        stream: &mut dyn Stream,
        direction: Direction,
        peer: Peer,
    ) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        let function = match direction {
            Direction::Upstream | Direction::Response => &exports.upstream_close,
            Direction::Downstream | Direction::Request => &exports.downstream_close,
        };
        let Some(function) = function else { return Ok(()) };
        core.call(function, (id, peer as u32), Scope::stream(Phase::Connection, id, Some(stream)))?;
        self.settle()
    }

    /// The period of [`Self::tick_ms`] has passed.
    ///
    /// # Errors
    /// The guest failed.
    pub fn tick(&mut self) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        let Some(function) = &exports.tick else { return Ok(()) };
        core.call(function, ROOT, Scope::root(Phase::Tick))?;
        self.settle()
    }

    /// Tell the guest of its queues that got items since the last time.
    ///
    /// # Errors
    /// The guest failed.
    pub fn queues_ready(&mut self) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        let ready = core.store.data().listener.take();
        let Some(function) = &exports.queue_ready else { return Ok(()) };
        for queue in ready {
            core.call(function, (ROOT, queue), Scope::root(Phase::Queue))?;
        }
        self.settle()
    }

    /// Call a function that the guest registered with the host, by number.
    ///
    /// # Errors
    /// The guest failed.
    pub fn foreign_function(&mut self, function: u32, arguments: Vec<u8>) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        let Some(callback) = &exports.foreign else { return Ok(()) };
        let len = arguments.len() as u32;
        core.store.data_mut().shown.foreign_arguments = Some(arguments);
        let called = core.call(callback, (ROOT, function, len), Scope::root(Phase::Foreign));
        core.store.data_mut().shown.foreign_arguments = None;
        called?;
        self.settle()
    }

    /// Whether the guest wants to see this buffer at all.
    pub fn wants_data(&self, buffer: DataBuffer) -> bool {
        match buffer {
            DataBuffer::RequestBody => self.exports.request_body.is_some(),
            DataBuffer::ResponseBody => self.exports.response_body.is_some(),
            DataBuffer::Downstream => self.exports.downstream_data.is_some(),
            DataBuffer::Upstream => self.exports.upstream_data.is_some(),
        }
    }

    /// Whether the guest wants to see this map at all.
    pub fn wants_fields(&self, map: FieldMap) -> bool {
        match map {
            FieldMap::RequestHeaders => self.exports.request_headers.is_some(),
            FieldMap::ResponseHeaders => self.exports.response_headers.is_some(),
            FieldMap::RequestTrailers => self.exports.request_trailers.is_some(),
            FieldMap::ResponseTrailers => self.exports.response_trailers.is_some(),
        }
    }
}
