//! What tests of plugins need.

/// Where filters were configured.
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
