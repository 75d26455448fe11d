//! Lending a stream to the host functions for the time of one call into a guest.
//!
//! A store's data must outlive every borrow, a stream belongs to the connection that serves it, and moving it in
//! and out at each call would copy a kilobyte twice. So the store holds a pointer that is set only while the
//! call lasts: [`lend`] has the exclusive borrow all that time, and takes the pointer out again however the call ends.
#![expect(unsafe_code, reason = "a borrow that the type system cannot follow through the guest; see SAFETY below")]

use crate::stream::Stream;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A place in a store for the stream of the call under way.
#[derive(Default)]
pub(crate) struct Lent(Option<NonNull<dyn Stream>>);

// SAFETY: the pointer is there only while `lend` runs, whose closure gets the holder by exclusive reference on the
// thread that lent; a holder that moves to another thread is outside of `lend`, and empty.
unsafe impl Send for Lent {}

/// What has a place for a stream.
pub(crate) trait Holder {
    fn lent(&mut self) -> &mut Lent;
}

/// Run `call` while host functions can reach `stream` through `holder`.
pub(crate) fn lend<H: Holder, T>(holder: &mut H, stream: &mut dyn Stream, call: impl FnOnce(&mut H) -> T) -> T {
    struct TakeBack<'h, 's, H: Holder>(&'h mut H, PhantomData<&'s mut dyn Stream>);
    impl<H: Holder> Drop for TakeBack<'_, '_, H> {
        fn drop(&mut self) {
            self.0.lent().0 = None;
        }
    }
    let pointer: NonNull<dyn Stream + '_> = NonNull::from(stream);
    // SAFETY: only the lifetime in the type changes. The pointer does not outlive the borrow, see `TakeBack`.
    let pointer: NonNull<dyn Stream + 'static> = unsafe { std::mem::transmute(pointer) };
    holder.lent().0 = Some(pointer);
    let back = TakeBack(holder, PhantomData);
    call(&mut *back.0)
}

impl Lent {
    /// The stream of the call under way.
    pub(crate) fn stream(&mut self) -> Option<&mut dyn Stream> {
        // SAFETY: `lend` borrows the stream exclusively while the pointer is set, and `&mut self` makes the
        // reference handed out here the only one.
        self.0.map(|mut pointer| unsafe { pointer.as_mut() } as &mut dyn Stream)
    }

    /// Likewise, to read.
    pub(crate) fn peek(&self) -> Option<&dyn Stream> {
        // SAFETY: as above; `&self` keeps exclusive references from being handed out meanwhile.
        self.0.as_ref().map(|pointer| unsafe { pointer.as_ref() } as &dyn Stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Plain;
    use crate::types::FieldMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Default)]
    struct Store(Lent);

    impl Holder for Store {
        fn lent(&mut self) -> &mut Lent {
            &mut self.0
        }
    }

    #[test]
    fn a_stream_is_there_during_the_call_only() {
        let mut store = Store::default();
        let mut stream = Plain::default();
        assert!(store.0.stream().is_none());
        lend(&mut store, &mut stream, |store| {
            store.0.stream().unwrap().add_field(FieldMap::RequestHeaders, b"a", b"1");
            assert!(store.0.peek().is_some());
        });
        assert!(store.0.stream().is_none());
        assert_eq!(stream.request_headers, [("a".to_owned(), b"1".to_vec())]);
    }

    #[test]
    fn a_panic_takes_it_back_too() {
        let mut store = Store::default();
        let mut stream = Plain::default();
        let panicked = catch_unwind(AssertUnwindSafe(|| lend(&mut store, &mut stream, |_| panic!("as a test"))));
        assert!(panicked.is_err());
        assert!(store.0.stream().is_none());
    }
}
