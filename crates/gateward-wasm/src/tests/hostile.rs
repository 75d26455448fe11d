//! Filters that want to harm: each ends with a failure of its kind, in bounded time and memory.

use super::{CALLBACKS, Lab, failed, instance, logging, module};
use crate::callout::{CalloutStatus, GrpcEvent, HttpReply};
use crate::failure::{Failure, FailureKind};
use crate::testing::Plain;
use crate::types::{DataBuffer, Direction, FieldMap, Peer};
use crate::{FilterError, Instance};
use std::time::Duration;

/// Ways to fail, as the body of a callback.
const WAYS: &[(&str, FailureKind)] = &[
    ("unreachable", FailureKind::Trap),
    ("(drop (i32.div_u (i32.const 1) (i32.const 0))) unreachable", FailureKind::Trap),
    ("(drop (i32.load (i32.const -1))) unreachable", FailureKind::Trap),
    ("(loop $forever (br $forever)) unreachable", FailureKind::Timeout),
    (
        "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
        FailureKind::Memory,
    ),
    ("(call $deep (i32.const 0)) unreachable", FailureKind::Stack),
    ("(call $exit (i32.const 3)) unreachable", FailureKind::Exit),
];

fn hostile(callback: &str, body: &str) -> String {
    let recursion = "(func $deep (param i32) (call $deep (i32.add (local.get 0) (i32.const 1))))";
    logging(&[(callback, body)]).replacen("(data ", &format!("{recursion}\n(data "), 1)
}

#[test]
fn every_way_to_fail_has_its_name_and_ends_the_instance() {
    let lab = Lab::new();
    for (body, kind) in WAYS {
        let filter = lab
            .try_filter(&hostile("proxy_on_request_headers", body), |config| {
                config.limits.memory_bytes = 4 << 20;
                config.limits.callback = Duration::from_millis(20);
            })
            .unwrap();
        let mut instance = instance(&filter);
        let mut stream = Plain::default();
        let (first, second) = (instance.create_stream().unwrap(), instance.create_stream().unwrap());
        let failure = failed(instance.headers(first, &mut stream, FieldMap::RequestHeaders, true));
        assert_eq!(failure.kind, *kind, "{body}: {failure}");
        assert!(failure.text.contains("test in request_headers"), "{failure}");
        assert!(instance.dead().is_some());
        let other = failed(instance.headers(second, &mut stream, FieldMap::RequestHeaders, true));
        assert_eq!(other.kind, FailureKind::Dead, "its other streams find out");
        assert_eq!(failed(instance.end_stream(second, &mut stream)).kind, FailureKind::Dead);
        assert_eq!(filter.totals().failed(*kind), 1);
        assert!(filter.totals().memory_bytes <= 4 << 20);
        drop(instance);
        super::instance(&filter).create_stream().unwrap();
    }
}

#[test]
fn init_that_fails_is_refused_with_the_reason() {
    let lab = Lab::new();
    for (body, kind) in WAYS {
        for callback in ["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"] {
            let refused = lab.try_filter(&hostile(callback, body), |config| {
                config.limits.memory_bytes = 4 << 20;
                config.limits.start = Duration::from_millis(20);
            });
            let Err(FilterError::Start { failure, .. }) = refused else { panic!("{callback} {body}") };
            assert_eq!(failure.kind, *kind, "{callback} {body}: {failure}");
        }
    }
    let refused = lab.try_filter(&logging(&[("proxy_on_configure", "(i32.const 0)")]), |_| ());
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("filter 'test'") && text.contains("proxy_on_configure refused"), "{text}");
}

/// Calls one callback of a running instance.
fn provoke(instance: &mut Instance, callback: &str) -> Result<(), Failure> {
    let mut stream = Plain { request_body: Some(Vec::new()), ..Plain::default() };
    let stream = &mut stream;
    let id = instance.create_stream()?;
    match callback {
        "proxy_on_tick" => instance.tick(),
        "proxy_on_done" | "proxy_on_log" | "proxy_on_delete" => instance.end_stream(id, stream),
        "proxy_on_new_connection" => instance.new_connection(id, stream).map(|_| ()),
        "proxy_on_downstream_data" => instance.data(id, stream, DataBuffer::Downstream, false).map(|_| ()),
        "proxy_on_upstream_data" => instance.data(id, stream, DataBuffer::Upstream, false).map(|_| ()),
        "proxy_on_downstream_connection_close" => {
            instance.connection_closed(id, stream, Direction::Downstream, Peer::Remote)
        }
        "proxy_on_upstream_connection_close" => {
            instance.connection_closed(id, stream, Direction::Upstream, Peer::Local)
        }
        "proxy_on_request_headers" => instance.headers(id, stream, FieldMap::RequestHeaders, true).map(|_| ()),
        "proxy_on_request_body" => instance.data(id, stream, DataBuffer::RequestBody, true).map(|_| ()),
        "proxy_on_request_trailers" => instance.trailers(id, stream, FieldMap::RequestTrailers).map(|_| ()),
        "proxy_on_response_headers" => instance.headers(id, stream, FieldMap::ResponseHeaders, true).map(|_| ()),
        "proxy_on_response_body" => instance.data(id, stream, DataBuffer::ResponseBody, true).map(|_| ()),
        "proxy_on_response_trailers" => instance.trailers(id, stream, FieldMap::ResponseTrailers).map(|_| ()),
        "proxy_on_http_call_response" => {
            instance.foreign_function(1, Vec::new())?;
            let token = instance.take_callouts()[0].token;
            instance.http_reply(token, HttpReply::default(), None)
        }
        "proxy_on_queue_ready" => {
            instance.foreign_function(2, Vec::new())?;
            instance.queues_ready()
        }
        "proxy_on_foreign_function" => instance.foreign_function(0, Vec::new()),
        grpc => {
            instance.foreign_function(3, Vec::new())?;
            let token = instance.take_callouts()[0].token;
            let event = match grpc {
                "proxy_on_grpc_receive_initial_metadata" => GrpcEvent::Initial(Vec::new()),
                "proxy_on_grpc_receive" => GrpcEvent::Message(Vec::new()),
                "proxy_on_grpc_receive_trailing_metadata" => GrpcEvent::Trailing(Vec::new()),
                "proxy_on_grpc_close" => GrpcEvent::Close(CalloutStatus::default()),
                other => panic!("{other} is not provoked"),
            };
            instance.grpc_event(token, event, None)
        }
    }
}

