//! What tests of plugins need.

use crate::logging::LogSink;
use crate::types::LogLevel;

/// A log that panics at every line.
pub(super) struct Panicking;

impl LogSink for Panicking {
    fn log(&self, _level: LogLevel, _filter: &str, _line: &str) {
        panic!("as a test");
    }

    fn least(&self) -> LogLevel {
        LogLevel::Trace
    }
}

/// Where filters wrote lines.
pub(super) mod noting {
    use crate::logging::LogSink;
    use crate::types::LogLevel;
    use std::sync::Mutex;
    use std::thread::ThreadId;

    /// A filter that writes a line when it is configured.
    pub(in crate::plugin) const CONFIGURED: &str = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
            (i32.const 1)))"#;

    /// One that writes a line when the queue `q` got an item.
    pub(in crate::plugin) const QUEUE: &str = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "q")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $register (i32.const 0) (i32.const 1) (i32.const 16))))
        (func (export "proxy_on_queue_ready") (param i32 i32)
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))))"#;

    /// One that writes a line at every request.
    pub(in crate::plugin) const REQUEST: &str = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $log (i32.const 2) (i32.const 0) (i32.const 1))))"#;

    /// The threads that lines were written on.
    #[derive(Default)]
    pub(in crate::plugin) struct Lines(Mutex<Vec<ThreadId>>);

    impl Lines {
        pub(in crate::plugin) fn take(&self) -> Vec<ThreadId> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl LogSink for Lines {
        fn log(&self, _level: LogLevel, _filter: &str, _line: &str) {
            self.0.lock().unwrap().push(std::thread::current().id());
        }

        fn least(&self) -> LogLevel {
            LogLevel::Trace
        }
    }
}
