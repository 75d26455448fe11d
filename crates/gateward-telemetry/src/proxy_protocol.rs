//! Connections by what their PROXY header came to, and by the VPC endpoint it named: labels from outside, so bounded.

use crate::OVERFLOW_LABEL;
use crate::cells::Tally;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// VPC endpoints a worker tells apart; further ones are counted together.
const ENDPOINTS: usize = 256;

/// What became of the place of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ProxyProtocolOutcome {
    /// A trusted header named the client.
    Proxied,
    /// The balancer's own connection (LOCAL), such as a health probe.
    Local,
    /// A trusted header without IP addresses (UNKNOWN, a Unix socket).
    Unknown,
    /// There is no header, and there need not be one.
    Absent,
    /// There is a header, but not of a trusted peer: it was not believed.
    Untrusted,
    /// There is no header though there must be.
    Missing,
    /// The header breaks its rules.
    Malformed,
    /// The peer did not send enough to tell in time.
    Timeout,
    /// The peer closed before that.
    Closed,
}

impl ProxyProtocolOutcome {
    const ALL: [Self; 9] = [
        Self::Proxied,
        Self::Local,
        Self::Unknown,
        Self::Absent,
        Self::Untrusted,
        Self::Missing,
        Self::Malformed,
        Self::Timeout,
        Self::Closed,
    ];

    /// Its label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Proxied => "proxied",
            Self::Local => "local",
            Self::Unknown => "unknown",
            Self::Absent => "absent",
            Self::Untrusted => "untrusted",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// One worker's figures.
#[derive(Debug)]
pub(crate) struct ProxyProtocolTally {
    /// By mode (auto, require) and outcome.
    outcomes: [[Tally; ProxyProtocolOutcome::ALL.len()]; 2],
    endpoints: Box<[(OnceLock<Box<str>>, Tally)]>,
    other_endpoints: Tally,
}

impl Default for ProxyProtocolTally {
    fn default() -> Self {
        Self {
            outcomes: Default::default(),
            endpoints: std::iter::repeat_with(Default::default).take(ENDPOINTS).collect(),
            other_endpoints: Tally::default(),
        }
    }
}

impl ProxyProtocolTally {
    pub(crate) fn count(&self, required: bool, outcome: ProxyProtocolOutcome, vpce_id: Option<&str>) {
        self.outcomes[usize::from(required)][outcome as usize].add(1);
        let Some(id) = vpce_id else { return };
        let mut slots = self.endpoints.iter();
        match slots.find(|(name, _)| &**name.get_or_init(|| id.into()) == id) {
            Some((_, tally)) => tally.add(1),
            None => self.other_endpoints.add(1),
        }
    }

    pub(crate) fn add_to(
        &self,
        outcomes: &mut BTreeMap<(&'static str, &'static str), u64>,
        endpoints: &mut BTreeMap<Box<str>, u64>,
    ) {
        for (mode, tallies) in ["auto", "require"].into_iter().zip(&self.outcomes) {
            for (outcome, tally) in ProxyProtocolOutcome::ALL.into_iter().zip(tallies) {
                if tally.value() > 0 {
                    *outcomes.entry((mode, outcome.label())).or_default() += tally.value();
                }
            }
        }
        for (name, tally) in &self.endpoints {
            let Some(name) = name.get() else { break };
            *endpoints.entry(name.clone()).or_default() += tally.value();
        }
        if self.other_endpoints.value() > 0 {
            *endpoints.entry(OVERFLOW_LABEL.into()).or_default() += self.other_endpoints.value();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_bounded() {
        let tally = ProxyProtocolTally::default();
        for number in 0..ENDPOINTS + 3 {
            tally.count(true, ProxyProtocolOutcome::Proxied, Some(&format!("vpce-{number}")));
        }
        tally.count(true, ProxyProtocolOutcome::Proxied, Some("vpce-7"));
        tally.count(false, ProxyProtocolOutcome::Absent, None);
        let (mut outcomes, mut endpoints) = (BTreeMap::new(), BTreeMap::new());
        tally.add_to(&mut outcomes, &mut endpoints);
        assert_eq!(endpoints.len(), ENDPOINTS + 1);
        assert_eq!((endpoints["vpce-7"], endpoints[OVERFLOW_LABEL]), (2, 3));
        assert_eq!(outcomes[&("auto", "absent")], 1);
        assert_eq!(outcomes[&("require", "proxied")], ENDPOINTS as u64 + 4);
    }
}
