//! Other resources for containers that run
//! (https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/).

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::resources::LIMITS;
use crate::world::{World, condition, phase, restarts, sh, status, with};

async fn resize(world: &World, name: &str, resources: Value) -> Result<()> {
    let patch = json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } });
    world.pods().patch_subresource("resize", name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

fn spec(policy: &str, script: &str) -> Value {
    let of = |kind: &str| json!({ "resourceName": kind, "restartPolicy": policy });
    let resources =
        json!({ "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "cpu": "100m", "memory": "64Mi" } });
    let more = json!({ "resizePolicy": [of("cpu"), of("memory")], "resources": resources });
    json!({ "terminationGracePeriodSeconds": 1, "containers": [with(sh(script), more)] })
}

fn limit(pod: &Pod, kind: &str) -> Option<String> {
    Some(status(pod, "c")?.resources.as_ref()?.limits.as_ref()?.get(kind)?.0.clone())
}

pub(crate) async fn a_container_is_given_more_without_another_run(world: &World) -> Result<()> {
    let script = format!(
        "while ! test -e /tmp/look; do {LIMITS} | grep -q 134217728 && touch /tmp/look; sleep 0.05; done; echo seen; {LIMITS}; sleep 1000"
    );
    world.create("grows", spec("NotRequired", &script)).await?;
    world.until("grows", |pod| phase(pod) == "Running").await?;
    resize(world, "grows", json!({ "requests": { "cpu": "60m" }, "limits": { "cpu": "200m", "memory": "128Mi" } }))
        .await?;
    let given =
        |pod: &Pod| limit(pod, "memory").as_deref() == Some("128Mi") && limit(pod, "cpu").as_deref() == Some("200m");
    let pod = world.until("grows", given).await?;
    let allotted = status(&pod, "c").and_then(|status| status.allocated_resources.clone()).context("nothing")?;
    ensure!(allotted["cpu"].0 == "60m" && restarts(&pod, "c") == 0, "{:?}", pod.status);
    let pod = world.until("grows", |pod| condition(pod, "PodResizeInProgress").is_empty()).await?;
    ensure!(condition(&pod, "PodResizePending").is_empty(), "{:?}", pod.status);
    loop {
        let log = world.log("grows", "c").await?;
        if log.contains("seen") && log.contains("20000") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.delete("grows").await
}

pub(crate) async fn a_container_is_run_anew_where_its_policy_says_so(world: &World) -> Result<()> {
    world.create("anew", spec("RestartContainer", "trap 'exit 0' TERM; while :; do sleep 0.05; done")).await?;
    world.until("anew", |pod| phase(pod) == "Running").await?;
    resize(world, "anew", json!({ "limits": { "memory": "96Mi" } })).await?;
    let given = |pod: &Pod| limit(pod, "memory").as_deref() == Some("96Mi") && restarts(pod, "c") == 1;
    world.until("anew", given).await?;
    world.delete("anew").await
}

pub(crate) async fn what_the_node_has_not_is_said(world: &World) -> Result<()> {
    world.create("too-much", spec("NotRequired", "sleep 1000")).await?;
    world.until("too-much", |pod| phase(pod) == "Running").await?;
    resize(world, "too-much", json!({ "requests": { "cpu": "900" }, "limits": { "cpu": "900" } })).await?;
    let pod = world.until("too-much", |pod| condition(pod, "PodResizePending") == "True").await?;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let pending = conditions.iter().find(|it| it.type_ == "PodResizePending").context("it is there")?;
    ensure!(pending.reason.as_deref() == Some("Infeasible"), "{pending:?}");
    ensure!(limit(&pod, "cpu").as_deref() == Some("100m") && restarts(&pod, "c") == 0, "{:?}", pod.status);
    resize(world, "too-much", json!({ "requests": { "cpu": "50m" }, "limits": { "cpu": "100m" } })).await?;
    world.until("too-much", |pod| condition(pod, "PodResizePending").is_empty()).await?;
    world.delete("too-much").await
}
