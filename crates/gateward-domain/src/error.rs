//! Why something could not be done.

use gateward_zone::Name;
use serde::Serialize;

use crate::need::Need;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control API of a group could not be used.
    #[error("{control}: {source}")]
    Provider {
        /// The control API.
        control: String,
        /// What happened.
        source: ProviderError,
    },
    /// A plan would touch several environments, and nobody said that it may.
    #[error(
        "this plan touches {} environments ({}); narrow it with --environment NAME, or say --allow-cross-environment",
        environments.len(), environments.join(", ")
    )]
    CrossEnvironment {
        /// Their names.
        environments: Vec<String>,
    },
    /// The declaration has no such environment.
    #[error("the declaration has no environment '{name}'; it has {}", known.join(", "))]
    NoEnvironment {
        /// What was asked for.
        name: String,
        /// Those it has.
        known: Vec<String>,
    },
    /// An environment alone cannot be planned while the root is on its way.
    #[error("{root} is not at {to} yet; plan its move first, without --environment")]
    RootMoves {
        /// The root.
        root: Name,
        /// The control API that it is declared to have.
        to: String,
    },
    /// Servers would refuse steps of a plan, and no token was given for them.
    #[error(
        "guardrails speak against the plan, and nothing of it was done:\n{}",
        steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    )]
    NeedsLeave {
        /// The steps.
        steps: Vec<MissingLeave>,
    },
    /// What was said when a plan is applied is not what it was made with.
    #[error("the plan was made {plan}, not {said}; make it anew as it is meant")]
    OtherScope {
        /// What the plan says.
        plan: String,
        /// What was asked for.
        said: String,
    },
    /// Zones that no declaration made would be taken over.
    #[error(
        "{} served already, and not made by a declaration of this root; look at what would be removed with --adopt",
        zones.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ") + if zones.len() == 1 { " is" } else { " are" }
    )]
    NotOurs {
        /// Their apexes.
        zones: Vec<Name>,
    },
    /// Zones as they would become break rules of DNS.
    #[error("the zones would be wrong:\n{}", problems.join("\n"))]
    Invalid {
        /// Each problem with its zone.
        problems: Vec<String>,
    },
    /// The zones are not what they were when the plan was made.
    #[error("the plan is stale: {}; make a new one", zones.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Stale {
        /// The zones that differ.
        zones: Vec<StaleZone>,
    },
    /// A plan file that was changed by hand, cut short, or is of another format.
    #[error("not a plan: {reason}")]
    BadPlan {
        /// What is wrong with it.
        reason: String,
    },
    /// The plan that would be made now is not the one that was reviewed.
    #[error("the plan is now {found}, not {expected}: look at it again before it is applied")]
    Checksum {
        /// The one asked for.
        expected: String,
        /// The one that would be made.
        found: String,
    },
    /// A key's secret is not where the declaration says.
    #[error("the secret of the key {key}: {reason}")]
    Secret {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The zone is not one of the declaration.
    #[error("the declaration has no zone {name}; it has {}", known.join(", "))]
    NoZone {
        /// What was asked for.
        name: String,
        /// The zones' apexes.
        known: Vec<String>,
    },
}

/// A step that needs a force token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingLeave {
    /// The zone's apex.
    pub origin: String,
    /// What to get leave for.
    pub need: Need,
}

impl std::fmt::Display for MissingLeave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let MissingLeave { origin, need } = self;
        for broken in &need.rules {
            writeln!(f, "{origin} {}: {} ({}); {}", need.step, broken.message, broken.rule, broken.remedy)?;
        }
        write!(f, "  {}", need.way(origin))
    }
}

/// A zone that moved on since a plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaleZone {
    /// Its apex.
    pub origin: String,
    /// The serial in the plan; none if the zone was not there.
    pub planned: Option<u32>,
    /// The serial that is served; none if the zone is not there.
    pub served: Option<u32>,
    /// Whether its policy is another.
    pub other_policy: bool,
    /// What happened meanwhile, as `+ RECORD` and `- RECORD`; empty when the server does not know any more.
    pub changes: Vec<String>,
    /// Who did it, as far as the server says.
    pub actors: Vec<String>,
}

impl std::fmt::Display for StaleZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |serial: Option<u32>| serial.map_or("absent".to_owned(), |serial| format!("serial {serial}"));
        match (self.planned == self.served, self.other_policy) {
            (true, _) => write!(f, "the policy of {} is another", self.origin)?,
            (false, other) => {
                write!(f, "{} was {} and is {}", self.origin, shown(self.planned), shown(self.served))?;
                f.write_str(if other { " with another policy" } else { "" })?;
            }
        }
        if !self.actors.is_empty() {
            write!(f, " (changed by {})", self.actors.join(", "))?;
        }
        for change in &self.changes {
            write!(f, "\n  {change}")?;
        }
        Ok(())
    }
}

/// Why a control API did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Nobody answers there, or not in time.
    #[error("cannot be reached: {0}; is the server running, and is its control API on this address?")]
    Unreachable(String),
    /// The server refuses the change: guardrails, syntax, lint.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// The zone is not at the serial that the change was made for.
    #[error("the zone was changed by somebody else meanwhile")]
    Conflict,
    /// The zone, version or key is not there.
    #[error("there is no {0}")]
    NotFound(String),
    /// The token or key is missing or wrong.
    #[error("access is denied (status {0}); check the group's token")]
    Denied(u16),
    /// The answer makes no sense.
    #[error("the answer is not one of Gateward's control API: {0}")]
    Protocol(String),
}

/// One reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// The rule that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// How to proceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The line of a zone file or policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(rule) = &self.rule {
            write!(f, " ({rule})")?;
        }
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}
