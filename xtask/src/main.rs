//! The project's own chores: `cargo xtask tidy | test | keys | cost`.

mod cost;
mod keys;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask <verb>
  tidy    checks the arrows between the crates and the heads of the files
  test    builds the release binary and runs every test, the black-box ones as root
  keys    compares what clients are told about merging with what Kubernetes tells; needs Python 3 with pip
  cost    measures the promises of SPECIFICATION.md and prints promise, measured, ratio";

fn main() -> ExitCode {
    let verb = std::env::args().nth(1).unwrap_or_default();
    let done = match verb.as_str() {
        "tidy" => tidy::tidy(&root()),
        "test" => test(),
        "cost" => cost::cost(),
        "keys" => keys::keys(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Every test there is. The black-box tests use the release binary, which is also what `cargo run --release` builds.
fn test() -> Result<()> {
    run("cargo", &["build", "--release", "--package", "shipway"])?;
    run("cargo", &["test", "--workspace"])?;
    let sdk = root().join("sdk/python");
    let mut python = Command::new("python3");
    python.args(["-m", "unittest", "discover", "--start-directory", "tests"]).current_dir(&sdk);
    python.env("PYTHONPATH", sdk.join("src")).env("PYTHONDONTWRITEBYTECODE", "1");
    check(&mut python)
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    check(Command::new(program).args(arguments).current_dir(root()))
}

fn check(command: &mut Command) -> Result<()> {
    // What the outer cargo tells this program about itself would make build scripts of dependencies run again.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let said = format!("`{} {}`", command.get_program().to_string_lossy(), words.join(" "));
    let status = command.status().with_context(|| format!("cannot run {said}"))?;
    if !status.success() {
        bail!("{said} ended with {status}");
    }
    Ok(())
}
