//! What comes of callouts, told to the guest.

use super::Instance;
use crate::call::Scope;
use crate::callout::{CalloutEvent, GrpcEvent, HttpReply, Token};
use crate::failure::Failure;
use crate::host::{CallKind, ROOT, Shown};
use crate::stream::Stream;
use crate::types::Phase;

impl Instance {
    /// Something happened to a callout. `stream` as for [`Self::http_reply`].
    ///
    /// # Errors
    /// The guest failed.
    pub fn callout_event(
        &mut self,
        token: Token,
        event: CalloutEvent,
        stream: Option<&mut dyn Stream>,
    ) -> Result<(), Failure> {
        match event {
            CalloutEvent::Http(reply) => self.http_reply(token, reply, stream),
            CalloutEvent::Grpc(event) => self.grpc_event(token, event, stream),
        }
    }

    /// The answer to a callout. `stream`: that of the context that asked, if it is at hand. An answer nobody waits for
    /// any more is dropped.
    ///
    /// # Errors
    /// The guest failed.
    pub fn http_reply(
        &mut self,
        token: Token,
        reply: HttpReply,
        stream: Option<&mut dyn Stream>,
    ) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        let host = core.store.data_mut();
        let Some(call) = host.end_call(token) else { return Ok(()) };
        let Some(function) = &exports.http_reply else { return Ok(()) };
        let counts = (reply.headers.len() as u32, reply.body.len() as u32, reply.trailers.len() as u32);
        host.shown.http = Some(reply);
        let scope = Scope { phase: Phase::Callout, context: ROOT, lent_to: call.context, stream };
        let called = core.call(function, (ROOT, token, counts.0, counts.1, counts.2), scope);
        core.store.data_mut().shown.http = None;
        called?;
        self.settle()
    }

    /// Something happened to a gRPC call. `stream` as above.
    ///
    /// # Errors
    /// The guest failed.
    pub fn grpc_event(
        &mut self,
        token: Token,
        event: GrpcEvent,
        stream: Option<&mut dyn Stream>,
    ) -> Result<(), Failure> {
        let Self { core, exports, .. } = self;
        let host = core.store.data_mut();
        let Some(call) = host.calls.get(&token).copied() else { return Ok(()) };
        let shown = &mut host.shown;
        let (function, number) = match event {
            GrpcEvent::Initial(fields) => (&exports.grpc_initial, shown.grpc_initial.insert(fields).len() as u32),
            GrpcEvent::Message(message) => (&exports.grpc_message, shown.grpc_message.insert(message).len() as u32),
            GrpcEvent::Trailing(fields) => (&exports.grpc_trailing, shown.grpc_trailing.insert(fields).len() as u32),
            GrpcEvent::Close(status) => (&exports.grpc_close, shown.grpc_status.insert(status).code),
        };
        // A unary call that brought its message is over for the guest; so is any call that closed.
        let message_of_unary = shown.grpc_message.is_some() && call.kind == CallKind::Unary;
        if shown.grpc_status.is_some() || message_of_unary {
            host.end_call(token);
        }
        let scope = Scope { phase: Phase::Callout, context: ROOT, lent_to: call.context, stream };
        let called = match function {
            Some(function) => core.call(function, (ROOT, token, number), scope),
            None => Ok(()),
        };
        core.store.data_mut().shown = Shown::default();
        called?;
        self.settle()
    }
}
