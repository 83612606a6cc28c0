//! The Rust client's own tests against a live cluster: those in the published crates, which this tree depends on, and the
//! examples of a checkout that count as tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shipway_tests::Instance;

use super::own::last_lines;
use super::{Judged, Options, Ran, Verdict, cluster, folder, tools};
use crate::{forget_cargo, root};

/// The crates with live tests.
const CRATES: [&str; 3] = ["kube", "kube-client", "kube-runtime"];
/// What the tests want switched on.
const FEATURES: &str = "kube-client/rustls-tls,kube-client/ws,kube-client/unstable-client,kube-client/jsonpatch,\
    kube-client/kubelet-debug,kube-client/gzip,kube/derive,kube/runtime,kube/ws,kube/rustls-tls,\
    kube-runtime/unstable-runtime";
/// The facade is a path in the checkout, which publishing drops.
const FACADE: &str =
    "\n[dev-dependencies.kube]\nversion = \"*\"\nfeatures = [\"derive\", \"client\", \"ws\", \"runtime\"]\n";
/// How long an example may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The ignored tests of the published crates.
pub(crate) fn tests(_: &Options) -> Result<Ran> {
    let work = workspace()?;
    let fetched = cargo(&work).args(["fetch", "--quiet"]).output()?;
    if !fetched.status.success() {
        return Ok(Ran::Unavailable(last_lines(&text(&fetched.stderr))));
    }
    // Built as a whole and run by themselves: cargo takes features of several packages for a whole workspace only.
    let mut build = cargo(&work);
    build.args(["test", "--workspace", "--lib", "--no-run", "--message-format=json", "--features", FEATURES]);
    let build = build.output()?;
    ensure!(build.status.success(), "the crates' tests cannot be built: {}", last_lines(&text(&build.stderr)));
    let instance = cluster()?;
    let mut judged = Vec::new();
    for name in CRATES {
        let program = program(&text(&build.stdout), name).with_context(|| format!("{name} has no tests"))?;
        let mut command = Command::new(program);
        command.args(["--ignored", "--test-threads=1"]).current_dir(work.join(name));
        command.env("KUBECONFIG", instance.kubeconfig()).env("RUST_BACKTRACE", "0");
        let output = command.output()?;
        let printed = text(&output.stdout);
        let before = judged.len();
        judged.extend(printed.lines().filter_map(|line| libtest(name, line, &printed)));
        ensure!(judged.len() > before, "no test of {name} ran: {}", last_lines(&text(&output.stderr)));
    }
    Ok(Ran::Tests(judged))
}

/// The program with the tests of a crate, among the messages of its build.
fn program(messages: &str, name: &str) -> Option<PathBuf> {
    let library = name.replace('-', "_");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut tests = messages.filter(|it| it["profile"]["test"] == true && it["target"]["name"] == library);
    tests.find_map(|it| it["executable"].as_str().map(PathBuf::from))
}

/// A line of the test runner, with what a failed test said.
fn libtest(package: &str, line: &str, whole: &str) -> Option<Judged> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    // After the name of an ignored test stands why.
    let name = name.split(" - should panic").next()?;
    let verdict = match verdict {
        "ok" => Verdict::Passed,
        "FAILED" => Verdict::Failed(said(name, whole)),
        _ => return None,
    };
    Some((format!("{package}::{name}"), verdict))
}

fn said(name: &str, whole: &str) -> String {
    let after = whole.split_once(&format!("---- {name} stdout ----")).map_or("", |(_, after)| after);
    let block = after.split("\n---- ").next().unwrap_or_default();
    let lines = block.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("note:"));
    lines.take(5).collect::<Vec<_>>().join(" / ")
}

/// A workspace of the published crates, each replaced by its copy.
fn workspace() -> Result<PathBuf> {
    let work = folder()?.join("kube-rs");
    for (name, source) in sources()? {
        copy(&name, &source, &work)?;
    }
    let members = CRATES.map(|name| format!("\"{name}\"")).join(", ");
    let patches = CRATES.map(|name| format!("{name} = {{ path = \"{name}\" }}\n")).concat();
    let manifest = format!("[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n[patch.crates-io]\n{patches}");
    write_if_other(&work.join("Cargo.toml"), &manifest)?;
    if !work.join("Cargo.lock").exists() {
        std::fs::copy(root().join("Cargo.lock"), work.join("Cargo.lock"))?;
    }
    Ok(work)
}

