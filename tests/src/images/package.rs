//! Debian's packages, fetched by name and unpacked into a folder of ours; nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What an image is made of cannot be had on this machine; it is nobody's fault here.
#[derive(Debug)]
pub(super) struct Unavailable(String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The folder that holds what the package holds.
pub(super) fn unpacked(name: &str, cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("packages").join(name);
    let (fetched, whole) = (folder.join("fetched"), folder.join("root"));
    if whole.exists() {
        return Ok(whole);
    }
    std::fs::create_dir_all(&fetched)?;
    if fetch(name, &fetched).is_err() {
        // The lists of a fresh machine are empty.
        let updated = run(apt().args(["update", "--quiet=2"]));
        let fetched = updated.and_then(|()| fetch(name, &fetched));
        fetched.map_err(|error| Unavailable(format!("Debian's package {name} cannot be fetched: {error:#}")))?;
    }
    let file = file_in(&fetched)?;
    let half = folder.join("half");
    run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&half))?;
    std::fs::rename(half, &whole)?;
    Ok(whole)
}

fn fetch(name: &str, folder: &Path) -> Result<()> {
    run(apt().args(["download", "--quiet=2", name]).current_dir(folder))
}

/// One that gives up soon where there is no network.
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]);
    command
}

fn file_in(folder: &Path) -> Result<PathBuf> {
    let files = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let mut packages = files.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    packages.next().with_context(|| format!("apt-get left no package in {}", folder.display()))
}

/// The packages that hold the libraries a package depends on.
pub(super) fn libraries_of(name: &str) -> Result<Vec<String>> {
    let output = Command::new("apt-cache").args(["depends", name]).output().context("cannot run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let needed = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(needed.filter(|it| it.starts_with("lib") || it.starts_with("zlib")).map(str::to_owned).collect())
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
