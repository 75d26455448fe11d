//! `detour(name, ...)`: what of its service a request does not follow; and what came back from there.

use crate::retry::RetryCallback;
use crate::shared::Shared;
use gateward_model::Secret;
use gateward_plugin::{Detour, Scheme, TlsAuthorities, TlsIdentity};
use mlua::{Lua, LuaString, Result, Table, UserData, UserDataRef};
use std::rc::Rc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    add_ways(lua, functions, shared)?;
    add_tls(lua, functions, shared)?;
    add_response(lua, functions, shared)
}

fn add_ways(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let target = lua.create_function(move |_, (host, port): (String, u16)| {
        own.state.exchange(|exchange| {
            exchange.upstream.host = Some(host.clone());
            exchange.upstream.detour_mut().target = Some((host, port));
        });
        Ok(())
    })?;
    functions.raw_set("set_target", target)?;
    let own = shared.clone();
    let upstream = lua.create_function(move |_, name: String| {
        let known = own.served.borrow().upstreams.contains(&name);
        if known {
            own.state.exchange(|exchange| exchange.upstream.detour_mut().upstream = Some(name));
        }
        Ok(known)
    })?;
    functions.raw_set("set_upstream", upstream)?;
    let own = shared.clone();
    let timeouts = lua.create_function(move |_, (connect, write, read): (u32, u32, u32)| {
        own.state.exchange(|exchange| exchange.upstream.detour_mut().timeouts_ms = Some([connect, write, read]));
        Ok(())
    })?;
    functions.raw_set("set_timeouts", timeouts)?;
    let own = shared.clone();
    let detour = lua.create_function(move |_, (name, value): (LuaString, u32)| {
        own.state.exchange(|exchange| change(exchange.upstream.detour_mut(), &name.as_bytes(), value));
        Ok(())
    })?;
    functions.raw_set("detour", detour)?;
    let own = shared.clone();
    let before_retry = lua.create_function(move |_, ()| {
        let Some(machine) = own.machine.get().cloned() else { return Ok(()) };
        let callback = Rc::new(RetryCallback::new(machine, own.state.instance.get()));
        own.state.exchange(|exchange| exchange.upstream.detour_mut().before_retry = Some(callback));
        Ok(())
    })?;
    functions.raw_set("ask_before_retry", before_retry)
}

/// What Lua keeps to set it again and again.
struct Made<T>(Rc<T>);

impl<T: 'static> UserData for Made<T> {}

fn add_tls(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let make = lua.create_function(|_, (cert, key): (String, String)| {
        Ok(Made(Rc::new(TlsIdentity::new(cert, Secret::new(key)))))
    })?;
    functions.raw_set("tls_identity", make)?;
    let own = shared.clone();
    let identity = lua.create_function(move |_, made: UserDataRef<Made<TlsIdentity>>| {
        own.state.exchange(|exchange| exchange.upstream.detour_mut().tls_identity = Some(made.0.clone()));
        Ok(())
    })?;
    functions.raw_set("set_tls_identity", identity)?;
    let make = lua.create_function(|_, (certs, with_trusted): (Vec<String>, bool)| {
        Ok(Made(Rc::new(TlsAuthorities::new(certs, with_trusted))))
    })?;
    functions.raw_set("tls_authorities", make)?;
    let own = shared.clone();
    let authorities = lua.create_function(move |_, made: UserDataRef<Made<TlsAuthorities>>| {
        own.state.exchange(|exchange| exchange.upstream.detour_mut().tls_authorities = Some(made.0.clone()));
        Ok(())
    })?;
    functions.raw_set("set_tls_authorities", authorities)
}

fn add_response(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let hold = lua.create_function(move |_, ()| {
        own.state.exchange(|exchange| exchange.response.hold = true);
        Ok(())
    })?;
    functions.raw_set("hold_response", hold)?;
    let own = shared.clone();
    let break_off = lua.create_function(move |_, ()| {
        own.state.exchange(|exchange| exchange.response.broken = true);
        Ok(())
    })?;
    functions.raw_set("break_off", break_off)?;
    let own = shared.clone();
    let came = lua.create_function(move |_, name: LuaString| {
        let Ok(name) = name.to_str() else { return Ok(false) };
        let name = name.replace('_', "-");
        Ok(own.state.read(|exchange| exchange.response.headers.is_marked(&name)).unwrap_or(false))
    })?;
    functions.raw_set("came_from_upstream", came)
}

fn change(detour: &mut Detour, name: &[u8], value: u32) {
    match name {
        b"retries" => detour.retries = u16::try_from(value).ok(),
        b"https" => detour.scheme = Some(if value == 1 { Scheme::Https } else { Scheme::Http }),
        b"tls_verify" => detour.tls_verify = Some(value == 1),
        b"tls_verify_depth" => detour.tls_verify_depth = u8::try_from(value).ok(),
        _ => {}
    }
}
