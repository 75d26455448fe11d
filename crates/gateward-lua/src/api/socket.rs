//! Sockets: `tcp()`, `tcp_*(socket, ...)`, `udp()`, `udp_*(socket, ...)`, `resolve(host)`.

use crate::shared::{Op, Shared};
use crate::socket::{Failure, Received, Tcp, Udp, Wanted, What};
use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, UserData, UserDataRef, Value};
use std::rc::Rc;
use std::time::Duration;

/// Bytes of a datagram.
pub(super) const DATAGRAM: usize = 65_507;
/// Longest timeout in milliseconds: a day. Longer, or none, is this.
const LONGEST: f64 = 86_400_000.0;

struct Stream(Rc<Tcp>);

impl UserData for Stream {}

struct Datagrams(Rc<Udp>);

impl UserData for Datagrams {}

/// `true`, or nil and why not.
struct Done(std::result::Result<(), Failure>);

impl IntoLuaMulti for Done {
    fn into_lua_multi(self, lua: &Lua) -> Result<MultiValue> {
        match self.0 {
            Ok(()) => true.into_lua_multi(lua),
            Err(failure) => (Value::Nil, &*failure).into_lua_multi(lua),
        }
    }
}

impl IntoLuaMulti for Received {
    fn into_lua_multi(self, lua: &Lua) -> Result<MultiValue> {
        let text = lua.create_string(self.bytes)?;
        match self.failure {
            None => (text, Value::Nil, self.reached).into_lua_multi(lua),
            Some(failure) => (Value::Nil, &*failure, text).into_lua_multi(lua),
        }
    }
}

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    connecting(lua, functions, shared)?;
    transfer(lua, functions)?;
    ending(lua, functions, shared)?;
    datagrams(lua, functions, shared)?;
    let own = shared.clone();
    let resolve = lua.create_function(move |lua, host: String| {
        let own = own.clone();
        Ok(Op::giving(lua, async move {
            match own.sockets.resolve(&host, 0).await {
                Ok(address) => (Some(address.ip().to_string()), None),
                Err(failure) => (None, Some(failure.into_owned())),
            }
        }))
    })?;
    functions.raw_set("resolve", resolve)
}

fn milliseconds(ms: f64) -> Duration {
    let ms = if ms > 0.0 { ms.min(LONGEST) } else { LONGEST };
    Duration::from_micros((ms * 1000.0) as u64)
}

fn connecting(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    functions.raw_set("tcp", lua.create_function(|_, ()| Ok(Stream(Rc::default())))?)?;
    type Place = (UserDataRef<Stream>, String, u16, Option<String>, Option<usize>);
    let own = shared.clone();
    let connect = lua.create_function(move |lua, (socket, host, port, pool, pool_size): Place| {
        let (socket, own) = (socket.0.clone(), own.clone());
        let wanted = Wanted { host, port, pool, pool_size };
        own.sockets.own(own.state.slot.get(), &socket);
        let connected = socket.connect(own.sockets.clone(), wanted);
        Ok(Op::giving(lua, async move { Done(connected.await) }))
    })?;
    functions.raw_set("tcp_connect", connect)?;
    let own = shared.clone();
    let handshake =
        lua.create_function(move |lua, (socket, name, verify): (UserDataRef<Stream>, Option<String>, bool)| {
            let secured = socket.0.handshake(own.sockets.clone(), name, verify);
            Ok(Op::giving(lua, async move { Done(secured.await) }))
        })?;
    functions.raw_set("tcp_handshake", handshake)?;
    let timeouts = lua.create_function(
        |_, (socket, connect, send, read): (UserDataRef<Stream>, Option<f64>, Option<f64>, Option<f64>)| {
            let mut timeouts = socket.0.timeouts.get();
            for (timeout, given) in timeouts.iter_mut().zip([connect, send, read]) {
                if let Some(ms) = given {
                    *timeout = milliseconds(ms);
                }
            }
            socket.0.timeouts.set(timeouts);
            Ok(())
        },
    )?;
    functions.raw_set("tcp_timeouts", timeouts)
}

