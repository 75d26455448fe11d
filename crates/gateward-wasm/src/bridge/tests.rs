//! The bridge between host and filter: that it changes nothing but the time calls take.

use super::*;
use crate::testing::Plain;
use crate::tests::{Lab, failed, instance};
use crate::types::FieldMap;
use crate::{FailureKind, Filter};
use std::sync::Arc;

#[test]
fn the_module_is_its_text() {
    let text = include_str!("bridge.wat");
    assert!(
        wat::parse_str(text).unwrap() == MODULE,
        "assemble bridge.wat again: wasm-tools parse bridge.wat -o bridge.wasm"
    );
}

/// A filter that logs numbers of callbacks, answers `done` with what is in `$done`, and at the request's headers reads the
/// field `a` of map 0 and puts it, or the status, into the log.
fn filter(lab: &Lab, malloc: &str, callbacks: &str) -> Arc<Filter> {
    lab.filter(&format!(
        r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (memory (export "memory") 2 8)
        (data (i32.const 16) "acreatedonelogdeletestatus 0status10")
        (func (export "proxy_abi_version_0_2_1"))
        (func $say (param i32 i32) (drop (call $log (i32.const 2) (local.get 0) (local.get 1))))
        (func $read (param $map i32) (result i32)
            (local $status i32)
            (i32.store (i32.const 0) (i32.const 77))
            (local.set $status
                (call $get (local.get $map) (i32.const 16) (i32.const 1) (i32.const 0) (i32.const 4)))
            (if (i32.eqz (local.get $status))
                (then (call $say (i32.load (i32.const 0)) (i32.load (i32.const 4)))))
            (local.get $status))
        (func (export "malloc") (param $len i32) (result i32) {malloc})
        {callbacks})"#
    ))
}

const WORKS: &str = "(i32.const 65536)";
const CREATE: &str =
    "(func (export \"proxy_on_context_create\") (param i32 i32) (call $say (i32.const 17) (i32.const 6)))";
