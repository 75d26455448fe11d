//! WASI preview 1 for guests that have no files, no sockets and no arguments.
//!
//! Every name of the preview is there, because compilers link functions that no filter calls; what makes no sense in
//! a gateway answers that it is not supported. The same functions also stand under the older module name.

use super::logs::unix_ns;
use crate::host::{Exited, Host, bytes, bytes_mut, split, write_u32, write_u64};
use crate::limits::{LOG_LINE_BYTES, RANDOM_BYTES};
use crate::types::{LogLevel, Status};
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Caller, Linker, Result};

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOTSUP: u32 = 58;
const NOTCAPABLE: u32 = 76;

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Pieces of one `fd_write`; the rest is reported as not written.
const MAX_PIECES: u32 = 1024;

pub(super) fn link(linker: &mut Linker<Host>) -> Result<()> {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        link_useful(linker, module)?;
        link_files(linker, module)?;
        link_paths(linker, module)?;
    }
    Ok(())
}

fn link_useful(linker: &mut Linker<Host>, module: &str) -> Result<()> {
    linker.func_wrap(module, "fd_write", fd_write)?;
    linker.func_wrap(module, "clock_time_get", clock_time)?;
    linker.func_wrap(module, "clock_res_get", clock_resolution)?;
    linker.func_wrap(module, "random_get", random)?;
    linker.func_wrap(module, "environ_sizes_get", environ_sizes)?;
    linker.func_wrap(module, "environ_get", environ)?;
    linker.func_wrap(module, "args_sizes_get", args_sizes)?;
    linker.func_wrap(module, "args_get", |_: u32, _: u32| SUCCESS)?;
    linker.func_wrap(module, "proc_exit", proc_exit)?;
    linker.func_wrap(module, "proc_raise", |_: u32| NOTSUP)?;
    linker.func_wrap(module, "sched_yield", || SUCCESS)?;
    linker.func_wrap(module, "poll_oneoff", |_: u32, _: u32, _: u32, _: u32| NOTSUP)?;
    linker.func_wrap(module, "fd_fdstat_get", fd_fdstat)?;
    // The end of the list of directories that a guest may open.
    linker.func_wrap(module, "fd_prestat_get", |_: u32, _: u32| BADF)?;
    linker.func_wrap(module, "fd_prestat_dir_name", |_: u32, _: u32, _: u32| BADF)?;
    Ok(())
}

fn link_files(linker: &mut Linker<Host>, module: &str) -> Result<()> {
    linker.func_wrap(module, "fd_advise", |_: u32, _: u64, _: u64, _: u32| BADF)?;
    linker.func_wrap(module, "fd_allocate", |_: u32, _: u64, _: u64| BADF)?;
    linker.func_wrap(module, "fd_close", |_: u32| BADF)?;
    linker.func_wrap(module, "fd_datasync", |_: u32| BADF)?;
    linker.func_wrap(module, "fd_fdstat_set_flags", |_: u32, _: u32| BADF)?;
    linker.func_wrap(module, "fd_fdstat_set_rights", |_: u32, _: u64, _: u64| BADF)?;
    linker.func_wrap(module, "fd_filestat_get", |_: u32, _: u32| BADF)?;
    linker.func_wrap(module, "fd_filestat_set_size", |_: u32, _: u64| BADF)?;
    linker.func_wrap(module, "fd_filestat_set_times", |_: u32, _: u64, _: u64, _: u32| BADF)?;
    linker.func_wrap(module, "fd_pread", |_: u32, _: u32, _: u32, _: u64, _: u32| BADF)?;
    linker.func_wrap(module, "fd_pwrite", |_: u32, _: u32, _: u32, _: u64, _: u32| BADF)?;
    linker.func_wrap(module, "fd_read", |_: u32, _: u32, _: u32, _: u32| BADF)?;
    linker.func_wrap(module, "fd_readdir", |_: u32, _: u32, _: u32, _: u64, _: u32| BADF)?;
    linker.func_wrap(module, "fd_renumber", |_: u32, _: u32| BADF)?;
    linker.func_wrap(module, "fd_seek", |_: u32, _: u64, _: u32, _: u32| BADF)?;
    linker.func_wrap(module, "fd_sync", |_: u32| BADF)?;
    linker.func_wrap(module, "fd_tell", |_: u32, _: u32| BADF)?;
    linker.func_wrap(module, "sock_accept", |_: u32, _: u32, _: u32| BADF)?;
    linker.func_wrap(module, "sock_recv", |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32| BADF)?;
    linker.func_wrap(module, "sock_send", |_: u32, _: u32, _: u32, _: u32, _: u32| BADF)?;
    linker.func_wrap(module, "sock_shutdown", |_: u32, _: u32| BADF)?;
    Ok(())
}

fn link_paths(linker: &mut Linker<Host>, module: &str) -> Result<()> {
    let three = |_: u32, _: u32, _: u32| NOTCAPABLE;
    let six = |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32| NOTCAPABLE;
    linker.func_wrap(module, "path_create_directory", three)?;
    linker.func_wrap(module, "path_remove_directory", three)?;
    linker.func_wrap(module, "path_unlink_file", three)?;
    linker.func_wrap(module, "path_readlink", six)?;
    linker.func_wrap(module, "path_rename", six)?;
    linker.func_wrap(module, "path_symlink", |_: u32, _: u32, _: u32, _: u32, _: u32| NOTCAPABLE)?;
    linker.func_wrap(module, "path_filestat_get", |_: u32, _: u32, _: u32, _: u32, _: u32| NOTCAPABLE)?;
    linker.func_wrap(module, "path_filestat_set_times", |_: u32, _: u32, _: u32, _: u32, _: u64, _: u64, _: u32| {
        NOTCAPABLE
    })?;
    linker.func_wrap(module, "path_link", |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| NOTCAPABLE)?;
    linker.func_wrap(
        module,
        "path_open",
        |_: u32, _: u32, _: u32, _: u32, _: u32, _: u64, _: u64, _: u32, _: u32| NOTCAPABLE,
    )?;
    Ok(())
}

