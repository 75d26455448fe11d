//! Force tokens: as many people as the policy asks for, one or two, sign that one change may break the rules that the token names.
//!
//! A token is `v1.PAYLOAD.SIGNATURE.SIGNATURE`: JSON ([`Claims`]) and Ed25519 signatures, of the issuer and of the approver, in Base64 for URLs.
//! It holds for one zone, one set of changes ([`crate::diff::digest`]) or one text of the policy file ([`crate::policy::digest`]), and some hours.
//! The signatures cover version and payload. The public keys stand in the zone's policy. By the control API nobody names other people or drops
//! rules alone, because that needs a token itself ([`crate::policy::check_policy`]), and so does the zone's end, which is its policy's, too.
//! Whoever may write the folder's files can: tokens do not keep those apart.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Octets of an Ed25519 key, private or public (RFC 8032).
pub const KEY_LEN: usize = 32;
/// A token that is longer is not looked at.
const MAX_TOKEN_LEN: usize = 16_384;
const VERSION: &str = "v1";

/// Who may sign force tokens for a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForcePolicy {
    /// Ed25519 keys by the name of the person that holds them.
    pub keys: BTreeMap<String, PublicKey>,
    /// How many different people must sign: 1 or 2.
    pub signatures: u8,
    /// Longest validity of a token; seconds.
    pub max_seconds: i64,
}

impl Default for ForcePolicy {
    fn default() -> Self {
        ForcePolicy { keys: BTreeMap::new(), signatures: 2, max_seconds: 86_400 }
    }
}

impl ForcePolicy {
    /// Whether enough people are named to sign a token.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.keys.len() >= usize::from(self.signatures.max(1))
    }
}

/// An Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// A key from its 32 octets in Base64.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(PublicKey)
    }

    /// The key's 32 octets in Base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// An Ed25519 private key; shows nothing of itself.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of a seed of 32 random octets.
    ///
    /// # Errors
    /// The seed has another length.
    pub fn from_seed(seed: &[u8]) -> Result<Self, ForceError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(SigningKey).map_err(|_| ForceError::Seed)
    }

    /// What goes into policies.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let octets = self.0.public_key().as_ref().try_into();
        PublicKey(octets.expect("RFC 8032 gives public keys 32 octets"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The zone, with its last dot.
    pub zone: String,
    /// The rules that may be broken, as refusals name them.
    pub rules: Vec<String>,
    /// Why; goes to the audit log.
    pub reason: String,
    /// Who signs first.
    pub issued_by: String,
    /// Who signs second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// First second of its validity, since 1970.
    pub not_before: i64,
    /// First second after its validity.
    pub expires: i64,
    /// The digest of the changes.
    pub changes: String,
}

/// Why a token does not count, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForceError {
    /// Not `v1.PAYLOAD.SIGNATURE[.SIGNATURE]`, or too long.
    #[error("the force token is not of the form v1.PAYLOAD.SIGNATURE.SIGNATURE; copy all of it")]
    Form,
    /// The payload is no [`Claims`].
    #[error("the force token's payload cannot be read: {0}")]
    Payload(String),
    /// It was made for another zone.
    #[error("the force token is for the zone {token}, not for {asked}")]
    Zone {
        /// The token's zone.
        token: String,
        /// The zone of the change.
        asked: String,
    },
    /// It was made for other changes.
    #[error("the force token is for another set of changes ({token}); the digest of this one is {asked}")]
    Changes {
        /// The token's digest.
        token: String,
        /// The digest of the changes.
        asked: String,
    },
    /// Before its time.
    #[error("the force token holds from {0} seconds since 1970 only")]
    TooEarly(i64),
    /// After its time.
    #[error("the force token expired at {0} seconds since 1970; issue another")]
    Expired(i64),
    /// Longer than the policy allows, or not at all.
    #[error("the force token would hold for {asked} s; the policy allows up to {most} s")]
    Validity {
        /// The token's.
        asked: i64,
        /// The policy's.
        most: i64,
    },
    /// No key of this person stands in the policy.
    #[error("the zone's policy has no key of {0} under `force.keys`")]
    UnknownPerson(String),
    /// A signature is wrong.
    #[error("the signature of {0} does not fit the force token")]
    Signature(String),
    /// One signature where two are asked for.
    #[error("a second person must approve the force token")]
    NotApproved,
    /// Both signatures are one person's.
    #[error("the force token is issued and approved by the same person; the rule is two")]
    SamePerson,
    /// A seed that has not 32 octets.
    #[error("the seed of an Ed25519 key has 32 octets")]
    Seed,
}

