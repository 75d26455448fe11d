//! Log lines, time and the timer.

use crate::host::{Host, ROOT, bytes, split, status, write_u32, write_u64};
use crate::limits::LOG_LINE_BYTES;
use crate::types::{LogLevel, Status};
use std::time::{SystemTime, UNIX_EPOCH};
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_log", log)?;
    linker.func_wrap("env", "proxy_get_log_level", log_level)?;
    linker.func_wrap("env", "proxy_get_current_time_nanoseconds", current_time)?;
    linker.func_wrap("env", "proxy_set_tick_period_milliseconds", set_tick_period)?;
    Ok(())
}

fn log(mut caller: Caller<'_, Host>, level: u32, data: u32, len: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let level = LogLevel::from_guest(level)?;
        let line = bytes(memory, data, len)?;
        if level >= host.setup.services.log.least() {
            let line = &line[..line.len().min(LOG_LINE_BYTES)];
            host.log(level, &String::from_utf8_lossy(line));
        }
        Ok(())
    })())
}

fn log_level(mut caller: Caller<'_, Host>, return_level: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status(write_u32(memory, return_level, host.setup.services.log.least() as u32))
}

fn current_time(mut caller: Caller<'_, Host>, return_time: u32) -> u32 {
    let (memory, _) = split(&mut caller);
    status(write_u64(memory, return_time, unix_ns()))
}

/// Nanoseconds since 1970; enough until the year 2554.
pub(super) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn set_tick_period(mut caller: Caller<'_, Host>, period_ms: u32) -> u32 {
    let host = caller.data_mut();
    // Streams have no timer; the instance has one, whoever sets it.
    if !host.contexts.contains_key(&ROOT) {
        return Status::BadArgument as u32;
    }
    host.tick_ms = period_ms;
    Status::Ok as u32
}
