//! `cargo xtask tidy`: the rules of STYLE.md that neither the compiler nor clippy checks.
//!
//! Each rule is a function from text to findings in a file of its own, tested on small strings; this file reads
//! the repository and prints. What clippy checks (function length, `unwrap`, missing docs) is not repeated here.

mod cycles;
mod docs;
mod layers;
mod lexer;
mod manifest;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::root;

/// One thing to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// File or crate, with a line where there is one.
    pub(crate) place: String,
    /// What is wrong and what to do.
    pub(crate) message: String,
    /// A warning is shown but does not fail.
    pub(crate) warning: bool,
}

impl Finding {
    fn error(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), warning: false }
    }

    fn warning(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), warning: true }
    }
}

/// A text file of the repository.
pub(crate) struct TextFile {
    /// Path below the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Folders that hold what tools produce, and inputs that are bytes, not text.
const NOT_OURS: &[&str] = &["target", ".git", ".venv", "bench/out", "fuzz/corpus", "fuzz/artifacts", "fuzz/coverage"];

/// Checks the repository; true when there is nothing to change.
///
/// # Errors
/// A file cannot be read or `cargo metadata` fails.
pub(crate) fn run() -> Result<bool> {
    let files = text_files(root())?;
    let graph = layers::Graph::read()?;
    let mut findings = Vec::new();
    for file in &files {
        findings.extend(source::markers(file));
        if file.path.ends_with(".rs") {
            findings.extend(source::header(file));
            findings.extend(source::length(file));
            findings.extend(source::unsafe_code(file));
        }
        if file.path.ends_with("Cargo.toml") {
            findings.extend(manifest::lints(file));
        }
    }
    findings.extend(cycles::all(&files));
    findings.extend(layers::arrows(&graph));
    findings.extend(layers::absences(&graph));
    findings.extend(layers::chain(&graph));
    findings.extend(docs::crate_list(&files, &graph.members()));
    findings.extend(docs::decisions(&files));
    Ok(print(&findings, files.len()))
}

fn print(findings: &[Finding], files: usize) -> bool {
    for finding in findings {
        let kind = if finding.warning { "warning" } else { "error" };
        println!("{kind}: {}: {}", finding.place, finding.message);
    }
    let errors = findings.iter().filter(|finding| !finding.warning).count();
    println!("tidy: {files} files, {errors} errors, {} warnings", findings.len() - errors);
    errors == 0
}

fn text_files(root: &Path) -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let below = below(root, &path);
            if NOT_OURS.iter().any(|skipped| below == *skipped || below.ends_with(&format!("/{skipped}"))) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file()
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                files.push(TextFile { path: below, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn below(root: &Path, path: &Path) -> String {
    let relative: PathBuf = path.strip_prefix(root).unwrap_or(path).into();
    relative.to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the rules' tests share.

    use super::{Finding, TextFile};

    pub(crate) fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    /// Findings as `place: message` lines, to compare with.
    pub(crate) fn lines(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(|finding| format!("{}: {}", finding.place, finding.message)).collect()
    }
}
