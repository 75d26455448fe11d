//! The host's side of one instance: what its store holds, and access to the guest's memory.

use crate::callout::{Callout, CalloutKind, CalloutStatus, Fields, HttpReply, Token};
use crate::config::Setup;
use crate::lend::{Holder, Lent};
use crate::limits::{Meter, WRITTEN_FIELD_BYTES};
use crate::metrics::Metric;
use crate::observe::Counters;
use crate::shared::{Listener, Space};
use crate::stream::{LocalReply, Stream};
use crate::types::{Abi, LogLevel, Phase, ReplyMap, Status};
use crate::watch::Watch;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::{AsContextMut, Caller, Memory, Store, TypedFunc};

/// Identifies a context within one instance.
pub type ContextId = u32;

/// The context of the instance itself (the plugin context of the specification).
pub const ROOT: ContextId = 1;

/// No context has this number.
pub(crate) const NOBODY: ContextId = 0;

/// Bytes of scratch memory kept between calls.
const KEPT_SCRATCH_BYTES: usize = 64 << 10;

pub(crate) struct Host {
    pub(crate) memory: Option<Memory>,
    /// `proxy_on_memory_allocate` or `malloc`.
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    pub(crate) lent: Lent,
    /// Whose stream is lent.
    pub(crate) lent_to: ContextId,
    /// On whose behalf the guest calls.
    pub(crate) effective: ContextId,
    pub(crate) meter: Meter,
    pub(crate) watch: Watch,
    /// Of the callback under way.
    pub(crate) phase: Phase,
    /// When it began, if it is one to time.
    began: Option<Instant>,
    pub(crate) setup: Setup,
    pub(crate) abi: Abi,
    pub(crate) space: Arc<Space>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) contexts: FxHashMap<ContextId, Context>,
    /// Contexts whose guest wants to be waited for, oldest first.
    pub(crate) unfinished: VecDeque<ContextId>,
    pub(crate) tick_ms: u32,
    pub(crate) metrics: Vec<Arc<Metric>>,
    pub(crate) calls: FxHashMap<Token, Call>,
    pub(crate) last_token: Token,
    pub(crate) outbox: Vec<Callout>,
    pub(crate) shown: Shown,
    pub(crate) log_lines_left: u16,
    /// Unfinished lines of standard output and standard error.
    pub(crate) lines: [Vec<u8>; 2],
    /// Contexts for which `proxy_done` was called in the callback under way.
    pub(crate) finished: Vec<ContextId>,
    scratch: Vec<u8>,
}

/// A property that a guest set: path and value.
type Property = (Box<[u8]>, Box<[u8]>);

/// What belongs to one context.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// Rare, and so kept small where there is none.
    pub(crate) reply: Option<Box<LocalReply>>,
    /// Directions to go on with, as bits.
    pub(crate) resumed: u8,
    /// Directions to break off, as bits.
    pub(crate) closed: u8,
    pub(crate) properties: Vec<Property>,
    /// Unanswered callouts.
    pub(crate) calls: u16,
    /// Bytes of fields written.
    pub(crate) written_bytes: usize,
    pub(crate) life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Life {
    #[default]
    Active,
    /// `proxy_on_done` answered with false.
    Finishing,
    /// `proxy_done` was called since.
    Finished,
}

/// A callout under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) context: ContextId,
    pub(crate) kind: CallKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Http,
    Unary,
    /// `ended`: the filter's side.
    Stream {
        ended: bool,
    },
}

/// What only the callback under way can read.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) http: Option<HttpReply>,
    pub(crate) grpc_initial: Option<Fields>,
    pub(crate) grpc_trailing: Option<Fields>,
    pub(crate) grpc_message: Option<Vec<u8>>,
    pub(crate) grpc_status: Option<CalloutStatus>,
    pub(crate) foreign_arguments: Option<Vec<u8>>,
}

impl Shown {
    pub(crate) fn fields(&self, map: ReplyMap) -> Option<&Fields> {
        match map {
            ReplyMap::GrpcInitial => self.grpc_initial.as_ref(),
            ReplyMap::GrpcTrailing => self.grpc_trailing.as_ref(),
            ReplyMap::CallHeaders => self.http.as_ref().map(|reply| &reply.headers),
            ReplyMap::CallTrailers => self.http.as_ref().map(|reply| &reply.trailers),
        }
    }
}

/// What a host is made from.
pub(crate) struct Parts {
    pub(crate) setup: Setup,
    pub(crate) abi: Abi,
    pub(crate) space: Arc<Space>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) counters: Arc<Counters>,
}

