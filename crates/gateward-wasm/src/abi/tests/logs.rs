//! Log, time, timer, contexts, metrics, properties and foreign functions.

use super::{RETURN, Rig, STREAM, row};
use crate::host::{Life, ROOT};
use crate::limits::{LOG_LINE_BYTES, PROPERTIES, PROPERTY_BYTES};
use crate::metrics::MetricKind;
use crate::types::{LogLevel, Status};

#[test]
fn lines_are_passed_on_by_level_up_to_the_limit() {
    let mut rig = Rig::new();
    let line = rig.put(b"line \xff");
    for (level, expected) in [(0, Status::Ok), (1, Status::Ok), (5, Status::Ok), (6, Status::BadArgument)] {
        rig.check("proxy_log", &row(&[&[level], &line]), expected);
    }
    let lines = std::mem::take(&mut *rig.lines.0.lock().unwrap());
    let text = "line \u{fffd}".to_owned();
    assert_eq!(lines, [(LogLevel::Debug, text.clone()), (LogLevel::Critical, text)], "trace is below the level");
    for _ in 0..20 {
        rig.check("proxy_log", &row(&[&[4], &line]), Status::Ok);
    }
    assert_eq!(rig.lines.0.lock().unwrap().len(), 8, "ten of one callback");
    rig.check("proxy_get_log_level", &[RETURN], Status::Ok);
    assert_eq!(rig.number(RETURN), LogLevel::Debug as u32);
}

#[test]
fn a_long_line_is_cut() {
    let mut rig = Rig::new();
    rig.check("proxy_log", &[2, 0, LOG_LINE_BYTES as u32 + 1], Status::Ok);
    assert_eq!(rig.lines.0.lock().unwrap()[0].1.len(), LOG_LINE_BYTES);
}

#[test]
fn time_goes_forward_and_the_timer_is_remembered() {
    let mut rig = Rig::new();
    rig.check("proxy_get_current_time_nanoseconds", &[RETURN], Status::Ok);
    let first = rig.long(RETURN);
    assert!(first > 1_700_000_000_000_000_000, "{first}");
    rig.check("proxy_get_current_time_nanoseconds", &[RETURN], Status::Ok);
    assert!(rig.long(RETURN) >= first);
    rig.check("proxy_set_tick_period_milliseconds", &[250], Status::Ok);
    assert_eq!(rig.store.data().tick_ms, 250);
}

#[test]
fn a_context_is_taken_on_only_if_there_is_one() {
    let mut rig = Rig::new();
    rig.check("proxy_set_effective_context", &[ROOT], Status::Ok);
    assert_eq!(rig.store.data().effective, ROOT);
    rig.check("proxy_set_effective_context", &[99], Status::BadArgument);
    assert_eq!(rig.store.data().effective, ROOT);
}

#[test]
fn done_is_for_contexts_that_are_waited_for() {
    let mut rig = Rig::new();
    rig.check("proxy_done", &[], Status::NotFound);
    rig.store.data_mut().contexts.get_mut(&STREAM).unwrap().life = Life::Finishing;
    rig.check("proxy_done", &[], Status::Ok);
    rig.check("proxy_done", &[], Status::NotFound);
    assert_eq!(rig.store.data().finished, [STREAM]);
}

