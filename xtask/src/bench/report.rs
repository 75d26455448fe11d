//! Measurements as a table and as JSON: medians, and ratios within one run.

use serde_json::{Value, json};

/// One round of one contestant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Whatever was not done as asked.
    pub(crate) failed: u64,
}

/// One contestant's rounds, or why it could not take part.
pub(crate) struct Entry {
    pub(crate) name: String,
    /// The contestant that does the same without a filter.
    pub(crate) unfiltered: Option<String>,
    pub(crate) outcome: Result<Vec<Sample>, String>,
}

/// One row of the comparison: contestants measured in turns.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What is counted, in the singular.
    pub(crate) unit: &'static str,
    pub(crate) entries: Vec<Entry>,
}

/// Memory of each contestant of a row, or why it could not take part.
pub(crate) struct Memory {
    pub(crate) name: &'static str,
    pub(crate) entries: Vec<(&'static str, Result<Idle, String>)>,
}

/// Memory of a proxy.
pub(crate) struct Idle {
    pub(crate) idle_bytes: u64,
    pub(crate) loaded_bytes: u64,
    pub(crate) connections: u64,
}

/// Times of one kind of start.
pub(crate) struct Start {
    pub(crate) name: &'static str,
    pub(crate) ms: Vec<f64>,
}

impl Idle {
    fn per_connection(&self) -> u64 {
        self.loaded_bytes.saturating_sub(self.idle_bytes) / self.connections.max(1)
    }
}

impl Entry {
    /// The median round, figure by figure; failures are summed.
    pub(crate) fn median(&self) -> Option<Sample> {
        let samples = self.outcome.as_ref().ok()?;
        if samples.is_empty() {
            return None;
        }
        Some(Sample {
            cpu_us: median(samples.iter().map(|sample| sample.cpu_us)),
            per_second: median(samples.iter().map(|sample| sample.per_second)),
            p50_us: median_of(samples.iter().filter_map(|sample| sample.p50_us)),
            p99_us: median_of(samples.iter().filter_map(|sample| sample.p99_us)),
            failed: samples.iter().map(|sample| sample.failed).sum(),
        })
    }
}

impl Row {
    fn cpu(&self, name: &str) -> Option<f64> {
        self.entries.iter().find(|entry| entry.name == name)?.median().map(|sample| sample.cpu_us)
    }

    /// CPU that its filter adds to each request: the median over the rounds of the difference to the contestant without,
    /// which was measured right before.
    fn added(&self, entry: &Entry) -> Option<f64> {
        let without = self.entries.iter().find(|other| Some(&other.name) == entry.unfiltered.as_ref())?;
        let (with, without) = (entry.outcome.as_ref().ok()?, without.outcome.as_ref().ok()?);
        median_of(with.iter().zip(without).map(|(with, without)| with.cpu_us - without.cpu_us))
    }

    /// The best of the peers that a row of the plain kind has: nginx and HAProxy, or NSD and Knot.
    fn best_peer(&self) -> Option<f64> {
        let peers = ["nginx", "haproxy", "nsd", "knot"].iter().filter_map(|name| self.cpu(name));
        peers.min_by(f64::total_cmp)
    }

