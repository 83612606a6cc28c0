//! The arrows that must not exist, and the head that every file has: as checks that fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The crates that may look into the store.
const STORE_READERS: [&str; 5] = ["shipway-apiserver", "shipway-etcd", "shipway-store", "shipway", SIMULATION];
/// Wires a whole cluster as the binary does, and interposes the C library's clock: never part of a release.
const SIMULATION: &str = "shipway-sim";
/// The crates that may use it.
const SIMULATORS: [&str; 2] = ["shipway-tests", "xtask"];
/// The platform crates that other platform crates may build on.
const PLATFORM_SHARED: [&str; 3] = ["shipway-api", "shipway-package", "shipway-deploy"];
/// A file that is longer had better be a table, a protocol or a property test.
const LONGEST_FILE: usize = 800;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Which part of the house a crate is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Base,
    Engine,
    Platform,
    Outside,
}

struct Crate {
    name: String,
    part: Part,
    /// Name, and whether only tests or builds use it.
    uses: Vec<(String, bool)>,
}

pub(crate) fn tidy(root: &Path) -> Result<()> {
    let crates = crates(root)?;
    let mut complaints = forbidden_arrows(&crates);
    for file in rust_files(root)? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        complaints.extend(complain(&name, &text));
    }
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} things are not tidy", complaints.len());
    }
    println!("tidy: {} crates, no forbidden arrow", crates.len());
    Ok(())
}

fn crates(root: &Path) -> Result<Vec<Crate>> {
    let mut command = Command::new("cargo");
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
    let output = command.output().context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;
    let members = metadata.packages.into_iter().filter(|package| metadata.workspace_members.contains(&package.id));
    Ok(members
        .map(|package| Crate {
            part: part(root, &package.manifest_path),
            name: package.name,
            uses: package.dependencies.into_iter().map(|it| (it.name, it.kind.is_some())).collect(),
        })
        .collect())
}

fn part(root: &Path, manifest: &Path) -> Part {
    let folder = manifest.strip_prefix(root).ok().and_then(|path| path.iter().next()).and_then(|it| it.to_str());
    match folder {
        Some("base") => Part::Base,
        Some("engine") => Part::Engine,
        Some("platform") => Part::Platform,
        _ => Part::Outside,
    }
}

fn forbidden_arrows(crates: &[Crate]) -> Vec<String> {
    let mut complaints = Vec::new();
    for from in crates {
        for (name, only_tests) in &from.uses {
            let Some(to) = crates.iter().find(|to| to.name == *name) else { continue };
            if let Some(why) = why_not(from, to, *only_tests) {
                complaints.push(format!("{} -> {}: {why}", from.name, to.name));
            }
        }
    }
    complaints
}

fn why_not(from: &Crate, to: &Crate, only_tests: bool) -> Option<&'static str> {
    match (from.part, to.part) {
        (Part::Engine, Part::Platform) | (Part::Platform, Part::Engine) => {
            return Some("engine and platform meet only at the Kubernetes API");
        }
        (Part::Base, _) if to.name != "shipway-testkit" => return Some("base knows nothing of ours"),
        (Part::Platform, Part::Platform) if !PLATFORM_SHARED.contains(&to.name.as_str()) => {
            return Some("platform crates talk through objects");
        }
        _ => {}
    }
    if to.name == "shipway-testkit" && !only_tests {
        return Some("the test kit is for tests only");
    }
    if to.name == SIMULATION && !SIMULATORS.contains(&from.name.as_str()) {
        return Some("the simulation is for tests and chores only");
    }
    if to.name == "shipway-store" && !STORE_READERS.contains(&from.name.as_str()) {
        return Some("everybody but the API server is a client of the API");
    }
    None
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git").args(["ls-files", "-z", "*.rs"]).current_dir(root).output();
    let listed = output.ok().filter(|output| output.status.success());
    let Some(listed) = listed else { bail!("cannot list the files; tidy runs in a git checkout") };
    let names = String::from_utf8(listed.stdout)?;
    let files = names.split('\0').filter(|name| !name.is_empty()).map(|name| root.join(name));
    Ok(files.filter(|file| file.exists()).collect())
}

fn complain(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push(format!("{name}: does not begin with //! saying what it is"));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        complaints.push(format!("{name}: {lines} lines are too many for one file (at most {LONGEST_FILE})"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, part: Part, uses: &[&str]) -> Crate {
        Crate { name: name.to_owned(), part, uses: uses.iter().map(|&it| (it.to_owned(), false)).collect() }
    }

    #[test]
    fn each_forbidden_arrow_is_found_and_the_others_are_not() {
        let crates = |from: Crate| {
            vec![
                from,
                made("shipway-node", Part::Engine, &[]),
                made("shipway-store", Part::Engine, &[]),
                made("shipway-sim", Part::Engine, &[]),
                made("shipway-gateway", Part::Platform, &[]),
                made("shipway-deploy", Part::Platform, &[]),
                made("shipway-oci", Part::Base, &[]),
            ]
        };
        let refused = |name: &str, part: Part, to: &str| !forbidden_arrows(&crates(made(name, part, &[to]))).is_empty();
        assert!(refused("shipway-x", Part::Platform, "shipway-node"));
        assert!(refused("shipway-x", Part::Engine, "shipway-deploy"));
        assert!(refused("shipway-x", Part::Base, "shipway-node"));
        assert!(refused("shipway-x", Part::Platform, "shipway-gateway"));
        assert!(refused("shipway-x", Part::Engine, "shipway-store"));
        assert!(refused("shipway", Part::Outside, "shipway-sim"));
        assert!(refused("shipway-node", Part::Engine, "shipway-sim"));
        assert!(!refused("xtask", Part::Outside, "shipway-sim"));
        assert!(!refused("shipway-sim", Part::Engine, "shipway-store"));
        assert!(!refused("shipway-apiserver", Part::Engine, "shipway-store"));
        assert!(!refused("shipway-x", Part::Platform, "shipway-deploy"));
        assert!(!refused("shipway-x", Part::Platform, "shipway-oci"));
        assert!(!refused("shipway", Part::Outside, "shipway-node"));
    }

    #[test]
    fn a_file_without_a_head_is_named() {
        assert_eq!(complain("a.rs", "fn main() {}").len(), 1);
        assert!(complain("a.rs", "//! A file.\n").is_empty());
    }
}
