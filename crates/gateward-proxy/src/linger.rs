//! The end of a client's connection on which something was said last.

use gateward_net::{Deadline, Stream};

/// Milliseconds a closing connection is read from, so that the client gets to see the last response: closing with
/// unread bytes would reset the connection under it.
const LINGER_MS: u64 = 2_000;
/// Bytes thrown away while lingering.
const LINGER_BYTES: usize = 1024 * 1024;

/// Say that no more will be sent, and read what the client still sends for a bounded while.
pub(crate) async fn linger(stream: &Stream, deadline: &Deadline) {
    if stream.finish().is_err() {
        return;
    }
    deadline.arm(LINGER_MS);
    let mut scrap = [0_u8; 2048];
    let mut left = LINGER_BYTES;
    while let Ok(Ok(count)) = deadline.guard(stream.read(&mut scrap)).await {
        left = left.saturating_sub(count);
        if count == 0 || left == 0 {
            return;
        }
    }
}
