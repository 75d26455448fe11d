//! Whether a policy may be replaced by another: the old one decides.
//!
//! Whoever may change the zone may change its policy, but not while changes are frozen. Where the policy names people who sign exceptions, nobody
//! may take its guardrails away alone: that would be an exception for everything. What only tightens them needs no leave. A zone that goes takes
//! its policy along, which is no different.

use domain::utils::base16;
use sha2::{Digest, Sha256};

use super::check::{Case, Refusal, Step, Verdict};
use super::{Actor, Freeze, NameRule, Policy, access, rules};
use crate::diff::Summary;
use crate::force::VerifiedForce;
use crate::name::Name;

/// What a force token must list for a policy that loosens the one before.
const RULE: &str = "policy";

/// A name for the text of a policy, as force tokens carry it: SHA-256 in hexadecimal digits.
#[must_use]
pub fn digest(zone: &Name, text: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"gateward policy 1\0");
    hash.update(zone.as_wire());
    hash.update(text);
    base16::encode_string(&hash.finalize()[..]).to_ascii_lowercase()
}

/// Holds a new policy of a zone, whose text has the digest `digest`, against the old one; `now` is in seconds since 1970. A token that was
/// verified for that digest overrides the rules that it lists.
#[must_use]
pub fn check_policy(
    old: &Policy,
    zone: &Name,
    new: &Policy,
    digest: &str,
    actor: &Actor,
    now: i64,
    force: Option<&VerifiedForce>,
) -> Verdict {
    let (step, summary) = (Step::Write(&[]), Summary::of(0, &[]));
    let case = Case { policy: old, zone, before: None, step, actor, now, summary };
    let mut found = Vec::new();
    if old == new {
        return Verdict::default();
    }
    access::zone_principals(&case, vec![zone.clone()], &mut found);
    rules::freeze(&case, &mut found);
    let looser = loosened(old, new, now);
    if old.force.is_possible() && !looser.is_empty() {
        found.push(Refusal {
            rule: RULE,
            names: vec![zone.clone()],
            message: format!("the policy of {zone} would be less strict than before in {}", looser.join(", ")),
            remedy: format!("send a force token for the rule `{RULE}` and the digest {digest}"),
        });
    }
    let forced = |refusal: &Refusal| force.is_some_and(|force| force.allows(zone, refusal.rule));
    let (overridden, refusals) = found.into_iter().partition(forced);
    Verdict { refusals, overridden }
}

/// The zone takes its policy along: where that names people who sign exceptions, they sign for this one, too. In a protected zone they do already.
pub(super) fn zone_deletion(case: &Case<'_>, found: &mut Vec<Refusal>) {
    let is_alone = matches!(case.step, Step::Delete) && !case.policy.protected && case.policy.force.is_possible();
    if is_alone {
        let message =
            format!("the policy of {} would go with the zone, and it names people who sign for that", case.zone);
        found.push(case.refusal(RULE, vec![case.zone.clone()], message, "keep the zone"));
    }
}

/// The fields in which a policy forbids less than another, from `now` on. What belongs to others (`subtrees`) and who signs (`force`) counts
/// however it changes.
fn loosened(old: &Policy, new: &Policy, now: i64) -> Vec<&'static str> {
    let min = |policy: &Policy| policy.ttl.min.unwrap_or(0);
    let max = |policy: &Policy| policy.ttl.max.unwrap_or(u32::MAX);
    let fields = [
        ("principals", admits_more(&old.principals, &new.principals, |a, b| a == b)),
        ("subtrees", old.subtrees != new.subtrees),
        ("protected", old.protected && !new.protected),
        (
            "protected_names",
            lacks_some(&old.protected_names, &new.protected_names, |new, old| {
                new.name == old.name && (new.rtype.is_none() || new.rtype == old.rtype)
            }),
        ),
        ("never_empty", lacks_some(&old.never_empty, &new.never_empty, |new, old| new == old)),
        ("max_deleted_percent", new.max_deleted_percent > old.max_deleted_percent),
        ("max_changed_percent", new.max_changed_percent > old.max_changed_percent),
        ("percent_floor", new.percent_floor > old.percent_floor),
        ("lock_apex", old.lock_apex && !new.lock_apex),
        ("ttl", min(new) < min(old) || max(new) > max(old)),
        ("addresses", admits_more(&old.addresses, &new.addresses, |old, new| old.contains(new))),
        ("targets", admits_more(&old.targets, &new.targets, |old, new| new.is_in(old))),
        ("freezes", old.freezes.iter().any(|freeze| freeze.end > now && !is_kept(freeze, &new.freezes))),
        ("force", old.force != new.force),
    ];
    fields.into_iter().filter(|(_, is_looser)| *is_looser).map(|(field, _)| field).collect()
}

/// Whether a list of what is allowed, empty for everything, allows something that another did not; `within`: one of the old covers one of the new.
fn admits_more<T>(old: &[T], new: &[T], within: impl Fn(&T, &T) -> bool) -> bool {
    !old.is_empty() && (new.is_empty() || !new.iter().all(|new| old.iter().any(|old| within(old, new))))
}

/// Whether one of the old rules is gone; `covers`: a new one says all that an old one says.
fn lacks_some(old: &[NameRule], new: &[NameRule], covers: impl Fn(&NameRule, &NameRule) -> bool) -> bool {
    !old.iter().all(|old| new.iter().any(|new| covers(new, old)))
}

/// Whether one of the freezes holds back all that this one does.
fn is_kept(freeze: &Freeze, freezes: &[Freeze]) -> bool {
    freezes.iter().any(|new| {
        new.start <= freeze.start && new.end >= freeze.end && new.except.iter().all(|kind| freeze.except.contains(kind))
    })
}
