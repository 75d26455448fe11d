//! WASI preview 1, as far as filters need it.

use super::{NOWHERE, RETURN, Rig};
use crate::limits::RANDOM_BYTES;
use crate::types::{Abi, LogLevel};
use wasmtime::{Engine, Module};

const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOTSUP: u32 = 58;
const NOTCAPABLE: u32 = 76;

fn write(rig: &mut Rig, fd: u32, pieces: &[&[u8]]) -> u32 {
    let placed: Vec<u8> = pieces.iter().flat_map(|piece| rig.put(piece)).flat_map(u32::to_le_bytes).collect();
    let [at, _] = rig.put(&placed);
    rig.call("fd_write", &[fd, at, pieces.len() as u32, RETURN])
}

#[test]
fn output_becomes_log_lines() {
    let mut rig = Rig::new();
    assert_eq!(write(&mut rig, 1, &[b"one ", b"line\nand ", b"half"]), 0);
    assert_eq!(rig.number(RETURN), 17);
    assert_eq!(write(&mut rig, 2, &[b"panicked\r\n"]), 0);
    assert_eq!(write(&mut rig, 1, &[b" another\n"]), 0);
    let lines = rig.lines.0.lock().unwrap().clone();
    let expected = [(LogLevel::Info, "one line"), (LogLevel::Error, "panicked"), (LogLevel::Info, "and half another")];
    assert_eq!(lines, expected.map(|(level, line)| (level, line.to_owned())));
}

#[test]
fn output_to_nowhere_fails() {
    let mut rig = Rig::new();
    assert_eq!(write(&mut rig, 3, &[b"x"]), BADF);
    assert_eq!(rig.call("fd_write", &[1, NOWHERE, 1, RETURN]), FAULT);
    assert_eq!(rig.call("fd_write", &[1, 0, 0, NOWHERE]), FAULT);
    assert_eq!(rig.call("fd_write", &[1, u32::MAX - 3, 9, RETURN]), FAULT);
}

#[test]
fn clocks_tell_time() {
    let mut rig = Rig::new();
    for (clock, expected) in [(0, 0), (1, 0), (2, NOTSUP)] {
        assert_eq!(rig.call("clock_time_get", &[clock, 0, RETURN]), expected);
        assert_eq!(rig.call("clock_res_get", &[clock, RETURN]), expected);
    }
    assert_eq!(rig.call("clock_time_get", &[1, 0, NOWHERE]), FAULT);
    rig.call("clock_time_get", &[1, 0, RETURN]);
    assert!(rig.long(RETURN) > 0);
}

#[test]
fn randomness_is_random_and_bounded() {
    let mut rig = Rig::new();
    assert_eq!(rig.call("random_get", &[RETURN, 16]), 0);
    let first = rig.long(RETURN);
    assert_eq!(rig.call("random_get", &[RETURN, 16]), 0);
    assert_ne!(rig.long(RETURN), first);
    assert_eq!(rig.call("random_get", &[0, RANDOM_BYTES as u32 + 1]), INVAL);
    assert_eq!(rig.call("random_get", &[NOWHERE, 16]), FAULT);
}

#[test]
fn the_environment_is_the_configured_one() {
    let mut rig = Rig::with(Abi::V0_2_1, |config| {
        config.environment = vec![("A".to_owned(), "1".to_owned()), ("LONG".to_owned(), "value".to_owned())];
    });
    assert_eq!(rig.call("environ_sizes_get", &[RETURN, RETURN + 4]), 0);
    assert_eq!((rig.number(RETURN), rig.number(RETURN + 4)), (2, 15));
    assert_eq!(rig.call("environ_get", &[RETURN, 50_000]), 0);
    assert_eq!((rig.number(RETURN), rig.number(RETURN + 4)), (50_000, 50_004));
    assert_eq!(&rig.memory()[50_000..50_015], b"A=1\0LONG=value\0");
    assert_eq!(rig.call("environ_get", &[RETURN, NOWHERE]), FAULT);
}