fn copy(name: &str, source: &Path, work: &Path) -> Result<()> {
    let place = work.join(name);
    if place.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(work)?;
    let half = work.join(format!("{name}.half"));
    tools::run(Command::new("cp").arg("-r").arg(source).arg(&half))?;
    let manifest = half.join("Cargo.toml");
    let mut written = std::fs::read_to_string(&manifest)?;
    if name != "kube" {
        written += FACADE;
    }
    std::fs::write(&manifest, written)?;
    std::fs::rename(half, place).with_context(|| format!("cannot copy {name}"))
}

fn write_if_other(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Where cargo keeps the crates that this tree depends on.
fn sources() -> Result<Vec<(String, PathBuf)>> {
    let mut command = Command::new("cargo");
    command.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root());
    forget_cargo(&mut command);
    let output = command.output().context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("the metadata names no packages")?;
    let place = |name: &str| -> Result<(String, PathBuf)> {
        let package = packages.iter().find(|it| it["name"] == name).with_context(|| format!("{name} is not used"))?;
        let manifest = package["manifest_path"].as_str().context("a package has a manifest")?;
        Ok((name.to_owned(), Path::new(manifest).with_file_name("")))
    };
    CRATES.iter().map(|name| place(name)).collect()
}

/// cargo in another workspace, with one target folder for all of them.
fn cargo(work: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(work);
    forget_cargo(&mut command);
    command.env("CARGO_TARGET_DIR", work.with_file_name("target")).env("RUST_BACKTRACE", "0");
    // With what a debugger wants it takes ten times the room.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An example: its name, what it is called with, what it must print.
struct Example(&'static str, &'static [&'static str], &'static [&'static str], End);

/// When an example is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It ends by itself, successfully.
    ByItself,
    /// It goes on until it has printed what it must.
    Printed,
}

use End::{ByItself, Printed};

/// The examples that need nothing from outside, in an order in which none disturbs the next.
const EXAMPLES: &[Example] = &[
    Example("crd_derive", &[], &["Kind Foo"], ByItself),
    Example("crd_api", &[], &["Created baz", "Rejected fx for invalid name x"], ByItself),
    Example("crd_apply", &[], &["Applied 2 baz"], ByItself),
    Example("crd_derive_schema", &[], &["Creating CRD v1"], ByItself),
    Example("crd_derive_custom_schema", &[], &[], ByItself),
    Example("crd_derive_multi", &[], &[], ByItself),
    Example("crd_derive_no_schema", &[], &[], ByItself),
    Example("dynamic_api", &[], &["apps/v1 : Deployment"], ByItself),
    Example("dynamic_jsonpath", &[], &[], ByItself),
    Example("dynamic_pod", &[], &[], ByItself),
    Example("pod_api", &[], &["Deleting blog pod started"], ByItself),
    Example("pod_attach", &[], &["Ready to attach"], ByItself),
    Example("pod_cp", &[], &["Contents of the file on the pod"], ByItself),
    Example("pod_evict", &[], &["Ready to evict"], ByItself),
    Example("pod_exec", &[], &["test string 1"], ByItself),
    Example("pod_paged", &[], &[], ByItself),
    Example("pod_portforward", &[], &["deleting"], ByItself),
    Example("pod_portforward_hyper_http", &[], &["deleting"], ByItself),
    Example("pod_resize", &[], &["Successfully patched pod", "Pod resized via replace"], ByItself),
    Example("job_api", &[], &["Cleaning up job record"], ByItself),
    Example("request_raw", &[], &[], ByItself),
    Example("cert_check", &[], &[], ByItself),
    Example("custom_client", &[], &[], ByItself),
    Example("custom_client_trace", &[], &[], ByItself),
    Example("custom_client_retry", &[], &[], ByItself),
    Example("kubectl", &["get", "nodes"], &["NAME"], ByItself),
    Example("kubectl", &["get", "pods", "-A"], &["NAME"], ByItself),
    Example("node_reflector", &[], &["node"], Printed),
    Example("node_watcher", &[], &[], Printed),
    Example("pod_watcher", &[], &[], Printed),
    Example("pod_reflector", &[], &[], Printed),
    Example("multi_watcher", &[], &[], Printed),
    Example("event_watcher", &[], &[], Printed),
    Example("secret_reflector", &[], &[], Printed),
    Example("errorbounded_configmap_watcher", &[], &[], Printed),
    Example("dynamic_watcher", &[], &[], Printed),
];

/// The examples of a checkout.
pub(crate) fn examples(options: &Options) -> Result<Ran> {
    let Some(examples) = &options.kube_examples else {
        let why = "name a checkout's examples with --kube-examples DIR; the published crates have none";
        return Ok(Ran::NotRun(why.to_owned()));
    };
    let kubectl = match tools::kubernetes(36) {
        Ok(tools) => tools.kubectl,
        Err(error) => return Ok(Ran::Unavailable(format!("{error:#}"))),
    };
    let checkout = examples.parent().context("the examples have a workspace around them")?;
    let work = folder()?.join("kube-examples");
    if !work.exists() {
        tools::run(Command::new("cp").arg("-r").arg(checkout).arg(&work))?;
    }
    let build = cargo(&work).args(["build", "--package", "kube-examples", "--examples"]).output()?;
    ensure!(build.status.success(), "the examples cannot be built: {}", last_lines(&text(&build.stderr)));
    let instance = cluster()?;
    let programs = work.with_file_name("target").join("debug/examples");
    let mut judged = Vec::new();
    for example in EXAMPLES {
        judged.push(example.judge(&programs, &instance)?);
        sweep(&kubectl, &instance)?;
    }
    Ok(Ran::Tests(judged))
}

/// Many examples call their pod the same and leave it to its time of grace.
fn sweep(kubectl: &Path, instance: &Instance) -> Result<()> {
    let mut command = Command::new(kubectl);
    command.arg("--kubeconfig").arg(instance.kubeconfig());
    tools::run(command.args(["delete", "pods", "--all", "--grace-period=0", "--force", "--timeout=20s"]))
}

impl Example {
    fn judge(&self, programs: &Path, instance: &Instance) -> Result<Judged> {
        let Self(name, arguments, expected, end) = self;
        let (status, printed) = self.run(&programs.join(name), instance)?;
        let missing = expected.iter().find(|word| !printed.contains(**word));
        let verdict = match (end, missing) {
            (ByItself, _) if !status.success() => {
                Verdict::Failed(format!("ended with {status}: {}", last_lines(&printed)))
            }
            (Printed, _) if status.code().is_some_and(|code| code != 0) => {
                Verdict::Failed(format!("gave up with {status}: {}", last_lines(&printed)))
            }
            (_, Some(word)) => Verdict::Failed(format!("does not print {word:?}: {}", last_lines(&printed))),
            (_, None) => Verdict::Passed,
        };
        Ok(([&[*name], *arguments].concat().join(" "), verdict))
    }

    /// Runs the program to its end; one that goes on is stopped after a few seconds.
    fn run(&self, program: &Path, instance: &Instance) -> Result<(ExitStatus, String)> {
        let said = instance.home().join("example.log");
        let log = File::create(&said)?;
        let mut command = Command::new(program);
        command.args(self.1).env("KUBECONFIG", instance.kubeconfig()).env("RUST_LOG", "info").stdin(Stdio::null());
        command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
        command.current_dir(instance.home()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let (start, patience) = (Instant::now(), if self.3 == ByItself { PATIENCE } else { Duration::from_secs(3) });
        while child.try_wait()?.is_none() {
            if start.elapsed() > patience {
                child.kill()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok((child.wait()?, text(&std::fs::read(said)?)))
    }
}

#[test]
fn the_program_of_a_build_is_found() {
    let messages = "nonsense\n\
        {\"target\":{\"name\":\"kube_client\"},\"profile\":{\"test\":false},\"executable\":null}\n\
        {\"target\":{\"name\":\"kube_client\"},\"profile\":{\"test\":true},\"executable\":\"/a\"}";
    assert_eq!(program(messages, "kube-client"), Some(PathBuf::from("/a")));
    assert_eq!(program(messages, "kube"), None);
}

#[test]
fn the_lines_of_the_test_runner_are_read() {
    let whole = "test a::b ... FAILED\n\n---- a::b stdout ----\n\nthread panicked\nno such thing\nnote: run\n\n---- c stdout ----";
    let failed = Verdict::Failed("thread panicked / no such thing".to_owned());
    assert_eq!(libtest("kube", "test a::b ... FAILED", whole), Some(("kube::a::b".to_owned(), failed)));
    assert_eq!(libtest("kube", "test a::b ... ok", whole), Some(("kube::a::b".to_owned(), Verdict::Passed)));
    assert_eq!(libtest("kube", "running 3 tests", whole), None);
}
