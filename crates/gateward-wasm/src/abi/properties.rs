//! Properties of the stream and the plugin, and functions of the host by name.

use crate::host::{Host, answer, bytes, give_written, split, status};
use crate::limits::{PROPERTIES, PROPERTY_BYTES};
use crate::types::Status;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_get_property", property)?;
    linker.func_wrap("env", "proxy_set_property", set_property)?;
    linker.func_wrap("env", "proxy_call_foreign_function", call_foreign_function)?;
    Ok(())
}

/// Parts of the longest path.
const MAX_PARTS: usize = 8;

fn property(mut caller: Caller<'_, Host>, path: u32, path_len: u32, return_data: u32, return_len: u32) -> Result<u32> {
    answer(give_written(&mut caller, return_data, return_len, |memory, host, out| {
        let path = plain(bytes(memory, path, path_len)?);
        if find(host, path, out) { Ok(()) } else { Err(Status::NotFound) }
    }))
}

/// Some guests end a path with the NUL that separates its parts.
fn plain(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"\0").unwrap_or(path)
}

fn find(host: &mut Host, path: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(text) = str::from_utf8(path) else { return false };
    let mut parts = [""; MAX_PARTS];
    let mut count = 0;
    for part in text.split('\0') {
        let Some(place) = parts.get_mut(count) else { return false };
        *place = part;
        count += 1;
    }
    let parts = &parts[..count];
    let config = &host.setup.config;
    let own = match parts {
        ["plugin_name"] => Some(config.name.as_str()),
        ["plugin_root_id"] => Some(config.root_id.as_str()),
        ["plugin_vm_id"] => Some(config.vm_id.as_str()),
        _ => None,
    };
    if let Some(own) = own {
        out.extend_from_slice(own.as_bytes());
        return true;
    }
    if host.peek().is_some_and(|stream| stream.property(parts, out)) {
        return true;
    }
    let set = host.context().and_then(|context| context.properties.iter().find(|(known, _)| **known == *path));
    if let Some((_, value)) = set {
        out.extend_from_slice(value);
    }
    set.is_some()
}

fn set_property(mut caller: Caller<'_, Host>, path: u32, path_len: u32, value: u32, value_len: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let path = plain(bytes(memory, path, path_len)?);
        let value = bytes(memory, value, value_len)?;
        let context = host.context().ok_or(Status::NotFound)?;
        if path.len() + value.len() > PROPERTY_BYTES {
            return Err(Status::InternalFailure);
        }
        let full = context.properties.len() >= PROPERTIES;
        match context.properties.iter_mut().find(|(known, _)| **known == *path) {
            Some((_, old)) => *old = value.into(),
            None if full => return Err(Status::InternalFailure),
            None => context.properties.push((path.into(), value.into())),
        }
        Ok(())
    })())
}

fn call_foreign_function(
    mut caller: Caller<'_, Host>,
    name: u32,
    name_len: u32,
    arguments: u32,
    arguments_len: u32,
    return_data: u32,
    return_len: u32,
) -> Result<u32> {
    answer(give_written(&mut caller, return_data, return_len, |memory, host, out| {
        let name = bytes(memory, name, name_len)?;
        let arguments = bytes(memory, arguments, arguments_len)?;
        let mut known = host.setup.services.foreign.iter();
        let (_, function) = known.find(|(known, _)| known.as_bytes() == name).ok_or(Status::NotFound)?;
        *out = function(arguments)?;
        Ok(())
    }))
}
