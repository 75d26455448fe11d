//! What is taken as a filter, and what an operator is told about the rest.

use super::{Lab, module};
use crate::limits::MAX_MEMORY_BYTES;
use crate::testing::Folder;
use crate::{Runtime, Services, Tracing};
use proptest::prelude::*;
use std::sync::Arc;

fn refused(lab: &Lab, wat: &str) -> String {
    let wasm = wat::parse_str(wat).unwrap();
    lab.runtime.load(&wasm).expect_err("it is taken").to_string()
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let lab = Lab::new();
    let whole = module("");
    let check = |wat: &str, words: &[&str]| {
        let text = refused(&lab, wat);
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    };
    check("(module)", &["proxy_abi_version_0_2_1", "0.1.0, 0.2.0 or 0.2.1"]);
    check(&whole.replace("proxy_abi_version_0_2_1", "proxy_abi_version_0_3_0"), &["proxy_abi_version_0_2_1"]);
    check(&whole.replace("(export \"memory\")", ""), &["exports no memory"]);
    check(&whole.replace("(export \"malloc\")", ""), &["proxy_on_memory_allocate", "malloc"]);
    let import = "(import \"env\" \"proxy_unheard_of\" (func))";
    check(&whole.replacen("(import", &format!("{import}(import"), 1), &["env", "proxy_unheard_of"]);
    let import = "(import \"env\" \"proxy_get_log_level\" (func (param i64) (result i32)))";
    check(&whole.replacen("(import", &format!("{import}(import"), 1), &["env", "proxy_get_log_level", "incompatible"]);
    check(
        &module("(func (export \"proxy_on_tick\") (param i64))"),
        &["proxy_on_tick", "(i64) -> ()", "not (i32) -> ()"],
    );
    check(
        &module("(func (export \"proxy_on_request_headers\") (param i32) (result i32) (i32.const 0))"),
        &["proxy_on_request_headers", "(i32 i32 i32) -> (i32)"],
    );
    check(
        &module("(global (export \"proxy_on_log\") i32 (i32.const 0))"),
        &["proxy_on_log", "a global, memory or table"],
    );
    let text = lab.runtime.load(b"\0asm nonsense").unwrap_err().to_string();
    assert!(text.starts_with("not a valid Wasm module: "), "{text}");
}

#[test]
fn a_module_is_compiled_once() {
    let lab = Lab::new();
    let wasm = wat::parse_str(module("")).unwrap();
    let (first, second) = (lab.runtime.load(&wasm).unwrap(), lab.runtime.load(&wasm).unwrap());
    assert_eq!((first.hash(), lab.runtime.modules()), (second.hash(), 1));
    assert_eq!((first.bytes(), first.abi().as_str()), (wasm.len(), "0.2.1"));
    drop((first, second));
    assert_eq!(lab.runtime.modules(), 0);
}

#[test]
fn a_second_process_finds_what_the_first_compiled() {
    let folder = Folder::new("loading");
    let wasm = wat::parse_str(module("")).unwrap();
    for _ in 0..2 {
        let runtime = Runtime::new(Services::new(Arc::new(Tracing)), Some(folder.path())).unwrap();
        runtime.load(&wasm).unwrap();
        // The filter, and what stands beside every filter.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let lab = Lab::new();
    for bytes in [0, MAX_MEMORY_BYTES + 1] {
        let refused = lab.try_filter(&module(""), |config| config.limits.memory_bytes = bytes);
        assert!(refused.err().unwrap().to_string().contains("memory limit"), "{bytes}");
    }
    let refused = lab.try_filter(&module(""), |config| config.limits.memory_bytes = 65_536);
    assert!(refused.is_err(), "the module needs two pages");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_module_is_taken_or_refused(at in 0_usize..2000, byte: u8) {
        let lab = Lab::new();
        let mut wasm = wat::parse_str(module("")).unwrap();
        let at = at % wasm.len();
        wasm[at] = byte;
        let _ = lab.runtime.load(&wasm);
    }
}
