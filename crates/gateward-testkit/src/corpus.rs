//! The committed corpora of fuzzing: every input that fuzzing found or was seeded with stays a test.

use std::path::{Path, PathBuf};

/// The inputs of a fuzz target, by name; each one's file is printed before it is given, so that a failure shows it.
///
/// # Panics
/// When there are fewer than `at_least`, or one cannot be read: a corpus that is not there proves nothing.
#[track_caller]
pub fn corpus(target: &str, at_least: usize) -> impl Iterator<Item = Vec<u8>> + use<> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    let count = paths.len();
    assert!(count >= at_least.max(1), "{} holds {count} files; is the checkout complete?", folder.display());
    paths.into_iter().map(|path| {
        println!("{}", path.display());
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}