/// Starts what leads to callbacks: an HTTP call, a queue item, a gRPC call.
const HELPER: &str = "
    (if (i32.eq (local.get 1) (i32.const 1)) (then (drop (call $http
        (i32.const 32) (i32.const 4) (i32.const 0) (i32.const 59) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 200)))))
    (if (i32.eq (local.get 1) (i32.const 2)) (then
        (drop (call $queue (i32.const 0) (i32.const 1) (i32.const 200)))
        (drop (call $enqueue (i32.load (i32.const 200)) (i32.const 0) (i32.const 1)))))
    (if (i32.eq (local.get 1) (i32.const 3)) (then (drop (call $grpc
        (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 200)))))";

#[test]
fn a_trap_in_any_callback_is_a_failure() {
    let lab = Lab::new();
    let map = r#"(data (i32.const 0) "\03\00\00\00\07\00\00\00\01\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00G\00:path\00/\00:authority\00a\00")"#;
    for (callback, _, _) in CALLBACKS {
        if ["proxy_on_vm_start", "proxy_on_configure", "proxy_on_context_create"].contains(callback) {
            continue;
        }
        let helper = if *callback == "proxy_on_foreign_function" { "unreachable" } else { HELPER };
        let wat = logging(&[("proxy_on_foreign_function", helper), (callback, "unreachable")]);
        let filter = lab.filter(&wat.replacen("(data ", &format!("{map}\n(data "), 1));
        let mut instance = instance(&filter);
        let failure = failed(provoke(&mut instance, callback));
        assert_eq!(failure.kind, FailureKind::Trap, "{callback}: {failure}");
        assert!(instance.dead().is_some(), "{callback}");
    }
}

#[test]
fn storms_end_at_their_limits() {
    let lab = Lab::new();
    let storm = |call: &str| {
        let body = format!(
            "(local $left i32) (local.set $left (i32.const 5000))
            (loop $again {call}
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br_if $again (local.get $left)))
            (i32.const 0)"
        );
        // Locals come before anything else in a function.
        let wat = module(&format!(
            "(data (i32.const 0) \"x\") (func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) {body})"
        ));
        let filter = lab.try_filter(&wat, |config| config.limits.callback = Duration::from_secs(5)).unwrap();
        let mut instance = instance(&filter);
        let id = instance.create_stream().unwrap();
        let mut stream = Plain::default();
        instance.headers(id, &mut stream, FieldMap::RequestHeaders, true).unwrap();
        (instance, id, stream)
    };
    let (_, _, stream) =
        storm("(drop (call $add (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 70000) (i32.const 60000)))");
    let bytes: usize = stream.request_headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes > 0 && bytes <= crate::limits::WRITTEN_FIELD_BYTES, "{bytes}");
    lab.lines.take();
    let (instance, ..) = storm("(drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))");
    assert_eq!(lab.lines.take().len(), 64);
    drop(instance);
    let (mut instance, id, _) = storm(
        "(drop (call $respond (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const -1)))",
    );
    assert_eq!(instance.take_signals(id, Direction::Request).reply.unwrap().status, 403);
    let (mut instance, id, _) = storm(
        "(drop (call $grpc (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 200)))",
    );
    assert_eq!((instance.take_callouts().len(), instance.open_calls(id)), (16, 16));
}

#[test]
fn an_instance_that_has_grown_says_so() {
    let lab = Lab::new();
    let grow = "(drop (memory.grow (i32.const 64))) (i32.const 0)";
    let filter = lab
        .try_filter(&logging(&[("proxy_on_request_headers", grow)]), |config| config.limits.recycle_bytes = 4 << 20)
        .unwrap();
    let mut instance = instance(&filter);
    let id = instance.create_stream().unwrap();
    assert!(!instance.is_grown());
    instance.headers(id, &mut Plain::default(), FieldMap::RequestHeaders, true).unwrap();
    assert!(instance.is_grown(), "{}", instance.memory_bytes());
}

#[test]
fn what_an_instance_has_from_its_start_is_no_growth() {
    const MIB: usize = 1 << 20;
    let lab = Lab::new();
    // Memory after the start, in pages, and how many more make it grown, with a limit of 256 and a setting of 192.
    for (start, room, grown) in [(16, 240, 180), (192, 64, 48), (224, 32, 24), (255, 1, 1)] {
        let wat = logging(&[("proxy_on_request_headers", "(drop (memory.grow (i32.const 1))) (i32.const 0)")])
            .replace("(memory (export \"memory\") 2)", &format!("(memory (export \"memory\") {start})"));
        let filter = lab.try_filter(&wat, |config| {
            (config.limits.memory_bytes, config.limits.recycle_bytes) = (16 * MIB, 12 * MIB);
        });
        let mut instance = instance(&filter.unwrap());
        let id = instance.create_stream().unwrap();
        for pages in 0..=room {
            assert_eq!(instance.is_grown(), pages >= grown, "{start} and {pages}");
            instance.headers(id, &mut Plain::default(), FieldMap::RequestHeaders, true).unwrap();
        }
    }
}