fn transfer(lua: &Lua, functions: &Table) -> Result<()> {
    let send = lua.create_function(|lua, (socket, text): (UserDataRef<Stream>, LuaString)| {
        let sent = socket.0.send(text.as_bytes().to_vec());
        Ok(Op::giving(lua, async move {
            match sent.await {
                Ok(bytes) => (Some(bytes), None),
                Err(failure) => (None, Some(failure.into_owned())),
            }
        }))
    })?;
    functions.raw_set("tcp_send", send)?;
    // Gives the answer when it is at hand, or nil and what to wait for.
    type Asked = (UserDataRef<Stream>, String, Option<usize>, Option<LuaString>, Option<bool>);
    let receive = lua.create_function(|lua, (socket, kind, size, text, inclusive): Asked| {
        let what = match kind.as_str() {
            "line" => What::Line,
            "all" => What::All,
            "bytes" => What::Bytes(size.unwrap_or(0)),
            "any" => What::Any(size.unwrap_or(1)),
            _ => {
                let text = text.map(|text| text.as_bytes().to_vec()).unwrap_or_default();
                What::Until { text, inclusive: inclusive.unwrap_or(false), size }
            }
        };
        if let Some(received) = socket.0.at_hand(&what) {
            return received.into_lua_multi(lua);
        }
        let op = Op::giving(lua, socket.0.receive(what));
        (Value::Nil, op).into_lua_multi(lua)
    })?;
    functions.raw_set("tcp_receive", receive)
}

fn ending(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    type Keep = (UserDataRef<Stream>, Option<f64>, Option<usize>);
    let keep = lua.create_function(move |_, (socket, ms, size): Keep| {
        let time = ms.map_or(Duration::from_secs(60), |ms| if ms > 0.0 { milliseconds(ms) } else { Duration::ZERO });
        Ok(Done(socket.0.keep(&own.sockets, time, size)))
    })?;
    functions.raw_set("tcp_keep", keep)?;
    functions
        .raw_set("tcp_close", lua.create_function(|_, socket: UserDataRef<Stream>| Ok(Done(socket.0.close())))?)?;
    let reused = lua.create_function(|_, socket: UserDataRef<Stream>| {
        Ok(match socket.0.reused() {
            Ok(times) => (Some(times), None),
            Err(failure) => (None, Some(failure.into_owned())),
        })
    })?;
    functions.raw_set("tcp_reused", reused)
}

fn datagrams(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    functions.raw_set("udp", lua.create_function(|_, ()| Ok(Datagrams(Rc::default())))?)?;
    let own = shared.clone();
    let peer = lua.create_function(move |lua, (socket, host, port): (UserDataRef<Datagrams>, String, u16)| {
        let (socket, own) = (socket.0.clone(), own.clone());
        Ok(Op::giving(lua, async move { Done(socket.set_peer(&own.sockets, &host, port).await) }))
    })?;
    functions.raw_set("udp_peer", peer)?;
    let send = lua.create_function(|lua, (socket, text): (UserDataRef<Datagrams>, LuaString)| {
        let (socket, bytes) = (socket.0.clone(), text.as_bytes().to_vec());
        Ok(Op::giving(lua, async move { Done(socket.send(&bytes).await) }))
    })?;
    functions.raw_set("udp_send", send)?;
    let receive = lua.create_function(|lua, (socket, most): (UserDataRef<Datagrams>, usize)| {
        let socket = socket.0.clone();
        Ok(Op::giving(lua, async move {
            let (bytes, failure) = match socket.receive(most.min(DATAGRAM)).await {
                Ok(bytes) => (Some(mlua::BString::from(bytes)), None),
                Err(failure) => (None, Some(failure.into_owned())),
            };
            (bytes, failure)
        }))
    })?;
    functions.raw_set("udp_receive", receive)?;
    let timeout = lua.create_function(|_, (socket, ms): (UserDataRef<Datagrams>, f64)| {
        socket.0.timeout.set(milliseconds(ms));
        Ok(())
    })?;
    functions.raw_set("udp_timeout", timeout)?;
    functions.raw_set("udp_close", lua.create_function(|_, socket: UserDataRef<Datagrams>| Ok(Done(socket.0.close())))?)
}
