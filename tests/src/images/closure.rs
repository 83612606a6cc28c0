//! What a program needs beside itself: the libraries that the loader of this machine finds for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The libraries of a program, by the path under which it will look for each, and where each is now. `roots` are
/// searched before the machine's own folders.
pub(super) fn libraries(program: &Path, roots: &[PathBuf]) -> Result<BTreeSet<(PathBuf, PathBuf)>> {
    let folders =
        roots.iter().flat_map(|root| ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|it| root.join(it)));
    let search = std::env::join_paths(folders)?;
    let mut command = Command::new("ldd");
    command.arg(program);
    if !roots.is_empty() {
        command.env("LD_LIBRARY_PATH", search);
    }
    let output = command.output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A static program has none; ldd calls that an error.
    if !output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("not a dynamic executable") {
        bail!("ldd cannot look at {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    text.lines().filter_map(|line| needed(line).transpose()).map(|found| Ok(placed(&found?, roots))).collect()
}

/// The path in one line of ldd: `name => path (address)` or `path (address)`.
fn needed(line: &str) -> Result<Option<PathBuf>> {
    let line = line.trim();
    if line.ends_with("not found") {
        bail!("a library is missing: {line}");
    }
    let path = line.split_once(" => ").map_or(line, |(_, path)| path).split(" (").next().unwrap_or_default();
    Ok(path.starts_with('/').then(|| PathBuf::from(path)))
}

fn placed(found: &Path, roots: &[PathBuf]) -> (PathBuf, PathBuf) {
    let inside = roots.iter().find_map(|root| found.strip_prefix(root).ok());
    (inside.unwrap_or(found).to_owned(), found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_ldd_are_read() {
        let path = |line: &str| needed(line).unwrap().map(|path| path.display().to_string());
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f4b)"), None);
        assert_eq!(path("\tlibz.so.1 => /lib/libz.so.1 (0x0)").as_deref(), Some("/lib/libz.so.1"));
        assert_eq!(path("\t/lib64/ld-linux-x86-64.so.2 (0x0)").as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert!(needed("\tlibx.so => not found").is_err());
    }
}