fn errno(result: std::result::Result<(), Status>) -> u32 {
    if result.is_ok() { SUCCESS } else { FAULT }
}

/// Standard output and standard error become log lines.
fn fd_write(mut caller: Caller<'_, Host>, fd: u32, pieces: u32, count: u32, return_written: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    let (level, which) = match fd {
        STDOUT => (LogLevel::Info, 0),
        STDERR => (LogLevel::Error, 1),
        _ => return BADF,
    };
    errno((|| {
        let mut written = 0_u32;
        for index in 0..count.min(MAX_PIECES) {
            let at = index.checked_mul(8).and_then(|offset| pieces.checked_add(offset));
            let piece = bytes(memory, at.ok_or(Status::InvalidMemoryAccess)?, 8)?;
            let number = |from: usize| u32::from_le_bytes([0, 1, 2, 3].map(|index| piece[from + index]));
            let data = bytes(memory, number(0), number(4))?;
            print(host, level, which, data);
            written = written.saturating_add(data.len() as u32);
        }
        write_u32(memory, return_written, written)
    })())
}

fn print(host: &mut Host, level: LogLevel, which: usize, data: &[u8]) {
    for part in data.split_inclusive(|byte| *byte == b'\n') {
        let line = &mut host.lines[which];
        let room = LOG_LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        if part.ends_with(b"\n") || line.len() >= LOG_LINE_BYTES {
            let mut line = std::mem::take(line);
            if level >= host.setup.services.log.least() {
                host.log(level, String::from_utf8_lossy(&line).trim_end());
            }
            line.clear();
            host.lines[which] = line;
        }
    }
}

/// Real time and monotonic time; the times of process and thread are nobody's business.
fn clock_time(mut caller: Caller<'_, Host>, clock: u32, _precision: u64, return_time: u32) -> u32 {
    let (memory, _) = split(&mut caller);
    let time = match clock {
        0 => unix_ns(),
        1 => {
            let time = clock_gettime(ClockId::Monotonic);
            time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
        }
        _ => return NOTSUP,
    };
    errno(write_u64(memory, return_time, time))
}

fn clock_resolution(mut caller: Caller<'_, Host>, clock: u32, return_resolution: u32) -> u32 {
    let (memory, _) = split(&mut caller);
    if clock > 1 { NOTSUP } else { errno(write_u64(memory, return_resolution, 1)) }
}

fn random(mut caller: Caller<'_, Host>, data: u32, len: u32) -> u32 {
    let (memory, _) = split(&mut caller);
    if len as usize > RANDOM_BYTES {
        return INVAL;
    }
    let Ok(mut rest) = bytes_mut(memory, data, len) else { return FAULT };
    while !rest.is_empty() {
        match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) if count > 0 => rest = &mut rest[count..],
            _ => return NOTSUP,
        }
    }
    SUCCESS
}

fn environ_sizes(mut caller: Caller<'_, Host>, return_count: u32, return_bytes: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    let environment = &host.setup.config.environment;
    let size: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    errno((|| {
        write_u32(memory, return_count, environment.len() as u32)?;
        write_u32(memory, return_bytes, size as u32)
    })())
}

fn environ(mut caller: Caller<'_, Host>, return_array: u32, return_buffer: u32) -> u32 {
    let (memory, host) = split(&mut caller);
    errno((|| {
        let (mut place, mut at) = (return_array, return_buffer);
        for (name, value) in &host.setup.config.environment {
            let line = format!("{name}={value}\0");
            bytes_mut(memory, at, line.len() as u32)?.copy_from_slice(line.as_bytes());
            write_u32(memory, place, at)?;
            place = place.checked_add(4).ok_or(Status::InvalidMemoryAccess)?;
            at = at.checked_add(line.len() as u32).ok_or(Status::InvalidMemoryAccess)?;
        }
        Ok(())
    })())
}

fn args_sizes(mut caller: Caller<'_, Host>, return_count: u32, return_bytes: u32) -> u32 {
    let (memory, _) = split(&mut caller);
    errno((|| {
        write_u32(memory, return_count, 0)?;
        write_u32(memory, return_bytes, 0)
    })())
}

fn proc_exit(code: u32) -> Result<()> {
    Err(Exited(code).into())
}

/// Standard output and error are character devices that can be written.
fn fd_fdstat(mut caller: Caller<'_, Host>, fd: u32, return_stat: u32) -> u32 {
    const CHARACTER_DEVICE: u64 = 2;
    const FD_WRITE: u64 = 1 << 6;
    if fd > STDERR {
        return BADF;
    }
    let (memory, _) = split(&mut caller);
    errno((|| {
        write_u64(memory, return_stat.saturating_add(16), 0)?;
        write_u64(memory, return_stat.saturating_add(8), FD_WRITE)?;
        write_u64(memory, return_stat, CHARACTER_DEVICE)
    })())
}
