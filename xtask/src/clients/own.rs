//! The black-box tests of this tree that drive kubectl and helm, with the versions that clients have.

use std::process::Command;

use anyhow::{Context, Result};

use super::tools::{self, Tools};
use super::{Judged, Options, Ran, Verdict};
use crate::root;

/// The tour with the oldest kubectl that counts.
pub(crate) fn kubectl_1_33(_: &Options) -> Result<Ran> {
    with(33, |tools| steps(test("tour").env("KUBECTL", &tools.kubectl)))
}

/// The tour with the kubectl of the server's own version.
pub(crate) fn kubectl_1_36(_: &Options) -> Result<Ran> {
    with(36, |tools| steps(test("tour").env("KUBECTL", &tools.kubectl)))
}

/// A chart from its installation to its removal.
pub(crate) fn helm(_: &Options) -> Result<Ran> {
    with(36, |tools| steps(test("helm").env("HELM", &tools.helm).env("KUBECTL", &tools.kubectl)))
}

/// Runs a suite with the programs of that minor version of Kubernetes.
fn with(minor: u32, suite: impl FnOnce(&Tools) -> Result<Ran>) -> Result<Ran> {
    match tools::kubernetes(minor) {
        Ok(tools) => suite(&tools),
        Err(error) => Ok(Ran::Unavailable(format!("{error:#}"))),
    }
}

fn test(name: &str) -> Command {
    let mut command = Command::new("cargo");
    // With the features of the whole workspace, so that nothing is built which `cargo xtask test` has not built already.
    command.args(["test", "--quiet", "--workspace", "--test", name, "--", "--nocapture"]);
    crate::forget_cargo(&mut command);
    command.current_dir(root());
    command
}

/// Each line `step NAME ... VERDICT` is a test of its own.
fn steps(command: &mut Command) -> Result<Ran> {
    let output = command.output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut judged: Vec<Judged> = text.lines().filter_map(step).collect();
    let failed = |(_, verdict): &Judged| matches!(verdict, Verdict::Failed(_));
    if judged.is_empty() || (!output.status.success() && !judged.iter().any(failed)) {
        let end = [&*text, &*String::from_utf8_lossy(&output.stderr)].concat();
        judged.push(("the run as a whole".to_owned(), Verdict::Failed(last_lines(&end))));
    }
    Ok(Ran::Tests(judged))
}

fn step(line: &str) -> Option<Judged> {
    let (name, verdict) = line.strip_prefix("step ")?.split_once(" ... ")?;
    let verdict = match verdict.split_once(": ") {
        _ if verdict.starts_with("ok") => Verdict::Passed,
        Some(("known", why)) => Verdict::Known(why.to_owned()),
        _ => Verdict::Failed(verdict.trim_start_matches("FAILED: ").to_owned()),
    };
    Some((name.to_owned(), verdict))
}

/// The end of a long text.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" / ")
}

#[test]
fn steps_are_read() {
    assert_eq!(step("step a: b ... ok"), Some(("a: b".to_owned(), Verdict::Passed)));
    assert_eq!(step("step b ... known: x: y"), Some(("b".to_owned(), Verdict::Known("x: y".to_owned()))));
    assert_eq!(step("step c ... FAILED: x"), Some(("c".to_owned(), Verdict::Failed("x".to_owned()))));
    assert_eq!(step("running 1 test"), None);
}
