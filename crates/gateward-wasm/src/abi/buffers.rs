//! Bodies, messages, configurations: bytes the guest reads and writes in pieces.

use crate::host::{Host, Stop, allocate, answer, bytes, bytes_mut, split, status, write_u32};
use crate::limits::WRITTEN_BODY_BYTES;
use crate::types::{AnyBuffer, Status};
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_get_buffer_bytes", buffer_bytes)?;
    linker.func_wrap("env", "proxy_set_buffer_bytes", set_buffer_bytes)?;
    linker.func_wrap("env", "proxy_get_buffer_status", buffer_status)?;
    linker.func_wrap("env", "proxy_get_configuration", configuration)?;
    Ok(())
}

/// What is in a buffer.
fn contents(host: &Host, buffer: AnyBuffer) -> std::result::Result<&[u8], Status> {
    let found = match buffer {
        AnyBuffer::Stream(buffer) => host.peek().and_then(|stream| stream.data(buffer)),
        AnyBuffer::CallBody => host.shown.http.as_ref().map(|reply| reply.body.as_slice()),
        AnyBuffer::GrpcMessage => host.shown.grpc_message.as_deref(),
        AnyBuffer::VmConfiguration => Some(host.setup.config.vm_configuration.as_slice()),
        AnyBuffer::PluginConfiguration => Some(host.setup.config.configuration.as_slice()),
        AnyBuffer::ForeignArguments => host.shown.foreign_arguments.as_deref(),
    };
    found.ok_or(Status::NotFound)
}

fn buffer_bytes(
    mut caller: Caller<'_, Host>,
    buffer: u32,
    start: u32,
    most: u32,
    return_data: u32,
    return_len: u32,
) -> Result<u32> {
    answer((|| {
        let buffer = AnyBuffer::from_guest(buffer)?;
        if start.checked_add(most).is_none() && most != u32::MAX {
            return Err(Status::BadArgument.into());
        }
        give_piece(&mut caller, buffer, start, most, return_data, return_len)
    })())
}

/// Hand up to `most` bytes to the guest, straight from where they are.
fn give_piece(
    caller: &mut Caller<'_, Host>,
    buffer: AnyBuffer,
    start: u32,
    most: u32,
    return_data: u32,
    return_len: u32,
) -> std::result::Result<(), Stop> {
    let piece = |bytes: &[u8]| {
        let from = (start as usize).min(bytes.len());
        from..from.saturating_add(most as usize).min(bytes.len())
    };
    let len = piece(contents(caller.data(), buffer)?).len();
    let at = if len == 0 { 0 } else { allocate(caller, len)? };
    let (memory, host) = split(caller);
    if len > 0 {
        // The allocator may have changed the buffer; what is there now counts, up to what was allocated.
        let bytes = contents(host, buffer)?;
        let bytes = bytes.get(piece(bytes)).filter(|bytes| bytes.len() == len).ok_or(Status::InternalFailure)?;
        bytes_mut(memory, at, len as u32)?.copy_from_slice(bytes);
    }
    write_u32(memory, return_data, at)?;
    write_u32(memory, return_len, len as u32)?;
    Ok(())
}

fn set_buffer_bytes(mut caller: Caller<'_, Host>, buffer: u32, start: u32, size: u32, data: u32, len: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let AnyBuffer::Stream(buffer) = AnyBuffer::from_guest(buffer)? else { return Err(Status::BadArgument) };
        let written = bytes(memory, data, len)?;
        let stream = host.stream().ok_or(Status::NotFound)?;
        let buffer = stream.data_mut(buffer).ok_or(Status::NotFound)?;
        let from = (start as usize).min(buffer.len());
        let to = from.saturating_add(size as usize).min(buffer.len());
        if buffer.len() - (to - from) + written.len() > WRITTEN_BODY_BYTES {
            return Err(Status::InternalFailure);
        }
        if from == 0 && to == buffer.len() {
            buffer.clear();
            buffer.extend_from_slice(written);
        } else {
            buffer.splice(from..to, written.iter().copied());
        }
        Ok(())
    })())
}

fn buffer_status(mut caller: Caller<'_, Host>, buffer: u32, return_len: u32, return_flags: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let len = contents(host, AnyBuffer::from_guest(buffer)?)?.len();
        write_u32(memory, return_len, len as u32)?;
        write_u32(memory, return_flags, 0)
    })())
}

/// Only in ABI 0.1.0: the configuration of the callback under way.
fn configuration(mut caller: Caller<'_, Host>, return_data: u32, return_len: u32) -> Result<u32> {
    answer(give_piece(&mut caller, AnyBuffer::PluginConfiguration, 0, u32::MAX, return_data, return_len))
}
