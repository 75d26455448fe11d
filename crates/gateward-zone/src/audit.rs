//! The audit log: one JSON line for each change, each with the hash of the one before, so that a line that is altered, left out
//! or put in shows.
//!
//! A line begins with `previous`, the hash of the line before, and ends with `hash`, SHA-256 over all octets before it. Whoever can write
//! the file can rewrite it from some line on; copying the last hash elsewhere from time to time is what makes that show as well.

use serde::Serialize;
use sha2::{Digest, Sha256};

use domain::utils::base16;

use crate::diff::{digest, to_text_diff};
use crate::force::VerifiedForce;
use crate::name::Name;
use crate::policy::{Actor, Refusal};
use crate::view::Change;

/// What stands before the first line.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Longest text of a difference in one line; the digest covers all of it.
pub const MAX_DIFF_BYTES: usize = 65_536;

const HASH_FIELD: &str = ",\"hash\":\"";

/// What happened to a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// Who.
    pub actor: String,
    /// The way it came in: file, api, update, plan or lease.
    pub kind: &'static str,
    /// The TSIG key of an update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The zone.
    pub zone: String,
    /// What was done: `write`, `create`, `delete`, `rollback`, ...
    pub action: &'static str,
    /// The serial before; none for a new zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_serial: Option<u32>,
    /// The serial after; none for a zone that went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_serial: Option<u32>,
    /// The digest of the changes.
    pub changes: String,
    /// The changes as text, up to [`MAX_DIFF_BYTES`].
    pub diff: String,
    /// The rules that a force token lifted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<&'static str>,
    /// Who forced it and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<ForceNote>,
}

/// What the audit log keeps of a force token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForceNote {
    /// Who issued it.
    pub issued_by: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Why.
    pub reason: String,
}

impl AuditEntry {
    /// An entry for changes that were made; `now` is in seconds since 1970.
    #[must_use]
    pub fn new(now: i64, actor: &Actor, zone: &Name, action: &'static str, changes: &[Change]) -> Self {
        AuditEntry {
            time: jiff::Timestamp::from_second(now).map(|time| time.to_string()).unwrap_or_default(),
            actor: actor.name.clone(),
            kind: actor.kind.as_str(),
            key: actor.key.as_ref().map(ToString::to_string),
            zone: zone.to_string(),
            action,
            from_serial: None,
            to_serial: None,
            changes: digest(zone, changes),
            diff: bounded_diff(zone, changes),
            overridden: Vec::new(),
            force: None,
        }
    }

    /// The serials before and after.
    #[must_use]
    pub fn serials(self, from: Option<u32>, to: Option<u32>) -> Self {
        AuditEntry { from_serial: from, to_serial: to, ..self }
    }

    /// The rules that were lifted, and by which token.
    #[must_use]
    pub fn forced(self, overridden: &[Refusal], force: Option<&VerifiedForce>) -> Self {
        let note = force.map(VerifiedForce::claims).map(|claims| ForceNote {
            issued_by: claims.issued_by.clone(),
            approved_by: claims.approved_by.clone(),
            reason: claims.reason.clone(),
        });
        let overridden: Vec<_> = overridden.iter().map(|refusal| refusal.rule).collect();
        AuditEntry { force: note.filter(|_| !overridden.is_empty()), overridden, ..self }
    }
}

fn bounded_diff(zone: &Name, changes: &[Change]) -> String {
    let mut text = String::new();
    for (index, change) in changes.iter().enumerate() {
        let line = to_text_diff(zone, std::slice::from_ref(change));
        if text.len() + line.len() > MAX_DIFF_BYTES {
            text.push_str(&format!("... and {} more\n", changes.len() - index));
            break;
        }
        text.push_str(&line);
    }
    text
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// The line without its line break.
    pub line: String,
    /// Its hash: the next line's `previous`.
    pub hash: String,
}

/// The line for an entry that follows the line with the hash `previous` ([`GENESIS`] at the start).
///
/// # Panics
/// Never: an entry is plain data.
#[must_use]
pub fn append(previous: &str, entry: &AuditEntry) -> AuditLine {
    let json = serde_json::to_string(entry).expect("an entry is plain data");
    let open = format!("{{\"previous\":\"{previous}\",{}", &json[1..json.len() - 1]);
    let hash = hash_of(&open);
    AuditLine { line: format!("{open}{HASH_FIELD}{hash}\"}}"), hash }
}

fn hash_of(text: &str) -> String {
    base16::encode_string(&Sha256::digest(text.as_bytes())[..]).to_ascii_lowercase()
}

