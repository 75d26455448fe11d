//! What may be asked of a zone, and what comes of it.

use gateward_zone::{Change, Name, Problem, Rcode, Severity, ZoneText, ZoneView};

use crate::folder::Included;

/// Who asks, and through which door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The door.
    pub door: Door,
    /// The name: of a key, a person, a file; as the door knows it.
    pub name: String,
}

/// A way by which changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// A zone file that was changed.
    File,
    /// The control API.
    Api,
    /// A dynamic update (RFC 2136).
    Update,
    /// A lease that came or went.
    Lease,
    /// A lease that ended by itself.
    Expiry,
    /// external-dns through its webhook.
    Webhook,
    /// A transfer from the zone's primary.
    Transfer,
    /// A catalog zone (RFC 9432).
    Catalog,
}

impl Door {
    /// A word for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Door::File => "file",
            Door::Api => "api",
            Door::Update => "update",
            Door::Lease => "lease",
            Door::Expiry => "expiry",
            Door::Webhook => "webhook",
            Door::Transfer => "transfer",
            Door::Catalog => "catalog",
        }
    }

    /// Whether what comes is a copy of what a primary decided: there is nothing to decide about it here.
    #[must_use]
    pub fn is_copy(self) -> bool {
        matches!(self, Door::Transfer | Door::Catalog)
    }
}

impl Actor {
    /// An actor.
    #[must_use]
    pub fn new(door: Door, name: impl Into<String>) -> Self {
        Actor { door, name: name.into() }
    }
}

/// `DOOR:NAME`.
impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() {
            return f.write_str(self.door.as_str());
        }
        write!(f, "{}:{}", self.door.as_str(), self.name)
    }
}

/// What shall become of a zone.
pub enum Edit {
    /// It has these records and no others; made if it is not there.
    Replace(Box<ZoneText>),
    /// One step after the other.
    Changes(Vec<Change>),
    /// What the function says when the zone's turn comes: it sees the version that the change will be made to.
    Decide(Box<Decide>),
    /// The content of the version with that serial, under a new one.
    Rollback(u32),
}

/// Decides about changes of a version of a zone.
pub type Decide = dyn FnOnce(&dyn ZoneView) -> Result<Vec<Change>, Refused> + Send;

/// Which version a change is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Whichever is served.
    Any,
    /// The one with this serial; no other.
    Serial(u32),
    /// None: the zone must not be there yet.
    Absent,
}

/// Which policy file a new one replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyBase {
    /// Whichever there is.
    Any,
    /// The one with this tag ([`gateward_zone::policy::tag`]).
    Tag(String),
    /// None: there must be no file yet.
    Absent,
}

impl PolicyBase {
    /// Whether `file` is the one that is meant.
    #[must_use]
    pub fn is_met(&self, file: Option<&[u8]>) -> bool {
        match (self, file) {
            (PolicyBase::Any, _) | (PolicyBase::Absent, None) => true,
            (PolicyBase::Tag(tag), Some(file)) => *tag == gateward_zone::policy::tag(file),
            (PolicyBase::Absent, Some(_)) | (PolicyBase::Tag(_), None) => false,
        }
    }
}

/// Which serial a new version gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// The one that the records have if it comes after the served one (RFC 1982), the next one otherwise.
    Rising,
    /// The one that the records have: they come from the zone's primary.
    AsIs,
}

/// A change that is asked for.
pub struct Proposal {
    /// The zone.
    pub origin: Name,
    /// What shall become of it.
    pub edit: Edit,
    /// The version it is made for.
    pub base: Base,
    /// The serial afterwards.
    pub numbering: Numbering,
    /// Who asks.
    pub actor: Actor,
    /// A signed token that lifts guardrails.
    pub force: Option<String>,
    /// Nothing is changed, only said what would be.
    pub is_dry_run: bool,
    /// The text that becomes the zone file, with the serial that the zone gets.
    pub text: Option<Vec<u8>>,
    /// Files that the text includes, as they looked before it was read.
    pub includes: Vec<Included>,
}

impl Proposal {
    /// A change of whichever version is served.
    #[must_use]
    pub fn new(origin: Name, edit: Edit, actor: Actor) -> Self {
        Proposal {
            origin,
            edit,
            base: Base::Any,
            numbering: Numbering::Rising,
            actor,
            force: None,
            is_dry_run: false,
            text: None,
            includes: Vec::new(),
        }
    }
}

/// What a change led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The serial that is served now.
    pub serial: u32,
    /// What changed; empty when everything was already as wanted.
    pub changes: Vec<Change>,
    /// The zone was not there before.
    pub is_new: bool,
    /// What is odd about it.
    pub warnings: Vec<Problem>,
}

/// Why nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such zone here.
    #[error("there is no zone {0} here")]
    NoZone(Name),
    /// The change was made for another version.
    #[error("the zone has serial {served}; the change was made for {}", wanted.map_or("no zone".to_owned(), |serial| serial.to_string()))]
    Base {
        /// The serial that is served.
        served: u32,
        /// The serial the change was made for; `None` when the zone should not be there.
        wanted: Option<u32>,
    },
    /// The change of a policy was made for another policy file.
    #[error("the zone's policy file is another by now")]
    PolicyBase,
    /// A version that is not kept.
    #[error("the version with serial {0} is not kept")]
    NoVersion(u32),
    /// Rules that speak against it: syntax, lint, guardrails; each says what to do.
    #[error("{}", list(.0))]
    Rules(Vec<Problem>),
    /// A dynamic update that RFC 2136 does not allow.
    #[error("{rcode}: {reason}")]
    Update {
        /// What the answer says.
        rcode: Rcode,
        /// The same for people.
        reason: String,
    },
    /// Too many changes a second.
    #[error("the zone takes {per_second} changes a second; try again in {retry_after_ms} ms")]
    Busy {
        /// The limit.
        per_second: u32,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The change could not be stored.
    #[error("not stored: {0}")]
    Failed(String),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Refused {
    /// The change could not be stored.
    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Refused::Failed(error.to_string())
    }

    /// One rule that speaks against a change.
    #[must_use]
    pub fn rule(rule: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refused::Rules(vec![problem(rule, message, remedy)])
    }
}

/// An error with what to do about it.
pub(crate) fn problem(rule: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem {
        file: "".into(),
        line: 0,
        rule,
        severity: Severity::Error,
        message: message.into(),
        remedy: Some(remedy.into()),
    }
}
