//! What a server counted: one slab of numbers per worker, written by it alone, and one for all streams; read by whoever asks.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::log::Offered;
use crate::answer::{Kind, Reply, Transport};

/// Types with a counter of their own; all others share the last.
const TYPES: [(u16, &str); 18] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (43, "DS"),
    (48, "DNSKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (257, "CAA"),
];
const RCODES: [(u16, &str); 12] = [
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (9, "NOTAUTH"),
    (16, "BADVERS"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (23, "BADCOOKIE"),
];
const KINDS: [(Kind, &str); 5] = [
    (Kind::Answer, "answer"),
    (Kind::NoData, "nodata"),
    (Kind::NxDomain, "nxdomain"),
    (Kind::Referral, "referral"),
    (Kind::Error, "error"),
];
/// Operations of messages that are served elsewhere than on the worker that took them.
const EXCHANGES: [(u8, &str); 3] = [(0, "query"), (4, "notify"), (5, "update")];
const TRANSPORTS: [(Transport, &str); 3] = [(Transport::Udp, "udp"), (Transport::Tcp, "tcp"), (Transport::Tls, "tls")];

/// Why a message got no answer, not all of one, or a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drop {
    /// It was no query.
    Malformed,
    /// Response-rate limiting.
    Limited,
    /// Response-rate limiting let it pass with TC.
    Slipped,
    /// The zone's limit of queries per second.
    Quota,
    /// Too many updates, transfers or signed messages are under way, or connections of the client's network.
    Busy,
    /// The kernel did not take the answer.
    Unsent,
}

const DROPS: [(Drop, &str); 6] = [
    (Drop::Malformed, "malformed"),
    (Drop::Limited, "rate_limited"),
    (Drop::Slipped, "rate_limited_slip"),
    (Drop::Quota, "zone_quota"),
    (Drop::Busy, "busy"),
    (Drop::Unsent, "unsent"),
];

/// One worker's numbers, or those of all streams.
#[derive(Default)]
pub struct Stats {
    /// Whether several threads count here.
    shared: bool,
    queries: [AtomicU64; 3],
    types: [AtomicU64; TYPES.len() + 1],
    rcodes: [AtomicU64; RCODES.len() + 1],
    kinds: [AtomicU64; KINDS.len()],
    drops: [AtomicU64; DROPS.len()],
    exchanges: [AtomicU64; EXCHANGES.len()],
    truncated: AtomicU64,
    octets: AtomicU64,
    log_dropped: AtomicU64,
}

impl Stats {
    /// Numbers that several threads count.
    pub(crate) fn shared() -> Self {
        Stats { shared: true, ..Stats::default() }
    }

    /// Where one thread alone writes, a load and a store cost less than an atomic addition.
    #[inline]
    fn add(&self, cell: &AtomicU64, count: u64) {
        if self.shared {
            cell.fetch_add(count, Ordering::Relaxed);
        } else {
            cell.store(cell.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        }
    }

    /// Counts an answer.
    #[inline]
    pub(crate) fn answered(&self, transport: Transport, reply: &Reply) {
        self.add(&self.queries[transport as usize], 1);
        self.add(&self.types[TYPES.iter().position(|(code, _)| *code == reply.qtype).unwrap_or(TYPES.len())], 1);
        self.add(&self.rcodes[RCODES.iter().position(|(code, _)| *code == reply.rcode).unwrap_or(RCODES.len())], 1);
        self.add(&self.kinds[reply.kind as usize], 1);
        self.add(&self.truncated, u64::from(reply.truncated));
        self.add(&self.octets, reply.len as u64);
    }

    /// Counts messages that got no answer.
    #[inline]
    pub(crate) fn dropped(&self, why: Drop, count: usize) {
        self.add(&self.drops[why as usize], count as u64);
    }

    /// Counts a message with operation `opcode` that is served elsewhere.
    pub(crate) fn exchange(&self, opcode: u8) {
        if let Some(at) = EXCHANGES.iter().position(|(known, _)| *known == opcode) {
            self.add(&self.exchanges[at], 1);
        }
    }

    /// Counts what became of a query that was offered to the log.
    pub(crate) fn logged(&self, offered: Offered) {
        if offered == Offered::Dropped {
            self.add(&self.log_dropped, 1);
        }
    }
}

/// All workers' numbers in Prometheus' text format.
#[must_use]
pub fn render(workers: &[std::sync::Arc<Stats>]) -> String {
    let sum = |pick: &dyn Fn(&Stats) -> &AtomicU64| {
        workers.iter().map(|stats| pick(stats).load(Ordering::Relaxed)).sum::<u64>()
    };
    let mut out = String::new();
    let mut family = |name: &str, help: &str, label: &str, rows: Vec<(&str, u64)>| {
        let _ = writeln!(out, "# HELP gateward_dns_{name} {help}\n# TYPE gateward_dns_{name} counter");
        for (value, count) in rows {
            let _ = if label.is_empty() {
                writeln!(out, "gateward_dns_{name} {count}")
            } else {
                writeln!(out, "gateward_dns_{name}{{{label}=\"{value}\"}} {count}")
            };
        }
    };
    family(
        "queries_total",
        "Queries that were answered, by transport.",
        "transport",
        TRANSPORTS.iter().map(|(transport, name)| (*name, sum(&|stats| &stats.queries[*transport as usize]))).collect(),
    );
    let types = TYPES.iter().map(|(_, name)| *name).chain(["other"]).enumerate();
    family(
        "queries_by_type_total",
        "Queries that were answered, by type.",
        "type",
        types.map(|(at, name)| (name, sum(&|stats| &stats.types[at]))).collect(),
    );
    let rcodes = RCODES.iter().map(|(_, name)| *name).chain(["other"]).enumerate();
    family(
        "responses_total",
        "Answers, by response code.",
        "rcode",
        rcodes.map(|(at, name)| (name, sum(&|stats| &stats.rcodes[at]))).collect(),
    );
    family(
        "answers_total",
        "Answers, by kind.",
        "kind",
        KINDS.iter().map(|(kind, name)| (*name, sum(&|stats| &stats.kinds[*kind as usize]))).collect(),
    );
    family(
        "dropped_total",
        "Messages that got no answer, a truncated one or a refusal, by reason.",
        "reason",
        DROPS.iter().map(|(why, name)| (*name, sum(&|stats| &stats.drops[*why as usize]))).collect(),
    );
    family(
        "exchanges_total",
        "Updates, notifications, transfers and signed queries that were served, by operation.",
        "opcode",
        EXCHANGES.iter().enumerate().map(|(at, (_, name))| (*name, sum(&|stats| &stats.exchanges[at]))).collect(),
    );
    family(
        "query_log_dropped_total",
        "Lines of the query log that were dropped because its writer was behind.",
        "",
        vec![("", sum(&|stats| &stats.log_dropped))],
    );
    family("truncated_total", "Answers that were cut short.", "", vec![("", sum(&|stats| &stats.truncated))]);
    family("response_bytes_total", "Octets of answers.", "", vec![("", sum(&|stats| &stats.octets))]);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn threads_that_count_together_lose_nothing() {
        let stats = Arc::new(Stats::shared());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100_000).for_each(|_| stats.dropped(Drop::Busy, 1)));
            }
        });
        let text = render(&[stats]);
        assert!(text.contains("gateward_dns_dropped_total{reason=\"busy\"} 400000\n"), "{text}");
    }
}
