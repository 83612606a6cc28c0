//! What is used is told, to people and to autoscalers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shipway_tests::{Instance, wait_for};

const MINUTE: Duration = Duration::from_mins(1);

/// A deployment whose pods would take a whole processor and get 300m.
fn busy() -> Value {
    let resources = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}});
    let container = json!({"name": "burn", "image": "shipway.local/tools:latest",
        "command": ["/bin/sh", "-c", "while :; do :; done"], "resources": resources});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "busy"},
        "spec": {
            "selector": {"matchLabels": {"app": "busy"}},
            "template": {
                "metadata": {"labels": {"app": "busy"}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    })
}

/// An instance on which it runs; none where this machine has no kubectl.
fn started() -> Result<Option<Instance>> {
    let instance = Instance::up()?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("tools.sh");
    std::fs::write(&script, "#!/bin/sh\nsleep 1000\n")?;
    instance.ok(&["run", &script.display().to_string(), "--detach"])?;
    instance.ok(&["rm", "tools"])?;
    let Some(applied) = instance.kubectl_with_input(&["apply", "-f", "-"], &busy().to_string()) else {
        return Ok(None);
    };
    applied?;
    kubectl(&instance, "rollout status deployment/busy --timeout=60s")?;
    Ok(Some(instance))
}

fn kubectl(instance: &Instance, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    instance.kubectl(&words).context("this machine has no kubectl")?
}

/// The number before a unit in the column of a row that is not the head.
fn figure(table: &str, column: usize, unit: &str) -> Result<u64> {
    let row = table.lines().nth(1).with_context(|| format!("no row in {table:?}"))?;
    let cell = row.split_whitespace().nth(column).and_then(|cell| cell.strip_suffix(unit));
    Ok(cell.with_context(|| format!("no {unit} in column {column} of {row:?}"))?.parse()?)
}

#[test]
fn a_busy_container_is_seen_by_whoever_asks() -> Result<()> {
    let Some(instance) = started()? else { return Ok(()) };
    wait_for("the busy container to be seen", MINUTE, || {
        let table = kubectl(&instance, "top pod --no-headers=false")?;
        let cpu = figure(&table, 1, "m")?;
        ensure!((150..=400).contains(&cpu), "{table}");
        Ok(true)
    })?;
    let table = kubectl(&instance, "top pod -A --containers --sort-by=cpu")?;
    ensure!(table.lines().nth(1).is_some_and(|row| row.contains("burn")), "{table}");
    let table = kubectl(&instance, "top node")?;
    ensure!(figure(&table, 1, "m")? >= 150 && figure(&table, 3, "Mi")? > 10, "{table}");
    let name = kubectl(&instance, "get nodes -o jsonpath={.items[0].metadata.name}")?;
    let summary = instance.raw(&format!("/api/v1/nodes/{name}/proxy/stats/summary"))?;
    let pod = &summary["pods"][0];
    ensure!(pod["podRef"]["namespace"] == "default" && pod["network"]["name"] == "eth0", "{pod}");
    ensure!(pod["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0), "{pod}");
    let text = kubectl(&instance, &format!("get --raw /api/v1/nodes/{name}/proxy/metrics/resource"))?;
    ensure!(text.contains("container_cpu_usage_seconds_total{container=\"burn\""), "{text}");
    Ok(())
}

#[test]
fn an_autoscaler_starts_more_of_what_is_busy() -> Result<()> {
    let Some(instance) = started()? else { return Ok(()) };
    kubectl(&instance, "autoscale deployment busy --min=1 --max=3 --cpu-percent=50")?;
    wait_for("three replicas", 2 * MINUTE, || {
        Ok(kubectl(&instance, "get deployment busy -o jsonpath={.spec.replicas}")? == "3")
    })?;
    wait_for("the autoscaler to say so", MINUTE, || {
        let told = kubectl(&instance, "describe hpa busy")?;
        ensure!(told.contains("SuccessfulRescale") && told.contains("cpu resource utilization"), "{told}");
        Ok(true)
    })
}
