//! Buffers.

use super::{RETURN, Rig, row};
use crate::callout::HttpReply;
use crate::limits::WRITTEN_BODY_BYTES;
use crate::types::Status;

const OUT: [u32; 2] = [RETURN, RETURN + 4];

#[test]
fn each_buffer_is_there_in_its_time_only() {
    let mut rig = Rig::new();
    for number in 0..=8 {
        let expected = if number == 6 || number == 7 { Status::Ok } else { Status::NotFound };
        rig.check("proxy_get_buffer_bytes", &row(&[&[number, 0, 99], &OUT]), expected);
        rig.check("proxy_get_buffer_status", &row(&[&[number], &OUT]), expected);
    }
    rig.check("proxy_get_buffer_bytes", &row(&[&[9, 0, 99], &OUT]), Status::BadArgument);
    rig.check("proxy_get_buffer_status", &row(&[&[9], &OUT]), Status::BadArgument);
    rig.check("proxy_set_buffer_bytes", &[9, 0, 0, 0, 0], Status::BadArgument);
    rig.check("proxy_set_buffer_bytes", &[0, 0, 0, 0, 0], Status::NotFound);
    rig.check("proxy_set_buffer_bytes", &[7, 0, 0, 0, 0], Status::BadArgument);
    let shown = &mut rig.store.data_mut().shown;
    shown.http = Some(HttpReply { body: b"reply".to_vec(), ..HttpReply::default() });
    shown.grpc_message = Some(b"message".to_vec());
    shown.foreign_arguments = Some(b"arguments".to_vec());
    rig.stream.request_body = Some(b"request".to_vec());
    rig.stream.response_body = Some(b"response".to_vec());
    for (number, expected) in [
        (0, &b"request"[..]),
        (1, b"response"),
        (4, b"reply"),
        (5, b"message"),
        (6, b"vm configuration"),
        (7, b"plugin configuration"),
        (8, b"arguments"),
    ] {
        rig.check("proxy_get_buffer_bytes", &row(&[&[number, 0, 99], &OUT]), Status::Ok);
        assert_eq!(rig.given(), expected);
        rig.check("proxy_get_buffer_status", &row(&[&[number], &OUT]), Status::Ok);
        assert_eq!((rig.number(RETURN), rig.number(RETURN + 4)), (expected.len() as u32, 0));
    }
    rig.elsewhere();
    rig.check("proxy_get_buffer_bytes", &row(&[&[0, 0, 99], &OUT]), Status::NotFound);
}

#[test]
fn pieces_end_where_the_buffer_ends() {
    let mut rig = Rig::new();
    rig.stream.request_body = Some(b"0123456789".to_vec());
    for (start, most, expected) in [
        (0, 4, &b"0123"[..]),
        (4, 4, b"4567"),
        (8, 4, b"89"),
        (8, u32::MAX, b"89"),
        (10, 4, b""),
        (11, 4, b""),
        (0, 0, b""),
    ] {
        rig.check("proxy_get_buffer_bytes", &row(&[&[0, start, most], &OUT]), Status::Ok);
        assert_eq!(rig.given(), expected, "{start} {most}");
    }
    rig.check("proxy_get_buffer_bytes", &row(&[&[0, 2, u32::MAX - 1], &OUT]), Status::BadArgument);
    rig.check("proxy_get_configuration", &OUT, Status::Ok);
    assert_eq!(rig.given(), b"plugin configuration");
}

#[test]
fn bytes_are_put_before_behind_and_in_place_of_others() {
    let mut rig = Rig::new();
    let new = rig.put(b"new");
    for (start, size, expected) in [
        (0, 0, "newbody"),
        (4, 0, "bodynew"),
        (99, 0, "bodynew"),
        (u32::MAX, 0, "bodynew"),
        (0, 4, "new"),
        (0, u32::MAX, "new"),
        (1, 2, "bnewy"),
        (2, 99, "bonew"),
    ] {
        rig.stream.request_body = Some(b"body".to_vec());
        rig.check("proxy_set_buffer_bytes", &row(&[&[0, start, size], &new]), Status::Ok);
        assert_eq!(rig.stream.request_body.as_deref(), Some(expected.as_bytes()), "{start} {size}");
    }
}

#[test]
fn a_body_cannot_grow_without_end() {
    let mut rig = Rig::new();
    rig.stream.request_body = Some(vec![0; WRITTEN_BODY_BYTES - 1]);
    rig.check("proxy_set_buffer_bytes", &[0, 0, 0, 0, 2], Status::InternalFailure);
    rig.check("proxy_set_buffer_bytes", &[0, 0, 0, 0, 1], Status::Ok);
}
