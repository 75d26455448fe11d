//! Counting what is under way on the whole node, against a limit that may change.
//!
//! One atomic per gate: entering and leaving take no lock, and a limit is exact across workers. Only what is limited
//! pays for the shared cache line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many there are.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    inside: Arc<AtomicU32>,
}

/// A place inside; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    inside: Arc<AtomicU32>,
}

impl Gate {
    /// Nobody inside.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enter unless `limit` are inside.
    pub fn enter(&self, limit: u32) -> Option<Lease> {
        let enter = |inside: u32| (inside < limit).then_some(inside + 1);
        self.inside.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter).ok()?;
        Some(Lease { inside: self.inside.clone() })
    }

    /// How many are inside.
    pub fn inside(&self) -> u32 {
        self.inside.load(Ordering::Acquire)
    }

    /// Whether `lease` is one of this gate.
    pub fn owns(&self, lease: &Lease) -> bool {
        Arc::ptr_eq(&self.inside, &lease.inside)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_counts_in_and_out() {
        let gate = Gate::new();
        let first = gate.enter(1).unwrap();
        assert!(gate.enter(1).is_none() && gate.owns(&first));
        let second = gate.enter(2).unwrap();
        assert_eq!(gate.inside(), 2);
        drop(first);
        assert!(gate.enter(1).is_none(), "a lower limit holds for those who come");
        drop(second);
        assert!(gate.enter(0).is_none() && gate.inside() == 0);
    }

    #[test]
    fn a_limit_is_exact_across_threads() {
        let gate = Gate::new();
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Some(_lease) = gate.enter(3) {
                            most.fetch_max(gate.inside(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Ordering::Relaxed)) && gate.inside() == 0);
    }
}