    /// What the gateway is compared with in this row: a name and its CPU per request.
    fn baselines(&self) -> Vec<(&'static str, Option<f64>)> {
        match self.name {
            "bare" => vec![("best of nginx, haproxy", self.best_peer()), ("floor", self.cpu("floor"))],
            "plugins" | "tls" | "handshakes" | "resumptions" | "websocket" => vec![("nginx", self.cpu("nginx"))],
            "h2" | "h2c" | "grpc" => vec![("envoy", self.cpu("envoy")), ("nginx", self.cpu("nginx"))],
            "names" | "nxdomain" | "referrals" | "zones" => vec![("best of nsd, knot", self.best_peer())],
            "wasm" | "lua" => vec![("gateward", self.cpu("gateward"))],
            _ => vec![("one route", self.cpu("gateward"))],
        }
    }
}

/// The rows as Markdown, fit for docs/performance.md.
pub(crate) fn table(rows: &[Row], memory: &[Memory], starts: &[Start]) -> String {
    let mut text = String::new();
    for row in rows {
        let baselines = row.baselines();
        let (name, unit) = (row.name, row.unit);
        text += &format!("\n**{name}**\n\n| proxy | CPU us/{unit} | {unit}s/s | p50 us | p99 us | failed |");
        text += &baselines.iter().map(|(name, _)| format!(" vs {name} |")).collect::<String>();
        text += "\n|---|---|---|---|---|---|";
        text += &"---|".repeat(baselines.len());
        text += "\n";
        for entry in &row.entries {
            text += &line(entry, &baselines);
        }
        for entry in &row.entries {
            if let Some(added) = row.added(entry) {
                text += &format!("\n{}: the plugin adds {added:.2} us to each {unit}.\n", entry.name);
            }
        }
    }
    for row in memory {
        let head = "| proxy | at rest MiB | connections | with them MiB | bytes per connection |";
        text += &format!("\n**{}**\n\n{head}\n|---|---|---|---|---|\n", row.name);
        for (name, outcome) in &row.entries {
            text += &match outcome {
                Ok(idle) => format!(
                    "| {name} | {} | {} | {} | {} |\n",
                    idle.idle_bytes.div_ceil(1 << 20),
                    idle.connections,
                    idle.loaded_bytes.div_ceil(1 << 20),
                    idle.per_connection()
                ),
                Err(reason) => format!("| {name} | missing: {} |\n", reason.replace('\n', " ")),
            };
        }
    }
    if !starts.is_empty() {
        text +=
            "\n**start**\n\n| gateward | ms until it serves | fastest | slowest | starts |\n|---|---|---|---|---|\n";
    }
    for Start { name, ms } in starts {
        let (fastest, slowest) = ms.iter().fold((f64::MAX, 0f64), |(low, high), ms| (low.min(*ms), high.max(*ms)));
        let middle = or_dash(median_of(ms.iter().copied()));
        text += &format!("| {name} | {middle} | {fastest:.0} | {slowest:.0} | {} |\n", ms.len());
    }
    text
}

fn line(entry: &Entry, baselines: &[(&str, Option<f64>)]) -> String {
    let Some(sample) = entry.median() else {
        let reason = entry.outcome.as_ref().err().map_or("no rounds", String::as_str);
        return format!("| {} | missing: {} |\n", entry.name, reason.replace('\n', " "));
    };
    let mut text = format!(
        "| {} | {:.2} | {:.0} | {} | {} | {} |",
        entry.name,
        sample.cpu_us,
        sample.per_second,
        or_dash(sample.p50_us),
        or_dash(sample.p99_us),
        sample.failed
    );
    for (_, baseline) in baselines {
        text += &baseline.map_or(" - |".to_owned(), |baseline| format!(" {:.2}x |", sample.cpu_us / baseline));
    }
    text + "\n"
}

fn or_dash(figure: Option<f64>) -> String {
    figure.map_or("-".to_owned(), |figure| format!("{figure:.0}"))
}

/// The same for machines.
pub(crate) fn json(rows: &[Row], memory: &[Memory], starts: &[Start]) -> Value {
    let rows: Vec<Value> = rows.iter().map(json_row).collect();
    let memory: Vec<Value> = memory.iter().map(json_memory).collect();
    let starts: Vec<Value> = starts.iter().map(|start| json!({ "name": start.name, "ms": start.ms })).collect();
    json!({ "rows": rows, "memory": memory, "starts": starts })
}

fn json_memory(row: &Memory) -> Value {
    let entry = |(name, outcome): &(&str, Result<Idle, String>)| match outcome {
        Ok(idle) => json!({
            "name": name,
            "idle_bytes": idle.idle_bytes,
            "loaded_bytes": idle.loaded_bytes,
            "connections": idle.connections,
            "bytes_per_connection": idle.per_connection(),
        }),
        Err(reason) => json!({ "name": name, "missing": reason }),
    };
    json!({ "name": row.name, "entries": row.entries.iter().map(entry).collect::<Vec<_>>() })
}

fn json_row(row: &Row) -> Value {
    let entries: Vec<Value> = row.entries.iter().map(|entry| json_entry(row, entry)).collect();
    json!({ "name": row.name, "unit": row.unit, "entries": entries })
}

fn json_entry(row: &Row, entry: &Entry) -> Value {
    let Some(sample) = entry.median() else {
        return json!({ "name": entry.name, "missing": entry.outcome.as_ref().err() });
    };
    let ratio =
        |(name, baseline): &(&str, Option<f64>)| Some(((*name).to_owned(), json!(sample.cpu_us / (*baseline)?)));
    let ratios: serde_json::Map<_, _> = row.baselines().iter().filter_map(ratio).collect();
    json!({
        "name": entry.name,
        "cpu_us_per_request": sample.cpu_us,
        "requests_per_second": sample.per_second,
        "p50_us": sample.p50_us,
        "p99_us": sample.p99_us,
        "failed": sample.failed,
        "filter_adds_cpu_us": row.added(entry),
        "ratios": ratios,
    })
}

/// `None` where no round has the figure.
fn median_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values = values.peekable();
    values.peek().is_some().then(|| median(values))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, cpu: &[f64]) -> Entry {
        let samples = cpu.iter().map(|cpu_us| Sample { cpu_us: *cpu_us, ..Sample::default() }).collect();
        Entry { name: name.to_owned(), unfiltered: None, outcome: Ok(samples) }
    }

    #[test]
    fn ratios_are_of_medians_against_the_better_peer() {
        let mut entries = vec![entry("nginx", &[20.0, 22.0, 90.0]), entry("haproxy", &[24.0]), entry("floor", &[10.0])];
        entries.push(entry("gateward", &[10.0, 12.0]));
        entries.push(Entry { name: "envoy".to_owned(), unfiltered: None, outcome: Err("not installed".to_owned()) });
        let text = table(&[Row { name: "bare", unit: "request", entries }], &[], &[]);
        assert!(text.contains("| gateward | 11.00 | 0 | - | - | 0 | 0.50x | 1.10x |"), "{text}");
        assert!(text.contains("| envoy | missing: not installed |"), "{text}");
    }

    #[test]
    fn what_a_filter_adds_is_the_median_difference_of_rounds() {
        let mut filtered = entry("gateward-filter", &[10.9, 16.0, 13.1]);
        filtered.unfiltered = Some("gateward".to_owned());
        let entries = vec![entry("gateward", &[10.0, 15.0, 12.0]), filtered];
        let text = table(&[Row { name: "wasm", unit: "request", entries }], &[], &[]);
        assert!(text.contains("gateward-filter: the plugin adds 1.00 us to each request."), "{text}");
        assert!(text.contains("| gateward-filter | 13.10 | 0 | - | - | 0 | 1.09x |"), "{text}");
    }

    #[test]
    fn starts_are_told_by_their_median_and_extremes() {
        let starts = [Start { name: "without filters", ms: vec![5.2, 9.0, 4.1] }];
        assert!(table(&[], &[], &starts).contains("| without filters | 5 | 4 | 9 | 3 |"));
    }

    #[test]
    fn memory_per_connection_is_the_difference() {
        let idle = Idle { idle_bytes: 10 << 20, loaded_bytes: (10 << 20) + 4_096_000, connections: 1000 };
        let entries = vec![("gateward", Ok(idle)), ("envoy", Err("not installed".to_owned()))];
        let memory = [Memory { name: "idle", entries }];
        let text = table(&[], &memory, &[]);
        assert!(text.contains("| gateward | 10 | 1000 | 14 | 4096 |"), "{text}");
        assert!(text.contains("| envoy | missing: not installed |"), "{text}");
        assert_eq!(json(&[], &memory, &[])["memory"][0]["entries"][0]["bytes_per_connection"], 4096);
    }
}
