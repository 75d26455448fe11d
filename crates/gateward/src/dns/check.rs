//! `gateward dns check`: everything that is wrong in zone files, policies and keys, before a server has to say it.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{ValueEnum, ValueHint};
use gateward_dns::authority;
use gateward_dns::folder::{Folder, POLICY_SUFFIX, ZONE_SUFFIX, origin_of, read_bounded};
use gateward_dns::keys::KeyFile;
use gateward_zone::policy::Policy;
use gateward_zone::{Name, Problem, Severity, ZoneView};
use serde_json::{Value, json};

pub(crate) const AFTER_HELP: &str = "\
A zone file is named after its zone: example.com.zone. $INCLUDE leads to files of the same folder.
Every finding is FILE:LINE: severity: message (rule); what to do about it. Warnings alone are no failure.

  gateward dns check zones/                             every zone, policy and the keys of a folder
  gateward dns check example.com.zone other.zone        some files
  gateward dns check --origin example.com - < file      a text from elsewhere

Exit codes: 0 nothing wrong; 1 errors found; 2 wrong usage, or a file cannot be read.";

/// The name that means standard input.
const STANDARD_INPUT: &str = "-";

/// Flags of `gateward dns check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Zone files, policy files, folders of them; - for standard input
    #[arg(required = true, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// The zone that a file is of, when its name does not say
    #[arg(long, value_name = "NAME")]
    origin: Option<Name>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// What was found in a file.
#[derive(Debug)]
struct Checked {
    file: String,
    problems: Vec<Problem>,
    /// Records of a zone that can be read.
    records: Option<usize>,
}

impl Checked {
    fn ok(&self) -> bool {
        !self.problems.iter().any(Problem::is_error)
    }
}

/// Checks; gives what to print, and whether nothing is wrong.
///
/// # Errors
/// A path that cannot be checked at all.
pub(crate) fn run(arguments: &Arguments) -> Result<(String, bool), String> {
    let mut checked = Vec::new();
    for path in &arguments.paths {
        if path.is_dir() {
            checked.extend(folder(path)?);
        } else {
            checked.push(file(path, arguments.origin.as_ref())?);
        }
    }
    let ok = checked.iter().all(Checked::ok);
    let output = match arguments.format {
        Form::Text => text(&checked),
        Form::Json => format!("{:#}\n", as_json(&checked)),
    };
    Ok((output, ok))
}

/// Everything in a folder that a server would read.
fn folder(path: &Path) -> Result<Vec<Checked>, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    files.sort();
    let is_ours = |file: &&PathBuf| {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let is_kind = name.ends_with(ZONE_SUFFIX) || name.ends_with(POLICY_SUFFIX) || name == "keys.yaml";
        is_kind && !name.starts_with('.')
    };
    files.iter().filter(is_ours).map(|path| file(path, None)).collect()
}

fn file(path: &Path, origin: Option<&Name>) -> Result<Checked, String> {
    let shown = path.display().to_string();
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if name == "keys.yaml" {
        return Ok(keys(path, shown));
    }
    let (stem, is_policy) = match name.strip_suffix(POLICY_SUFFIX) {
        Some(stem) => (stem, true),
        None => (name.strip_suffix(ZONE_SUFFIX).unwrap_or(name), false),
    };
    let from_name = || origin_of(stem).filter(|_| name != STANDARD_INPUT);
    let origin = origin.cloned().or_else(from_name);
    let origin = origin.ok_or_else(|| format!("{shown}: the name does not say which zone it is; give --origin"))?;
    let text = if name == STANDARD_INPUT { standard_input() } else { read_bounded(path) };
    let text = text.map_err(|error| format!("{shown}: {error}"))?;
    if is_policy {
        let problems = Policy::from_yaml(&text, &origin, &shown).err().unwrap_or_default();
        return Ok(Checked { file: shown, problems, records: None });
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = Folder::at(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    Ok(match authority::parse(&text, &origin, &shown, &folder) {
        Ok(parsed) => Checked { file: shown, records: Some(parsed.zone.record_count()), problems: parsed.warnings },
        Err((problems, _)) => Checked { file: shown, problems, records: None },
    })
}

fn standard_input() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(gateward_dns::folder::FILE_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

fn keys(path: &Path, shown: String) -> Checked {
    let problem = |message: String| Problem {
        file: "".into(),
        line: 0,
        rule: "keys",
        severity: Severity::Error,
        message,
        remedy: None,
    };
    let problems = KeyFile::open(path.to_owned()).err().map(problem).into_iter().collect();
    Checked { file: shown, problems, records: None }
}

fn text(checked: &[Checked]) -> String {
    let mut out = String::new();
    for found in checked {
        for problem in &found.problems {
            out.push_str(&format!("{problem}\n"));
        }
        if found.ok() {
            let records = found.records.map(|records| format!(", {records} records")).unwrap_or_default();
            out.push_str(&format!("{}: ok{records}\n", found.file));
        }
    }
    out
}

fn as_json(checked: &[Checked]) -> Value {
    let file = |found: &Checked| json!({ "file": found.file, "ok": found.ok(), "records": found.records, "problems": found.problems });
    json!({ "files": checked.iter().map(file).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_its_place() {
        let dir = std::env::temp_dir().join(format!("gateward-dns-check-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        write("good.example.zone", "$TTL 60\n@ SOA ns hm 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n$INCLUDE part\n");
        write("part", "x A 192.0.2.2\n");
        write("bad.example.zone", "@ 60 SOA ns hm 1 2 3 4 5\nx 60 A 192.0.2\ny 60 B\n");
        write("bad.example.policy.yaml", "protected: perhaps\n");
        write("keys.yaml", "k: 7\n");
        write("notes.txt", "not ours");
        let arguments = |paths: &[&str], format| Arguments {
            paths: paths.iter().map(|path| dir.join(path)).collect(),
            origin: None,
            format,
        };
        let (text, ok) = run(&arguments(&[""], Form::Text)).unwrap();
        assert!(!ok);
        for wanted in ["bad.example.zone:2:", "bad.example.zone:3:", "policy.yaml:1:", "keys.yaml:1:", "ok, 4 records"]
        {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        assert!(!dir.join(".journal").exists(), "checking leaves nothing behind");
        let (text, ok) = run(&arguments(&["good.example.zone"], Form::Json)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(ok && json["files"][0]["records"] == 4);
        assert!(run(&arguments(&["missing.zone"], Form::Text)).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
