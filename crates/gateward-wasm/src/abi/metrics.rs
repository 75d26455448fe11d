//! Metrics that guests define.

use crate::host::{Host, bytes, split, status, text, write_u32, write_u64};
use crate::metrics::{Metric, MetricKind};
use crate::types::Status;
use std::sync::Arc;
use wasmtime::{Caller, Linker, Result};

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_define_metric", define)?;
    linker.func_wrap("env", "proxy_record_metric", record)?;
    linker.func_wrap("env", "proxy_increment_metric", increment)?;
    linker.func_wrap("env", "proxy_get_metric", value)?;
    Ok(())
}

fn define(mut caller: Caller<'_, Host>, kind: u32, name: u32, name_len: u32, return_id: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status((|| {
        let kind = MetricKind::from_guest(kind)?;
        let name = text(memory, name, name_len)?;
        bytes(memory, return_id, 4)?;
        let metric = host.setup.services.metrics.define(kind, name)?;
        let known = host.metrics.iter().position(|known| Arc::ptr_eq(known, &metric));
        let id = known.unwrap_or_else(|| {
            host.metrics.push(metric);
            host.metrics.len() - 1
        });
        // Ids count from one, so that a variable nobody set names no metric.
        write_u32(memory, return_id, id as u32 + 1)
    })())
}

fn metric(host: &Host, id: u32) -> std::result::Result<&Metric, Status> {
    let index = id.checked_sub(1).ok_or(Status::NotFound)?;
    host.metrics.get(index as usize).map(Arc::as_ref).ok_or(Status::NotFound)
}

fn record(mut caller: Caller<'_, Host>, id: u32, value: u64) -> u32 {
    let (_, host) = split(&mut caller);
    status(metric(host, id).map(|metric| metric.record(value)))
}

fn increment(mut caller: Caller<'_, Host>, id: u32, delta: i64) -> u32 {
    let (_, host) = split(&mut caller);
    status(metric(host, id).and_then(|metric| metric.increment(delta)))
}

fn value(mut caller: Caller<'_, Host>, id: u32, return_value: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    status(metric(host, id).and_then(|metric| write_u64(memory, return_value, metric.value() as u64)))
}