/// Where a log was tampered with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the audit log: {message}")]
pub struct AuditError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Checks a log from the line that follows the hash `previous` ([`GENESIS`] for a whole log); returns the last line's hash.
///
/// # Errors
/// The first line that does not fit the ones before.
pub fn verify<'a>(previous: &str, lines: impl IntoIterator<Item = &'a str>) -> Result<String, AuditError> {
    let mut expected = previous.to_owned();
    for (index, line) in lines.into_iter().enumerate() {
        let wrong = |message: &str| AuditError { line: index + 1, message: message.to_owned() };
        let (open, end) =
            line.rsplit_once(HASH_FIELD).ok_or_else(|| wrong("it has no hash; it may have been cut off"))?;
        let hash = end.strip_suffix("\"}").ok_or_else(|| wrong("it goes on behind its hash, or is cut off there"))?;
        if hash_of(open) != hash {
            return Err(wrong("its content does not fit its hash: it was changed after it was written"));
        }
        let rest = open.strip_prefix("{\"previous\":\"").and_then(|rest| rest.strip_prefix(expected.as_str()));
        if !rest.is_some_and(|rest| rest.starts_with("\",")) {
            return Err(wrong(
                "it does not follow the line before it: lines were removed, added or put into another order",
            ));
        }
        hash.clone_into(&mut expected);
    }
    Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ActorKind;
    use crate::presentation::parse_record;

    fn entry(number: i64) -> AuditEntry {
        let zone: Name = "example.com".parse().expect("a name");
        let record = parse_record(&format!("w{number} 60 TXT \"a \\\" b\""), &zone, None).expect("a record");
        let actor =
            Actor { name: "alice \"\n".to_owned(), key: Some("k".parse().expect("a name")), kind: ActorKind::Update };
        AuditEntry::new(1_800_000_000 + number, &actor, &zone, "write", &[Change::Add(record)])
            .serials(Some(1), Some(2))
    }

    fn log(count: i64) -> Vec<String> {
        let mut hash = GENESIS.to_owned();
        let line = |number| {
            let AuditLine { line, hash: next } = append(&hash, &entry(number));
            hash = next;
            line
        };
        (0..count).map(line).collect()
    }

    fn check(lines: &[String]) -> Result<String, usize> {
        verify(GENESIS, lines.iter().map(String::as_str)).map_err(|error| error.line)
    }

    #[test]
    fn a_log_verifies_and_is_json() {
        let lines = log(5);
        let last = check(&lines).expect("a good log");
        let value: serde_json::Value = serde_json::from_str(&lines[4]).expect("JSON");
        assert_eq!(value["hash"], *last);
        assert_eq!(value["diff"], "+ w4 60 IN TXT \"a \\\" b\"\n");
        assert_eq!(
            (&value["time"], &value["kind"], &value["to_serial"]),
            (&"2027-01-15T08:00:04Z".into(), &"update".into(), &2.into())
        );
        let third = serde_json::from_str::<serde_json::Value>(&lines[2]).expect("JSON")["hash"].clone();
        assert_eq!(verify(third.as_str().expect("text"), lines[3..].iter().map(String::as_str)), Ok(last));
        assert_eq!(check(&[]), Ok(GENESIS.to_owned()));
    }

    #[test]
    fn what_was_changed_removed_added_or_moved_shows() {
        let lines = log(5);
        let edited = |edit: &dyn Fn(&mut Vec<String>)| {
            let mut lines = lines.clone();
            edit(&mut lines);
            check(&lines)
        };
        assert_eq!(edited(&|lines| lines[2] = lines[2].replace("w2", "w9")), Err(3));
        assert_eq!(edited(&|lines| _ = lines.remove(2)), Err(3));
        assert_eq!(edited(&|lines| lines.swap(1, 2)), Err(2));
        assert_eq!(edited(&|lines| lines.insert(1, append(GENESIS, &entry(9)).line)), Err(2));
        assert_eq!(edited(&|lines| _ = lines.remove(0)), Err(1));
        assert_eq!(edited(&|lines| lines[4].truncate(40)), Err(5));
        assert_eq!(edited(&|lines| lines[4].push(' ')), Err(5));
        assert_eq!(edited(&|lines| lines[0].clear()), Err(1));
        let every_octet = (0..lines[0].len()).all(|at| {
            let mut octets = lines[0].clone().into_bytes();
            octets[at] ^= 1;
            String::from_utf8(octets).is_ok_and(|line| check(&[line]).is_err())
        });
        assert!(every_octet);
    }

    #[test]
    fn long_differences_are_cut_and_said_to_be() {
        let zone: Name = "example.com".parse().expect("a name");
        let change = |number| {
            Change::Add(parse_record(&format!("w{number} 60 TXT {}", "x".repeat(200)), &zone, None).expect("a record"))
        };
        let changes: Vec<Change> = (0..1_000).map(change).collect();
        let text = bounded_diff(&zone, &changes);
        assert!(text.len() < MAX_DIFF_BYTES + 40 && text.ends_with(" more\n"), "{}", &text[text.len() - 40..]);
    }
}
