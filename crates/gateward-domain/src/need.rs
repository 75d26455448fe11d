//! Leave that a step of a plan needs, because guardrails speak against it: which rules, for which changes, and how to get it.

use serde::{Deserialize, Serialize};

/// Leave that a step needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The step that is refused without it, as plans and accounts name it.
    pub step: String,
    /// The digest of the step's changes; what a force token is for.
    pub changes: String,
    /// The rules that the step breaks.
    pub rules: Vec<Broken>,
    /// Who may sign a force token; nobody when the policy names too few people.
    pub signers: Vec<String>,
}

/// A rule that a step breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broken {
    /// As servers and tokens name it.
    pub rule: String,
    /// What is wrong.
    pub message: String,
    /// What to do without a token.
    pub remedy: String,
}

impl Need {
    /// How somebody gets leave for the step of this zone.
    #[must_use]
    pub fn way(&self, origin: &str) -> String {
        let rules: Vec<String> = self.rules.iter().map(|broken| format!("--rule {}", broken.rule)).collect();
        let people = "--reason 'WHY' --issuer NAME --approver NAME --key FILE";
        let token =
            format!("force-token issue --zone {origin} --changes {} {} {people}", self.changes, rules.join(" "));
        match &self.signers[..] {
            [] => "nobody can give leave for it: `guardrails.force` names too few people".to_owned(),
            signers => format!("or with a token that {} sign: gateward domain {token}", signers.join(", ")),
        }
    }
}