#[test]
fn metrics_are_found_by_their_numbers() {
    let mut rig = Rig::new();
    let name = rig.put(b"requests");
    rig.check("proxy_define_metric", &row(&[&[3], &name, &[RETURN]]), Status::BadArgument);
    rig.check("proxy_define_metric", &row(&[&[0], &name, &[RETURN]]), Status::Ok);
    let counter = rig.number(RETURN);
    rig.check("proxy_define_metric", &row(&[&[0], &name, &[RETURN]]), Status::Ok);
    assert_eq!(rig.number(RETURN), counter, "the same name is the same metric");
    rig.check("proxy_define_metric", &row(&[&[1], &name, &[RETURN]]), Status::Ok);
    let gauge = rig.number(RETURN);
    rig.check("proxy_increment_metric", &[counter, 5], Status::Ok);
    rig.check("proxy_increment_metric", &[counter, -1_i32 as u32], Status::BadArgument);
    rig.check("proxy_increment_metric", &[gauge, -3_i32 as u32], Status::Ok);
    rig.check("proxy_record_metric", &[counter, 9], Status::Ok);
    rig.check("proxy_get_metric", &[counter, RETURN], Status::Ok);
    assert_eq!(rig.long(RETURN), 9);
    rig.check("proxy_get_metric", &[gauge, RETURN], Status::Ok);
    assert_eq!(rig.long(RETURN) as i64, -3);
    for unknown in [0, 77] {
        rig.check("proxy_record_metric", &[unknown, 1], Status::NotFound);
        rig.check("proxy_increment_metric", &[unknown, 1], Status::NotFound);
        rig.check("proxy_get_metric", &[unknown, RETURN], Status::NotFound);
    }
    assert_eq!(rig.services.metrics.define(MetricKind::Counter, "requests").unwrap().value(), 9);
}

fn property(rig: &mut Rig, path: &[u8]) -> Result<Vec<u8>, u32> {
    let path = rig.put(path);
    match rig.call("proxy_get_property", &row(&[&path, &[RETURN, RETURN + 4]])) {
        0 => Ok(rig.given()),
        status => Err(status),
    }
}

#[test]
fn properties_come_from_the_plugin_the_stream_and_the_filter_itself() {
    let mut rig = Rig::new();
    let not_found = Err(Status::NotFound as u32);
    assert_eq!(property(&mut rig, b"plugin_name"), Ok(b"rig".to_vec()));
    assert_eq!(property(&mut rig, b"request\0size"), Ok(7_i64.to_le_bytes().to_vec()));
    assert_eq!(property(&mut rig, b"request\0size\0"), Ok(7_i64.to_le_bytes().to_vec()));
    assert_eq!(property(&mut rig, b"request\0nothing"), not_found);
    assert_eq!(property(&mut rig, b"\xff"), not_found);
    assert_eq!(property(&mut rig, b"a\0b\0c\0d\0e\0f\0g\0h\0i"), not_found);
    let (path, value) = (rig.put(b"my\0own"), rig.put(b"set"));
    rig.check("proxy_set_property", &row(&[&path, &value]), Status::Ok);
    assert_eq!(property(&mut rig, b"my\0own"), Ok(b"set".to_vec()));
    rig.check("proxy_set_property", &row(&[&path, &[0, 0]]), Status::Ok);
    assert_eq!(property(&mut rig, b"my\0own"), Ok(Vec::new()));
    rig.elsewhere();
    assert_eq!(property(&mut rig, b"my\0own"), not_found, "what is set on a stream is the stream's");
    assert_eq!(property(&mut rig, b"request\0size"), not_found);
}

#[test]
fn there_is_an_end_to_properties() {
    let mut rig = Rig::new();
    rig.check("proxy_set_property", &[0, PROPERTY_BYTES as u32, 0, 2], Status::InternalFailure);
    for number in 0..PROPERTIES {
        let path = rig.put(number.to_string().as_bytes());
        rig.check("proxy_set_property", &row(&[&path, &[0, 1]]), Status::Ok);
    }
    let path = rig.put(b"more");
    rig.check("proxy_set_property", &row(&[&path, &[0, 1]]), Status::InternalFailure);
}

#[test]
fn functions_of_the_host_are_called_by_name() {
    let mut rig = Rig::new();
    let arguments = rig.put(b"abc");
    for (name, expected) in
        [(&b"reverse"[..], Status::Ok), (b"fail", Status::SerializationFailure), (b"unknown", Status::NotFound)]
    {
        let name = rig.put(name);
        rig.check("proxy_call_foreign_function", &row(&[&name, &arguments, &[RETURN, RETURN + 4]]), expected);
    }
    let name = rig.put(b"reverse");
    rig.call("proxy_call_foreign_function", &row(&[&name, &arguments, &[RETURN, RETURN + 4]]));
    assert_eq!(rig.given(), b"cba");
}
