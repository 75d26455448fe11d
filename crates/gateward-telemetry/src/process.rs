//! The process's own figures, read from `/proc`.
//!
//! What cannot be read is left out: a scrape must not fail because `/proc` is hidden.

use crate::catalog::{self, Metric};
use crate::prometheus::ExtraMetric;
use std::fs;

/// Clock ticks per second in `/proc`: `USER_HZ`, which Linux keeps at 100 for user space on every architecture
/// this gateway is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU, memory, file descriptors and start time, as `process_*` metrics. Reads a few small files; call it per
/// scrape, off the workers.
#[must_use]
pub fn metrics() -> Vec<ExtraMetric> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let figures = [
        (&catalog::PROCESS_CPU, cpu_seconds(&stat)),
        (&catalog::PROCESS_RESIDENT_MEMORY, status_bytes(&status, "VmRSS:")),
        (&catalog::PROCESS_VIRTUAL_MEMORY, status_bytes(&status, "VmSize:")),
        (&catalog::PROCESS_OPEN_FDS, open_fds()),
        (&catalog::PROCESS_MAX_FDS, max_fds(&limits)),
        (&catalog::PROCESS_START_TIME, start_time(&stat, &system)),
    ];
    figures.into_iter().filter_map(|(metric, value)| Some(single(metric, value?))).collect()
}

/// Resident memory of this process in bytes; `None` without `/proc`.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status_bytes(&status, "VmRSS:").map(|bytes| bytes as u64)
}

fn single(metric: &Metric, value: f64) -> ExtraMetric {
    ExtraMetric::of(metric).sample(&[], value)
}

/// Field `number` of proc_pid_stat(5), counted from 1. The second field is a name in parentheses that may hold
/// anything, so counting starts behind the last parenthesis.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let (user, system) = (stat_field(stat, 14)?, stat_field(stat, 15)?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn start_time(stat: &str, system: &str) -> Option<f64> {
    let boot: f64 = field_of(system, "btime")?.parse().ok()?;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn status_bytes(status: &str, name: &str) -> Option<f64> {
    Some(field_of(status, name)?.parse::<f64>().ok()? * 1024.0)
}

fn open_fds() -> Option<f64> {
    // The directory being listed is itself one of the descriptors.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as f64 - 1.0).max(0.0))
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

/// The first word after `name` on the line that starts with it.
fn field_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_hostile_process_name() {
        let stat = "42 (a) b) c) S 1 1 1 0 -1 0 0 0 0 0 250 150 0 0 20 0 3 0 1000 0 0";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(start_time(stat, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_010.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn limits_and_status_are_read() {
        assert_eq!(max_fds("Limit Soft Hard\nMax open files            1024      4096     files\n"), Some(1024.0));
        assert_eq!(max_fds("Max open files unlimited unlimited files"), Some(f64::INFINITY));
        assert_eq!(status_bytes("Name: x\nVmRSS:\t     12 kB\n", "VmRSS:"), Some(12288.0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_figures() {
        let metrics = metrics();
        assert_eq!(metrics.len(), 6, "{metrics:?}");
        assert!(metrics.iter().flat_map(|metric| &metric.samples).all(|sample| sample.value >= 0.0));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
