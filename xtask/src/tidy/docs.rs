//! Rules about documents: ARCHITECTURE.md lists the crates that exist, decisions have their form.

use std::collections::BTreeSet;

use super::{Finding, TextFile};

const SECTIONS: &[&str] = &["## Context", "## Decision", "## Consequences"];

/// The rows of the table of crates (`| Ln | `name` | ... |`) are exactly the workspace's members.
pub(crate) fn crate_list(files: &[TextFile], members: &BTreeSet<String>) -> Vec<Finding> {
    let Some(file) = files.iter().find(|file| file.path == "ARCHITECTURE.md") else {
        return vec![Finding::error("ARCHITECTURE.md", "missing: it is the map of the code")];
    };
    let listed: BTreeSet<String> = file.text.lines().filter_map(listed_crate).collect();
    let absent = members.difference(&listed).map(|name| format!("does not list the crate `{name}`"));
    let extra = listed.difference(members).map(|name| format!("lists `{name}`, which is not in the workspace"));
    absent.chain(extra).map(|message| Finding::error("ARCHITECTURE.md", message)).collect()
}

fn listed_crate(line: &str) -> Option<String> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let layer = cells.next()?;
    let is_layer = layer == "dev" || layer.strip_prefix('L').is_some_and(|number| number.parse::<u8>().is_ok());
    let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    is_layer.then(|| name.to_owned())
}

/// `docs/adr/NNNN-title.md` with context, decision and consequences.
pub(crate) fn decisions(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let Some(name) = file.path.strip_prefix("docs/adr/") else { continue };
        if !is_decision_name(name) {
            findings.push(Finding::error(&file.path, "name it NNNN-title.md: four digits, lower-case words, hyphens"));
        }
        for section in SECTIONS.iter().filter(|section| !file.text.lines().any(|line| line == **section)) {
            findings.push(Finding::error(&file.path, format!("has no section `{section}`")));
        }
    }
    findings
}

fn is_decision_name(name: &str) -> bool {
    let Some((number, title)) = name.strip_suffix(".md").and_then(|stem| stem.split_once('-')) else { return false };
    let digits = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    let words = title.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    digits && words && !title.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::testing::{file, lines};

    #[test]
    fn a_crate_missing_from_the_list_or_only_there_is_found() {
        let text = "| layer | crate | what |\n|---|---|---|\n| L0 | `a` | x |\n| dev | `gone` | x |\n";
        let members = BTreeSet::from(["a".to_owned(), "new".to_owned()]);
        let found = lines(&crate_list(&[file("ARCHITECTURE.md", text)], &members));
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("`new`") && found[1].contains("`gone`"), "{found:?}");
        assert_eq!(crate_list(&[], &members).len(), 1);
    }

    #[test]
    fn a_decision_without_its_form_is_found() {
        let whole = "# T\n## Context\n## Decision\n## Consequences\n";
        let check = |name: &str, text: &str| decisions(&[file(&format!("docs/adr/{name}"), text)]).len();
        assert_eq!(check("0001-own-loop.md", whole), 0);
        assert_eq!(check("1-own-loop.md", whole), 1);
        assert_eq!(check("0001-Own.md", whole), 1);
        assert_eq!(check("0001-own.md", "# T\n## Context\n## Decision\n"), 1);
    }
}
