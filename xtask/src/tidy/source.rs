//! Rules about single files: header, length, unfinished work, unsafe code.

use super::lexer::{code_only, production};
use super::{Finding, TextFile};

const WARN_LINES: usize = 500;
const FAIL_LINES: usize = 800;

/// Crates that may allow unsafe code. Each use says why it is sound; clippy checks that it says so.
const UNSAFE_CRATES: &[&str] = &["gateward-dns", "gateward-lua", "gateward-wasm"];

/// Words for unfinished work, in two parts so that this file does not contain them.
const UNFINISHED: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X")];

/// Every file opens with `//!`: what it is, why this way, what it does not do.
pub(crate) fn header(file: &TextFile) -> Vec<Finding> {
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    if first.is_some_and(|line| line.starts_with("//!")) {
        return Vec::new();
    }
    vec![Finding::error(&file.path, "no `//!` header: say what the file is, why this way, what it does not do")]
}

/// Production lines per file. Tests, generated files and tables (`@generated`, `@table` in the header) do not count.
pub(crate) fn length(file: &TextFile) -> Vec<Finding> {
    let is_test = file.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let exempt = file.text.lines().take_while(|line| line.starts_with("//!"));
    if is_test || exempt.into_iter().any(|line| line.contains("@generated") || line.contains("@table")) {
        return Vec::new();
    }
    let lines = production(&file.text).lines().count();
    match lines {
        0..=WARN_LINES => Vec::new(),
        _ if lines <= FAIL_LINES => {
            vec![Finding::warning(&file.path, format!("{lines} production lines; more than {WARN_LINES} is much"))]
        }
        _ => {
            vec![Finding::error(&file.path, format!("{lines} production lines, limit {FAIL_LINES}: split by subject"))]
        }
    }
}

/// `unsafe` is denied by the workspace lints; only listed crates may lift that.
pub(crate) fn unsafe_code(file: &TextFile) -> Vec<Finding> {
    let listed = UNSAFE_CRATES.iter().any(|name| file.path.starts_with(&format!("crates/{name}/")));
    let code = code_only(&file.text);
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let lifts =
            ["allow(", "expect(", "warn("].iter().any(|word| line.contains(word)) && line.contains("unsafe_code");
        if lifts && !listed {
            let message = "lifts the ban on unsafe code; find a safe way or list the crate in xtask/src/tidy/source.rs";
            findings.push(Finding::error(format!("{}:{}", file.path, index + 1), message));
        }
    }
    findings
}

/// No file mentions unfinished work: main is always finished, plans live elsewhere.
pub(crate) fn markers(file: &TextFile) -> Vec<Finding> {
    if file.path.ends_with(".lock") || file.path == "LICENSE" {
        return Vec::new();
    }
    let words: Vec<String> = UNFINISHED.iter().map(|(head, tail)| format!("{head}{tail}")).collect();
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for word in words.iter().filter(|word| has_word(line, word)) {
            let message = format!("`{word}`: finish it or leave it out");
            findings.push(Finding::error(format!("{}:{}", file.path, index + 1), message));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let inside = |letter: Option<char>| letter.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !inside(before) && !inside(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::testing::{file, lines};

    #[test]
    fn a_file_without_header_is_found() {
        assert_eq!(header(&file("a.rs", "//! What.\nfn a() {}\n")), []);
        assert_eq!(header(&file("a.rs", "#!/usr/bin/env x\n\n//! What.\n")), []);
        assert_eq!(header(&file("a.rs", "// What.\nfn a() {}\n")).len(), 1);
        assert_eq!(header(&file("a.rs", "")).len(), 1);
    }

    #[test]
    fn a_long_file_warns_and_a_longer_one_fails() {
        let check = |count: usize, tail: &str| {
            let text = format!("//! What.\n{}{tail}", "x\n".repeat(count - 1));
            length(&file("a.rs", &text)).first().map(|finding| finding.warning)
        };
        assert_eq!(check(500, ""), None);
        assert_eq!(check(501, ""), Some(true));
        assert_eq!(check(800, ""), Some(true));
        assert_eq!(check(801, ""), Some(false));
        assert_eq!(check(500, &format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(900))), None);
    }

    #[test]
    fn tables_and_tests_may_be_long() {
        let long = "x\n".repeat(900);
        assert_eq!(length(&file("a.rs", &format!("//! A @table of words.\n{long}"))), []);
        assert_eq!(length(&file("e2e/tests/a.rs", &long)), []);
    }

    #[test]
    fn lifting_the_ban_on_unsafe_is_found() {
        let text = "//! What.\n#![allow(unsafe_code)]\n// allow(unsafe_code) in a comment is nothing\n";
        let found = lines(&unsafe_code(&file("crates/gateward-http/src/lib.rs", text)));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/gateward-http/src/lib.rs:2: "), "{found:?}");
    }

    #[test]
    fn unfinished_work_is_found_as_a_word() {
        let word = ["TO", "DO"].concat();
        assert_eq!(markers(&file("a.md", &format!("a\n{word}: b\n")))[0].place, "a.md:2");
        assert_eq!(markers(&file("a.md", &format!("MY{word}LIST\n"))), []);
        assert_eq!(markers(&file("Cargo.lock", &word)), []);
    }
}
