//! What tests of plugins need.

use super::{Carried, Carrier, Destination};
use crate::callout::{CalloutStatus, GrpcCall, GrpcEvent, HttpCall, HttpReply, Messages};
use tokio::sync::mpsc;

/// Carries nothing.
pub(super) struct NoCarrier;

impl Carrier for NoCarrier {
    fn http(&self, _: Destination, _: HttpCall, _: usize) -> Carried<HttpReply> {
        Box::pin(async { HttpReply::failure("nothing is carried") })
    }

    fn grpc(
        &self,
        _: Destination,
        _: GrpcCall,
        _: Messages,
        _: mpsc::Sender<GrpcEvent>,
        _: usize,
    ) -> Carried<CalloutStatus> {
        Box::pin(async { CalloutStatus::new(CalloutStatus::UNAVAILABLE, "nothing is carried") })
    }
}

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