impl Host {
    pub(crate) fn new(parts: Parts) -> Self {
        let meter = Meter::new(parts.setup.config.limits.memory_bytes);
        Self {
            memory: None,
            allocate: None,
            lent: Lent::default(),
            lent_to: ROOT,
            effective: ROOT,
            meter,
            watch: Watch::default(),
            phase: Phase::Start,
            began: None,
            setup: parts.setup,
            abi: parts.abi,
            space: parts.space,
            listener: parts.listener,
            counters: parts.counters,
            contexts: FxHashMap::default(),
            unfinished: VecDeque::new(),
            tick_ms: 0,
            metrics: Vec::new(),
            calls: FxHashMap::default(),
            last_token: 0,
            outbox: Vec::new(),
            shown: Shown::default(),
            log_lines_left: 0,
            lines: [Vec::new(), Vec::new()],
            finished: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The stream of the effective context, if it is at hand.
    pub(crate) fn stream(&mut self) -> Option<&mut dyn Stream> {
        if self.effective == self.lent_to { self.lent.stream() } else { None }
    }

    /// Likewise, to read.
    pub(crate) fn peek(&self) -> Option<&dyn Stream> {
        if self.effective == self.lent_to { self.lent.peek() } else { None }
    }

    /// The effective context.
    pub(crate) fn context(&mut self) -> Option<&mut Context> {
        self.contexts.get_mut(&self.effective)
    }

    /// Whether the effective context may write this many bytes of fields more.
    pub(crate) fn may_write(&mut self, bytes: usize) -> bool {
        let Some(context) = self.context() else { return false };
        context.written_bytes = context.written_bytes.saturating_add(bytes);
        context.written_bytes <= WRITTEN_FIELD_BYTES
    }

    /// Pass a log line on, if the callback has any left.
    pub(crate) fn log(&mut self, level: LogLevel, line: &str) {
        let Some(left) = self.log_lines_left.checked_sub(1) else { return self.counters.log_line_dropped() };
        self.log_lines_left = left;
        self.setup.services.log.log(level, &self.setup.config.name, line);
    }

    /// Forget a callout; `false`: it was forgotten already.
    pub(crate) fn end_call(&mut self, token: Token) -> Option<Call> {
        let call = self.calls.remove(&token)?;
        if let Some(context) = self.contexts.get_mut(&call.context) {
            context.calls = context.calls.saturating_sub(1);
        }
        Some(call)
    }

    /// Forget a context, and cancel the callouts nobody will be told of.
    pub(crate) fn end_context(&mut self, id: ContextId) {
        let context = self.contexts.remove(&id);
        if context.is_some_and(|context| context.calls > 0) {
            let tokens = self.calls.iter().filter(|(_, call)| call.context == id).map(|(token, _)| *token);
            for token in tokens.collect::<Vec<_>>() {
                self.calls.remove(&token);
                self.outbox.push(Callout { token, context: id, kind: CalloutKind::Cancel });
            }
        }
        self.counters.set_streams(self.contexts.len().saturating_sub(1));
    }

    /// A callback begins: on behalf of `context`, with the stream of `lent_to` at hand. Ends the one before, if nothing has.
    pub(crate) fn turn(&mut self, phase: Phase, context: ContextId, lent_to: ContextId, limit: Duration) {
        let timed = self.counters.call(phase);
        if timed || self.began.is_some() {
            let now = Instant::now();
            self.stop_clock(now);
            self.began = Some(now).filter(|_| timed);
        }
        self.phase = phase;
        self.effective = context;
        self.lent_to = lent_to;
        self.log_lines_left = self.setup.config.limits.log_lines;
        self.watch.begin(limit);
    }

    /// The callback under way has ended.
    pub(crate) fn rest(&mut self) {
        if self.began.is_some() {
            self.stop_clock(Instant::now());
        }
    }

    fn stop_clock(&mut self, now: Instant) {
        if let Some(began) = self.began.take() {
            self.counters.time(self.phase, now.duration_since(began));
        }
    }

    /// Scratch memory, empty; give it back with [`Self::put_back`].
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch
    }

    /// What [`Self::keep_scratch`] kept.
    pub(crate) fn take_kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    /// Keep scratch memory with what is in it for the next who takes it.
    pub(crate) fn keep_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }

    pub(crate) fn put_back(&mut self, mut scratch: Vec<u8>) {
        if scratch.capacity() <= KEPT_SCRATCH_BYTES {
            scratch.clear();
            self.scratch = scratch;
        }
    }
}

impl Holder for Store<Host> {
    fn lent(&mut self) -> &mut Lent {
        &mut self.data_mut().lent
    }
}

/// The guest ended itself.
#[derive(Debug, thiserror::Error)]
#[error("proc_exit({0})")]
pub(crate) struct Exited(pub(crate) u32);

/// Why a host function does not answer with `OK`.
pub(crate) enum Stop {
    /// The guest is told so.
    Status(Status),
    /// The guest failed while the host called it.
    Trap(wasmtime::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

/// The answer of a host function that calls the guest.
pub(crate) fn answer(result: Result<(), Stop>) -> wasmtime::Result<u32> {
    match result {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Stop::Status(status)) => Ok(status as u32),
        Err(Stop::Trap(error)) => Err(error),
    }
}

/// The answer of one that does not.
pub(crate) fn status(result: Result<(), Status>) -> u32 {
    match result {
        Ok(()) => Status::Ok as u32,
        Err(status) => status as u32,
    }
}

/// The guest's memory and the host's state, side by side. No memory before the guest is instantiated.
pub(crate) fn split<'a>(caller: &'a mut Caller<'_, Host>) -> (&'a mut [u8], &'a mut Host) {
    match caller.data().memory {
        Some(memory) => memory.data_and_store_mut(caller),
        None => (&mut [], caller.data_mut()),
    }
}

