//! Callouts.

use super::{RETURN, Rig, STREAM, row};
use crate::callout::{Callout, CalloutKind};
use crate::host::ROOT;
use crate::pairs;
use crate::types::{Abi, Status};
use std::time::Duration;

const NONE: [u32; 2] = [0, 0];

fn headers(rig: &mut Rig, names: &[&str]) -> [u32; 2] {
    let bytes = pairs::to_bytes(names.iter().map(|name| (name.as_bytes(), &b"x"[..])));
    rig.put(&bytes)
}

fn http(rig: &mut Rig, upstream: &[u8], names: &[&str], timeout_ms: u32) -> u32 {
    let (upstream, headers, body) = (rig.put(upstream), headers(rig, names), rig.put(b"body"));
    rig.call("proxy_http_call", &row(&[&upstream, &headers, &body, &NONE, &[timeout_ms, RETURN]]))
}

const WHOLE: &[&str] = &[":method", ":path", ":authority"];

#[test]
fn a_request_is_queued_with_a_number() {
    let mut rig = Rig::new();
    assert_eq!(http(&mut rig, b"known", WHOLE, 500), 0);
    let token = rig.number(RETURN);
    assert!(token != 0 && token.is_multiple_of(2));
    let [Callout { kind: CalloutKind::Http(call), context, .. }] = &rig.store.data().outbox[..] else { panic!() };
    assert_eq!((*context, call.upstream.as_str(), call.timeout), (STREAM, "known", Duration::from_millis(500)));
    assert_eq!((call.body.as_slice(), call.headers.len()), (&b"body"[..], 3));
    assert_eq!(http(&mut rig, b"known", WHOLE, 0), 0);
    assert_ne!(rig.number(RETURN), token);
    let CalloutKind::Http(call) = &rig.store.data().outbox[1].kind else { panic!() };
    assert_eq!(call.timeout, rig.store.data().setup.config.limits.callout_timeout, "no longer than allowed");
}

#[test]
fn a_request_must_be_whole_and_go_to_a_known_place() {
    let mut rig = Rig::new();
    for missing in 0..3 {
        let names: Vec<_> = WHOLE.iter().copied().enumerate().filter(|(index, _)| *index != missing).collect();
        let names: Vec<_> = names.into_iter().map(|(_, name)| name).collect();
        assert_eq!(http(&mut rig, b"known", &names, 1), Status::BadArgument as u32, "{names:?}");
    }
    assert_eq!(http(&mut rig, b"unknown", WHOLE, 1), Status::BadArgument as u32);
    assert_eq!(http(&mut rig, b"\xff", WHOLE, 1), Status::BadArgument as u32);
    assert!(rig.store.data().outbox.is_empty());
}

#[test]
fn a_storm_of_requests_ends() {
    let mut rig = Rig::with(Abi::V0_2_1, |config| {
        config.limits.callouts_per_stream = 3;
        config.limits.callouts = 5;
    });
    let send = |rig: &mut Rig, times, expected: Status| {
        for _ in 0..times {
            assert_eq!(http(rig, b"known", WHOLE, 1), expected as u32);
        }
    };
    send(&mut rig, 3, Status::Ok);
    send(&mut rig, 1, Status::InternalFailure);
    rig.store.data_mut().effective = ROOT;
    send(&mut rig, 2, Status::Ok);
    send(&mut rig, 1, Status::InternalFailure);
    let token = rig.store.data().outbox[0].token;
    assert!(rig.store.data_mut().end_call(token).is_some());
    rig.store.data_mut().effective = STREAM;
    send(&mut rig, 1, Status::Ok);
    rig.store.data_mut().end_context(STREAM);
    let cancelled = rig.store.data().outbox.iter().filter(|callout| callout.kind == CalloutKind::Cancel).count();
    assert_eq!((cancelled, rig.store.data().calls.len()), (3, 2), "with the stream its requests end");
}

fn grpc(rig: &mut Rig, upstream: &[u8], unary: bool) -> u32 {
    let (upstream, service, method) = (rig.put(upstream), rig.put(b"a.Service"), rig.put(b"Method"));
    let (metadata, message) = (headers(rig, &["x"]), rig.put(b"message"));
    let names = row(&[&upstream, &service, &method, &metadata]);
    if unary {
        rig.call("proxy_grpc_call", &row(&[&names, &message, &[100, RETURN]]))
    } else {
        rig.call("proxy_grpc_stream", &row(&[&names, &[RETURN]]))
    }
}

#[test]
fn a_grpc_call_is_queued_and_cancelled() {
    let mut rig = Rig::new();
    assert_eq!(grpc(&mut rig, b"unknown", true), Status::ParseFailure as u32);
    assert_eq!(grpc(&mut rig, b"known", true), 0);
    let token = rig.number(RETURN);
    assert_eq!(token % 2, 1);
    let CalloutKind::Grpc(call) = &rig.store.data().outbox[0].kind else { panic!() };
    assert_eq!((call.service.as_str(), call.method.as_str()), ("a.Service", "Method"));
    assert_eq!((call.message.as_deref(), call.timeout), (Some(&b"message"[..]), Some(Duration::from_millis(100))));
    rig.check("proxy_grpc_send", &[token, 0, 0, 0], Status::BadArgument);
    rig.check("proxy_grpc_cancel", &[token], Status::Ok);
    rig.check("proxy_grpc_cancel", &[token], Status::NotFound);
    rig.check("proxy_grpc_close", &[token], Status::NotFound);
    assert_eq!(rig.store.data().outbox[1].kind, CalloutKind::Cancel);
}

#[test]
fn messages_go_out_on_a_grpc_stream_until_it_ends() {
    let mut rig = Rig::new();
    assert_eq!(grpc(&mut rig, b"unknown", false), Status::ParseFailure as u32);
    assert_eq!(grpc(&mut rig, b"known", false), 0);
    let token = rig.number(RETURN);
    let message = rig.put(b"one");
    rig.check("proxy_grpc_send", &row(&[&[token], &message, &[0]]), Status::Ok);
    rig.check("proxy_grpc_send", &row(&[&[token], &message, &[1]]), Status::Ok);
    rig.check("proxy_grpc_send", &row(&[&[token], &message, &[0]]), Status::BadArgument);
    rig.check("proxy_grpc_close", &[token], Status::Ok);
    let kinds: Vec<_> = rig.store.data().outbox.iter().skip(1).map(|callout| callout.kind.clone()).collect();
    let sent = |end| CalloutKind::GrpcSend { message: b"one".to_vec(), end };
    assert_eq!(kinds, [sent(false), sent(true)]);
    assert_eq!(grpc(&mut rig, b"known", false), 0);
    let token = rig.number(RETURN);
    rig.check("proxy_grpc_close", &[token], Status::Ok);
    assert_eq!(rig.store.data().outbox.last().unwrap().kind, CalloutKind::GrpcClose);
}

#[test]
fn numbers_that_are_not_of_grpc_are_told_from_unknown_ones() {
    let mut rig = Rig::new();
    assert_eq!(http(&mut rig, b"known", WHOLE, 1), 0);
    let token = rig.number(RETURN);
    for function in ["proxy_grpc_cancel", "proxy_grpc_close"] {
        rig.check(function, &[token], Status::BadArgument);
        rig.check(function, &[999], Status::NotFound);
    }
    rig.check("proxy_grpc_send", &[token, 0, 0, 0], Status::BadArgument);
    rig.check("proxy_grpc_send", &[999, 0, 0, 0], Status::NotFound);
}