/// A token that was checked for one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedForce(Claims);

impl VerifiedForce {
    /// What it says.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.0
    }

    /// Whether it lifts a rule for a zone.
    #[must_use]
    pub fn allows(&self, zone: &Name, rule: &str) -> bool {
        self.0.zone.parse::<Name>().as_ref() == Ok(zone) && self.0.rules.iter().any(|listed| listed == rule)
    }
}

/// The token with the issuer's signature.
///
/// # Errors
/// [`ForceError::Payload`] when the claims cannot be written.
pub fn issue(claims: &Claims, key: &SigningKey) -> Result<String, ForceError> {
    let json = serde_json::to_vec(claims).map_err(|error| ForceError::Payload(error.to_string()))?;
    let signed = format!("{VERSION}.{}", BASE64_URL_SAFE_NO_PAD.encode(json));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.0.sign(signed.as_bytes()));
    Ok(format!("{signed}.{signature}"))
}

/// What an issued token says, for the approver to read. Nothing is verified.
///
/// # Errors
/// It is not a token.
pub fn read_claims(token: &str) -> Result<Claims, ForceError> {
    parse(token).map(|parts| parts.claims)
}

/// The token with the approver's signature behind the issuer's.
///
/// # Errors
/// It is not a token that waits for an approval.
pub fn approve(token: &str, key: &SigningKey) -> Result<String, ForceError> {
    let parts = parse(token)?;
    if parts.approval.is_some() || parts.claims.approved_by.is_none() {
        return Err(ForceError::Form);
    }
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.0.sign(parts.signed.as_bytes()));
    Ok(format!("{token}.{signature}"))
}

/// Checks a token for one set of changes of one zone; `now` is in seconds since 1970, `changes` the digest of the changes.
///
/// # Errors
/// Why it does not count.
pub fn verify_force(
    token: &str,
    policy: &ForcePolicy,
    zone: &Name,
    changes: &str,
    now: i64,
) -> Result<VerifiedForce, ForceError> {
    let Parts { signed, claims, issue, approval } = parse(token)?;
    let issuer = signer(policy, &claims.issued_by, signed, &issue)?;
    match (&claims.approved_by, approval) {
        (Some(person), Some(signature)) => {
            let approver = signer(policy, person, signed, &signature)?;
            // Two names for one key are one person.
            if approver == issuer || *person == claims.issued_by {
                return Err(ForceError::SamePerson);
            }
        }
        (None, None) if policy.signatures < 2 => {}
        (None, Some(_)) => return Err(ForceError::Form),
        _ => return Err(ForceError::NotApproved),
    }
    let validity = claims.expires.saturating_sub(claims.not_before);
    if claims.zone.parse::<Name>().as_ref() != Ok(zone) {
        return Err(ForceError::Zone { token: claims.zone, asked: zone.to_string() });
    }
    if claims.changes != changes {
        return Err(ForceError::Changes { token: claims.changes, asked: changes.to_owned() });
    }
    if validity <= 0 || validity > policy.max_seconds {
        return Err(ForceError::Validity { asked: validity, most: policy.max_seconds });
    }
    if now < claims.not_before {
        return Err(ForceError::TooEarly(claims.not_before));
    }
    if now >= claims.expires {
        return Err(ForceError::Expired(claims.expires));
    }
    Ok(VerifiedForce(claims))
}

