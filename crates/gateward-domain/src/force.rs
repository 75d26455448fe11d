//! Who runs a plan, and the force tokens that the run was given.
//!
//! Each token is for one set of changes of one zone, or for one text of its policy file, and goes to the server with nothing else. Here it is read
//! only: before the first step `apply` verifies it as servers do, and the server has the last word.

use gateward_model::Secret;
use gateward_zone::force::{Claims, ForceError, read_claims};
use gateward_zone::{Change, Name, diff, policy};

use crate::provider::By;

/// Who runs a plan, and the tokens that were signed for it.
#[derive(Debug, Clone, Default)]
pub struct Author {
    /// For the servers' audit logs and policies.
    pub actor: String,
    /// Leave to break rules.
    pub tokens: Tokens,
}

/// Force tokens by what they are for.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<(Claims, Secret)>);

impl Author {
    /// Somebody without tokens.
    #[must_use]
    pub fn new(actor: impl Into<String>) -> Self {
        Author { actor: actor.into(), tokens: Tokens::default() }
    }

    /// Who asks for these changes of this zone, with the token that is for them, if there is one.
    #[must_use]
    pub fn by(&self, zone: &Name, changes: &[Change]) -> By {
        self.with_leave(zone, || diff::digest(zone, changes))
    }

    /// Who asks for this text of the zone's policy file, likewise.
    #[must_use]
    pub fn by_policy(&self, zone: &Name, text: &str) -> By {
        self.with_leave(zone, || policy::digest(zone, text.as_bytes()))
    }

    fn with_leave(&self, zone: &Name, digest: impl FnOnce() -> String) -> By {
        let force = match self.tokens.0.is_empty() {
            true => None,
            false => self.tokens.for_changes(zone, &digest()).next().map(|(_, token)| token.clone()),
        };
        By { actor: self.actor.clone(), force }
    }

    /// Who asks for something that no token is for.
    #[must_use]
    pub fn without_leave(&self) -> By {
        By { actor: self.actor.clone(), force: None }
    }
}

impl Tokens {
    /// Reads what each token says that it is for. Servers verify them.
    ///
    /// # Errors
    /// One of them is no token.
    pub fn read<'t>(tokens: impl IntoIterator<Item = &'t str>) -> Result<Self, ForceError> {
        let mut read = Vec::new();
        for token in tokens {
            read.push((read_claims(token.trim())?, Secret::new(token.trim())));
        }
        Ok(Tokens(read))
    }

    /// The tokens for the changes with this digest.
    pub(crate) fn for_changes(&self, zone: &Name, changes: &str) -> impl Iterator<Item = &(Claims, Secret)> {
        let is_for =
            move |claims: &Claims| claims.zone.parse::<Name>().as_ref() == Ok(zone) && claims.changes == changes;
        self.0.iter().filter(move |(claims, _)| is_for(claims))
    }

    /// The same tokens, of which `first` are preferred.
    pub(crate) fn with_first(&self, mut first: Vec<(Claims, Secret)>) -> Self {
        first.extend(self.0.iter().cloned());
        Tokens(first)
    }
}
