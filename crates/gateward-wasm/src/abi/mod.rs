//! The functions that guests import, by group. Each is one function here, named as in the specification but for `proxy_`.

mod buffers;
mod callouts;
mod contexts;
mod fields;
mod grpc_service;
mod logs;
mod metrics;
mod properties;
mod shared;
mod streams;
mod wasi;

#[cfg(test)]
mod tests;

pub(crate) use fields::{find_value, hand_over};

use crate::host::Host;
use wasmtime::{Engine, Linker};

/// A linker that knows every function of ABI 0.1.0 to 0.2.1 and of WASI preview 1.
///
/// # Errors
/// A name is defined twice, which the tests rule out.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    logs::link(&mut linker)?;
    contexts::link(&mut linker)?;
    buffers::link(&mut linker)?;
    fields::link(&mut linker)?;
    streams::link(&mut linker)?;
    callouts::link(&mut linker)?;
    shared::link(&mut linker)?;
    metrics::link(&mut linker)?;
    properties::link(&mut linker)?;
    wasi::link(&mut linker)?;
    Ok(linker)
}
