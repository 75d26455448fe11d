//! Replays the committed fuzzing corpus: every input that fuzzing found or was seeded with stays a test.

use gateward_http::fuzzing;

/// Run `property` on every file of the corpus of `target`.
fn replay(target: &str, property: fn(&[u8])) {
    gateward_testkit::corpus(target, 20).for_each(|input| property(&input));
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
