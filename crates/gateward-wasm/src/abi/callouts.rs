//! Requests that guests send over HTTP and gRPC. They are checked here, and queued for the gateway to carry.

use super::grpc_service::GrpcService;
use super::streams::fields;
use crate::callout::{Callout, CalloutKind, GrpcCall, HttpCall, Token};
use crate::callout_stats::CalloutProtocol;
use crate::host::{Call, CallKind, Host, bytes, split, status, text, write_u32};
use crate::limits::WRITTEN_BODY_BYTES;
use crate::types::Status;
use std::time::Duration;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_http_call", http_call)?;
    linker.func_wrap("env", "proxy_grpc_call", grpc_call)?;
    linker.func_wrap("env", "proxy_grpc_stream", grpc_stream)?;
    linker.func_wrap("env", "proxy_grpc_send", grpc_send)?;
    linker.func_wrap("env", "proxy_grpc_cancel", grpc_cancel)?;
    linker.func_wrap("env", "proxy_grpc_close", grpc_close)?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the specification's")]
fn http_call(
    mut caller: Caller<'_, Host>,
    upstream: u32,
    upstream_len: u32,
    headers: u32,
    headers_len: u32,
    body: u32,
    body_len: u32,
    trailers: u32,
    trailers_len: u32,
    timeout_ms: u32,
    return_id: u32,
) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let upstream = text(memory, upstream, upstream_len)?;
        let call = HttpCall {
            upstream: upstream.to_owned(),
            headers: fields(memory, headers, headers_len)?,
            body: body_of(memory, body, body_len)?,
            trailers: fields(memory, trailers, trailers_len)?,
            timeout: timeout(host, timeout_ms),
        };
        let has = |name: &[u8]| call.headers.iter().any(|(known, value)| known == name && !value.is_empty());
        if !has(b":method") || !has(b":path") || !has(b":authority") || !host.setup.upstreams.knows(upstream) {
            return Err(Status::BadArgument);
        }
        bytes(memory, return_id, 4)?;
        let token = dispatch(host, CallKind::Http, CalloutKind::Http(call))?;
        write_u32(memory, return_id, token)
    })())
}

fn body_of(memory: &[u8], data: u32, len: u32) -> std::result::Result<Vec<u8>, Status> {
    let body = bytes(memory, data, len)?;
    if body.len() > WRITTEN_BODY_BYTES { Err(Status::InternalFailure) } else { Ok(body.to_vec()) }
}

/// What the guest asks for, at most what it may; zero means that it does not care.
fn timeout(host: &Host, asked_ms: u32) -> Duration {
    let most = host.setup.config.limits.callout_timeout;
    match asked_ms {
        0 => most,
        asked => most.min(Duration::from_millis(u64::from(asked))),
    }
}

/// Queue a new callout on behalf of the effective context. Tokens of gRPC are odd, those of HTTP even, none is zero.
fn dispatch(host: &mut Host, kind: CallKind, callout: CalloutKind) -> std::result::Result<Token, Status> {
    let limits = &host.setup.config.limits;
    let (most, most_per_stream) = (usize::from(limits.callouts), limits.callouts_per_stream);
    let (id, full) = (host.effective, host.calls.len() >= most);
    let context = host.contexts.get_mut(&id).ok_or(Status::InternalFailure)?;
    if full || (id != crate::host::ROOT && context.calls >= most_per_stream) {
        host.counters.callout_refused(match kind {
            CallKind::Http => CalloutProtocol::Http,
            CallKind::Unary => CalloutProtocol::Grpc,
            CallKind::Stream { .. } => CalloutProtocol::GrpcStream,
        });
        return Err(Status::InternalFailure);
    }
    context.calls = context.calls.saturating_add(1);
    let odd = Token::from(kind != CallKind::Http);
    let mut token = host.last_token;
    loop {
        token = (token | 1).wrapping_add(1) | odd;
        if token > 1 && !host.calls.contains_key(&token) {
            break;
        }
    }
    host.last_token = token;
    host.calls.insert(token, Call { context: id, kind });
    host.outbox.push(Callout { token, context: id, kind: callout });
    Ok(token)
}

/// The parts that both kinds of gRPC calls have.
fn grpc(memory: &[u8], host: &Host, names: [(u32, u32); 4]) -> std::result::Result<GrpcCall, Status> {
    let [upstream, service, method, metadata] = names;
    let name = |(data, len): (u32, u32)| text(memory, data, len).map(str::to_owned);
    let callee = callee(host, bytes(memory, upstream.0, upstream.1)?)?;
    let own = fields(memory, metadata.0, metadata.1).map_err(|_| Status::ParseFailure)?;
    Ok(GrpcCall {
        upstream: callee.name,
        authority: callee.authority,
        service: name(service)?,
        method: name(method)?,
        metadata: callee.metadata.into_iter().chain(own).collect(),
        message: None,
        timeout: None,
    })
}

