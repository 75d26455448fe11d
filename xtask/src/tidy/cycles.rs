//! No cycles between the top-level modules of a crate.
//!
//! An edge goes from the module a file belongs to, to each module it names by `crate::module`, or by
//! `crate::Item` where the crate's root re-exports the item from a module. Unit tests do not count. Globs and, in
//! folders, paths through `super` are not followed: by convention they stay within one subject.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{code_only, production};
use super::{Finding, TextFile};

/// From a module to those it names, with the place where it does.
type Edges = BTreeMap<String, BTreeMap<String, String>>;

/// Checks every crate's `src` folder.
pub(crate) fn all(files: &[TextFile]) -> Vec<Finding> {
    let mut crates: BTreeMap<&str, Vec<&TextFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        if let Some((name, _)) = file.path.split_once("/src/") {
            crates.entry(name).or_default().push(file);
        }
    }
    crates.iter().flat_map(|(name, files)| one(name, files)).collect()
}

fn one(name: &str, files: &[&TextFile]) -> Vec<Finding> {
    let edges = edges(name, files);
    let mut findings = Vec::new();
    let mut reported = BTreeSet::new();
    for start in edges.keys() {
        if let Some(cycle) = cycle_through(start, &edges) {
            let members: BTreeSet<_> = cycle.iter().cloned().collect();
            if reported.insert(members) {
                findings.push(Finding::error(name, describe(&cycle, &edges)));
            }
        }
    }
    findings
}

fn describe(cycle: &[String], edges: &Edges) -> String {
    let around = cycle.iter().zip(cycle.iter().cycle().skip(1));
    let places = around.filter_map(|(from, to)| edges.get(from)?.get(to)).cloned().collect::<Vec<_>>().join(", ");
    format!("modules depend on each other: {} -> {}: {places}; move the shared part", cycle.join(" -> "), cycle[0])
}

fn edges(name: &str, files: &[&TextFile]) -> Edges {
    let for_tests = test_modules(files);
    let files: Vec<_> = files.iter().filter(|file| !is_test(&file.path, &for_tests)).collect();
    let modules: BTreeSet<String> = files.iter().filter_map(|file| module_of(name, &file.path)).collect();
    let mut exported = BTreeMap::new();
    for file in files.iter().filter(|file| file.path == format!("{name}/src/lib.rs")) {
        exported = exports(&code_only(&file.text), &modules);
    }
    let mut edges = Edges::new();
    for file in files {
        let Some(from) = module_of(name, &file.path) else { continue };
        let mut code = code_only(production(&file.text));
        if file.path == format!("{name}/src/{from}.rs") {
            // In a file directly below the root, `super` is the root.
            code = code.replace("super::", "crate::");
        }
        for first in first_segments(&code) {
            let place =
                format!("{} names crate::{first}", file.path.trim_start_matches(name).trim_start_matches("/src/"));
            let to = if modules.contains(&first) { Some(first) } else { exported.get(&first).cloned() };
            if let Some(to) = to.filter(|to| *to != from) {
                edges.entry(from.clone()).or_default().entry(to).or_insert(place);
            }
        }
    }
    edges
}

/// Modules in files of their own that exist for tests only: `#[cfg(test)] mod x;`.
fn test_modules(files: &[&TextFile]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files {
        let code = code_only(&file.text);
        for item in code.split("#[cfg(test)]").skip(1) {
            let declared = item.split(['{', ';']).next().unwrap_or_default();
            if let Some((_, name)) = declared.split_once("mod ") {
                names.insert(name.trim().to_owned());
            }
        }
    }
    names
}

fn is_test(path: &str, for_tests: &BTreeSet<String>) -> bool {
    path.split('/').any(|part| for_tests.contains(part.strip_suffix(".rs").unwrap_or(part)))
}

/// `crates/a/src/x.rs` and `crates/a/src/x/y.rs` belong to `x`; roots and separate programs to none.
fn module_of(name: &str, path: &str) -> Option<String> {
    let rest = path.strip_prefix(name)?.strip_prefix("/src/")?;
    let first = rest.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(module, "lib" | "main" | "bin")).then(|| module.to_owned())
}

/// Items that the crate's root re-exports, with the module each comes from.
fn exports(code: &str, modules: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut items = BTreeMap::new();
    for statement in code.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let path = statement.trim_start_matches("crate::").trim_start_matches("self::");
        let Some((module, names)) = path.split_once("::") else { continue };
        if modules.contains(module.trim()) {
            for item in words(names) {
                items.insert(item.to_owned(), module.trim().to_owned());
            }
        }
    }
    items
}

/// The first segment of every path that starts at `crate::`, groups included.
fn first_segments(code: &str) -> BTreeSet<String> {
    let mut segments = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => segments.extend(group_heads(group)),
            None => segments.extend(words(rest).next().map(str::to_owned)),
        }
    }
    segments
}

/// `{a, b::{c, d}, e}` after its opening brace: a, b, e.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0_usize, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        let ends_item = depth == 0 && matches!(letter, ',' | '}');
        if ends_item {
            heads.extend(words(&group[start..at]).next().map(str::to_owned));
            start = at + 1;
        }
        match letter {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty())
}

/// The shortest way from `start` back to itself.
fn cycle_through(start: &str, edges: &Edges) -> Option<Vec<String>> {
    let mut queue = std::collections::VecDeque::from([vec![start.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(path) = queue.pop_front() {
        let last = path.last()?;
        for next in edges.get(last).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(path);
            }
            if seen.insert(next.clone()) {
                queue.push_back(path.iter().cloned().chain([next.clone()]).collect());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::testing::{file, lines};

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|(path, text)| file(&format!("crates/x/src/{path}"), text)).collect();
        lines(&all(&files))
    }

    #[test]
    fn modules_that_use_each_other_are_found_once() {
        let found = check(&[("a.rs", "use crate::b::B;"), ("b/mod.rs", ""), ("b/deep.rs", "fn f(x: crate::a::A) {}")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("a -> b -> a"), "{found:?}");
    }

    #[test]
    fn a_cycle_through_a_group_or_a_re_export_is_found() {
        assert_eq!(
            check(&[("a.rs", "use crate::{c::{d, e}, b};"), ("b.rs", "use crate::a::A;"), ("c.rs", "")]).len(),
            1
        );
        let root = ("lib.rs", "mod a; mod b; pub use a::{A, Other};");
        assert_eq!(check(&[root, ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::A;")]).len(), 1);
    }

    #[test]
    fn a_cycle_of_three_is_found() {
        assert_eq!(check(&[("a.rs", "use crate::b;"), ("b.rs", "use crate::c;"), ("c.rs", "use crate::a;")]).len(), 1);
    }

    #[test]
    fn one_way_use_comments_and_tests_are_fine() {
        let tests = "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
        assert_eq!(
            check(&[("a.rs", "use crate::b::B;"), ("b.rs", &format!("// crate::a\n{tests}"))]),
            Vec::<String>::new()
        );
        assert_eq!(
            check(&[("a.rs", "use crate::b;"), ("b.rs", ""), ("main.rs", "use crate::a;")]),
            Vec::<String>::new()
        );
    }
}
