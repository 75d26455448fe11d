//! What trying plugins and filters has in common: the files of cases, and a line for each.

use crate::cli::print;
use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};

/// Cases that were run.
pub(crate) struct Tally {
    tests: PathBuf,
    passed: usize,
    failed: usize,
}

impl Tally {
    /// Of the plugin in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { tests: folder.join("tests"), passed: 0, failed: 0 }
    }

    /// Its files of cases, in order.
    ///
    /// # Errors
    /// The folder or a file cannot be read.
    pub(crate) fn files<T: DeserializeOwned>(&self) -> Result<Vec<(PathBuf, T)>> {
        let files = fs::read_dir(&self.tests).with_context(|| format!("cannot read {}", self.tests.display()))?;
        let mut files: Vec<_> = files.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "json"));
        files.sort();
        let read = |file: PathBuf| {
            let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let cases = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
            Ok((file, cases))
        };
        files.into_iter().map(read).collect()
    }

    /// Print what came of a case.
    pub(crate) fn note(&mut self, name: &str, differences: &[String]) {
        let word = if differences.is_empty() { "ok" } else { "FAILED" };
        print(&format!("{word}: {name}\n"));
        differences.iter().for_each(|difference| print(&format!("  {difference}\n")));
        *(if differences.is_empty() { &mut self.passed } else { &mut self.failed }) += 1;
    }

    /// Print the sum.
    ///
    /// # Errors
    /// A case failed, or there are none.
    pub(crate) fn conclude(self) -> Result<()> {
        print(&format!("{} passed, {} failed\n", self.passed, self.failed));
        if self.passed + self.failed == 0 {
            bail!("there are no cases in {}", self.tests.display());
        }
        ensure!(self.failed == 0, "{} cases failed", self.failed);
        Ok(())
    }
}
