//! Host functions one by one, called as a guest calls them: with numbers, and pointers into its memory.
//!
//! The expectations are the specification's (proxy-wasm/spec, abi-versions/v0.2.1). The guest is a module that passes
//! every import through, so that a test can call it, and has an allocator that can be told to misbehave.

mod buffers;
mod callouts;
mod fields;
mod logs;
mod shared;
mod streams;
mod wasi;

use crate::abi::linker;
use crate::callout::Upstreams;
use crate::config::{FilterConfig, Services, Setup};
use crate::engine::engine;
use crate::host::{Context, Host, Parts, ROOT};
use crate::lend::lend;
use crate::logging::LogSink;
use crate::observe::Counters;
use crate::shared::Listener;
use crate::testing::Plain;
use crate::types::{Abi, LogLevel, Status};
use std::sync::{Arc, Mutex};
use wasmtime::{Instance, Module, Store, Val};

/// Every function of the ABI: name and parameters, `i` for 32 and `l` for 64 bits. All return 32 bits.
const FUNCTIONS: &[(&str, &str)] = &[
    ("proxy_log", "iii"),
    ("proxy_get_log_level", "i"),
    ("proxy_get_current_time_nanoseconds", "i"),
    ("proxy_set_tick_period_milliseconds", "i"),
    ("proxy_set_effective_context", "i"),
    ("proxy_done", ""),
    ("proxy_get_buffer_bytes", "iiiii"),
    ("proxy_set_buffer_bytes", "iiiii"),
    ("proxy_get_buffer_status", "iii"),
    ("proxy_get_header_map_size", "ii"),
    ("proxy_get_header_map_pairs", "iii"),
    ("proxy_set_header_map_pairs", "iii"),
    ("proxy_get_header_map_value", "iiiii"),
    ("proxy_add_header_map_value", "iiiii"),
    ("proxy_replace_header_map_value", "iiiii"),
    ("proxy_remove_header_map_value", "iii"),
    ("proxy_continue_stream", "i"),
    ("proxy_close_stream", "i"),
    ("proxy_get_status", "iii"),
    ("proxy_send_local_response", "iiiiiiii"),
    ("proxy_http_call", "iiiiiiiiii"),
    ("proxy_grpc_call", "iiiiiiiiiiii"),
    ("proxy_grpc_stream", "iiiiiiiii"),
    ("proxy_grpc_send", "iiii"),
    ("proxy_grpc_cancel", "i"),
    ("proxy_grpc_close", "i"),
    ("proxy_get_shared_data", "iiiii"),
    ("proxy_set_shared_data", "iiiii"),
    ("proxy_register_shared_queue", "iii"),
    ("proxy_resolve_shared_queue", "iiiii"),
    ("proxy_enqueue_shared_queue", "iii"),
    ("proxy_dequeue_shared_queue", "iii"),
    ("proxy_define_metric", "iiii"),
    ("proxy_record_metric", "il"),
    ("proxy_increment_metric", "il"),
    ("proxy_get_metric", "ii"),
    ("proxy_get_property", "iiii"),
    ("proxy_set_property", "iiii"),
    ("proxy_call_foreign_function", "iiiiii"),
    ("proxy_get_configuration", "ii"),
    ("proxy_continue_request", ""),
    ("proxy_continue_response", ""),
    ("proxy_clear_route_cache", ""),
];

