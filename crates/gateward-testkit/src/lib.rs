//! Helpers for tests that drive real `gateward` processes over real sockets.
//!
//! - [`Gateway`] runs the binary on free ports with a configuration, signals it and keeps its log;
//! - [`raw`] is a client that sends exactly the bytes it is given and parses what comes back;
//! - [`frames`] is one that speaks HTTP/2 frame by frame, also wrongly;
//! - [`Backend`] is an upstream that echoes, follows a script or takes over the socket;
//! - [`RedisServer`] runs a Redis without persistence and asks it things;
//! - [`DnsServer`] answers queries as it is told, and counts them;
//! - [`load`] keeps connections busy and counts every request that was not answered;
//! - [`corpus()`] gives the committed inputs of a fuzz target;
//! - [`free_port()`] finds a port for a server that is no helper;
//! - [`eventually`] waits for a condition.
//!
//! Threads and blocking sockets, not an async runtime: a test reads from top to bottom, and the kit shares no
//! code with what it tests. Everything has a time limit. Helpers panic with a full account of what happened,
//! because a panic is how a test fails; the `try_` variants return it instead. Not for production code.

#![forbid(unsafe_code)]

mod backend;
mod corpus;
pub mod dns;
pub mod frames;
mod gateway;
pub mod load;
mod log;
mod ports;
pub mod raw;
mod redis;
mod temp_dir;
mod wait;
mod wire;

pub use backend::{Backend, Next, ReceivedRequest, reset};
pub use corpus::corpus;
pub use dns::DnsServer;
pub use frames::{Frame, FrameClient};
pub use gateway::{Gateway, GatewayBuilder, gateward_command};
pub use ports::{free_port, free_port_of};
pub use raw::{RawClient, RawResponse, http};
pub use redis::{RedisReply, RedisServer};
pub use temp_dir::TempDir;
pub use wait::{eventually, pause};
pub use wire::WireError;
