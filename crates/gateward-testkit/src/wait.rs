//! Waiting, with a limit.

use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `timeout`.
#[track_caller]
pub fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < end, "the condition did not come true within {timeout:?}");
        pause(INTERVAL);
    }
}

/// Blocks this thread, which is a test's or a helper's own and serves nothing else.
#[expect(clippy::disallowed_methods, reason = "tests run on threads of their own; no worker waits here")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_once_true() {
        let mut looks = 0;
        eventually(Duration::from_secs(5), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "did not come true within 20ms")]
    fn gives_up() {
        eventually(Duration::from_millis(20), || false);
    }
}
