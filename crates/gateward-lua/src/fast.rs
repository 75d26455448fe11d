//! Functions that Lua calls through LuaJIT's FFI, from compiled code at the price of a C call.
//!
//! They are for what handlers do for every request: read and set fields. Lua gets them as pointers; `core.lua` gives them
//! their types. Texts that are handed out are copied by Lua before it calls anything else.
#![expect(unsafe_code, reason = "called from machine code that LuaJIT makes; see SAFETY below")]

use crate::api::request;
use crate::state::State;
use gateward_http::Headers;
use mlua::{LightUserData, Lua, Table};
use std::ffi::c_void;

/// A text that is handed out. `core.lua` declares it as `gw_slice`.
#[repr(C)]
struct Slice {
    data: *const u8,
    bytes: usize,
}

/// The functions by the names `core.lua` knows.
pub(crate) fn functions(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, function) in [
        ("request_header", request_header as *const c_void),
        ("response_header", response_header as *const c_void),
        ("set_request_header", set_request_header as *const c_void),
        ("set_response_header", set_response_header as *const c_void),
        ("request_text", request_text as *const c_void),
    ] {
        table.raw_set(name, LightUserData(function.cast_mut()))?;
    }
    Ok(table)
}

/// The text that Lua passed; `None` when it is not UTF-8, which no name of a field is.
///
/// # Safety
/// `data` points to `bytes` bytes that live as long as the call.
unsafe fn text<'a>(data: *const u8, bytes: usize) -> Option<&'a str> {
    // SAFETY: as the caller promises.
    str::from_utf8(unsafe { std::slice::from_raw_parts(data, bytes) }).ok()
}

/// Hand `value` out.
///
/// # Safety
/// `out` is Lua's own record.
unsafe fn give(value: Option<&[u8]>, out: *mut Slice) -> bool {
    let Some(value) = value else { return false };
    // SAFETY: as the caller promises.
    unsafe { out.write(Slice { data: value.as_ptr(), bytes: value.len() }) };
    true
}

/// The first value of a request field.
unsafe extern "C" fn request_header(state: *const State, name: *const u8, bytes: usize, out: *mut Slice) -> bool {
    // SAFETY: `state` is the machine's own; the texts are Lua's, alive during the call.
    unsafe {
        let Some(name) = text(name, bytes) else { return false };
        (*state).read(|exchange| give(find(&exchange.request.headers, name), out)).unwrap_or(false)
    }
}

/// The first value of a response field; before there is a response, of what will be set on it.
unsafe extern "C" fn response_header(state: *const State, name: *const u8, bytes: usize, out: *mut Slice) -> bool {
    // SAFETY: as above.
    unsafe {
        let Some(name) = text(name, bytes) else { return false };
        (*state)
            .read(|exchange| {
                let response = &exchange.response;
                let headers = if response.status == 0 { &response.early } else { &response.headers };
                give(find(headers, name), out)
            })
            .unwrap_or(false)
    }
}

/// A text of the request by number: 0 method, 1 normalised path, 2 raw target path, 3 raw query, 4 id.
unsafe extern "C" fn request_text(state: *const State, which: u32, out: *mut Slice) -> bool {
    // SAFETY: as above.
    unsafe {
        (*state)
            .read(|exchange| {
                let text = match which {
                    0 => request::method(exchange).as_str(),
                    1 => &exchange.path,
                    2 => exchange.request.raw_path(),
                    3 => request::query(exchange),
                    4 => &exchange.id,
                    _ => return false,
                };
                give(Some(text.as_bytes()), out)
            })
            .unwrap_or(false)
    }
}

/// Set a field; 0: done, 1: there is no exchange to change, 2: not a field's name or value.
unsafe extern "C" fn set_request_header(
    state: *const State,
    name: *const u8,
    name_bytes: usize,
    value: *const u8,
    value_bytes: usize,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        let (Some(name), value) = (text(name, name_bytes), std::slice::from_raw_parts(value, value_bytes)) else {
            return 2;
        };
        let done = (*state).exchange(|exchange| {
            if name.eq_ignore_ascii_case("host") {
                let Ok(host) = str::from_utf8(value) else { return false };
                if !exchange.request.headers.set(name, value) {
                    return false;
                }
                exchange.upstream.host = Some(host.to_owned());
                return true;
            }
            exchange.request.headers.set(name, value)
        });
        code(done)
    }
}

/// Likewise of the response; before there is one, for whoever makes it.
unsafe extern "C" fn set_response_header(
    state: *const State,
    name: *const u8,
    name_bytes: usize,
    value: *const u8,
    value_bytes: usize,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        let (Some(name), value) = (text(name, name_bytes), std::slice::from_raw_parts(value, value_bytes)) else {
            return 2;
        };
        let done = (*state).exchange(|exchange| {
            let response = &mut exchange.response;
            let headers = if response.status == 0 { &mut response.early } else { &mut response.headers };
            if name.contains('_') { headers.set(&name.replace('_', "-"), value) } else { headers.set(name, value) }
        });
        code(done)
    }
}

/// A field by its name, in which dashes may be written as underscores.
fn find<'h>(headers: &'h Headers, name: &str) -> Option<&'h [u8]> {
    match headers.get(name) {
        None if name.contains('_') => headers.get(&*name.replace('_', "-")),
        found => found,
    }
}

fn code(done: Option<bool>) -> u32 {
    match done {
        Some(true) => 0,
        None => 1,
        Some(false) => 2,
    }
}