const END: &str = "(func (export \"proxy_on_done\") (param i32) (result i32) (call $say (i32.const 23) (i32.const 4)) (i32.const 1))
    (func (export \"proxy_on_log\") (param i32) (call $say (i32.const 27) (i32.const 3)) (drop (call $read (i32.const 0))))
    (func (export \"proxy_on_delete\") (param i32) (call $say (i32.const 30) (i32.const 6)) (drop (call $read (i32.const 0))))";

fn headers(body: &str) -> String {
    format!(
        "(func (export \"proxy_on_request_headers\") (param $id i32) (param $n i32) (param $end i32) (result i32) {body})"
    )
}

fn stream() -> Plain {
    Plain { request_headers: vec![("a".to_owned(), b"one".to_vec())], ..Plain::default() }
}

#[test]
fn a_stream_goes_through_its_callbacks_in_order_with_the_fields_of_each() {
    let lab = Lab::new();
    let reading = headers("(call $read (i32.const 0))");
    for callbacks in [format!("{CREATE}{reading}{END}"), format!("{reading}{END}{CREATE}")] {
        let filter = filter(&lab, WORKS, &callbacks);
        let mut instance = instance(&filter);
        assert!(instance.spans.begin.is_some() && instance.spans.end.is_some());
        lab.lines.take();
        let id = instance.open_stream();
        instance.begin_stream(id, &mut stream(), true).unwrap();
        assert_eq!(lab.lines.take(), ["create", "one"]);
        instance.end_stream(id, &mut stream()).unwrap();
        assert_eq!(lab.lines.take(), ["done", "log", "one", "delete"], "what is deleted sees no stream");
        assert_eq!(instance.streams(), 0);
        let calls = filter.totals().calls;
        let count = |phase: Phase| calls[phase as usize];
        // The canary and this instance have made a root context; the canary was told of its end, too.
        assert_eq!(
            (count(Phase::Create), count(Phase::RequestHeaders), count(Phase::Log), count(Phase::Done)),
            (3, 1, 1, 4)
        );
    }
}

#[test]
fn what_is_missing_is_not_called() {
    let lab = Lab::new();
    let log = "(func (export \"proxy_on_log\") (param i32) (call $say (i32.const 27) (i32.const 3)))";
    let old = "(func (export \"proxy_on_request_headers\") (param i32 i32) (result i32) (call $say (local.get 1) (i32.const 0)) (i32.const 0))";
    for (callbacks, expected) in [
        (CREATE.to_owned(), &["create"][..]),
        (log.to_owned(), &["log"]),
        (headers("(call $read (i32.const 0))"), &["one"]),
        (format!("{CREATE}{old}{log}"), &["create", "", "log"]),
    ] {
        let filter = filter(&lab, WORKS, &callbacks);
        let mut instance = instance(&filter);
        assert!(instance.spans.begin.is_none() && instance.spans.end.is_none());
        lab.lines.take();
        let id = instance.open_stream();
        instance.begin_stream(id, &mut stream(), true).unwrap();
        instance.end_stream(id, &mut stream()).unwrap();
        assert_eq!((lab.lines.take(), instance.streams()), (expected.iter().map(|&line| line.to_owned()).collect(), 0));
    }
}

#[test]
fn a_failure_is_that_of_the_callback_it_was_in() {
    let lab = Lab::new();
    let traps = "(func (export \"NAME\") (param i32) unreachable)";
    for (callbacks, phase) in [
        (format!("{CREATE}{}{END}", headers("unreachable")), Phase::RequestHeaders),
        (format!("{CREATE}{}{END}", headers("(loop $on (br $on)) (i32.const 0)")), Phase::RequestHeaders),
        (
            format!(
                "{}{}",
                headers("(i32.const 0)"),
                END.replace("(call $say (i32.const 27) (i32.const 3))", "unreachable")
            ),
            Phase::Log,
        ),
        (
            format!(
                "{}{}",
                headers("(i32.const 0)"),
                END.replace("(call $say (i32.const 30) (i32.const 6))", "unreachable")
            ),
            Phase::Done,
        ),
        (format!("{}{}", traps.replace("NAME", "proxy_on_log"), headers("(i32.const 0)")), Phase::Log),
    ] {
        let filter = filter(&lab, WORKS, &callbacks);
        let mut instance = instance(&filter);
        // The trial may have failed at its end, which is no reason to refuse a filter.
        let failures = || filter.totals().failures[phase as usize].iter().sum::<u64>();
        let before = failures();
        let id = instance.open_stream();
        let begun = instance.begin_stream(id, &mut stream(), true);
        let failure = match begun {
            Ok(_) => failed(instance.end_stream(id, &mut stream())),
            Err(failure) => failure,
        };
        assert!(failure.text.contains(&format!(" in {}:", phase.as_str())), "{}", failure.text);
        assert_eq!(failures(), before + 1, "{phase:?}");
        assert!(matches!(failure.kind, FailureKind::Trap | FailureKind::Timeout), "{:?}", failure.kind);
    }
}

#[test]
fn a_guest_that_wants_to_be_waited_for_is() {
    let lab = Lab::new();
    let end = END.replace("(i32.const 4)) (i32.const 1))", "(i32.const 4)) (i32.const 0))");
    let filter = filter(&lab, WORKS, &end);
    let mut instance = instance(&filter);
    assert!(instance.spans.end.is_some());
    let id = instance.create_stream().unwrap();
    lab.lines.take();
    instance.end_stream(id, &mut stream()).unwrap();
    assert_eq!((lab.lines.take(), instance.streams()), (vec!["done".to_owned()], 1));
}

#[test]
fn values_are_handed_over_as_without_it() {
    let lab = Lab::new();
    // What the status of a read is: INTERNAL_FAILURE to an allocator that reads itself, INVALID_MEMORY_ACCESS to one that has
    // nothing or lies, NOT_FOUND without a field, BAD_ARGUMENT for a map that is none.
    let nested = "(if (i32.ne (call $read (i32.const 0)) (i32.const 10)) (then unreachable)) (i32.const 65536)";
    for (malloc, map, status, line) in [
        (WORKS, 0, 0, Some("one")),
        ("(drop (memory.grow (i32.const 1))) (i32.const 65536)", 0, 0, Some("one")),
        ("(i32.const 0)", 0, 6, None),
        ("(i32.const 9999999)", 0, 6, None),
        (WORKS, 2, 1, None),
        (WORKS, 9, 2, None),
    ] {
        let expecting = format!(
            "(if (i32.ne (call $read (i32.const {map})) (i32.const {status})) (then unreachable)) (i32.const 0)"
        );
        let filter = filter(&lab, malloc, &headers(&expecting));
        let mut instance = instance(&filter);
        lab.lines.take();
        let id = instance.create_stream().unwrap();
        let answered = instance.headers(id, &mut stream(), FieldMap::RequestHeaders, true);
        assert!(answered.is_ok(), "{malloc} {map} {status}: {answered:?}");
        assert_eq!(lab.lines.take(), line.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{malloc} {map}");
    }
    // An allocator that reads gets nothing, and what it was called for is handed over all the same.
    for malloc in [nested, "unreachable"] {
        let filter = filter(&lab, malloc, &headers("(if (call $read (i32.const 0)) (then unreachable)) (i32.const 0)"));
        let mut instance = instance(&filter);
        let id = instance.create_stream().unwrap();
        let read = instance.headers(id, &mut stream(), FieldMap::RequestHeaders, true);
        assert_eq!(read.is_ok(), malloc == nested, "{malloc}: {read:?}");
    }
}

#[test]
fn an_empty_value_needs_no_memory() {
    let lab = Lab::new();
    let filter = filter(&lab, "unreachable", &headers("(call $read (i32.const 0))"));
    let mut instance = instance(&filter);
    let id = instance.create_stream().unwrap();
    let mut stream = Plain { request_headers: vec![("a".to_owned(), Vec::new())], ..Plain::default() };
    lab.lines.take();
    instance.headers(id, &mut stream, FieldMap::RequestHeaders, true).unwrap();
    assert_eq!(lab.lines.take(), [""]);
}

#[test]
fn what_reads_before_it_is_linked_is_told_so() {
    let lab = Lab::new();
    // INVALID_MEMORY_ACCESS: the host does not know the filter's memory yet.
    let early = format!(
        "(global $status (mut i32) (i32.const -1))
        (func $early (global.set $status (call $read (i32.const 0))))
        (start $early)
        {}",
        headers("(if (i32.ne (global.get $status) (i32.const 6)) (then unreachable)) (i32.const 0)")
    );
    let filter = filter(&lab, "unreachable", &early);
    let mut instance = instance(&filter);
    let id = instance.create_stream().unwrap();
    instance.headers(id, &mut stream(), FieldMap::RequestHeaders, true).unwrap();
}
