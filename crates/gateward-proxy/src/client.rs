//! A client while it is busy: its channel and the session of its request.

use crate::channel::Channel;
use crate::session::Session;
use crate::worker::Worker;
use gateward_net::Deadline;
use std::rc::Rc;

/// A client connection with a session attached, while it has something to do.
pub(crate) struct Connection<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    /// The connection, or of an HTTP/2 connection the stream of this request.
    pub(crate) client: Channel<'a>,
    /// Of everything that receives from the client and sends to the upstream.
    pub(crate) deadline: &'a Deadline,
    pub(crate) session: &'a mut Session,
    /// Requests served on this connection before this one.
    pub(crate) served: u32,
}
