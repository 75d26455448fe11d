//! The order of callbacks, and what streams and callouts tell each other.

use super::{Lab, instance, logging, module};
use crate::callout::{CalloutKind, CalloutStatus, GrpcEvent, HttpReply};
use crate::testing::Plain;
use crate::types::{Action, DataBuffer, Direction, FieldMap, Peer, Phase};

/// Names without the part that all have in common.
fn short(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| line.trim_start_matches("proxy_on_").to_owned()).collect()
}

#[test]
fn callbacks_come_in_the_order_of_a_request() {
    let lab = Lab::new();
    let filter = lab.filter(&logging(&[]));
    let mut instance = instance(&filter);
    assert_eq!(short(lab.lines.take()), ["context_create", "vm_start", "configure"]);
    let mut stream = Plain::request(&[(":path", "/")]);
    stream.request_body = Some(b"body".to_vec());
    let id = instance.create_stream().unwrap();
    for map in [FieldMap::RequestHeaders, FieldMap::ResponseHeaders] {
        assert_eq!(instance.headers(id, &mut stream, map, false).unwrap(), Action::Continue);
    }
    for buffer in [DataBuffer::RequestBody, DataBuffer::ResponseBody, DataBuffer::Downstream, DataBuffer::Upstream] {
        assert_eq!(instance.data(id, &mut stream, buffer, true).unwrap(), Action::Continue);
    }
    for map in [FieldMap::RequestTrailers, FieldMap::ResponseTrailers] {
        assert_eq!(instance.trailers(id, &mut stream, map).unwrap(), Action::Continue);
    }
    instance.new_connection(id, &mut stream).unwrap();
    for direction in [Direction::Downstream, Direction::Upstream] {
        instance.connection_closed(id, &mut stream, direction, Peer::Remote).unwrap();
    }
    instance.foreign_function(1, b"x".to_vec()).unwrap();
    instance.tick().unwrap();
    assert_eq!(instance.streams(), 1);
    instance.end_stream(id, &mut stream).unwrap();
    assert_eq!(instance.streams(), 0);
    instance.end_stream(id, &mut stream).unwrap();
    instance.shut_down();
    let expected = [
        "context_create",
        "request_headers",
        "response_headers",
        "request_body",
        "response_body",
        "downstream_data",
        "upstream_data",
        "request_trailers",
        "response_trailers",
        "new_connection",
        "downstream_connection_close",
        "upstream_connection_close",
        "foreign_function",
        "tick",
        "done",
        "log",
        "delete",
        "done",
        "delete",
    ];
    assert_eq!(short(lab.lines.take()), expected);
    let totals = filter.totals();
    assert_eq!((totals.calls[Phase::RequestHeaders as usize], totals.instances), (1, 1));
    assert!(totals.memory_bytes >= 2 * 65536, "{}", totals.memory_bytes);
    drop(instance);
    let totals = filter.totals();
    assert_eq!((totals.calls[Phase::Done as usize], totals.instances, totals.memory_bytes), (6, 0, 0));
}

#[test]
fn initialize_comes_first_and_start_only_without_it() {
    let lab = Lab::new();
    let data = r#"(data (i32.const 0) "abc")"#;
    let line = |at: u32| format!("(drop (call $log (i32.const 2) (i32.const {at}) (i32.const 1)))");
    let initialize = format!("(func (export \"_initialize\") {})", line(0));
    let main = format!("(func (export \"main\") (param i32 i32) (result i32) {} (i32.const 0))", line(1));
    let start = format!("(func (export \"_start\") {})", line(2));
    for (functions, expected) in [
        (vec![&initialize, &main, &start], vec!["a", "b"]),
        (vec![&initialize], vec!["a"]),
        (vec![&start, &main], vec!["c"]),
    ] {
        let functions: String = functions.into_iter().cloned().collect();
        let filter = lab.filter(&module(&format!("{data}{functions}")));
        let _instance = instance(&filter);
        assert_eq!(lab.lines.take(), expected);
    }
}

#[test]
fn a_guest_of_the_first_version_is_not_told_of_the_end() {
    let lab = Lab::new();
    let wat = module(
        r#"(func (export "proxy_on_request_headers") (param i32 i32) (result i32)
            (i32.eq (local.get 1) (i32.const 2)))"#,
    )
    .replace("proxy_abi_version_0_2_1", "proxy_abi_version_0_1_0");
    let filter = lab.filter(&wat);
    assert_eq!(filter.abi().as_str(), "0.1.0");
    let mut instance = instance(&filter);
    let id = instance.create_stream().unwrap();
    let mut stream = Plain::request(&[("a", "1"), ("b", "2")]);
    let action = instance.headers(id, &mut stream, FieldMap::RequestHeaders, true).unwrap();
    assert_eq!(action, Action::Pause, "it counted two fields");
}

