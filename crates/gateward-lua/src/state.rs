//! What Lua sees of the call under way: the exchange, the phase, and whose request it is.
//!
//! The record is shared with Lua through the FFI (`core.lua` declares the same layout), so that a getter of the PDK costs a
//! few nanoseconds. A machine cannot hold a borrow of the exchange; so it holds a pointer that is set only while a call
//! into it lasts.
#![expect(unsafe_code, reason = "a borrow that the type system cannot follow through the machine; see SAFETY below")]

use gateward_plugin::{Exchange, RequestRecord, StreamRecord};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::{null, null_mut};

/// Phases as bits, with Kong's numbers (kong/pdk/private/phases.lua).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Phase {
    InitWorker = 0x0001,
    Certificate = 0x0002,
    Rewrite = 0x0010,
    Access = 0x0020,
    /// Between two tries; no handler runs in it.
    Balancer = 0x0040,
    Response = 0x0080,
    HeaderFilter = 0x0200,
    BodyFilter = 0x0400,
    Timer = 0x1000,
    Log = 0x2000,
    Preread = 0x4000,
}

impl Phase {
    /// Every phase.
    pub(crate) const ALL: [Self; 11] = [
        Self::InitWorker,
        Self::Certificate,
        Self::Rewrite,
        Self::Access,
        Self::Balancer,
        Self::Response,
        Self::HeaderFilter,
        Self::BodyFilter,
        Self::Timer,
        Self::Log,
        Self::Preread,
    ];

    /// Where it stands in [`ALL`](Self::ALL).
    pub(crate) fn index(self) -> usize {
        match self {
            Self::InitWorker => 0,
            Self::Certificate => 1,
            Self::Rewrite => 2,
            Self::Access => 3,
            Self::Balancer => 4,
            Self::Response => 5,
            Self::HeaderFilter => 6,
            Self::BodyFilter => 7,
            Self::Timer => 8,
            Self::Log => 9,
            Self::Preread => 10,
        }
    }

    /// Whether a handler can answer in place of the upstream by printing.
    pub(crate) fn may_answer(self) -> bool {
        matches!(self, Self::Rewrite | Self::Access | Self::Response)
    }

    /// Kong's name, which is also the handler's.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InitWorker => "init_worker",
            Self::Certificate => "certificate",
            Self::Rewrite => "rewrite",
            Self::Access => "access",
            Self::Balancer => "balancer",
            Self::Response => "response",
            Self::HeaderFilter => "header_filter",
            Self::BodyFilter => "body_filter",
            Self::Timer => "timer",
            Self::Log => "log",
            Self::Preread => "preread",
        }
    }
}

/// The record. `core.lua` declares it as `gw_state`; keep both alike.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct State {
    /// To read; also while `exchange` is out of reach.
    pub(crate) reading: Cell<*const Exchange>,
    exchange: Cell<*mut Exchange>,
    record: Cell<*const RequestRecord<'static>>,
    chunk: Cell<*mut Vec<u8>>,
    /// Number of the request, for its `ngx.ctx`; 0: none. Never used twice.
    pub(crate) request: Cell<f64>,
    /// Where the request keeps its tables.
    pub(crate) slot: Cell<u32>,
    /// [`Phase`] under way; 0: none.
    pub(crate) phase: Cell<u32>,
    /// Number of the plugin instance under way.
    pub(crate) instance: Cell<u32>,
    /// Whether the piece under way is the last.
    pub(crate) last: Cell<u32>,
    /// After what `core.lua` knows of.
    stream: Cell<*const StreamRecord<'static>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            reading: Cell::new(null()),
            exchange: Cell::new(null_mut()),
            record: Cell::new(null()),
            chunk: Cell::new(null_mut()),
            request: Cell::new(0.0),
            slot: Cell::new(0),
            phase: Cell::new(0),
            instance: Cell::new(0),
            last: Cell::new(0),
            stream: Cell::new(null()),
        }
    }
}

