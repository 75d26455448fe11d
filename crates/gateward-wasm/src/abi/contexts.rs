//! Contexts: on whose behalf the guest acts, and when it is done with one.

use crate::host::{Host, Life};
use crate::types::Status;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_set_effective_context", set_effective_context)?;
    linker.func_wrap("env", "proxy_done", done)?;
    Ok(())
}

fn set_effective_context(mut caller: Caller<'_, Host>, id: u32) -> u32 {
    let host = caller.data_mut();
    if !host.contexts.contains_key(&id) {
        return Status::BadArgument as u32;
    }
    host.effective = id;
    Status::Ok as u32
}

fn done(mut caller: Caller<'_, Host>) -> u32 {
    let host = caller.data_mut();
    let id = host.effective;
    match host.context() {
        Some(context) if context.life == Life::Finishing => {
            context.life = Life::Finished;
            host.finished.push(id);
            Status::Ok as u32
        }
        _ => Status::NotFound as u32,
    }
}
