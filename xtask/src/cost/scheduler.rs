//! Measures the scheduler's choices alone, and a deployment that grows and shrinks on simulated nodes: by examples of the
//! crates, which need no machine of their own.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Row;

/// What an example prints: a name and a number a line.
struct Printed {
    example: &'static str,
    text: String,
}

impl Printed {
    /// Runs an example.
    fn by(package: &str, example: &'static str) -> Result<Self> {
        let mut cargo = Command::new("cargo");
        cargo.args(["run", "--quiet", "--release", "--package", package, "--example", example]);
        crate::forget_cargo(&mut cargo);
        let output = cargo.current_dir(crate::root()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
        if !output.status.success() {
            bail!("the example {example} ended with {}", output.status);
        }
        Ok(Self { example, text: String::from_utf8(output.stdout).context("it prints text")? })
    }

    fn number(&self, name: &str) -> Result<f64> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(known, _)| *known == name);
        let (_, value) = found.with_context(|| format!("the example {} prints no {name}", self.example))?;
        value.parse().with_context(|| format!("{name} is {value:?}"))
    }

    fn row(&self, promise: &'static str, bar: f64, name: &str, unit: &'static str, at_least: bool) -> Result<Row> {
        Ok(Row { promise, bar, measured: self.number(name)?, unit, at_least })
    }
}

/// Runs the examples and reads what they print.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let choices = Printed::by("shipway-scheduler", "decisions")?;
    let (placed, p50) = (choices.number("placed")?, choices.number("decision_p50_ms")?);
    println!("placed {placed} of 50,000 pods; a decision took {p50} ms at p50");
    let scale = Printed::by("shipway-sim", "scale")?;
    let (up, down) = (scale.number("up_work_seconds")?, scale.number("down_work_seconds")?);
    println!("work of the whole control plane and the nodes: {up} s up, {down} s down");
    Ok(vec![
        choices.row("pods scheduled a second, 5,000 nodes, one core", 5000.0, "pods_per_second", "/s", true)?,
        choices.row("one decision, p99", 5.0, "decision_p99_ms", "ms", false)?,
        choices.row("50,000 pods on 5,000 nodes, memory beside the nodes", 512.0, "memory_mib", "MiB", false)?,
        scale.row("a deployment from 1 to 1,000 ready pods", 10.0, "up_seconds", "s", false)?,
        scale.row("a deployment from 1,000 pods to 1", 10.0, "down_seconds", "s", false)?,
    ])
}
