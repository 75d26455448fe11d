//! Trying a filter without a gateway: a request, the answers to its callouts, a response, and what should come of them.
//!
//! This is what `gateward plugin test` runs. The filter is the compiled one, on the same host as in the gateway.

mod plain;

pub(crate) use plain::Plain;

use crate::callout::{CalloutKind, CalloutStatus, Fields, GrpcCall, GrpcEvent, HttpReply};
use crate::failure::Failure;
use crate::filter::Filter;
use crate::instance::Instance;
use crate::stream::LocalReply;
use crate::types::{Action, DataBuffer, Direction, FieldMap};
use gateward_plugin::cases::{Came, Expected, Message};
use serde::Deserialize;
use std::sync::Arc;

/// Callouts answered in one case; a filter that sends more is told that they failed.
const CALLOUTS: usize = 64;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The filter's configuration: text, or anything else as JSON.
    #[serde(default)]
    pub configuration: serde_json::Value,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One exchange.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// The client's request.
    #[serde(default)]
    request: Message,
    /// Answers to the filter's callouts, in order; beyond them callouts fail. Over gRPC the body is the message, or the text of
    /// the header `grpc-status`.
    #[serde(default)]
    callouts: Vec<Message>,
    /// The upstream's response.
    #[serde(default)]
    response: Message,
    /// What should come of it.
    expect: Expected,
}

/// Run one case on a new instance; what came out differently, one line each.
///
/// # Errors
/// The filter failed.
pub fn run(filter: &Arc<Filter>, case: &Case) -> Result<Vec<String>, Failure> {
    let mut instance = filter.instantiate(Box::new(|| ()))?;
    let mut trial = Trial { context: instance.create_stream()?, answers: case.callouts.clone(), stuck: false };
    let mut stream = Plain { request_headers: fields(&case.request), ..Plain::default() };
    let mut reply = trial.request(&mut instance, &mut stream, &case.request.body)?;
    if reply.is_none() && !trial.stuck {
        stream.response_headers = Some(fields(&case.response));
        reply = trial.response(&mut instance, &mut stream, &case.response.body)?;
    }
    instance.end_stream(trial.context, &mut stream)?;
    let mut differences = case.expect.differences(&came(stream, reply));
    if trial.stuck {
        differences.insert(0, "the filter paused and nothing made it go on".to_owned());
    }
    Ok(differences)
}

fn came(stream: Plain, reply: Option<LocalReply>) -> Came {
    let request_body = stream.request_body.unwrap_or_default();
    let (response_headers, response_body, reply) = match reply {
        None => (stream.response_headers.unwrap_or_default(), stream.response_body.unwrap_or_default(), None),
        Some(reply) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = reply.headers.iter().map(|(name, value)| (text(name), value.clone())).collect();
            (headers, reply.body, Some(reply.status))
        }
    };
    Came { request_headers: stream.request_headers, request_body, response_headers, response_body, reply }
}

fn fields(message: &Message) -> Vec<(String, Vec<u8>)> {
    message.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect()
}

/// An exchange under way.
struct Trial {
    context: u32,
    answers: Vec<Message>,
    stuck: bool,
}

impl Trial {
    fn request(
        &mut self,
        instance: &mut Instance,
        stream: &mut Plain,
        body: &str,
    ) -> Result<Option<LocalReply>, Failure> {
        let action = instance.headers(self.context, stream, FieldMap::RequestHeaders, body.is_empty())?;
        let mut reply = self.settle(instance, stream, action, Direction::Request)?;
        if reply.is_none() && !body.is_empty() {
            stream.request_body = Some(body.as_bytes().to_vec());
            let action = instance.data(self.context, stream, DataBuffer::RequestBody, true)?;
            reply = self.settle(instance, stream, action, Direction::Request)?;
        }
        Ok(reply)
    }

    fn response(
        &mut self,
        instance: &mut Instance,
        stream: &mut Plain,
        body: &str,
    ) -> Result<Option<LocalReply>, Failure> {
        let action = instance.headers(self.context, stream, FieldMap::ResponseHeaders, body.is_empty())?;
        let mut reply = self.settle(instance, stream, action, Direction::Response)?;
        if reply.is_none() && !body.is_empty() {
            stream.response_body = Some(body.as_bytes().to_vec());
            let action = instance.data(self.context, stream, DataBuffer::ResponseBody, true)?;
            reply = self.settle(instance, stream, action, Direction::Response)?;
        }
        Ok(reply)
    }

    /// Answer callouts until the filter goes on.
    fn settle(
        &mut self,
        instance: &mut Instance,
        stream: &mut Plain,
        action: Action,
        direction: Direction,
    ) -> Result<Option<LocalReply>, Failure> {
        let mut paused = action == Action::Pause;
        for _ in 0..CALLOUTS {
            let signals = instance.take_signals(self.context, direction);
            if signals.reply.is_some() {
                return Ok(signals.reply.map(|reply| *reply));
            }
            paused &= !signals.resumes(direction);
            let callouts = instance.take_callouts();
            if callouts.is_empty() {
                break;
            }
            for callout in callouts {
                match callout.kind {
                    CalloutKind::Http(_) => {
                        let answer = self.answer();
                        instance.http_reply(callout.token, answer, Some(&mut *stream))?;
                    }
                    CalloutKind::Grpc(call) => {
                        let answer = self.grpc_answer(&call);
                        instance.grpc_event(callout.token, answer, Some(&mut *stream))?;
                    }
                    CalloutKind::GrpcSend { .. } | CalloutKind::GrpcClose | CalloutKind::Cancel => {}
                }
            }
        }
        self.stuck = paused;
        Ok(None)
    }

    /// The next answer as that of a gRPC call: its body is the message, unless it has a `grpc-status`. Streams fail.
    fn grpc_answer(&mut self, call: &GrpcCall) -> GrpcEvent {
        if call.message.is_none() || self.answers.is_empty() {
            let text = if call.message.is_none() { "cases have no streams" } else { "the case has no more answers" };
            return GrpcEvent::Close(CalloutStatus::new(CalloutStatus::UNAVAILABLE, text));
        }
        let Message { headers, body } = self.answers.remove(0);
        let status = headers.iter().find(|(name, _)| name == "grpc-status").and_then(|(_, value)| value.parse().ok());
        match status {
            None | Some(CalloutStatus::OK) => GrpcEvent::Message(body.into_bytes()),
            Some(code) => GrpcEvent::Close(CalloutStatus::new(code, body)),
        }
    }

    fn answer(&mut self) -> HttpReply {
        if self.answers.is_empty() {
            return HttpReply::failure("the case has no more answers");
        }
        let message = self.answers.remove(0);
        let headers: Fields = message.headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        HttpReply { headers, body: message.body.into_bytes(), ..HttpReply::default() }
    }
}