/// WASI functions with an effect, and some of those without.
const WASI: &[(&str, &str)] = &[
    ("fd_write", "iiii"),
    ("clock_time_get", "ili"),
    ("clock_res_get", "ii"),
    ("random_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("environ_get", "ii"),
    ("args_sizes_get", "ii"),
    ("args_get", "ii"),
    ("sched_yield", ""),
    ("poll_oneoff", "iiii"),
    ("fd_fdstat_get", "ii"),
    ("fd_prestat_get", "ii"),
    ("fd_read", "iiii"),
    ("path_open", "iiiiillii"),
];

/// Where the allocator hands out memory from.
const HEAP: u32 = 65_536;
/// An address behind the end of memory.
const NOWHERE: u32 = 0x7fff_0000;
/// Where return values go.
const RETURN: u32 = 60_000;

/// What the guest's allocator does.
#[derive(Debug, Clone, Copy)]
enum Allocator {
    Works = 0,
    Fails = 1,
    Lies = 2,
    Traps = 3,
    Grows = 4,
}

/// Collects log lines.
#[derive(Default)]
struct Lines(Mutex<Vec<(LogLevel, String)>>);

impl LogSink for Lines {
    fn log(&self, level: LogLevel, filter: &str, line: &str) {
        assert_eq!(filter, "rig");
        self.0.lock().unwrap().push((level, line.to_owned()));
    }

    fn least(&self) -> LogLevel {
        LogLevel::Debug
    }
}

struct OnlyKnown;

impl Upstreams for OnlyKnown {
    fn knows(&self, upstream: &str) -> bool {
        upstream == "known"
    }
}

/// A guest whose imports a test calls.
struct Rig {
    store: Store<Host>,
    guest: Instance,
    stream: Plain,
    lines: Arc<Lines>,
    services: Arc<Services>,
    /// Where [`Rig::put`] writes next.
    at: u32,
}

/// The context of the rig's stream.
const STREAM: u32 = 2;

fn wat() -> String {
    let imports = |module: &str, functions: &[(&str, &str)]| {
        let one = |(name, parameters): &(&str, &str)| {
            let types: Vec<_> = parameters.chars().map(|letter| if letter == 'l' { "i64" } else { "i32" }).collect();
            let types = types.join(" ");
            let function = format!("(func ${name} (param {types}) (result i32))");
            format!("(import \"{module}\" \"{name}\" {function})\n(export \"{name}\" (func ${name}))\n")
        };
        functions.iter().map(one).collect::<String>()
    };
    let (abi, wasi) = (imports("env", FUNCTIONS), imports("wasi_snapshot_preview1", WASI));
    // Imports must come first; exports may stand among them.
    format!(
        r#"(module
        {abi} {wasi}
        (memory (export "memory") 2 8)
        (global $mode (export "mode") (mut i32) (i32.const 0))
        (global $next (mut i32) (i32.const {HEAP}))
        (func (export "malloc") (param $len i32) (result i32)
            (if (i32.eq (global.get $mode) (i32.const 1)) (then (return (i32.const 0))))
            (if (i32.eq (global.get $mode) (i32.const 2)) (then (return (i32.const {NOWHERE}))))
            (if (i32.eq (global.get $mode) (i32.const 3)) (then unreachable))
            (if (i32.eq (global.get $mode) (i32.const 4)) (then (drop (memory.grow (i32.const 1)))))
            global.get $next
            (global.set $next (i32.add (global.get $next) (local.get $len)))))"#
    )
}

impl Rig {
    fn new() -> Self {
        Self::with(Abi::V0_2_1, |_| ())
    }

    fn with(abi: Abi, adjust: impl FnOnce(&mut FilterConfig)) -> Self {
        let (engine, _) = engine().unwrap();
        let lines = Arc::new(Lines::default());
        let mut config = FilterConfig::new("rig");
        config.configuration = b"plugin configuration".to_vec();
        config.vm_configuration = b"vm configuration".to_vec();
        adjust(&mut config);
        let mut services = Services::new(lines.clone());
        services.foreign.push(("reverse".to_owned(), Box::new(|bytes| Ok(bytes.iter().rev().copied().collect()))));
        services.foreign.push(("fail".to_owned(), Box::new(|_| Err(Status::SerializationFailure))));
        let services = Arc::new(services);
        let space = services.shared.space(&config.vm_id);
        let setup = Setup { config: Arc::new(config), services: services.clone(), upstreams: Arc::new(OnlyKnown) };
        let counters = Arc::new(Counters::default());
        let mut host = Host::new(Parts { setup, abi, space, listener: Listener::new(Box::new(|| ())), counters });
        host.contexts.insert(ROOT, Context::default());
        host.contexts.insert(STREAM, Context::default());
        host.log_lines_left = 10;
        host.lent_to = STREAM;
        host.effective = STREAM;
        let module = Module::new(&engine, wat::parse_str(wat()).unwrap()).unwrap();
        let mut store = Store::new(&engine, host);
        store.limiter(|host| &mut host.meter);
        store.set_epoch_deadline(1_000_000);
        let guest = linker(&engine).unwrap().instantiate(&mut store, &module).unwrap();
        let memory = guest.get_memory(&mut store, "memory");
        let allocate = guest.get_typed_func(&mut store, "malloc").ok();
        store.data_mut().memory = memory;
        store.data_mut().allocate = allocate;
        Self { store, guest, stream: Plain::default(), lines, services, at: 1024 }
    }

    /// Write where nothing was written yet; the arguments a guest would pass for it.
    fn put(&mut self, bytes: &[u8]) -> [u32; 2] {
        let at = self.at;
        self.at += bytes.len() as u32 + 1;
        self.memory()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        [at, bytes.len() as u32]
    }

