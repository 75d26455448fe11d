//! What plugins keep of a request or stream until it is over.

use std::any::Any;

/// Values that plugins keep: one for each type, which is private to whoever keeps it.
#[derive(Debug, Default)]
pub struct Context(Vec<Box<dyn Any>>);

impl Context {
    /// Keep `value`, in place of the one of its type.
    pub fn put<T: Any>(&mut self, value: T) {
        match self.kept_mut::<T>() {
            Some(kept) => *kept = value,
            None => self.0.push(Box::new(value)),
        }
    }

    /// The value of this type.
    pub fn kept<T: Any>(&self) -> Option<&T> {
        self.0.iter().find_map(|kept| kept.downcast_ref::<T>())
    }

    /// Likewise, to change.
    pub fn kept_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.0.iter_mut().find_map(|kept| kept.downcast_mut::<T>())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