/// A name that is known, or a message that says one.
fn callee(host: &Host, given: &[u8]) -> std::result::Result<GrpcService, Status> {
    let knows = |name: &str| host.setup.upstreams.knows(name);
    match str::from_utf8(given) {
        Ok(name) if knows(name) => Ok(GrpcService { name: name.to_owned(), ..GrpcService::default() }),
        _ => GrpcService::parse(given).filter(|service| knows(&service.name)).ok_or(Status::ParseFailure),
    }
}

#[expect(clippy::too_many_arguments, reason = "the specification's")]
fn grpc_call(
    mut caller: Caller<'_, Host>,
    upstream: u32,
    upstream_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    message: u32,
    message_len: u32,
    timeout_ms: u32,
    return_id: u32,
) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let names = [(upstream, upstream_len), (service, service_len), (method, method_len), (metadata, metadata_len)];
        let mut call = grpc(memory, host, names)?;
        call.message = Some(body_of(memory, message, message_len)?);
        call.timeout = Some(timeout(host, timeout_ms));
        bytes(memory, return_id, 4)?;
        let token = dispatch(host, CallKind::Unary, CalloutKind::Grpc(call))?;
        write_u32(memory, return_id, token)
    })())
}

#[expect(clippy::too_many_arguments, reason = "the specification's")]
fn grpc_stream(
    mut caller: Caller<'_, Host>,
    upstream: u32,
    upstream_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    return_id: u32,
) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let names = [(upstream, upstream_len), (service, service_len), (method, method_len), (metadata, metadata_len)];
        let call = grpc(memory, host, names)?;
        bytes(memory, return_id, 4)?;
        let token = dispatch(host, CallKind::Stream { ended: false }, CalloutKind::Grpc(call))?;
        write_u32(memory, return_id, token)
    })())
}

fn grpc_send(mut caller: Caller<'_, Host>, token: u32, message: u32, message_len: u32, end: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let message = body_of(memory, message, message_len)?;
        let call = host.calls.get_mut(&token).ok_or(unknown(token))?;
        let CallKind::Stream { ended: false } = call.kind else { return Err(Status::BadArgument) };
        let end = end != 0;
        call.kind = CallKind::Stream { ended: end };
        let context = call.context;
        queue(host, token, context, CalloutKind::GrpcSend { message, end })
    })())
}

/// Nothing was ever sent over gRPC under an even token.
fn unknown(token: Token) -> Status {
    if token & 1 == 0 { Status::BadArgument } else { Status::NotFound }
}

fn queue(host: &mut Host, token: Token, context: u32, kind: CalloutKind) -> std::result::Result<(), Status> {
    // Messages of one callback wait here until it ends.
    let waiting: usize = host.outbox.iter().map(|callout| size(&callout.kind)).sum();
    if waiting + size(&kind) > WRITTEN_BODY_BYTES || host.outbox.len() >= 4096 {
        return Err(Status::InternalFailure);
    }
    host.outbox.push(Callout { token, context, kind });
    Ok(())
}

fn size(kind: &CalloutKind) -> usize {
    if let CalloutKind::GrpcSend { message, .. } = kind { message.len() } else { 0 }
}

fn grpc_cancel(mut caller: Caller<'_, Host>, token: u32) -> u32 {
    let host = caller.data_mut();
    status((|| {
        let call = host.calls.get(&token).copied().filter(|call| call.kind != CallKind::Http).ok_or(unknown(token))?;
        host.end_call(token);
        queue(host, token, call.context, CalloutKind::Cancel)
    })())
}

fn grpc_close(mut caller: Caller<'_, Host>, token: u32) -> u32 {
    let host = caller.data_mut();
    status((|| {
        let call = host.calls.get_mut(&token).ok_or(unknown(token))?;
        let context = call.context;
        match call.kind {
            CallKind::Http => Err(Status::BadArgument),
            CallKind::Unary => {
                host.end_call(token);
                queue(host, token, context, CalloutKind::Cancel)
            }
            CallKind::Stream { ended: true } => Ok(()),
            CallKind::Stream { ended: false } => {
                call.kind = CallKind::Stream { ended: true };
                queue(host, token, context, CalloutKind::GrpcClose)
            }
        }
    })())
}
