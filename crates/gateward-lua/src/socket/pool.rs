//! Connections that wait to be used again.

use super::Connection;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Idle connections of one name, when the plugin does not say (OpenResty's lua_socket_pool_size).
pub(super) const SIZE: usize = 30;
/// Most that it can say.
const LARGEST: usize = 1024;
/// Names with connections at the same time.
const NAMES: usize = 1024;

/// The idle connections of a machine, by the names of their pools.
#[derive(Default)]
pub(crate) struct Pools(RefCell<HashMap<String, Vec<Idle>>>);

struct Idle {
    connection: Connection,
    until: Option<Instant>,
}

impl Idle {
    fn is_good(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until) && self.connection.wire.is_silent()
    }
}

impl Pools {
    /// The connection that was put there last and is still good.
    pub(super) fn take(&self, name: &str) -> Option<Connection> {
        let now = Instant::now();
        let mut pools = self.0.borrow_mut();
        let idle = pools.get_mut(name)?;
        while let Some(last) = idle.pop() {
            if last.is_good(now) {
                return Some(Connection { reused: last.connection.reused + 1, ..last.connection });
            }
        }
        pools.remove(name);
        None
    }

    /// Keep `connection`, for so long (zero: without end). Of too many the one that waits longest goes.
    pub(super) fn put(&self, name: String, connection: Connection, time: Duration, size: usize) {
        let until = (!time.is_zero()).then(|| Instant::now() + time);
        let mut pools = self.0.borrow_mut();
        if pools.len() >= NAMES && !pools.contains_key(&name) {
            return;
        }
        let idle = pools.entry(name).or_default();
        if idle.len() >= size.clamp(1, LARGEST) {
            idle.remove(0);
        }
        idle.push(Idle { connection, until });
    }

    /// Close what is not good any more.
    pub(crate) fn sweep(&self) {
        let mut pools = self.0.borrow_mut();
        if pools.is_empty() {
            return;
        }
        let now = Instant::now();
        pools.retain(|_, idle| {
            idle.retain(|idle| idle.is_good(now));
            !idle.is_empty()
        });
    }
}