/// The guest's bytes at `start`.
pub(crate) fn bytes(memory: &[u8], start: u32, len: u32) -> Result<&[u8], Status> {
    if len == 0 {
        return Ok(&[]);
    }
    let rest = memory.get(start as usize..).ok_or(Status::InvalidMemoryAccess)?;
    rest.get(..len as usize).ok_or(Status::InvalidMemoryAccess)
}

/// Likewise, to write.
pub(crate) fn bytes_mut(memory: &mut [u8], start: u32, len: u32) -> Result<&mut [u8], Status> {
    let rest = memory.get_mut(start as usize..).ok_or(Status::InvalidMemoryAccess)?;
    rest.get_mut(..len as usize).ok_or(Status::InvalidMemoryAccess)
}

/// The guest's bytes as text; what is not UTF-8 is an argument that means nothing.
pub(crate) fn text(memory: &[u8], start: u32, len: u32) -> Result<&str, Status> {
    str::from_utf8(bytes(memory, start, len)?).map_err(|_| Status::BadArgument)
}

/// Write a number for the guest.
pub(crate) fn write_u32(memory: &mut [u8], at: u32, value: u32) -> Result<(), Status> {
    bytes_mut(memory, at, 4)?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// Likewise a long one.
pub(crate) fn write_u64(memory: &mut [u8], at: u32, value: u64) -> Result<(), Status> {
    bytes_mut(memory, at, 8)?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// Memory that the guest allocates for what the host gives it. The guest runs meanwhile, so its memory may have moved.
pub(crate) fn allocate(caller: &mut Caller<'_, Host>, len: usize) -> Result<u32, Stop> {
    let len = u32::try_from(len).map_err(|_| Status::InternalFailure)?;
    // Taken out for the call: copying it costs atomics, and an allocator that asks for memory of the host gets none.
    let allocate = caller.data_mut().allocate.take().ok_or(Status::InternalFailure)?;
    let start = allocate.call(caller.as_context_mut(), len);
    caller.data_mut().allocate = Some(allocate);
    match start? {
        0 => Err(Status::InvalidMemoryAccess.into()),
        start => Ok(start),
    }
}

/// Hand `value` to the guest in memory of its own; nothing is a null pointer and no length.
pub(crate) fn give(caller: &mut Caller<'_, Host>, value: &[u8], return_data: u32, return_len: u32) -> Result<(), Stop> {
    let start = if value.is_empty() { 0 } else { allocate(caller, value.len())? };
    let (memory, _) = split(caller);
    if !value.is_empty() {
        bytes_mut(memory, start, value.len() as u32)?.copy_from_slice(value);
    }
    write_u32(memory, return_data, start)?;
    write_u32(memory, return_len, value.len() as u32)?;
    Ok(())
}

/// Write into scratch memory, then hand that to the guest.
pub(crate) fn give_written(
    caller: &mut Caller<'_, Host>,
    return_data: u32,
    return_len: u32,
    write: impl FnOnce(&[u8], &mut Host, &mut Vec<u8>) -> Result<(), Status>,
) -> Result<(), Stop> {
    let mut scratch = caller.data_mut().take_scratch();
    let (memory, host) = split(caller);
    let given = match write(memory, host, &mut scratch) {
        Ok(()) => give(caller, &scratch, return_data, return_len),
        Err(status) => Err(status.into()),
    };
    caller.data_mut().put_back(scratch);
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_ends_where_it_ends() {
        let mut memory = [1, 2, 3, 4];
        let check = |start, len, expected: Result<&[u8], Status>| {
            assert_eq!(bytes(&[1, 2, 3, 4], start, len), expected, "{start} {len}");
        };
        check(0, 4, Ok(&[1, 2, 3, 4]));
        check(4, 0, Ok(&[]));
        check(u32::MAX, 0, Ok(&[]));
        check(1, 4, Err(Status::InvalidMemoryAccess));
        check(5, 1, Err(Status::InvalidMemoryAccess));
        check(u32::MAX, u32::MAX, Err(Status::InvalidMemoryAccess));
        assert_eq!(write_u32(&mut memory, 1, 0), Err(Status::InvalidMemoryAccess));
        assert_eq!(write_u64(&mut memory, 0, 0), Err(Status::InvalidMemoryAccess));
        assert_eq!(write_u32(&mut memory, 0, 0x0102_0304), Ok(()));
        assert_eq!((memory, text(&[0xff], 0, 1)), ([4, 3, 2, 1], Err(Status::BadArgument)));
    }
}
