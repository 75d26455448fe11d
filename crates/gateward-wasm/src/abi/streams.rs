//! What a guest does to a stream as a whole: go on, break off, answer.

use crate::callout::Fields;
use crate::host::{Host, answer, bytes, give, split, status, write_u32};
use crate::limits::WRITTEN_BODY_BYTES;
use crate::pairs;
use crate::stream::LocalReply;
use crate::types::{Direction, Status};
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_continue_stream", continue_stream)?;
    linker.func_wrap("env", "proxy_close_stream", close_stream)?;
    linker.func_wrap("env", "proxy_get_status", call_status)?;
    linker.func_wrap("env", "proxy_send_local_response", send_local_response)?;
    // ABI 0.1.0:
    linker.func_wrap("env", "proxy_continue_request", |caller: Caller<'_, Host>| continue_stream(caller, 0))?;
    linker.func_wrap("env", "proxy_continue_response", |caller: Caller<'_, Host>| continue_stream(caller, 1))?;
    linker.func_wrap("env", "proxy_clear_route_cache", clear_route_cache)?;
    Ok(())
}

/// What is done to a stream that is not at hand waits for it in its context, and the host wakes it.
fn continue_stream(mut caller: Caller<'_, Host>, direction: u32) -> u32 {
    let host = caller.data_mut();
    status((|| {
        let direction = Direction::from_guest(direction)?;
        let context = host.context().ok_or(Status::BadArgument)?;
        context.resumed |= direction.bit();
        Ok(())
    })())
}

fn close_stream(mut caller: Caller<'_, Host>, direction: u32) -> u32 {
    let host = caller.data_mut();
    status((|| {
        let direction = Direction::from_guest(direction)?;
        let context = host.context().ok_or(Status::BadArgument)?;
        context.closed |= direction.bit();
        Ok(())
    })())
}

fn call_status(mut caller: Caller<'_, Host>, return_code: u32, return_data: u32, return_len: u32) -> Result<u32> {
    let shown = &caller.data().shown;
    let found = shown.grpc_status.clone().or_else(|| shown.http.as_ref().map(|reply| reply.status.clone()));
    let found = found.unwrap_or_default();
    answer((|| {
        write_u32(split(&mut caller).0, return_code, found.code)?;
        give(&mut caller, found.message.as_bytes(), return_data, return_len)
    })())
}

#[expect(clippy::too_many_arguments, reason = "the specification's")]
fn send_local_response(
    mut caller: Caller<'_, Host>,
    code: u32,
    details: u32,
    details_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    headers_len: u32,
    grpc_status: u32,
) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let details = String::from_utf8_lossy(bytes(memory, details, details_len)?).into_owned();
        let body = bytes(memory, body, body_len)?;
        let headers = fields(memory, headers, headers_len)?;
        let status = u16::try_from(code).ok().filter(|code| (200..=599).contains(code)).ok_or(Status::BadArgument)?;
        if body.len() > WRITTEN_BODY_BYTES {
            return Err(Status::InternalFailure);
        }
        let may_respond = host.peek().is_none_or(|stream| stream.can_respond());
        let context = host.context().ok_or(Status::BadArgument)?;
        // Too late, or the second one: it comes to nothing, and is no reason for a guest to fail.
        if may_respond && context.reply.is_none() {
            let grpc_status = (grpc_status != u32::MAX).then_some(grpc_status);
            let body = body.to_vec();
            context.reply = Some(Box::new(LocalReply { status, details, body, headers, grpc_status }));
        }
        Ok(())
    })())
}

/// A serialised map as fields.
pub(super) fn fields(memory: &[u8], data: u32, len: u32) -> std::result::Result<Fields, Status> {
    let pairs = pairs::parse(bytes(memory, data, len)?).map_err(|_| Status::BadArgument)?;
    Ok(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect())
}

fn clear_route_cache(mut caller: Caller<'_, Host>) -> u32 {
    if let Some(stream) = caller.data_mut().stream() {
        stream.clear_route_cache();
    }
    Status::Ok as u32
}
