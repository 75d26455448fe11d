//! The Wasm filter of the measurements: compiled from `bench/filter`, and put where a gateway looks for filters.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::{cargo, must, root, target_dir};

/// The file that every proxy runs, below `out`; [`build`] makes it.
pub(crate) fn module(out: &Path) -> PathBuf {
    folder(out).join("bench.wasm")
}

/// The folder with this filter alone.
pub(crate) fn folder(out: &Path) -> PathBuf {
    out.join("filters")
}

/// Compiles the filter.
///
/// # Errors
/// The target for Wasm is missing, or the folder is not writable.
pub(crate) fn build(out: &Path) -> Result<()> {
    let target = target_dir()?.join("filters");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", "wasm32-wasip1", "--manifest-path"]);
    build.arg(root().join("bench/filter/Cargo.toml")).arg("--target-dir").arg(&target);
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        build.env_remove(variable);
    }
    must(&mut build)?;
    std::fs::create_dir_all(folder(out))?;
    let built = target.join("wasm32-wasip1/release/bench_filter.wasm");
    std::fs::copy(&built, module(out)).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(())
}

/// A folder with `count` filters that differ, each as large as the one they are made from: `filter_0` and so on.
///
/// # Errors
/// [`build`] made no filter, or the folder is not writable.
pub(crate) fn many(out: &Path, count: usize) -> Result<PathBuf> {
    let folder = out.join("many-filters");
    std::fs::create_dir_all(&folder)?;
    let module = std::fs::read(module(out)).context("there is no filter to copy")?;
    for number in 0..count {
        let file = folder.join(format!("filter_{number}.wasm"));
        std::fs::write(&file, told_apart(&module, number))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(folder)
}

/// The module with a custom section of its own behind it, which changes its hash and nothing else.
fn told_apart(module: &[u8], number: usize) -> Vec<u8> {
    let name = format!("bench-{number:04}");
    let mut bytes = module.to_vec();
    let length = u8::try_from(name.len()).unwrap_or_default();
    // Section 0 (custom), its length, the length of its name, the name; all lengths are below 128, so one byte each.
    bytes.extend([0, length + 1, length]);
    bytes.extend(name.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_section_tells_modules_apart() {
        let empty = b"\0asm\x01\0\0\0";
        assert_eq!(told_apart(empty, 7), b"\0asm\x01\0\0\0\x00\x0b\x0abench-0007");
        assert_ne!(told_apart(empty, 7), told_apart(empty, 8));
    }
}
