//! Maps of fields.

use super::{RETURN, Rig, row};
use crate::callout::HttpReply;
use crate::limits::WRITTEN_FIELD_BYTES;
use crate::pairs;
use crate::types::{Abi, Status};

const OUT: [u32; 2] = [RETURN, RETURN + 4];

fn rig() -> Rig {
    rig_of(Abi::V0_2_1)
}

fn rig_of(abi: Abi) -> Rig {
    let mut rig = Rig::with(abi, |_| ());
    let fields = [(":path", "/"), ("Accept", "a"), ("accept", "b"), ("empty", "")];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    rig.stream.request_headers = fields.to_vec();
    rig
}

fn value(rig: &mut Rig, map: u32, name: &[u8]) -> Result<Vec<u8>, u32> {
    let name = rig.put(name);
    match rig.call("proxy_get_header_map_value", &row(&[&[map], &name, &OUT])) {
        0 => Ok(rig.given()),
        status => Err(status),
    }
}

#[test]
fn values_are_found_without_case_and_joined() {
    let mut rig = rig();
    let not_found = Err(Status::NotFound as u32);
    assert_eq!(value(&mut rig, 0, b":path"), Ok(b"/".to_vec()));
    assert_eq!(value(&mut rig, 0, b"ACCEPT"), Ok(b"a, b".to_vec()));
    assert_eq!(value(&mut rig, 0, b"empty"), Ok(Vec::new()));
    assert_eq!(value(&mut rig, 0, b"missing"), not_found);
    assert_eq!(value(&mut rig, 2, b":status"), not_found, "no response yet");
    assert_eq!(value(&mut rig, 8, b"a"), Err(Status::BadArgument as u32));
    rig.elsewhere();
    assert_eq!(value(&mut rig, 0, b":path"), not_found, "another context's stream");
}

#[test]
fn guests_of_the_first_version_get_empty_values_for_missing_ones() {
    assert_eq!(value(&mut rig_of(Abi::V0_1_0), 0, b"missing"), Ok(Vec::new()));
    assert_eq!(value(&mut rig_of(Abi::V0_2_0), 0, b"missing"), Err(Status::NotFound as u32));
}

#[test]
fn a_whole_map_comes_in_small_letters() {
    let mut rig = rig();
    rig.check("proxy_get_header_map_pairs", &row(&[&[0], &OUT]), Status::Ok);
    let bytes = rig.given();
    let pairs = pairs::parse(&bytes).unwrap();
    let expected: [(&[u8], &[u8]); 4] = [(b":path", b"/"), (b"accept", b"a"), (b"accept", b"b"), (b"empty", b"")];
    assert!(pairs.into_iter().eq(expected), "{bytes:?}");
    rig.check("proxy_get_header_map_size", &[0, RETURN], Status::Ok);
    assert_eq!(rig.number(RETURN) as usize, bytes.len());
    for absent in [1, 2, 3, 4, 5, 6, 7] {
        rig.check("proxy_get_header_map_pairs", &row(&[&[absent], &OUT]), Status::Ok);
        assert_eq!(rig.given(), b"");
        rig.check("proxy_get_header_map_size", &[absent, RETURN], Status::Ok);
        assert_eq!(rig.number(RETURN), 0);
    }
    rig.check("proxy_get_header_map_pairs", &row(&[&[8], &OUT]), Status::BadArgument);
    rig.check("proxy_get_header_map_size", &[8, RETURN], Status::BadArgument);
}

#[test]
fn answers_to_callouts_can_be_read_and_not_changed() {
    let mut rig = rig();
    let fields = |name: &str| vec![(name.as_bytes().to_vec(), b"1".to_vec())];
    let shown = &mut rig.store.data_mut().shown;
    shown.http = Some(HttpReply { headers: fields("h"), trailers: fields("t"), ..HttpReply::default() });
    shown.grpc_initial = Some(fields("i"));
    shown.grpc_trailing = Some(fields("e"));
    for (map, name) in [(6, b"h"), (7, b"t"), (4, b"i"), (5, b"e")] {
        assert_eq!(value(&mut rig, map, name), Ok(b"1".to_vec()));
        assert_eq!(value(&mut rig, map, b"x"), Err(Status::NotFound as u32));
        let name = rig.put(name);
        rig.check("proxy_add_header_map_value", &row(&[&[map], &name, &name]), Status::BadArgument);
        rig.check("proxy_remove_header_map_value", &row(&[&[map], &name]), Status::BadArgument);
        rig.check("proxy_set_header_map_pairs", &[map, 0, 0], Status::BadArgument);
    }
}

