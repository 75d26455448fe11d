//! Data and queues shared between instances.

use crate::host::{Host, answer, bytes, give, give_written, split, status, text, write_u32};
use crate::shared::Space;
use crate::types::Status;
use std::sync::Arc;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_get_shared_data", data)?;
    linker.func_wrap("env", "proxy_set_shared_data", set_data)?;
    linker.func_wrap("env", "proxy_register_shared_queue", register)?;
    linker.func_wrap("env", "proxy_resolve_shared_queue", resolve)?;
    linker.func_wrap("env", "proxy_enqueue_shared_queue", enqueue)?;
    linker.func_wrap("env", "proxy_dequeue_shared_queue", dequeue)?;
    Ok(())
}

fn data(
    mut caller: Caller<'_, Host>,
    key: u32,
    key_len: u32,
    return_data: u32,
    return_len: u32,
    return_cas: u32,
) -> Result<u32> {
    answer((|| {
        let (memory, host) = split(&mut caller);
        let (value, cas) = host.space.value(bytes(memory, key, key_len)?).ok_or(Status::NotFound)?;
        give(&mut caller, &value, return_data, return_len)?;
        write_u32(split(&mut caller).0, return_cas, cas)?;
        Ok(())
    })())
}

fn set_data(mut caller: Caller<'_, Host>, key: u32, key_len: u32, value: u32, value_len: u32, cas: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| host.space.set(bytes(memory, key, key_len)?, bytes(memory, value, value_len)?, cas))())
}

fn register(mut caller: Caller<'_, Host>, name: u32, name_len: u32, return_id: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        bytes(memory, return_id, 4)?;
        let id = host.space.register(bytes(memory, name, name_len)?, &host.listener)?;
        write_u32(memory, return_id, id)
    })())
}

fn resolve(mut caller: Caller<'_, Host>, vm_id: u32, vm_id_len: u32, name: u32, name_len: u32, return_id: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let vm_id = text(memory, vm_id, vm_id_len).map_err(|status| match status {
            Status::BadArgument => Status::NotFound,
            other => other,
        })?;
        let name = bytes(memory, name, name_len)?;
        let space = space_of(host, vm_id);
        let id = space.and_then(|space| space.resolve(name)).ok_or(Status::NotFound)?;
        write_u32(memory, return_id, id)
    })())
}

/// The space of a `vm_id`; none at all means the guest's own.
fn space_of(host: &Host, vm_id: &str) -> Option<Arc<Space>> {
    if vm_id.is_empty() || vm_id == host.setup.config.vm_id {
        return Some(host.space.clone());
    }
    host.setup.services.shared.existing(vm_id)
}

fn enqueue(mut caller: Caller<'_, Host>, id: u32, data: u32, len: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let item = bytes(memory, data, len)?;
        owner(host, id).ok_or(Status::NotFound)?.enqueue(id, item)
    })())
}

fn dequeue(mut caller: Caller<'_, Host>, id: u32, return_data: u32, return_len: u32) -> Result<u32> {
    answer(give_written(&mut caller, return_data, return_len, |_, host, out| {
        out.extend_from_slice(&owner(host, id).ok_or(Status::NotFound)?.dequeue(id)?);
        Ok(())
    }))
}

/// The space that has queue `id`: usually the guest's own.
fn owner(host: &Host, id: u32) -> Option<Arc<Space>> {
    if host.space.has_queue(id) {
        return Some(host.space.clone());
    }
    host.setup.services.shared.with_queue(id)
}