/// What of a request a call can reach.
pub(crate) enum Reach<'a> {
    Nothing,
    Exchange(&'a mut Exchange),
    /// It is over.
    Record(&'a RequestRecord<'a>),
    /// A stream that is over, and the exchange that stood for it.
    Stream(&'a Exchange, &'a StreamRecord<'a>),
}

/// What one call into a machine is about.
pub(crate) struct Scene<'a> {
    pub(crate) reach: Reach<'a>,
    /// The piece of the response body under way, and whether it is the last.
    pub(crate) chunk: Option<(&'a mut Vec<u8>, bool)>,
    pub(crate) phase: Phase,
    /// Number of the instance.
    pub(crate) instance: u32,
    /// Number and slot of the request.
    pub(crate) request: (f64, u32),
}

/// Takes everything back when the call is over, however it ends.
struct TakeBack<'s, 'a> {
    state: &'s State,
    before: Saved,
    borrowed: PhantomData<&'a mut Exchange>,
}

/// What a call found: a machine can be entered again from within (a timer that is started, a module that is loaded).
#[derive(Clone, Copy)]
struct Saved {
    reading: *const Exchange,
    exchange: *mut Exchange,
    record: *const RequestRecord<'static>,
    chunk: *mut Vec<u8>,
    request: f64,
    slot: u32,
    phase: u32,
    instance: u32,
    last: u32,
    stream: *const StreamRecord<'static>,
}

impl Drop for TakeBack<'_, '_> {
    fn drop(&mut self) {
        self.state.set(self.before);
    }
}

impl State {
    fn saved(&self) -> Saved {
        Saved {
            reading: self.reading.get(),
            exchange: self.exchange.get(),
            record: self.record.get(),
            chunk: self.chunk.get(),
            request: self.request.get(),
            slot: self.slot.get(),
            phase: self.phase.get(),
            instance: self.instance.get(),
            last: self.last.get(),
            stream: self.stream.get(),
        }
    }

    fn set(&self, saved: Saved) {
        self.reading.set(saved.reading);
        self.exchange.set(saved.exchange);
        self.record.set(saved.record);
        self.chunk.set(saved.chunk);
        self.request.set(saved.request);
        self.slot.set(saved.slot);
        self.phase.set(saved.phase);
        self.instance.set(saved.instance);
        self.last.set(saved.last);
        self.stream.set(saved.stream);
    }

    /// Run `call` while Lua can reach what is on the `scene`.
    pub(crate) fn enter<R>(&self, scene: &mut Scene<'_>, call: impl FnOnce() -> R) -> R {
        let back = TakeBack { state: self, before: self.saved(), borrowed: PhantomData };
        let (chunk, last) = match &mut scene.chunk {
            Some((chunk, last)) => (&raw mut **chunk, *last),
            None => (null_mut(), false),
        };
        let (mut exchange, mut record, mut stream) = (null_mut(), null(), null());
        let reading = match &mut scene.reach {
            Reach::Nothing => null(),
            Reach::Exchange(under_way) => {
                exchange = &raw mut **under_way;
                exchange.cast_const()
            }
            Reach::Record(over) => {
                record = (&raw const **over).cast();
                &raw const *over.exchange
            }
            Reach::Stream(stood_for, over) => {
                stream = (&raw const **over).cast();
                &raw const **stood_for
            }
        };
        self.set(Saved {
            reading,
            exchange,
            record,
            chunk,
            request: scene.request.0,
            slot: scene.request.1,
            phase: scene.phase as u32,
            instance: scene.instance,
            last: u32::from(last),
            stream,
        });
        let result = call();
        drop(back);
        result
    }

    /// Look at or change the exchange of the call under way; `None` without one. `act` must not call into Lua: the
    /// exchange is out of reach meanwhile.
    pub(crate) fn exchange<R>(&self, act: impl FnOnce(&mut Exchange) -> R) -> Option<R> {
        let pointer = self.exchange.replace(null_mut());
        // SAFETY: `enter` has the exclusive borrow that the pointer came from while it is set, and a pointer that was taken
        // out is not handed out again before it is back: there is one reference at a time.
        let exchange = unsafe { pointer.as_mut() }?;
        let back = PutBack(&self.exchange, pointer);
        let result = act(exchange);
        drop(back);
        Some(result)
    }

    /// Look at the exchange of the call under way, be it over. `look` must not call into Lua.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Exchange) -> R) -> Option<R> {
        // SAFETY: `enter` has the borrow that the pointer came from. Nothing changes the exchange during `look`: what
        // does goes through `exchange`, and would be called by Lua.
        unsafe { self.reading.get().as_ref() }.map(look)
    }

    /// Look at the record of the exchange, which is there in the log phase.
    pub(crate) fn record<R>(&self, look: impl FnOnce(&RequestRecord<'_>) -> R) -> Option<R> {
        // SAFETY: as in `read`; the lifetime in the type is not longer than the call, because `look` takes any.
        unsafe { self.record.get().as_ref() }.map(look)
    }

    /// Likewise of the stream.
    pub(crate) fn stream_record<R>(&self, look: impl FnOnce(&StreamRecord<'_>) -> R) -> Option<R> {
        // SAFETY: as in `record`.
        unsafe { self.stream.get().as_ref() }.map(look)
    }

    /// Likewise the piece of the response body.
    pub(crate) fn chunk<R>(&self, act: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        let pointer = self.chunk.replace(null_mut());
        // SAFETY: as above.
        let chunk = unsafe { pointer.as_mut() }?;
        let back = PutBack(&self.chunk, pointer);
        let result = act(chunk);
        drop(back);
        Some(result)
    }

    /// The phase under way.
    #[cfg(test)]
    pub(crate) fn phase(&self) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| *phase as u32 == self.phase.get())
    }
}

