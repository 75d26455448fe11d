//! Force tokens: leave to break guardrails, signed by people with keys of their own.
//!
//! Signing needs no server and no declaration: it can be done on the machine that holds the key.

use super::{Ended, Step, failed};
use crate::cli::{USAGE, complain, print};
use crate::reload::unix_seconds;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use gateward_zone::Name;
use gateward_zone::force::{Claims, KEY_LEN, SigningKey, approve, issue, read_claims};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Octets of a key file or token that are read.
const MAX_FILE: u64 = 32_768;
/// Octets of a digest of changes, as hexadecimal digits.
const DIGEST_DIGITS: usize = 64;
const SECONDS_PER_HOUR: i64 = 3_600;

pub(super) const AFTER_HELP: &str = "\
Guardrails of a zone refuse some changes to everybody. Two people who stand in the zone's policy can make an exception:
one issues a token, the other reads it and approves it. It holds for one zone, one set of changes and some hours.

  1. Once, each of them:  gateward domain force-token keygen --out alice.key
     The printed line goes into the declaration, under guardrails: force: keys:, and is applied.
  2. `gateward domain plan` says what is refused, and prints the command that issues a token for it.
  3. One of them:         gateward domain force-token issue --zone example.com --changes DIGEST --rule protected-zone \\
                            --reason 'ticket 42' --issuer alice --approver bob --key alice.key > token
  4. The other:           gateward domain force-token approve --token-file token --key bob.key > approved
  5. Whoever applies:     gateward domain apply --plan plan.json --force-token \"$(cat approved)\"

Where a policy says `signatures: 1`, leave --approver away; the issued token is complete then.
Exit codes: 0 done; 1 failure; 2 wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Make a key for one person, and print its public half for the declaration
    Keygen(Keygen),
    /// Sign a token as the first person
    Issue(Issue),
    /// Show what a token is for, and sign it as the second person
    Approve(Approve),
    /// Show what a token is for; nothing is verified
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The file of the private key; it must not be there yet, and nobody else can read it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// The zone
    #[arg(long, value_name = "ZONE")]
    zone: String,
    /// The digest of the changes, as `gateward domain plan` or a refusal shows it
    #[arg(long, value_name = "DIGEST")]
    changes: String,
    /// A rule that may be broken, as the refusal names it; give all of them
    #[arg(long = "rule", value_name = "RULE", required = true)]
    rules: Vec<String>,
    /// Why; goes to the servers' audit logs
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who signs now, by the name in the zone's policy
    #[arg(long, value_name = "PERSON")]
    issuer: String,
    /// Who has to approve it; not given where a policy asks for one signature only
    #[arg(long, value_name = "PERSON")]
    approver: Option<String>,
    /// The private key of the issuer
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Hours from now on that it holds; policies bound them
    #[arg(long, value_name = "HOURS", default_value = "4", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    hours: i64,
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The file with the issued token; - is standard input
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The private key of the approver
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The file with the token; - is standard input
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

/// Runs a command.
pub(super) fn run(arguments: &Arguments) -> Step<ExitCode> {
    match arguments {
        Arguments::Keygen(keygen) => print(&keygen.run()?),
        Arguments::Issue(issue) => print(&format!("{}\n", issue.run(now())?)),
        Arguments::Approve(approve) => print(&format!("{}\n", approve.run()?)),
        Arguments::Show(show) => print(&told(&claims(&token(&show.token_file)?)?)),
    }
    Ok(ExitCode::SUCCESS)
}

impl Keygen {
    fn run(&self) -> Step<String> {
        let mut seed = [0; KEY_LEN];
        getrandom::fill(&mut seed).map_err(|error| failed(&format!("no randomness: {error}")))?;
        let key = SigningKey::from_seed(&seed).map_err(|error| failed(&error))?;
        let text = format!("{}\n", BASE64_STANDARD.encode(seed));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.out);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| failed(&format!("cannot write {}: {error}", self.out.display())))?;
        let person = self.out.file_stem().map_or("NAME".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(format!("guardrails: {{ force: {{ keys: {{ {person}: \"{}\" }} }} }}\n", key.public_key().to_base64()))
    }
}

impl Issue {
    fn run(&self, now: i64) -> Step<String> {
        let zone = self.zone.parse::<Name>().map_err(|error| wrong(&format!("--zone: {error}")))?;
        let hexadecimal = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
        if self.changes.len() != DIGEST_DIGITS || !self.changes.bytes().all(hexadecimal) {
            return Err(wrong(
                "--changes: a digest has 64 digits, 0 to 9 and a to f, as `gateward domain plan` shows it",
            ));
        }
        if self.reason.trim().is_empty() {
            return Err(wrong("--reason: say why; it goes to the audit log"));
        }
        if self.approver.as_ref() == Some(&self.issuer) {
            return Err(wrong("--approver: the issuer cannot approve; the rule is two people"));
        }
        let claims = Claims {
            zone: zone.to_string(),
            rules: self.rules.clone(),
            reason: self.reason.clone(),
            issued_by: self.issuer.clone(),
            approved_by: self.approver.clone(),
            not_before: now,
            expires: now.saturating_add(self.hours.saturating_mul(SECONDS_PER_HOUR)),
            changes: self.changes.clone(),
        };
        issue(&claims, &key(&self.key)?).map_err(|error| failed(&error))
    }
}

impl Approve {
    fn run(&self) -> Step<String> {
        let token = token(&self.token_file)?;
        let claims = claims(&token)?;
        complain(told(&claims).trim_end());
        if claims.approved_by.is_none() {
            return Err(failed(&"the token waits for no approval: it was issued without --approver"));
        }
        approve(&token, &key(&self.key)?).map_err(|_| failed(&"the token has both signatures already"))
    }
}

