//! Going on, breaking off, answering.

use super::{RETURN, Rig, STREAM, row};
use crate::callout::{CalloutStatus, HttpReply};
use crate::pairs;
use crate::types::Status;

#[test]
fn directions_are_noted_for_the_context() {
    let mut rig = Rig::new();
    for direction in 0..4 {
        rig.check("proxy_continue_stream", &[direction], Status::Ok);
        rig.check("proxy_close_stream", &[direction], Status::Ok);
    }
    rig.check("proxy_continue_stream", &[4], Status::BadArgument);
    rig.check("proxy_close_stream", &[4], Status::BadArgument);
    let context = &rig.store.data().contexts[&STREAM];
    assert_eq!((context.resumed, context.closed), (0b1111, 0b1111));
}

#[test]
fn the_functions_of_the_first_version_do_the_same() {
    let mut rig = Rig::new();
    rig.check("proxy_continue_request", &[], Status::Ok);
    assert_eq!(rig.store.data().contexts[&STREAM].resumed, 0b01);
    rig.check("proxy_continue_response", &[], Status::Ok);
    assert_eq!(rig.store.data().contexts[&STREAM].resumed, 0b11);
    rig.check("proxy_clear_route_cache", &[], Status::Ok);
    assert!(rig.stream.route_cleared);
}

fn respond(rig: &mut Rig, status: u32, body: &[u8]) -> u32 {
    let (details, body) = (rig.put(b"why"), rig.put(body));
    let headers = pairs::to_bytes([(&b"X-A"[..], &b"1"[..])].into_iter());
    let headers = rig.put(&headers);
    rig.call("proxy_send_local_response", &row(&[&[status], &details, &body, &headers, &[u32::MAX]]))
}

#[test]
fn the_first_response_counts() {
    let mut rig = Rig::new();
    assert_eq!(respond(&mut rig, 403, b"no"), Status::Ok as u32);
    assert_eq!(respond(&mut rig, 200, b"yes"), Status::Ok as u32);
    let reply = rig.store.data_mut().contexts.get_mut(&STREAM).unwrap().reply.take().unwrap();
    assert_eq!((reply.status, reply.details.as_str(), reply.body.as_slice()), (403, "why", &b"no"[..]));
    assert_eq!((reply.headers, reply.grpc_status), (vec![(b"x-a".to_vec(), b"1".to_vec())], None));
}

#[test]
fn a_response_that_comes_too_late_comes_to_nothing() {
    let mut rig = Rig::new();
    rig.stream.too_late = true;
    assert_eq!(respond(&mut rig, 403, b"no"), Status::Ok as u32);
    assert_eq!(rig.store.data().contexts[&STREAM].reply, None);
}

#[test]
fn a_response_must_be_one() {
    let mut rig = Rig::new();
    for status in [0, 100, 199, 600, 65_736] {
        assert_eq!(respond(&mut rig, status, b""), Status::BadArgument as u32, "{status}");
    }
    let broken = rig.put(b"\x01\0\0\0nonsense");
    let none = [0, 0];
    rig.check("proxy_send_local_response", &row(&[&[200], &none, &none, &broken, &[7]]), Status::BadArgument);
    rig.check("proxy_send_local_response", &row(&[&[200], &none, &none, &none, &[7]]), Status::Ok);
    assert_eq!(rig.store.data().contexts[&STREAM].reply.as_ref().unwrap().grpc_status, Some(7));
}

#[test]
fn the_status_of_a_call_is_there_with_its_answer() {
    let mut rig = Rig::new();
    let arguments = [RETURN + 8, RETURN, RETURN + 4];
    rig.check("proxy_get_status", &arguments, Status::Ok);
    assert_eq!((rig.number(RETURN + 8), rig.given()), (0, Vec::new()));
    rig.store.data_mut().shown.http = Some(HttpReply::failure("refused"));
    rig.check("proxy_get_status", &arguments, Status::Ok);
    assert_eq!((rig.number(RETURN + 8), rig.given()), (14, b"refused".to_vec()));
    rig.store.data_mut().shown.grpc_status = Some(CalloutStatus { code: 5, message: "gone".to_owned() });
    rig.check("proxy_get_status", &arguments, Status::Ok);
    assert_eq!((rig.number(RETURN + 8), rig.given()), (5, b"gone".to_vec()));
}
