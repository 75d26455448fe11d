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
use serde::Deserialize;
use std::collections::BTreeMap;
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

/// Headers and a body.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
}

/// Expectations; what is not named is not looked at. `null` expects a field not to be there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    request_headers: BTreeMap<String, Option<String>>,
    request_body: Option<String>,
    #[serde(default)]
    response_headers: BTreeMap<String, Option<String>>,
    response_body: Option<String>,
    reply: Option<ExpectedReply>,
}

/// A response of the filter's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedReply {
    status: u16,
    body: Option<String>,
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
    let mut differences = Vec::new();
    if trial.stuck {
        differences.push("the filter paused and nothing made it go on".to_owned());
    }
    case.expect.compare(&stream, reply.as_ref(), &mut differences);
    Ok(differences)
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
                return Ok(signals.reply);
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

impl Expected {
    fn compare(&self, stream: &Plain, reply: Option<&LocalReply>, differences: &mut Vec<String>) {
        let own = reply.map(|reply| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            reply.headers.iter().map(|(name, value)| (text(name), value.clone())).collect::<Vec<_>>()
        });
        let response = own.as_ref().or(stream.response_headers.as_ref());
        compare_fields("request", &self.request_headers, Some(&stream.request_headers), differences);
        compare_fields("response", &self.response_headers, response, differences);
        compare_body("request body", self.request_body.as_deref(), stream.request_body.as_deref(), differences);
        compare_body("response body", self.response_body.as_deref(), stream.response_body.as_deref(), differences);
        match (&self.reply, reply) {
            (None, None) => {}
            (None, Some(reply)) => differences.push(format!("the filter answered {} itself", reply.status)),
            (Some(expected), None) => differences.push(format!("the filter did not answer {} itself", expected.status)),
            (Some(expected), Some(reply)) => {
                if expected.status != reply.status {
                    differences.push(format!("reply: status {}, not {}", reply.status, expected.status));
                }
                compare_body("reply body", expected.body.as_deref(), Some(&reply.body), differences);
            }
        }
    }
}

fn compare_fields(
    what: &str,
    expected: &BTreeMap<String, Option<String>>,
    found: Option<&Vec<(String, Vec<u8>)>>,
    differences: &mut Vec<String>,
) {
    for (name, expected) in expected {
        let values = found.into_iter().flatten().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<_> = values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
        let value = (!values.is_empty()).then(|| values.join(", "));
        if value != *expected {
            let show =
                |value: &Option<String>| value.as_ref().map_or("absent".to_owned(), |value| format!("{value:?}"));
            differences.push(format!("{what} header {name}: {}, not {}", show(&value), show(expected)));
        }
    }
}

fn compare_body(what: &str, expected: Option<&str>, found: Option<&[u8]>, differences: &mut Vec<String>) {
    let Some(expected) = expected else { return };
    let found = String::from_utf8_lossy(found.unwrap_or_default());
    if found != expected {
        differences.push(format!("{what}: {found:?}, not {expected:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told() {
        let expected: Expected = serde_json::from_str(
            r#"{"request_headers": {"a": "1", "b": null, "c": "x"}, "request_body": "no", "reply": {"status": 403}}"#,
        )
        .unwrap();
        let stream = Plain::request(&[("A", "1"), ("b", "2")]);
        let mut differences = Vec::new();
        expected.compare(&stream, None, &mut differences);
        let wanted = [
            "request header b: \"2\", not absent",
            "request header c: absent, not \"x\"",
            "request body: \"\", not \"no\"",
            "the filter did not answer 403 itself",
        ];
        assert_eq!(differences, wanted);
    }
}
