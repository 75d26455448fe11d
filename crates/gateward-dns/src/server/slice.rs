//! How long a worker waits for a core that somebody else computes on.
//!
//! Zones are parsed, built and written beside the workers, often on the same cores. A scheduler that lets such a thread finish its slice, some
//! milliseconds, before a worker that was woken by a query gets the core would make one zone's changes everybody's latency. Linux takes a wish for
//! a shorter slice since 6.12 (`sched_setattr(2)`, `sched_runtime` of a normal thread): whoever has one comes before those with longer ones
//! when it wakes up, and has no larger share for it. Older kernels keep the wish and do nothing.

#![allow(unsafe_code, reason = "sched_getattr and sched_setattr have no safe wrapper")]

use std::io;
use std::mem::size_of;

/// The shortest slice that Linux gives, 100 us: a worker seldom needs more at once.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` of `linux/sched/types.h`, as far as every version has it.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for short slices for this thread. Policy and niceness stay what they were; a thread that is not scheduled as normal ones are is left alone.
///
/// # Errors
/// The kernel, or a filter of system calls, does not let the thread ask.
pub(super) fn shorten() -> io::Result<()> {
    let mut attributes = get()?;
    if attributes.policy != libc::SCHED_OTHER.cast_unsigned() {
        return Ok(());
    }
    attributes.runtime = SLICE_NS;
    set(&attributes)
}

fn get() -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes at most the size it is told, that of the value that the pointer leads to.
    let code = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size_of::<Attributes>(), 0) };
    if code == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

fn set(attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the value says of itself, which `get` filled with the size of this type.
    let code = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_short_and_nothing_else_is_different() {
        let before = get().expect("the thread may ask what it is");
        assert_eq!(before.size as usize, size_of::<Attributes>());
        shorten().expect("a thread may ask for less");
        let after = get().expect("as before");
        // Kernels before 6.12 do not tell a slice.
        assert!(after.runtime == SLICE_NS || after.runtime == before.runtime, "{after:?}");
        assert_eq!(Attributes { runtime: before.runtime, ..after }, before);
    }
}
