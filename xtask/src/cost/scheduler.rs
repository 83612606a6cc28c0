//! Measures the scheduler's choices alone, by an example of its crate that needs no API.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Row;

/// Runs the example and reads what it prints.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--release", "--package", "shipway-scheduler", "--example", "decisions"]);
    crate::forget_cargo(&mut cargo);
    let output = cargo.current_dir(crate::root()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the example decisions ended with {}", output.status);
    }
    let text = String::from_utf8(output.stdout).context("it prints text")?;
    let number = |name: &str| -> Result<f64> {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(known, _)| *known == name).with_context(|| format!("it prints no {name}"))?;
        value.parse().with_context(|| format!("{name} is {value:?}"))
    };
    println!("placed {} of 50,000 pods; a decision took {} ms at p50", number("placed")?, number("decision_p50_ms")?);
    let row = |promise, bar, name, unit, at_least| {
        number(name).map(|measured| Row { promise, bar, measured, unit, at_least })
    };
    Ok(vec![
        row("pods scheduled a second, 5,000 nodes, one core", 5000.0, "pods_per_second", "/s", true)?,
        row("one decision, p99", 5.0, "decision_p99_ms", "ms", false)?,
        row("50,000 pods on 5,000 nodes, memory beside the nodes", 512.0, "memory_mib", "MiB", false)?,
    ])
}
