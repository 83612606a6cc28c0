//! Compares our containers with those of runc, which comes from Debian's package and is never installed. `RUNC` names another.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{check, root};

/// Fetches runc and runs the comparison.
pub(crate) fn oracle() -> Result<()> {
    let runc = match std::env::var_os("RUNC") {
        Some(told) => PathBuf::from(told),
        None => fetched(&shipway_tests::target().join("oracle"))?,
    };
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--package", "shipway-container", "--test", "containers", "--", "under_runc"]);
    check(cargo.env("RUNC", runc).current_dir(root()))
}

fn fetched(folder: &Path) -> Result<PathBuf> {
    let runc = folder.join("root/usr/sbin/runc");
    if runc.exists() {
        return Ok(runc);
    }
    std::fs::create_dir_all(folder)?;
    check(Command::new("apt-get").args(["download", "--quiet=2", "runc"]).current_dir(folder))?;
    let files = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let package = files.into_iter().find(|path| path.extension().is_some_and(|it| it == "deb"));
    check(
        Command::new("dpkg-deb").arg("--extract").arg(package.context("apt left no package")?).arg(folder.join("root")),
    )?;
    ensure!(runc.exists(), "the package holds no {}", runc.display());
    Ok(runc)
}
