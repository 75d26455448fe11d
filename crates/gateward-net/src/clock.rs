//! The clock of everything that is measured.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the monotonic clock, since some moment before the process started.
///
/// `std::time::Instant` reads the same clock, but its arithmetic costs more than the reading.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_goes_with_the_standard_clock() {
        let (before, began) = (Instant::now(), monotonic_us());
        let inside = Instant::now();
        let measured = loop {
            let within = inside.elapsed().as_micros() as u64;
            let measured = monotonic_us() - began;
            if within >= 2_000 {
                assert!(measured >= within, "{measured} of {within}");
                break measured;
            }
        };
        let around = before.elapsed().as_micros() as u64 + 1;
        assert!(measured <= around, "{measured} of {around}");
    }
}
