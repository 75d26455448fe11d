//! The callbacks of one instance, looked up once.

use crate::host::Host;
use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

type One<R> = Option<TypedFunc<u32, R>>;
type Two<R> = Option<TypedFunc<(u32, u32), R>>;
type Five = TypedFunc<(u32, u32, u32, u32, u32), ()>;
type Three<R> = Option<TypedFunc<(u32, u32, u32), R>>;

/// Typed functions of one instance; `None` where the guest exports none.
pub(crate) struct Exports {
    pub(crate) initialize: Option<TypedFunc<(), ()>>,
    pub(crate) start: Option<TypedFunc<(), ()>>,
    pub(crate) main: Two<u32>,
    pub(crate) context_create: Two<()>,
    pub(crate) done: One<u32>,
    pub(crate) log: One<()>,
    pub(crate) delete: One<()>,
    pub(crate) vm_start: Two<u32>,
    pub(crate) configure: Two<u32>,
    pub(crate) tick: One<()>,
    pub(crate) new_connection: One<u32>,
    pub(crate) downstream_data: Three<u32>,
    pub(crate) downstream_close: Two<()>,
    pub(crate) upstream_data: Three<u32>,
    pub(crate) upstream_close: Two<()>,
    pub(crate) request_headers: HeaderCallback,
    pub(crate) request_body: Three<u32>,
    pub(crate) request_trailers: Two<u32>,
    pub(crate) response_headers: HeaderCallback,
    pub(crate) response_body: Three<u32>,
    pub(crate) response_trailers: Two<u32>,
    pub(crate) http_reply: Option<Five>,
    pub(crate) grpc_initial: Three<()>,
    pub(crate) grpc_message: Three<()>,
    pub(crate) grpc_trailing: Three<()>,
    pub(crate) grpc_close: Three<()>,
    pub(crate) queue_ready: Two<()>,
    pub(crate) foreign: Three<()>,
}

/// A callback for headers, which ABI 0.1.0 calls without `end_of_stream`.
pub(crate) enum HeaderCallback {
    None,
    WithEnd(TypedFunc<(u32, u32, u32), u32>),
    WithoutEnd(TypedFunc<(u32, u32), u32>),
}

fn find<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<Host>,
    name: &str,
) -> Option<TypedFunc<P, R>> {
    instance.get_typed_func(store, name).ok()
}

impl HeaderCallback {
    fn of(instance: &Instance, store: &mut Store<Host>, name: &str) -> Self {
        match find(instance, store, name) {
            Some(function) => Self::WithEnd(function),
            None => find(instance, store, name).map_or(Self::None, Self::WithoutEnd),
        }
    }

    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }
}

impl Exports {
    pub(crate) fn of(instance: &Instance, store: &mut Store<Host>) -> Self {
        Self {
            initialize: find(instance, store, "_initialize"),
            start: find(instance, store, "_start"),
            main: find(instance, store, "main"),
            context_create: find(instance, store, "proxy_on_context_create"),
            done: find(instance, store, "proxy_on_done"),
            log: find(instance, store, "proxy_on_log"),
            delete: find(instance, store, "proxy_on_delete"),
            vm_start: find(instance, store, "proxy_on_vm_start"),
            configure: find(instance, store, "proxy_on_configure"),
            tick: find(instance, store, "proxy_on_tick"),
            new_connection: find(instance, store, "proxy_on_new_connection"),
            downstream_data: find(instance, store, "proxy_on_downstream_data"),
            downstream_close: find(instance, store, "proxy_on_downstream_connection_close"),
            upstream_data: find(instance, store, "proxy_on_upstream_data"),
            upstream_close: find(instance, store, "proxy_on_upstream_connection_close"),
            request_headers: HeaderCallback::of(instance, store, "proxy_on_request_headers"),
            request_body: find(instance, store, "proxy_on_request_body"),
            request_trailers: find(instance, store, "proxy_on_request_trailers"),
            response_headers: HeaderCallback::of(instance, store, "proxy_on_response_headers"),
            response_body: find(instance, store, "proxy_on_response_body"),
            response_trailers: find(instance, store, "proxy_on_response_trailers"),
            http_reply: find(instance, store, "proxy_on_http_call_response"),
            grpc_initial: find(instance, store, "proxy_on_grpc_receive_initial_metadata"),
            grpc_message: find(instance, store, "proxy_on_grpc_receive"),
            grpc_trailing: find(instance, store, "proxy_on_grpc_receive_trailing_metadata"),
            grpc_close: find(instance, store, "proxy_on_grpc_close"),
            queue_ready: find(instance, store, "proxy_on_queue_ready"),
            foreign: find(instance, store, "proxy_on_foreign_function"),
        }
    }
}
