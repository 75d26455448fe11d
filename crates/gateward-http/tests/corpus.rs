//! Replays the committed fuzzing corpus: every input that fuzzing found or was seeded with stays a test.

use gateward_http::fuzzing;
use std::path::Path;

/// Run `property` on every file of the corpus of `target`.
fn replay(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("a readable folder").path();
        // Shown when the property fails.
        println!("{}", path.display());
        property(&std::fs::read(&path).expect("a readable file"));
        count += 1;
    }
    assert!(count >= 20, "{} holds {count} files; is the checkout complete?", folder.display());
}

#[test]
fn request_head() {
    replay("request_head", fuzzing::request_head);
}

#[test]
fn chunked() {
    replay("chunked", fuzzing::chunked);
}

#[test]
fn uri() {
    replay("uri", fuzzing::uri);
}

#[test]
fn websocket() {
    replay("websocket", fuzzing::websocket);
}
