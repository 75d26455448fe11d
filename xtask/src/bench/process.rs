//! CPU time and memory of a process and its children, from `/proc`.

use std::fs::read_to_string;

/// Kernel ticks a second; Linux shows user space 100 on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds (user and system, all threads) of a process and its living descendants.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let ticks: u64 = family(process).iter().filter_map(|id| ticks(&stat(*id)?)).sum();
    #[expect(clippy::cast_precision_loss, reason = "tick counts are far below 2^52")]
    let ticks = ticks as f64;
    ticks / TICKS_PER_SECOND
}

/// Resident bytes of a process and its living descendants.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    family(process).iter().filter_map(|id| resident(&read_to_string(format!("/proc/{id}/status")).ok()?)).sum()
}

fn stat(process: u32) -> Option<String> {
    read_to_string(format!("/proc/{process}/stat")).ok()
}

/// The process and everything below it.
fn family(process: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, parent(&stat(id)?)?))).collect();
    let mut members = vec![process];
    let mut at = 0;
    while at < members.len() {
        let head = members[at];
        members.extend(parents.iter().filter(|(_, parent)| *parent == head).map(|(id, _)| *id));
        at += 1;
    }
    members
}

/// Fields after the command, which stands in parentheses and may hold anything.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

fn parent(stat: &str) -> Option<u32> {
    fields(stat)?.get(1)?.parse().ok()
}

fn ticks(stat: &str) -> Option<u64> {
    let fields = fields(stat)?;
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read() {
        let stat = "7 (a (b) c) S 3 7 7 0 -1 4194304 1 0 0 0 120 30 5 5 20 0 4 0 1 1 1";
        assert_eq!((parent(stat), ticks(stat)), (Some(3), Some(150)));
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12_288));
        assert!(resident_bytes(std::process::id()) > 100_000);
    }
}