/// Puts a pointer back however what is done without it ends.
pub(crate) struct PutBack<'c, T>(pub(crate) &'c Cell<*mut T>, pub(crate) *mut T);

impl<T> Drop for PutBack<'_, T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_stand_where_they_say() {
        assert_eq!(Phase::ALL.map(Phase::index), std::array::from_fn(|index| index));
    }

    #[test]
    fn what_is_on_the_scene_is_there_during_the_call_only() {
        let state = State::default();
        let mut exchange = Exchange::new();
        assert!(state.exchange(|_| ()).is_none());
        let mut scene = Scene {
            reach: Reach::Exchange(&mut exchange),
            chunk: None,
            phase: Phase::Access,
            instance: 7,
            request: (1.0, 2),
        };
        state.enter(&mut scene, || {
            assert_eq!((state.phase(), state.instance.get(), state.slot.get()), (Some(Phase::Access), 7, 2));
            state.exchange(|exchange| {
                exchange.path = "/a".to_owned();
                assert!(state.exchange(|_| ()).is_none(), "one reference at a time");
            });
            assert!(state.chunk(|_| ()).is_none());
        });
        assert!(state.exchange(|_| ()).is_none() && state.phase().is_none());
        assert_eq!(exchange.path, "/a");
    }

    #[test]
    fn a_call_within_a_call_leaves_the_outer_one_as_it_was() {
        let state = State::default();
        let mut exchange = Exchange::new();
        let mut outer = Scene {
            reach: Reach::Exchange(&mut exchange),
            chunk: None,
            phase: Phase::Access,
            instance: 1,
            request: (1.0, 1),
        };
        state.enter(&mut outer, || {
            let mut inner =
                Scene { reach: Reach::Nothing, chunk: None, phase: Phase::Timer, instance: 2, request: (0.0, 0) };
            state.enter(&mut inner, || assert!(state.exchange(|_| ()).is_none()));
            assert!(state.exchange(|_| ()).is_some());
            assert_eq!(state.phase(), Some(Phase::Access));
        });
    }
}
