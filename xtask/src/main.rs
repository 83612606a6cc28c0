//! The project's own chores: `cargo xtask tidy | test | keys | cost | fuzz | sim | storm | oracle | clients`.

mod clients;
mod cost;
mod keys;
mod oracle;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask <verb>
  tidy    checks the arrows between the crates and the heads of the files
  test    builds the release binary and runs every test, the black-box ones as root
  keys    compares what clients are told about merging with what Kubernetes tells; needs Python 3 with pip
  cost    measures the promises of SPECIFICATION.md and prints promise, measured, ratio; `cost api` those about load,
          `cost node` those about pods, `cost scheduler` those about the choice of nodes and about scaling
  fuzz    throws mutated input at whatever reads what comes from outside: [--seconds N] [--inputs N] [--seed N] [TARGET...],
          or guided by coverage: --guided TARGET [OPTION OF LIBFUZZER...]
  sim     lives through random lives of a simulated cluster, with faults, and checks what must hold: [--seeds N] [--from S]
          [--nodes N] [--hours H] [--jobs J]; --seed S tells the story of one
  storm   lets nodes of a real cluster fail, heal and restart at random, and checks what is left: [--steps N] [--seed S]
  oracle  gives the same bundles to runc and to our own runtime and compares what programs see; fetches runc from Debian
  clients runs suites that nobody here wrote: [--kube-examples DIR] [--python-suite DIR] [SUITE...]";

fn main() -> ExitCode {
    let verb = std::env::args().nth(1).unwrap_or_default();
    let done = match verb.as_str() {
        "tidy" => tidy::tidy(&root()),
        "test" => test(),
        "keys" => keys::keys(),
        "fuzz" => fuzz(),
        "sim" => sim(),
        "storm" => storm(),
        "clients" => clients::clients(&std::env::args().skip(2).collect::<Vec<_>>()),
        "oracle" => oracle::oracle(),
        "cost" => cost::cost(&std::env::args().nth(2).unwrap_or_default()),
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

/// Whether nothing may be left out for want of a package registry: `SHIPWAY_ALL=true`.
pub(crate) fn needs_all() -> bool {
    std::env::var_os("SHIPWAY_ALL").is_some_and(|told| told == "true")
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
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

/// What makes the compiler count the edges that an input takes, as libFuzzer wants it; no nightly compiler is needed.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1";

/// A long run of the fuzz targets, from seeds alone, or of one of them under libFuzzer. `fuzz` is a workspace of its own.
fn fuzz() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--release"]).current_dir(root().join("fuzz"));
    let Some(("--guided", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        return check(cargo.args(["--bin", "shipway-fuzz", "--"]).args(arguments));
    };
    let Some((target, options)) = rest.split_first() else { bail!("--guided needs a target") };
    let mut seeds = Command::new("cargo");
    seeds.args(["run", "--release", "--bin", "shipway-fuzz", "--", "--corpus", target]);
    check(seeds.current_dir(root().join("fuzz")))?;
    // Build scripts and macros are for this machine, so that naming it keeps the flags from them.
    cargo.args(["--target", &host()?, "--features", "guided", "--bin", target, "--"]).env("RUSTFLAGS", COVERAGE);
    check(cargo.args([&format!("corpus/{target}"), "-artifact_prefix=artifacts/"]).args(options))
}

/// Random lives of a simulated cluster. The program is one of its own: it takes the place of the C library's clock.
fn sim() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--profile", "sim", "--package", "shipway-sim", "--"]).current_dir(root());
    check(cargo.args(std::env::args().skip(2)))
}

/// A long run of the black-box test about nodes that fail.
fn storm() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let (mut steps, mut seed) = ("500", None);
    for pair in arguments.chunks(2) {
        match pair {
            [flag, value] if flag == "--steps" => steps = value,
            [flag, value] if flag == "--seed" => seed = Some(value),
            _ => bail!("usage: cargo xtask storm [--steps N] [--seed S]"),
        }
    }
    run("cargo", &["build", "--release", "--package", "shipway"])?;
    let mut test = Command::new("cargo");
    test.args(["test", "--package", "shipway-tests", "--test", "nodes", "--", "--nocapture", "after_a_storm"]);
    test.env("SHIPWAY_STORM_STEPS", steps).envs(seed.map(|seed| ("SHIPWAY_STORM_SEED", seed))).current_dir(root());
    check(&mut test)
}

/// The machine that the compiler runs on, such as `x86_64-unknown-linux-gnu`.
fn host() -> Result<String> {
    let said = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&said.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    check(Command::new(program).args(arguments).current_dir(root()))
}

fn check(command: &mut Command) -> Result<()> {
    forget_cargo(command);
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let said = format!("`{} {}`", command.get_program().to_string_lossy(), words.join(" "));
    let status = command.status().with_context(|| format!("cannot run {said}"))?;
    if !status.success() {
        bail!("{said} ended with {status}");
    }
    Ok(())
}

/// Takes out of a command's environment what the outer cargo tells this program about itself: it would make build scripts
/// of dependencies run again.
pub(crate) fn forget_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}