#[test]
fn a_stream_whose_guest_is_not_done_is_waited_for() {
    let lab = Lab::new();
    let wat = logging(&[
        ("proxy_on_done", "(i32.const 0)"),
        ("proxy_on_tick", "(drop (call $effective (i32.const 2))) (drop (call $done))"),
    ]);
    let filter = lab.try_filter(&wat, |config| config.limits.unfinished_streams = 2).unwrap();
    let mut instance = instance(&filter);
    let mut stream = Plain::default();
    let ids: Vec<_> = (0..4).map(|_| instance.create_stream().unwrap()).collect();
    assert_eq!(ids, [2, 3, 4, 5]);
    lab.lines.take();
    instance.end_stream(ids[0], &mut stream).unwrap();
    assert_eq!((short(lab.lines.take()), instance.streams()), (vec!["done".to_owned()], 4));
    instance.tick().unwrap();
    assert_eq!(
        (short(lab.lines.take()), instance.streams()),
        (["tick", "log", "delete"].map(str::to_owned).to_vec(), 3)
    );
    for id in &ids[1..] {
        instance.end_stream(*id, &mut stream).unwrap();
    }
    assert_eq!(instance.streams(), 2, "more than two are not waited for");
}

#[test]
fn a_guest_that_pauses_goes_on_when_it_says_so() {
    let lab = Lab::new();
    let filter = lab.filter(&logging(&[
        ("proxy_on_request_headers", "(i32.const 1)"),
        ("proxy_on_request_body", "(drop (call $continue (i32.const 0))) (i32.const 1)"),
    ]));
    let mut instance = instance(&filter);
    let id = instance.create_stream().unwrap();
    let mut stream = Plain { request_body: Some(Vec::new()), ..Plain::default() };
    assert_eq!(instance.headers(id, &mut stream, FieldMap::RequestHeaders, false).unwrap(), Action::Pause);
    assert!(instance.take_signals(id, Direction::Request).is_empty());
    assert_eq!(instance.data(id, &mut stream, DataBuffer::RequestBody, false).unwrap(), Action::Pause);
    let signals = instance.take_signals(id, Direction::Request);
    assert!(signals.resumes(Direction::Request) && !signals.resumes(Direction::Response));
    assert!(instance.take_signals(id, Direction::Request).is_empty(), "signals are given once");
}

/// Sends a request when headers come, and goes on when its answer does.
fn calling() -> String {
    let map = r#"(data (i32.const 0) "\03\00\00\00\07\00\00\00\01\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00G\00:path\00/\00:authority\00a\00")"#;
    logging(&[
        (
            "proxy_on_request_headers",
            "(drop (call $http (i32.const 32) (i32.const 4) (i32.const 0) (i32.const 59) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 200)))
            (i32.const 1)",
        ),
        (
            "proxy_on_http_call_response",
            "(drop (call $effective (i32.const 2)))
            (drop (call $add (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 32) (i32.const 1)))
            (drop (call $continue (i32.const 0)))",
        ),
    ])
    .replacen("(data ", &format!("{map}\n(data "), 1)
}

#[test]
fn an_answer_to_a_callout_reaches_the_stream_that_asked() {
    let lab = Lab::new();
    let filter = lab.filter(&calling());
    let mut instance = instance(&filter);
    let id = instance.create_stream().unwrap();
    let mut stream = Plain::default();
    assert_eq!(instance.headers(id, &mut stream, FieldMap::RequestHeaders, true).unwrap(), Action::Pause);
    let [callout] = &instance.take_callouts()[..] else { panic!("one callout") };
    assert_eq!((callout.context, instance.open_calls(id)), (id, 1));
    assert!(matches!(&callout.kind, CalloutKind::Http(call) if call.headers.len() == 3));
    instance.http_reply(callout.token, HttpReply::failure("no"), Some(&mut stream)).unwrap();
    assert!(instance.take_signals(id, Direction::Request).resumes(Direction::Request));
    assert_eq!((stream.request_headers.len(), instance.open_calls(id)), (1, 0));
    lab.lines.take();
    instance.http_reply(callout.token, HttpReply::default(), Some(&mut stream)).unwrap();
    assert_eq!(lab.lines.take(), [""; 0], "an answer comes once");
}