#[test]
fn there_are_no_arguments_files_and_sockets() {
    let mut rig = Rig::new();
    assert_eq!(rig.call("args_sizes_get", &[RETURN, RETURN + 4]), 0);
    assert_eq!((rig.number(RETURN), rig.number(RETURN + 4)), (0, 0));
    assert_eq!(rig.call("args_get", &[0, 0]), 0);
    assert_eq!(rig.call("sched_yield", &[]), 0);
    assert_eq!(rig.call("poll_oneoff", &[0, 0, 0, 0]), NOTSUP);
    assert_eq!(rig.call("fd_prestat_get", &[3, RETURN]), BADF);
    assert_eq!(rig.call("fd_read", &[0, 0, 0, 0]), BADF);
    assert_eq!(rig.call("path_open", &[0; 9]), NOTCAPABLE);
    assert_eq!(rig.call("fd_fdstat_get", &[9, RETURN]), BADF);
    assert_eq!(rig.call("fd_fdstat_get", &[1, RETURN]), 0);
    assert_eq!(rig.long(RETURN), 2);
}

/// All names of preview 1, with their types, in both of its modules.
#[test]
fn every_name_of_the_preview_is_there() {
    const NAMES: &[(&str, &str, &str)] = &[
        ("args_get", "ii", "i"),
        ("args_sizes_get", "ii", "i"),
        ("clock_res_get", "ii", "i"),
        ("clock_time_get", "ili", "i"),
        ("environ_get", "ii", "i"),
        ("environ_sizes_get", "ii", "i"),
        ("fd_advise", "illi", "i"),
        ("fd_allocate", "ill", "i"),
        ("fd_close", "i", "i"),
        ("fd_datasync", "i", "i"),
        ("fd_fdstat_get", "ii", "i"),
        ("fd_fdstat_set_flags", "ii", "i"),
        ("fd_fdstat_set_rights", "ill", "i"),
        ("fd_filestat_get", "ii", "i"),
        ("fd_filestat_set_size", "il", "i"),
        ("fd_filestat_set_times", "illi", "i"),
        ("fd_pread", "iiili", "i"),
        ("fd_prestat_dir_name", "iii", "i"),
        ("fd_prestat_get", "ii", "i"),
        ("fd_pwrite", "iiili", "i"),
        ("fd_read", "iiii", "i"),
        ("fd_readdir", "iiili", "i"),
        ("fd_renumber", "ii", "i"),
        ("fd_seek", "ilii", "i"),
        ("fd_sync", "i", "i"),
        ("fd_tell", "ii", "i"),
        ("fd_write", "iiii", "i"),
        ("path_create_directory", "iii", "i"),
        ("path_filestat_get", "iiiii", "i"),
        ("path_filestat_set_times", "iiiilli", "i"),
        ("path_link", "iiiiiii", "i"),
        ("path_open", "iiiiillii", "i"),
        ("path_readlink", "iiiiii", "i"),
        ("path_remove_directory", "iii", "i"),
        ("path_rename", "iiiiii", "i"),
        ("path_symlink", "iiiii", "i"),
        ("path_unlink_file", "iii", "i"),
        ("poll_oneoff", "iiii", "i"),
        ("proc_exit", "i", ""),
        ("proc_raise", "i", "i"),
        ("random_get", "ii", "i"),
        ("sched_yield", "", "i"),
        ("sock_accept", "iii", "i"),
        ("sock_recv", "iiiiii", "i"),
        ("sock_send", "iiiii", "i"),
        ("sock_shutdown", "ii", "i"),
    ];
    let word = |letter| if letter == 'l' { "i64" } else { "i32" };
    let words = |letters: &str| letters.chars().map(word).collect::<Vec<_>>().join(" ");
    let engine = Engine::default();
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let import = |(name, parameters, results): &(&str, &str, &str)| {
            let (parameters, results) = (words(parameters), words(results));
            format!("(import \"{module}\" \"{name}\" (func (param {parameters}) (result {results})))\n")
        };
        let wat = format!("(module {})", NAMES.iter().map(import).collect::<String>());
        let guest = Module::new(&engine, wat::parse_str(wat).unwrap()).unwrap();
        crate::abi::linker(&engine).unwrap().instantiate_pre(&guest).unwrap();
    }
}