#[test]
fn fields_are_added_replaced_and_removed() {
    let mut rig = rig();
    let (name, new) = (rig.put(b"accept"), rig.put(b"new"));
    rig.check("proxy_add_header_map_value", &row(&[&[0], &name, &new]), Status::Ok);
    assert_eq!(value(&mut rig, 0, b"accept"), Ok(b"a, b, new".to_vec()));
    rig.check("proxy_replace_header_map_value", &row(&[&[0], &name, &new]), Status::Ok);
    assert_eq!(value(&mut rig, 0, b"accept"), Ok(b"new".to_vec()));
    rig.check("proxy_replace_header_map_value", &row(&[&[0], &name, &[0, 0]]), Status::Ok);
    assert_eq!(value(&mut rig, 0, b"accept"), Ok(Vec::new()));
    for _ in 0..2 {
        rig.check("proxy_remove_header_map_value", &row(&[&[0], &name]), Status::Ok);
    }
    assert_eq!(value(&mut rig, 0, b"accept"), Err(Status::NotFound as u32));
    rig.check("proxy_add_header_map_value", &row(&[&[9], &name, &new]), Status::BadArgument);
    rig.check("proxy_remove_header_map_value", &row(&[&[9], &name]), Status::BadArgument);
}

#[test]
fn what_cannot_stand_in_a_message_is_refused() {
    let mut rig = rig();
    let (name, bad) = (rig.put(b"a"), rig.put(b"x\r\ny: z"));
    rig.check("proxy_add_header_map_value", &row(&[&[0], &name, &bad]), Status::BadArgument);
    rig.check("proxy_replace_header_map_value", &row(&[&[0], &bad, &name]), Status::BadArgument);
    rig.stream.read_only = true;
    rig.check("proxy_add_header_map_value", &row(&[&[0], &name, &name]), Status::BadArgument);
    assert_eq!(rig.stream.request_headers.len(), 4);
}

#[test]
fn a_whole_map_is_replaced() {
    let mut rig = rig();
    let new: [(&[u8], &[u8]); 3] = [(b"x", b"1"), (b":path", b"/new"), (b"x", b"2")];
    let new = pairs::to_bytes(new.into_iter());
    let new = rig.put(&new);
    rig.check("proxy_set_header_map_pairs", &row(&[&[0], &new]), Status::Ok);
    assert_eq!(value(&mut rig, 0, b"x"), Ok(b"1, 2".to_vec()));
    assert_eq!(value(&mut rig, 0, b":path"), Ok(b"/new".to_vec()));
    assert_eq!(rig.stream.request_headers.len(), 3);
    let broken = rig.put(b"\x01\0\0\0nonsense");
    rig.check("proxy_set_header_map_pairs", &row(&[&[0], &broken]), Status::BadArgument);
    assert_eq!(rig.stream.request_headers.len(), 3, "what is refused changes nothing");
    rig.check("proxy_set_header_map_pairs", &[0, 0, 0], Status::Ok);
    assert_eq!(rig.stream.request_headers.len(), 1, "pseudo fields stay");
}

#[test]
fn a_flood_of_fields_ends() {
    let mut rig = rig();
    let name = rig.put(b"x");
    let value_bytes = 32 << 10;
    let fits = WRITTEN_FIELD_BYTES / (value_bytes + 1);
    for number in 0..fits + 3 {
        let expected = if number < fits { Status::Ok } else { Status::InternalFailure };
        rig.check("proxy_replace_header_map_value", &row(&[&[0], &name, &[HEAP_VALUE, value_bytes as u32]]), expected);
    }
}

/// Bytes that are all zero in the rig's memory, far from what tests put there.
const HEAP_VALUE: u32 = 70_000;
