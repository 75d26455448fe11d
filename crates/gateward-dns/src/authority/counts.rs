//! What became of changes, in numbers.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::proposal::Refused;

/// Counters since the start.
#[derive(Default)]
pub(super) struct Counts {
    made: AtomicU64,
    unchanged: AtomicU64,
    refused: AtomicU64,
    conflicts: AtomicU64,
    busy: AtomicU64,
    failed: AtomicU64,
    pub(super) syncs: AtomicU64,
}

impl Counts {
    pub(super) fn good(&self, has_changes: bool) {
        if has_changes { &self.made } else { &self.unchanged }.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bad(&self, error: &Refused) {
        let counter = match error {
            Refused::NoZone(_) | Refused::NoVersion(_) | Refused::Base { .. } | Refused::PolicyBase => &self.conflicts,
            Refused::Rules(_) | Refused::Update { .. } => &self.refused,
            Refused::Busy { .. } => &self.busy,
            Refused::Failed(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// As Prometheus reads them.
    pub(super) fn render(&self) -> String {
        let mut text = String::from(
            "# HELP gateward_dns_changes_total Changes of zones that were asked for, by what became of them.\n\
             # TYPE gateward_dns_changes_total counter\n",
        );
        for (outcome, counter) in [
            ("made", &self.made),
            ("unchanged", &self.unchanged),
            ("refused", &self.refused),
            ("conflict", &self.conflicts),
            ("busy", &self.busy),
            ("failed", &self.failed),
        ] {
            let count = counter.load(Ordering::Relaxed);
            writeln!(text, "gateward_dns_changes_total{{outcome=\"{outcome}\"}} {count}")
                .expect("strings take everything");
        }
        let syncs = self.syncs.load(Ordering::Relaxed);
        write!(
            text,
            "# HELP gateward_dns_journal_syncs_total Writes of journals to the disk; changes that wait together share one.\n\
             # TYPE gateward_dns_journal_syncs_total counter\ngateward_dns_journal_syncs_total {syncs}\n"
        )
        .expect("strings take everything");
        text
    }
}
