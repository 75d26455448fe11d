//! A plan: every change that makes what is served what is declared, as a document that can be reviewed, kept and applied.

mod document;
mod environments;
mod make;
mod moves;
pub(crate) mod needs;
mod radius;
mod render;
mod scope;
mod steps;

use serde::{Deserialize, Serialize};

use crate::declaration::Level;

pub use crate::need::{Broken, Need};
pub use document::Document;
pub(crate) use environments::crossed;
pub use make::{Options, make};
pub use radius::Radius;
pub use render::{to_markdown, to_text};
pub use steps::Work;
pub(crate) use steps::{Step, belongs, steps};

/// The format of plan documents.
pub const FORMAT: &str = "gateward.plan/1";

/// What has to happen. Two plans with the same content have the same checksum; there is no time in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: String,
    /// The root of the declaration.
    pub root: String,
    /// The environment it was narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Whether it was said that it may touch several environments.
    pub allow_cross_environment: bool,
    /// Whether it was said that it may take over zones that no declaration made.
    pub adopt: bool,
    /// What it touches.
    pub blast_radius: Radius,
    /// Keys that control APIs do not know yet.
    pub keys: Vec<KeyPlan>,
    /// The zones that change.
    pub zones: Vec<ZonePlan>,
    /// What somebody should know who applies it.
    pub notes: Vec<String>,
}

/// A key to be made known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPlan {
    /// The control API that needs it.
    pub control: String,
    /// Its name.
    pub name: String,
}

/// What happens to a zone as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is made.
    Create,
    /// Its records or its policy change.
    Change,
    /// It goes.
    Delete,
}

/// What happens to one zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZonePlan {
    /// Its apex.
    pub origin: String,
    /// Where it stands; none for a zone that is not declared any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// The environment it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The region it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The team that answers for it.
    pub owner: String,
    /// The control API of its primary server.
    pub control: String,
    /// What happens to it.
    pub action: Action,
    /// The serial this was made from; none for a zone that is not there.
    pub base_serial: Option<u32>,
    /// The tag of the policy file this was made from ([`gateward_zone::policy::tag`]); none if there is no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_policy: Option<String>,
    /// Records it has now.
    pub records_now: usize,
    /// What it touches.
    pub blast_radius: Radius,
    /// The new policy file, when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyPlan>,
    /// Steps that the servers refuse without leave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Every record that comes or goes.
    pub changes: Vec<RecordPlan>,
}

/// A policy file that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPlan {
    /// The file as it is; none if there is none.
    pub from: Option<String>,
    /// The file as it will be.
    pub to: String,
}

/// A record that comes or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordPlan {
    /// Whether it comes.
    pub op: Op,
    /// As in a zone file, with whole names.
    pub record: String,
    /// Whose name it is.
    pub owner: String,
    /// Whether it happens in the second round, after what replaces it is there: removed delegations and name servers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// What happens to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It comes.
    Add,
    /// It goes.
    Remove,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.keys.is_empty()
    }
}