#[test]
fn an_answer_for_a_stream_that_ended_is_dropped_and_its_request_cancelled() {
    let lab = Lab::new();
    let filter = lab.filter(&calling());
    let mut instance = instance(&filter);
    let id = instance.create_stream().unwrap();
    let mut stream = Plain::default();
    instance.headers(id, &mut stream, FieldMap::RequestHeaders, true).unwrap();
    let token = instance.take_callouts()[0].token;
    instance.end_stream(id, &mut stream).unwrap();
    assert_eq!(instance.take_callouts()[0].kind, CalloutKind::Cancel);
    lab.lines.take();
    instance.http_reply(token, HttpReply::default(), None).unwrap();
    assert_eq!(lab.lines.take(), [""; 0]);
}

#[test]
fn a_grpc_call_has_its_callbacks() {
    let lab = Lab::new();
    let call = "(drop (call $grpc (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 200)))";
    let filter = lab.filter(&logging(&[("proxy_on_tick", call)]));
    let mut instance = instance(&filter);
    lab.lines.take();
    instance.tick().unwrap();
    let token = instance.take_callouts()[0].token;
    instance.grpc_event(token, GrpcEvent::Initial(Vec::new()), None).unwrap();
    instance.grpc_event(token, GrpcEvent::Message(b"m".to_vec()), None).unwrap();
    let closed = GrpcEvent::Close(CalloutStatus::default());
    instance.grpc_event(token, closed.clone(), None).unwrap();
    assert_eq!(
        short(lab.lines.take()),
        ["tick", "grpc_receive_initial_metadata", "grpc_receive"],
        "a unary call ends with its message"
    );
    instance.tick().unwrap();
    let token = instance.take_callouts()[0].token;
    instance.grpc_event(token, GrpcEvent::Trailing(Vec::new()), None).unwrap();
    instance.grpc_event(token, closed, None).unwrap();
    assert_eq!(short(lab.lines.take()), ["tick", "grpc_receive_trailing_metadata", "grpc_close"]);
}

#[test]
fn a_queue_tells_its_instance() {
    let lab = Lab::new();
    let register = "(drop (call $queue (i32.const 0) (i32.const 1) (i32.const 200))) (i32.const 1)";
    let enqueue = "(drop (call $enqueue (i32.load (i32.const 200)) (i32.const 0) (i32.const 1)))";
    let filter = lab.filter(&logging(&[("proxy_on_configure", register), ("proxy_on_tick", enqueue)]));
    let (wake, woken) = std::sync::mpsc::channel();
    let mut instance = filter.instantiate(Box::new(move || wake.send(()).unwrap())).unwrap();
    instance.tick().unwrap();
    woken.try_recv().unwrap();
    lab.lines.take();
    instance.queues_ready().unwrap();
    instance.queues_ready().unwrap();
    assert_eq!(short(lab.lines.take()), ["queue_ready"]);
}

#[test]
fn a_timer_is_wanted_only_by_who_can_hear_it() {
    let lab = Lab::new();
    let set = ("proxy_on_configure", "(drop (call $tick (i32.const 30))) (i32.const 1)");
    assert_eq!(instance(&lab.filter(&logging(&[set]))).tick_ms(), Some(30));
    assert_eq!(instance(&lab.filter(&logging(&[]))).tick_ms(), None);
    let deaf = logging(&[set]).replace("\"proxy_on_tick\"", "\"other\"");
    assert_eq!(instance(&lab.filter(&deaf)).tick_ms(), None);
}

#[test]
fn callbacks_that_are_not_there_are_not_called() {
    let lab = Lab::new();
    let filter = lab.filter(&module(""));
    let mut instance = instance(&filter);
    let mut stream = Plain::default();
    let id = instance.create_stream().unwrap();
    assert!(!instance.wants_data(DataBuffer::RequestBody) && !instance.wants_fields(FieldMap::ResponseTrailers));
    assert_eq!(instance.headers(id, &mut stream, FieldMap::RequestHeaders, true).unwrap(), Action::Continue);
    assert_eq!(instance.data(id, &mut stream, DataBuffer::RequestBody, true).unwrap(), Action::Continue);
    instance.tick().unwrap();
    instance.end_stream(id, &mut stream).unwrap();
    assert_eq!(filter.totals().calls.iter().sum::<u64>(), 0);
}
