//! Maps of fields: headers and trailers of the stream, and of answers to callouts.

use crate::callout::Fields;
use crate::host::{Host, answer, bytes, bytes_mut, give_written, split, status, write_u32};
use crate::pairs::{self, Writer};
use crate::stream::Edit;
use crate::types::{Abi, AnyMap, FieldMap, Status};
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_get_header_map_size", size)?;
    linker.func_wrap("env", "proxy_get_header_map_pairs", all)?;
    linker.func_wrap("env", "proxy_set_header_map_pairs", set_all)?;
    linker.func_wrap("env", "proxy_get_header_map_value", value)?;
    linker.func_wrap("env", "proxy_add_header_map_value", add)?;
    linker.func_wrap("env", "proxy_replace_header_map_value", replace)?;
    linker.func_wrap("env", "proxy_remove_header_map_value", remove)?;
    Ok(())
}

/// Show every field of `map`. A map that is not there in this phase is empty: a guest that asks for it should not fail.
fn each(host: &Host, map: AnyMap, show: &mut dyn FnMut(&[u8], &[u8])) {
    match map {
        AnyMap::Stream(map) => {
            if let Some(stream) = host.peek() {
                stream.each_field(map, show);
            }
        }
        AnyMap::Reply(map) => {
            for (name, value) in host.shown.fields(map).into_iter().flatten() {
                show(name, value);
            }
        }
    }
}

fn size(mut caller: Caller<'_, Host>, map: u32, return_size: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let map = AnyMap::from_guest(map)?;
        let mut size = 0;
        each(host, map, &mut |name, value| size += 10 + name.len() + value.len());
        let size = if size == 0 { 0 } else { size + 4 };
        write_u32(memory, return_size, size as u32)
    })())
}

fn all(mut caller: Caller<'_, Host>, map: u32, return_data: u32, return_len: u32) -> Result<u32> {
    answer((|| {
        let map = AnyMap::from_guest(map)?;
        give_written(&mut caller, return_data, return_len, |_, host, out| {
            let mut writer = Writer::new(out);
            each(host, map, &mut |name, value| writer.announce(name, value));
            if writer.count() > 0 {
                each(host, map, &mut |name, value| writer.pair(name, value));
            }
            Ok(())
        })
    })())
}

fn value(
    mut caller: Caller<'_, Host>,
    map: u32,
    name: u32,
    name_len: u32,
    return_data: u32,
    return_len: u32,
) -> Result<u32> {
    answer((|| {
        let map = AnyMap::from_guest(map)?;
        give_written(&mut caller, return_data, return_len, |memory, host, out| {
            look_up(host, map, bytes(memory, name, name_len)?, out)
        })
    })())
}

/// Append the value of `name` to `out`.
fn look_up(host: &Host, map: AnyMap, name: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), Status> {
    let found = match map {
        AnyMap::Stream(map) => host.peek().is_some_and(|stream| stream.field(map, name, out)),
        AnyMap::Reply(map) => host.shown.fields(map).is_some_and(|fields| join(fields, name, out)),
    };
    // Guests of the first version know no missing fields, only empty ones.
    if found || host.abi == Abi::V0_1_0 { Ok(()) } else { Err(Status::NotFound) }
}

/// The first half of [`value`], for the bridge: find the value and say how long it is. Zero and below: there is nothing to
/// hand over; it is a status with its sign turned.
pub(crate) fn find_value(
    mut caller: Caller<'_, Host>,
    map: u32,
    name: u32,
    name_len: u32,
    return_data: u32,
    return_len: u32,
) -> i32 {
    let (memory, host) = split(&mut caller);
    let mut found = host.take_scratch();
    let outcome = (|| {
        look_up(host, AnyMap::from_guest(map)?, bytes(memory, name, name_len)?, &mut found)?;
        if found.is_empty() {
            write_u32(memory, return_data, 0)?;
            write_u32(memory, return_len, 0)?;
        }
        i32::try_from(found.len()).map_err(|_| Status::InternalFailure)
    })();
    match outcome {
        Ok(len) => {
            host.keep_scratch(found);
            len
        }
        Err(status) => {
            host.put_back(found);
            -(status as i32)
        }
    }
}

/// The second half: copy what was found to `at`, where the guest has made room for `len` bytes.
pub(crate) fn hand_over(mut caller: Caller<'_, Host>, at: u32, len: u32, return_data: u32, return_len: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    let found = host.take_kept();
    let outcome = (|| {
        // An allocator may have looked for something else meanwhile.
        if found.len() != len as usize {
            return Err(Status::InternalFailure);
        }
        bytes_mut(memory, at, len)?.copy_from_slice(&found);
        write_u32(memory, return_data, at)?;
        write_u32(memory, return_len, len)
    })();
    host.put_back(found);
    status(outcome)
}

/// All values of `name`, joined (RFC 9110 section 5.3).
fn join(fields: &Fields, name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for (_, value) in fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)) {
        if found {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value);
        found = true;
    }
    found
}

/// Change the stream's map. What a callout brought cannot be changed.
fn edit(
    host: &mut Host,
    map: u32,
    bytes: usize,
    change: impl FnOnce(&mut dyn crate::stream::Stream, FieldMap) -> Edit,
) -> std::result::Result<(), Status> {
    let AnyMap::Stream(map) = AnyMap::from_guest(map)? else { return Err(Status::BadArgument) };
    if !host.may_write(bytes) {
        return Err(Status::InternalFailure);
    }
    let stream = host.stream().ok_or(Status::BadArgument)?;
    match change(stream, map) {
        Edit::Done => Ok(()),
        Edit::NotNow | Edit::Refused => Err(Status::BadArgument),
    }
}

fn set_all(mut caller: Caller<'_, Host>, map: u32, data: u32, len: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let fields = pairs::parse(bytes(memory, data, len)?).map_err(|_| Status::BadArgument)?;
        edit(host, map, len as usize, |stream, map| {
            let mut done = stream.clear_fields(map);
            for (name, value) in fields {
                let set = match (done, name.first()) {
                    (Edit::Done, Some(b':')) => stream.replace_field(map, name, value),
                    (Edit::Done, _) => stream.add_field(map, name, value),
                    (other, _) => other,
                };
                done = set;
            }
            done
        })
    })())
}

fn add(caller: Caller<'_, Host>, map: u32, name: u32, name_len: u32, value: u32, value_len: u32) -> u32 {
    write(caller, map, [name, name_len, value, value_len], |stream, map, name, value| {
        stream.add_field(map, name, value)
    })
}

fn replace(caller: Caller<'_, Host>, map: u32, name: u32, name_len: u32, value: u32, value_len: u32) -> u32 {
    write(caller, map, [name, name_len, value, value_len], |stream, map, name, value| {
        stream.replace_field(map, name, value)
    })
}

fn write(
    mut caller: Caller<'_, Host>,
    map: u32,
    [name, name_len, value, value_len]: [u32; 4],
    change: impl FnOnce(&mut dyn crate::stream::Stream, FieldMap, &[u8], &[u8]) -> Edit,
) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let (name, value) = (bytes(memory, name, name_len)?, bytes(memory, value, value_len)?);
        edit(host, map, name.len() + value.len(), |stream, map| change(stream, map, name, value))
    })())
}

fn remove(mut caller: Caller<'_, Host>, map: u32, name: u32, name_len: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let name = bytes(memory, name, name_len)?;
        edit(host, map, 0, |stream, map| stream.remove_field(map, name))
    })())
}
