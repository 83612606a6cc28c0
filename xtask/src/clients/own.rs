//! The black-box tests of this tree that drive kubectl and helm, with the versions that clients have.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Judged, Options, Ran, Verdict, tools};
use crate::root;

/// The tour with the oldest kubectl that counts.
pub(crate) fn kubectl_1_33(_: &Options) -> Result<Ran> {
    tour(&tools::kubernetes(33)?.kubectl)
}

/// The tour with the kubectl of the server's own version.
pub(crate) fn kubectl_1_36(_: &Options) -> Result<Ran> {
    tour(&tools::kubernetes(36)?.kubectl)
}

/// A chart from its installation to its removal.
pub(crate) fn helm(_: &Options) -> Result<Ran> {
    let tools = tools::kubernetes(36)?;
    steps(test("helm").env("HELM", tools.helm).env("KUBECTL", tools.kubectl))
}

fn tour(kubectl: &Path) -> Result<Ran> {
    steps(test("tour").env("KUBECTL", kubectl))
}

fn test(name: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet", "--package", "shipway-tests", "--test", name, "--", "--nocapture"]);
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
        Some(("known", why)) => Verdict::Skipped(format!("known to fail: {why}")),
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
    assert_eq!(step("step c ... FAILED: x"), Some(("c".to_owned(), Verdict::Failed("x".to_owned()))));
    assert_eq!(step("running 1 test"), None);
}