    fn memory(&mut self) -> &mut [u8] {
        let memory = self.store.data().memory.unwrap();
        memory.data_mut(&mut self.store)
    }

    fn number(&mut self, at: u32) -> u32 {
        let at = at as usize;
        u32::from_le_bytes(self.memory()[at..at + 4].try_into().unwrap())
    }

    fn long(&mut self, at: u32) -> u64 {
        let at = at as usize;
        u64::from_le_bytes(self.memory()[at..at + 8].try_into().unwrap())
    }

    /// What was handed over at [`RETURN`] and the place behind it.
    fn given(&mut self) -> Vec<u8> {
        let (at, len) = (self.number(RETURN) as usize, self.number(RETURN + 4) as usize);
        self.memory()[at..at + len].to_vec()
    }

    fn allocator(&mut self, allocator: Allocator) {
        let mode = self.guest.get_global(&mut self.store, "mode").unwrap();
        mode.set(&mut self.store, Val::I32(allocator as i32)).unwrap();
    }

    /// Call an import with these arguments, with the stream at hand.
    fn try_call(&mut self, name: &str, arguments: &[u32]) -> wasmtime::Result<u32> {
        let function = self.guest.get_func(&mut self.store, name).unwrap_or_else(|| panic!("no {name}"));
        let types: Vec<_> = function.ty(&self.store).params().collect();
        assert_eq!(types.len(), arguments.len(), "{name}");
        let value = |(ty, argument): (&wasmtime::ValType, &u32)| match ty {
            wasmtime::ValType::I64 => Val::I64(i64::from(*argument as i32)),
            _ => Val::I32(*argument as i32),
        };
        let arguments: Vec<_> = types.iter().zip(arguments).map(value).collect();
        let mut results = [Val::I32(-1)];
        let Self { store, stream, .. } = self;
        lend(store, stream, |store| function.call(store, &arguments, &mut results))?;
        Ok(results[0].unwrap_i32() as u32)
    }

    /// Likewise, where the call itself cannot fail.
    fn call(&mut self, name: &str, arguments: &[u32]) -> u32 {
        self.try_call(name, arguments).unwrap_or_else(|error| panic!("{name}: {error:#}"))
    }

    fn check(&mut self, name: &str, arguments: &[u32], expected: Status) {
        assert_eq!(self.call(name, arguments), expected as u32, "{name} {arguments:?}, not {expected:?}");
    }

    /// As another context, one whose stream is not at hand.
    fn elsewhere(&mut self) {
        self.store.data_mut().effective = ROOT;
    }
}

/// Puts arguments in a row.
fn row(parts: &[&[u32]]) -> Vec<u32> {
    parts.concat()
}

#[test]
fn every_function_of_the_specification_is_there() {
    // The module of the rig imports all of them; instantiating it checks names and types.
    let mut rig = Rig::new();
    for (name, _) in FUNCTIONS.iter().chain(WASI) {
        assert!(rig.guest.get_func(&mut rig.store, name).is_some(), "{name}");
    }
}

