//! HTTP/2 below the exchange: a stream as a channel of messages, heads between lines and fields, and the
//! connection's bytes with an eye on what the peer makes the gateway do.
//!
//! The h2 crate speaks the protocol. What an exchange does with a message is decided once, in the terms of
//! HTTP/1.1, and translated here.

mod budget;
mod fields;
mod io;
mod stream;

pub(crate) use fields::message_fields;
pub(crate) use io::{Io, Watch};
pub(crate) use stream::{Answer, Http2Stream};

/// What every connection announces and keeps to, either side.
///
/// Memory per connection is bounded by these: received but not passed on at most [`CONNECTION_WINDOW`], of one
/// stream at most [`STREAM_WINDOW`]; passed on but not sent at most [`SEND_BUFFER`] per stream.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes a peer may have sent on all streams of a connection that were not passed on yet.
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one stream that wait for the socket.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;
/// Largest frame taken (RFC 9113 section 4.2: the least that must be).
pub(crate) const FRAME_BYTES: u32 = 16 * 1024;
/// Bytes of the table with which a peer compresses fields.
pub(crate) const HEADER_TABLE: u32 = 4096;
/// Memory for small DATA frames that wait to be passed on, beyond their content: 8192 frames; beyond:
/// ENHANCE_YOUR_CALM.
pub(crate) const DATA_FRAME_BUDGET: usize = 2 * 1024 * 1024;
/// Bytes taken in before the streams they are for have their turn.
pub(crate) const TURN_BYTES: usize = 32 * 1024;
/// Streams reset by this side that are remembered, so that frames under way do not look like errors.
pub(crate) const RESET_STREAMS: usize = 100;
/// How long they are remembered.
pub(crate) const RESET_REMEMBERED: std::time::Duration = std::time::Duration::from_secs(1);
/// Resets by this side because of errors of the peer, over the life of a connection.
pub(crate) const ERROR_RESETS: usize = 1024;
/// Bytes of the fields of an upstream's answer, as SETTINGS_MAX_HEADER_LIST_SIZE measures them; the limits on heads
/// are kept apart from this.
pub(crate) const ANSWER_LIST_BYTES: u32 = 256 * 1024;
/// What a field adds to its length in the measure of SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 section 10.5.1).
pub(crate) const FIELD_OVERHEAD: usize = 32;
