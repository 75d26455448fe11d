//! A client connection while it is busy: its stream and the session of its request.

use crate::session::Session;
use crate::worker::Worker;
use gateward_net::{Deadline, Stream};
use std::rc::Rc;

/// A client connection with a session attached, while it has something to do.
pub(crate) struct Connection<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) stream: &'a Stream,
    /// Of everything that receives from the client and sends to the upstream.
    pub(crate) deadline: &'a Deadline,
    pub(crate) session: &'a mut Session,
    /// Requests served on this connection before this one.
    pub(crate) served: u32,
}