#[test]
fn a_pointer_to_nowhere_is_refused_by_all_that_take_one() {
    let mut rig = Rig::new();
    let bad = [NOWHERE, 1];
    let ok = rig.put(b"known");
    let ret = [RETURN, RETURN + 4];
    let nowhere = [NOWHERE, NOWHERE + 4];
    let empty = [0, 0];
    let calls: Vec<(&str, Vec<u32>)> = vec![
        ("proxy_log", row(&[&[2], &bad])),
        ("proxy_get_log_level", vec![NOWHERE]),
        ("proxy_get_current_time_nanoseconds", vec![NOWHERE]),
        ("proxy_get_buffer_bytes", row(&[&[7, 0, 9], &nowhere])),
        ("proxy_get_buffer_status", row(&[&[7], &nowhere])),
        ("proxy_get_buffer_status", vec![7, RETURN, NOWHERE]),
        ("proxy_set_buffer_bytes", row(&[&[0, 0, 0], &bad])),
        ("proxy_get_header_map_size", vec![0, NOWHERE]),
        ("proxy_get_header_map_pairs", row(&[&[0], &nowhere])),
        ("proxy_set_header_map_pairs", row(&[&[0], &bad])),
        ("proxy_get_header_map_value", row(&[&[0], &bad, &ret])),
        ("proxy_add_header_map_value", row(&[&[0], &bad, &ok])),
        ("proxy_add_header_map_value", row(&[&[0], &ok, &bad])),
        ("proxy_replace_header_map_value", row(&[&[0], &ok, &bad])),
        ("proxy_remove_header_map_value", row(&[&[0], &bad])),
        ("proxy_get_status", vec![NOWHERE, RETURN, RETURN + 4]),
        ("proxy_get_status", row(&[&[RETURN], &nowhere])),
        ("proxy_send_local_response", row(&[&[200], &bad, &empty, &empty, &[0]])),
        ("proxy_send_local_response", row(&[&[200], &empty, &bad, &empty, &[0]])),
        ("proxy_send_local_response", row(&[&[200], &empty, &empty, &bad, &[0]])),
        ("proxy_http_call", row(&[&bad, &empty, &empty, &empty, &[0, RETURN]])),
        ("proxy_http_call", row(&[&ok, &bad, &empty, &empty, &[0, RETURN]])),
        ("proxy_grpc_call", row(&[&bad, &ok, &ok, &empty, &empty, &[0, RETURN]])),
        ("proxy_grpc_call", row(&[&ok, &ok, &ok, &empty, &bad, &[0, RETURN]])),
        ("proxy_grpc_call", row(&[&ok, &ok, &ok, &empty, &empty, &[0, NOWHERE]])),
        ("proxy_grpc_stream", row(&[&ok, &bad, &ok, &empty, &[RETURN]])),
        ("proxy_grpc_stream", row(&[&ok, &ok, &ok, &empty, &[NOWHERE]])),
        ("proxy_grpc_send", row(&[&[3], &bad, &[0]])),
        ("proxy_get_shared_data", row(&[&bad, &ret, &[RETURN + 8]])),
        ("proxy_set_shared_data", row(&[&bad, &ok, &[0]])),
        ("proxy_set_shared_data", row(&[&ok, &bad, &[0]])),
        ("proxy_register_shared_queue", row(&[&bad, &[RETURN]])),
        ("proxy_register_shared_queue", row(&[&ok, &[NOWHERE]])),
        ("proxy_resolve_shared_queue", row(&[&bad, &ok, &[RETURN]])),
        ("proxy_resolve_shared_queue", row(&[&empty, &bad, &[RETURN]])),
        ("proxy_enqueue_shared_queue", row(&[&[1], &bad])),
        ("proxy_define_metric", row(&[&[0], &bad, &[RETURN]])),
        ("proxy_define_metric", row(&[&[0], &ok, &[NOWHERE]])),
        ("proxy_get_property", row(&[&bad, &ret])),
        ("proxy_set_property", row(&[&bad, &ok])),
        ("proxy_set_property", row(&[&ok, &bad])),
        ("proxy_call_foreign_function", row(&[&bad, &ok, &ret])),
        ("proxy_call_foreign_function", row(&[&ok, &bad, &ret])),
        ("proxy_get_configuration", nowhere.to_vec()),
    ];
    rig.stream.request_body = Some(Vec::new());
    rig.stream.request_headers = vec![("a".to_owned(), b"1".to_vec())];
    for (name, arguments) in calls {
        rig.check(name, &arguments, Status::InvalidMemoryAccess);
    }
    assert!(rig.store.data().outbox.is_empty(), "what is refused is not sent");
}

#[test]
fn an_allocator_that_fails_is_told_so_and_one_that_traps_traps() {
    for (allocator, expected) in [
        (Allocator::Works, Some(Status::Ok)),
        (Allocator::Fails, Some(Status::InvalidMemoryAccess)),
        (Allocator::Lies, Some(Status::InvalidMemoryAccess)),
        (Allocator::Grows, Some(Status::Ok)),
        (Allocator::Traps, None),
    ] {
        let mut rig = Rig::new();
        rig.stream.request_headers = vec![("a".to_owned(), b"value".to_vec())];
        rig.allocator(allocator);
        let name = rig.put(b"a");
        let calls = [
            ("proxy_get_header_map_value", row(&[&[0], &name, &[RETURN, RETURN + 4]])),
            ("proxy_get_buffer_bytes", vec![7, 0, 99, RETURN, RETURN + 4]),
        ];
        for (function, arguments) in calls {
            let answer = rig.try_call(function, &arguments).ok();
            assert_eq!(answer, expected.map(|status| status as u32), "{function} {allocator:?}");
            if expected == Some(Status::Ok) {
                assert!([&b"value"[..], b"plugin configuration"].contains(&rig.given().as_slice()));
            }
        }
    }
}