fn signer<'p>(
    policy: &'p ForcePolicy,
    person: &str,
    signed: &str,
    signature: &[u8],
) -> Result<&'p PublicKey, ForceError> {
    let key = policy.keys.get(person).ok_or_else(|| ForceError::UnknownPerson(person.to_owned()))?;
    if key.verifies(signed.as_bytes(), signature) { Ok(key) } else { Err(ForceError::Signature(person.to_owned())) }
}

struct Parts<'t> {
    /// Version and payload, as they were signed.
    signed: &'t str,
    claims: Claims,
    issue: Vec<u8>,
    approval: Option<Vec<u8>>,
}

fn parse(token: &str) -> Result<Parts<'_>, ForceError> {
    let token = Some(token).filter(|token| token.len() <= MAX_TOKEN_LEN).ok_or(ForceError::Form)?;
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| ForceError::Form);
    let parts: Vec<&str> = token.split('.').collect();
    let (payload, issue, approval) = match parts.as_slice() {
        [VERSION, payload, issue] => (payload, issue, None),
        [VERSION, payload, issue, approval] => (payload, issue, Some(decode(approval)?)),
        _ => return Err(ForceError::Form),
    };
    let claims = serde_json::from_slice(&decode(payload)?).map_err(|error| ForceError::Payload(error.to_string()))?;
    let signed = &token[..VERSION.len() + 1 + payload.len()];
    Ok(Parts { signed, claims, issue: decode(issue)?, approval })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; KEY_LEN]).expect("32 octets")
    }

    fn zone() -> Name {
        "example.com".parse().expect("a name")
    }

    fn policy() -> ForcePolicy {
        let people = [("alice", 1), ("bob", 2), ("alice-again", 1)];
        let keys = people.map(|(person, seed)| (person.to_owned(), key(seed).public_key()));
        ForcePolicy { keys: keys.into(), ..ForcePolicy::default() }
    }

    fn claims() -> Claims {
        Claims {
            zone: "Example.com.".to_owned(),
            rules: vec!["freeze".to_owned()],
            reason: "outage 42".to_owned(),
            issued_by: "alice".to_owned(),
            approved_by: Some("bob".to_owned()),
            not_before: NOW,
            expires: NOW + 600,
            changes: "abc".to_owned(),
        }
    }

    fn token(claims: &Claims, issuer: u8, approver: u8) -> String {
        approve(&issue(claims, &key(issuer)).expect("plain data"), &key(approver)).expect("it waits for approval")
    }

    fn check(token: &str, expected: &Result<(), ForceError>) {
        let found = verify_force(token, &policy(), &zone(), "abc", NOW + 1).map(|_| ());
        assert_eq!(&found, expected, "{token}");
    }

    #[test]
    fn two_people_open_the_rules_that_they_name() {
        let token = token(&claims(), 1, 2);
        let force = verify_force(&token, &policy(), &zone(), "abc", NOW).expect("a good token");
        assert_eq!(force.claims(), &claims());
        assert!(force.allows(&zone(), "freeze"));
        assert!(!force.allows(&zone(), "ttl"));
        assert!(!force.allows(&"example.net".parse().expect("a name"), "freeze"));
        assert_eq!(read_claims(&token), Ok(claims()));
    }

    #[test]
    fn a_token_holds_for_its_time() {
        let token = token(&claims(), 1, 2);
        let at = |now| verify_force(&token, &policy(), &zone(), "abc", now).map(|_| ());
        assert_eq!(at(NOW - 1), Err(ForceError::TooEarly(NOW)));
        assert_eq!(at(NOW + 599), Ok(()));
        assert_eq!(at(NOW + 600), Err(ForceError::Expired(NOW + 600)));
        for (not_before, expires) in [(NOW, NOW + 86_401), (NOW, NOW), (i64::MIN, i64::MAX), (NOW, NOW - 1)] {
            let claims = Claims { not_before, expires, ..claims() };
            let found = verify_force(&self::token(&claims, 1, 2), &policy(), &zone(), "abc", NOW);
            assert!(matches!(found, Err(ForceError::Validity { .. })), "{found:?}");
        }
    }

    #[test]
    fn a_token_holds_for_its_zone_and_changes() {
        let token = token(&claims(), 1, 2);
        let found = verify_force(&token, &policy(), &"example.net".parse().expect("a name"), "abc", NOW);
        assert!(matches!(found, Err(ForceError::Zone { .. })), "{found:?}");
        let found = verify_force(&token, &policy(), &zone(), "abd", NOW);
        assert!(matches!(found, Err(ForceError::Changes { .. })), "{found:?}");
    }

    #[test]
    fn a_token_is_signed_by_people_of_the_policy() {
        let unknown = |person: &str| Err(ForceError::UnknownPerson(person.to_owned()));
        let wrong = |person: &str| Err(ForceError::Signature(person.to_owned()));
        check(&token(&Claims { issued_by: "eve".to_owned(), ..claims() }, 1, 2), &unknown("eve"));
        check(&token(&Claims { approved_by: Some("eve".to_owned()), ..claims() }, 1, 2), &unknown("eve"));
        check(&token(&claims(), 3, 2), &wrong("alice"));
        check(&token(&claims(), 1, 3), &wrong("bob"));
        // The payload of one token under the signatures of another.
        let (a, b) = (token(&claims(), 1, 2), token(&Claims { rules: vec!["ttl".to_owned()], ..claims() }, 1, 2));
        let mixed: Vec<&str> = a.split('.').take(2).chain(b.split('.').skip(2)).collect();
        check(&mixed.join("."), &wrong("alice"));
    }

    #[test]
    fn one_person_is_not_two() {
        check(
            &token(&Claims { approved_by: Some("alice".to_owned()), ..claims() }, 1, 1),
            &Err(ForceError::SamePerson),
        );
        check(
            &token(&Claims { approved_by: Some("alice-again".to_owned()), ..claims() }, 1, 1),
            &Err(ForceError::SamePerson),
        );
        let alone = issue(&Claims { approved_by: None, ..claims() }, &key(1)).expect("plain data");
        check(&alone, &Err(ForceError::NotApproved));
        check(&issue(&claims(), &key(1)).expect("plain data"), &Err(ForceError::NotApproved));
        assert!(approve(&alone, &key(2)).is_err());
        assert!(approve(&token(&claims(), 1, 2), &key(2)).is_err());
        let single = ForcePolicy { signatures: 1, ..policy() };
        assert!(verify_force(&alone, &single, &zone(), "abc", NOW).is_ok());
        // Who asks for an approval waits for it.
        let waiting = issue(&claims(), &key(1)).expect("plain data");
        assert_eq!(verify_force(&waiting, &single, &zone(), "abc", NOW), Err(ForceError::NotApproved));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = token(&claims(), 1, 2);
        for wrong in [
            "",
            "v1",
            "v1..",
            "v2.a.b",
            "v1.!.b",
            &good[1..],
            // The version is signed, and no other is known.
            &good.replacen("v1", "v2", 1),
            &good.replacen("v1", "V1", 1),
            &format!("{good}.x"),
            &good.replace('.', ","),
            &"v1.".repeat(6_000),
        ] {
            let found = verify_force(wrong, &policy(), &zone(), "abc", NOW);
            assert!(matches!(found, Err(ForceError::Form | ForceError::Payload(_))), "{wrong}: {found:?}");
        }
        assert!(SigningKey::from_seed(&[0; 31]).is_err());
        assert_eq!(format!("{:?}", key(1)), "SigningKey(..)");
        assert_eq!(PublicKey::from_base64(&key(1).public_key().to_base64()), Some(key(1).public_key()));
    }
}
