//! Rules about manifests: every crate takes the workspace's lints.

use super::{Finding, TextFile};

/// `[lints] workspace = true` in every crate; the fuzz workspace stands outside.
pub(crate) fn lints(file: &TextFile) -> Vec<Finding> {
    let is_workspace_crate =
        file.text.contains("[package]") && !file.text.lines().any(|line| line.trim() == "[workspace]");
    let section = file.text.lines().skip_while(|line| line.trim() != "[lints]").skip(1);
    let mut settings = section.take_while(|line| !line.starts_with('['));
    if !is_workspace_crate || settings.any(|line| line.replace(' ', "") == "workspace=true") {
        return Vec::new();
    }
    vec![Finding::error(&file.path, "add `[lints]` with `workspace = true`, so that the crate keeps the same rules")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::testing::file;

    #[test]
    fn a_crate_without_the_workspace_lints_is_found() {
        let check = |text: &str| lints(&file("a/Cargo.toml", text)).len();
        assert_eq!(check("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"), 0);
        assert_eq!(check("[package]\nname = \"a\"\n"), 1);
        assert_eq!(check("[package]\nname = \"a\"\n[lints]\n[dependencies]\nworkspace = true\n"), 1);
        assert_eq!(check("[workspace]\nmembers = []\n"), 0);
        assert_eq!(check("[package]\nname = \"fuzz\"\n[workspace]\n"), 0);
    }
}
