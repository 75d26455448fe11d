//! The body of the request, and what becomes of the response: its status, an answer in its place, the end of its body.

use crate::shared::{Op, Shared};
use crate::slot::Slot;
use gateward_http::BodyFraming;
use gateward_plugin::{Exchange, LocalBody, LocalResponse, Source};
use mlua::{Lua, LuaString, Result, Table, Value};
use serde_json::json;
use std::rc::Rc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    request(lua, functions, shared)?;
    let own = shared.clone();
    let set_status = lua.create_function(move |_, status: u16| {
        let set = own.state.exchange(|exchange| {
            let there = exchange.response.status != 0;
            if there {
                exchange.response.status = status;
            }
            there
        });
        Ok(set.unwrap_or(false))
    })?;
    functions.raw_set("set_status", set_status)?;
    let own = shared.clone();
    let end_body = lua.create_function(move |_, ()| {
        let instance = own.state.instance.get();
        own.state.exchange(|exchange| {
            if let Some(slot) = exchange.kept_mut::<Slot>() {
                slot.body_ended = Some(instance);
            }
        });
        Ok(())
    })?;
    functions.raw_set("end_body", end_body)?;
    let own = shared.clone();
    let replace = lua.create_function(move |_, ()| {
        if let Some(answer) = own.answer.take() {
            own.state.exchange(|exchange| replace(exchange, answer));
        }
        Ok(())
    })?;
    functions.raw_set("replace", replace)?;
    let own = shared.clone();
    let leave = lua.create_function(move |_, ()| {
        own.left.set(true);
        Ok(())
    })?;
    functions.raw_set("leave", leave)
}

fn request(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let body = lua.create_function(move |lua, ()| {
        let body = own.state.read(|exchange| match (&exchange.body, exchange.request.framing) {
            (Some(body), _) => Some(lua.create_string(body)),
            (None, BodyFraming::None) => Some(lua.create_string("")),
            (None, _) => None,
        });
        body.flatten().transpose()
    })?;
    functions.raw_set("body", body)?;
    let own = shared.clone();
    let set_body = lua.create_function(move |_, body: LuaString| {
        let body = body.as_bytes().to_vec();
        own.state.exchange(|exchange| {
            exchange.request.headers.set("Content-Length", body.len().to_string());
            exchange.body = Some(body);
        });
        Ok(())
    })?;
    functions.raw_set("set_body", set_body)?;
    let own = shared.clone();
    functions.raw_set("read_body", lua.create_function(move |_, ()| Ok(Op::request_body(&own)))?)?;
    let own = shared.clone();
    let answered = lua.create_function(move |lua, ()| {
        let body = own.state.read(|exchange| {
            let response = &exchange.response;
            response.held.as_ref().or(response.body.as_ref()).map(|body| lua.create_string(body))
        });
        body.flatten().transpose().map(|body| body.map_or(Value::Nil, Value::String))
    })?;
    functions.raw_set("response_body", answered)
}

/// Put `answer` into the place of the response whose head is about to be sent.
fn replace(exchange: &mut Exchange, answer: LocalResponse) {
    let id = exchange.id.clone();
    let response = &mut exchange.response;
    response.status = answer.status;
    response.source = Source::Exit;
    let (content_type, body) = match answer.body {
        LocalBody::Empty => (String::new(), Vec::new()),
        LocalBody::Bytes(content_type, body) => (content_type, body),
        LocalBody::Message(message) => {
            let body = json!({ "message": message, "request_id": id });
            ("application/json; charset=utf-8".to_owned(), body.to_string().into_bytes())
        }
    };
    for name in ["Content-Length", "Content-Encoding", "Content-Type"] {
        response.headers.remove(name);
    }
    if !content_type.is_empty() {
        response.headers.set("Content-Type", content_type);
    }
    for (index, (name, value)) in answer.headers.iter().enumerate() {
        if answer.headers[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            response.headers.add(name, value);
        } else {
            response.headers.set(name, value);
        }
    }
    response.body = Some(body);
}
