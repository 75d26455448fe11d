//! How this process was started, so that it can be started again (SIGUSR2).
//!
//! The program is looked up as it was typed and not as the kernel knows it: after an upgrade that path leads to the
//! new program, while the running one's own file may be gone, or be another release that a link has left.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// A program and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// As this process was started. To be called at the start: later the files may have changed.
    pub(crate) fn own() -> Self {
        let mut words = std::env::args_os();
        let typed = PathBuf::from(words.next().unwrap_or_default());
        let search = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&search).collect();
        let found = resolve(&typed, &folders, &std::env::current_dir().unwrap_or_default());
        let program = found.or_else(|| std::env::current_exe().ok()).unwrap_or(typed);
        Self { program, arguments: words.collect() }
    }

    /// What is started.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Start it, with the environment, standard output and standard error of this process.
    ///
    /// # Errors
    /// The program is missing or cannot be executed.
    pub(crate) fn start(&self) -> std::io::Result<Child> {
        Command::new(&self.program).args(&self.arguments).stdin(Stdio::null()).spawn()
    }
}

/// The file that a shell in the folder `here` would have executed.
fn resolve(typed: &Path, folders: &[PathBuf], here: &Path) -> Option<PathBuf> {
    if typed.is_absolute() {
        return Some(typed.to_owned());
    }
    match typed.components().count() {
        0 => None,
        1 if !typed.starts_with(".") => {
            folders.iter().map(|folder| here.join(folder).join(typed)).find(|file| file.is_file())
        }
        _ => Some(here.join(typed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_as_a_shell_finds_it() {
        let here = Path::new("/srv");
        let resolve = |typed: &str| resolve(Path::new(typed), &["/nowhere".into(), "/bin".into()], here);
        assert_eq!(resolve("/opt/current/gateward"), Some("/opt/current/gateward".into()));
        assert_eq!(resolve("bin/gateward"), Some("/srv/bin/gateward".into()));
        assert_eq!(resolve("./gateward"), Some("/srv/./gateward".into()));
        assert_eq!(resolve("sh"), Some("/bin/sh".into()));
        assert_eq!(resolve("no-such-program"), None);
        assert_eq!(resolve(""), None);
    }
}