/// What the approver has to read.
fn told(claims: &Claims) -> String {
    let Claims { zone, rules, reason, issued_by, approved_by, not_before, expires, changes } = claims;
    let mut text = String::new();
    let hours = expires.saturating_sub(*not_before) / SECONDS_PER_HOUR;
    let left = expires.saturating_sub(now());
    let state = if left > 0 { format!("{} minutes of them are left", left / 60) } else { "they are over".to_owned() };
    let rows: [(&str, &str); 7] = [
        ("zone", zone.as_str()),
        ("changes", changes),
        ("rules", &rules.join(", ")),
        ("reason", reason),
        ("issued by", issued_by),
        ("to be approved by", approved_by.as_deref().unwrap_or("nobody")),
        ("holds for", &format!("{hours} hours; {state}")),
    ];
    for (name, value) in rows {
        // What a token says was written by others: it must neither steer a terminal nor change the order of what is read.
        let _ = writeln!(text, "{name:<18} {}", value.escape_debug());
    }
    text
}

fn claims(token: &str) -> Step<Claims> {
    read_claims(token).map_err(|error| failed(&error))
}

/// A private key: 32 octets in Base64.
fn key(path: &Path) -> Step<SigningKey> {
    let text = text(path)?;
    let seed = BASE64_STANDARD.decode(text.trim()).ok();
    let key = seed.and_then(|seed| SigningKey::from_seed(&seed).ok());
    key.ok_or_else(|| failed(&format!("{} holds no key as `force-token keygen` makes it", path.display())))
}

fn token(path: &Path) -> Step<String> {
    text(path).map(|text| text.trim().to_owned())
}

/// A small file's text; of standard input for `-`.
fn text(path: &Path) -> Step<String> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text),
        false => std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)),
    };
    read.map_err(|error| failed(&format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

/// Seconds since 1970.
fn now() -> i64 {
    i64::try_from(unix_seconds()).unwrap_or(i64::MAX)
}

fn wrong(message: &str) -> Ended {
    complain(&format!("error: {message}"));
    Ended(ExitCode::from(USAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_zone::force::{ForcePolicy, PublicKey, verify_force};

    const NOW: i64 = 1_800_000_000;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gateward-force-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        /// A person's key file and the public half that was printed.
        fn person(&self, name: &str) -> (PathBuf, PublicKey) {
            let out = self.0.join(format!("{name}.key"));
            let printed = done(Keygen { out: out.clone() }.run());
            assert!(printed.starts_with(&format!("guardrails: {{ force: {{ keys: {{ {name}: ")), "{printed}");
            (out, PublicKey::from_base64(printed.split('"').nth(1).unwrap()).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn done<T>(step: Step<T>) -> T {
        step.unwrap_or_else(|_| panic!("it failed"))
    }

    fn asked(key: &Path, approver: Option<&str>) -> Issue {
        Issue {
            zone: "example.com".to_owned(),
            changes: "0123456789abcdef".repeat(4),
            rules: vec!["protected-zone".to_owned(), "freeze".to_owned()],
            reason: "ticket 42".to_owned(),
            issuer: "alice".to_owned(),
            approver: approver.map(str::to_owned),
            key: key.to_owned(),
            hours: 2,
        }
    }

    #[test]
    fn two_people_sign_what_servers_take() {
        let folder = Folder::new("two");
        let ((alice, first), (bob, second)) = (folder.person("alice"), folder.person("bob"));
        let issued = done(asked(&alice, Some("bob")).run(NOW));
        let file = folder.0.join("token");
        std::fs::write(&file, format!("{issued}\n")).unwrap();
        let approved = done(Approve { token_file: file.clone(), key: bob.clone() }.run());
        let policy = ForcePolicy {
            keys: [("alice".to_owned(), first), ("bob".to_owned(), second)].into(),
            ..ForcePolicy::default()
        };
        let zone: Name = "example.com".parse().unwrap();
        let digest = "0123456789abcdef".repeat(4);
        let verified = verify_force(&approved, &policy, &zone, &digest, NOW + 7_199).unwrap();
        assert!(verified.allows(&zone, "freeze") && verified.allows(&zone, "protected-zone"));
        assert!(verify_force(&approved, &policy, &zone, &digest, NOW + 7_200).is_err());
        assert!(verify_force(&issued, &policy, &zone, &digest, NOW).is_err(), "one signature is not two");
        let read = told(&read_claims(&approved).unwrap());
        assert!(
            read.contains("ticket 42") && read.contains("protected-zone, freeze") && read.contains("2 hours"),
            "{read}"
        );
        std::fs::write(&file, approved).unwrap();
        assert!(Approve { token_file: file, key: bob }.run().is_err(), "it has both signatures");
    }

    #[test]
    fn what_cannot_be_a_token_is_not_signed() {
        let folder = Folder::new("wrong");
        let (key, _) = folder.person("alice");
        assert!(asked(&key, None).run(NOW).is_ok());
        assert!(asked(&key, Some("alice")).run(NOW).is_err());
        assert!(Issue { changes: "abc".to_owned(), ..asked(&key, None) }.run(NOW).is_err());
        assert!(Issue { reason: " ".to_owned(), ..asked(&key, None) }.run(NOW).is_err());
        assert!(Issue { zone: "a..b".to_owned(), ..asked(&key, None) }.run(NOW).is_err());
        assert!(Keygen { out: key.clone() }.run().is_err(), "a key is not overwritten");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&key, "c2hvcnQ=").unwrap();
        assert!(asked(&key, None).run(NOW).is_err());
        let alone = folder.0.join("alone");
        std::fs::write(&alone, "v1.x.y").unwrap();
        assert!(Approve { token_file: alone, key }.run().is_err());
    }
}
