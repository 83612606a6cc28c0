//! Requests and limits as the kernel has them (https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/,
//! https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/).

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::world::{World, sh, with};

/// Shows a limit under whichever name the kernel has it.
pub(crate) const LIMITS: &str = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max \
                                 /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu*/cpu.cfs_quota_us \
                                 /sys/fs/cgroup/cpu.max 2>/dev/null";

fn limited(script: &str, resources: Value) -> Value {
    with(sh(script), json!({ "resources": resources }))
}

pub(crate) async fn limits_are_those_of_the_control_group(world: &World) -> Result<()> {
    let resources = json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "500m", "memory": "64Mi" } });
    let said = world.says("limits", limited(LIMITS, resources), json!({})).await.or_else(|error| {
        // Some of the files are missing on every machine, which `cat` tells by its exit code.
        let text = format!("{error:#}");
        if text.contains("67108864") { Ok(text) } else { Err(error) }
    })?;
    ensure!(said.contains("67108864") && said.contains("50000"), "{said}");
    Ok(())
}

pub(crate) async fn a_pod_has_a_class_by_its_requests(world: &World) -> Result<()> {
    let both = json!({ "cpu": "10m", "memory": "16Mi" });
    for (name, resources, class) in [
        ("best-effort", json!({}), "BestEffort"),
        ("burstable", json!({ "requests": { "cpu": "10m" } }), "Burstable"),
        ("guaranteed", json!({ "requests": both, "limits": both }), "Guaranteed"),
    ] {
        let ended = world.run(name, json!({ "containers": [limited("true", resources)] })).await?;
        let status = ended.pod.status.clone().unwrap_or_default();
        ensure!(status.qos_class.as_deref() == Some(class), "{name}: {status:?}");
    }
    Ok(())
}

pub(crate) async fn no_container_has_endless_processes(world: &World) -> Result<()> {
    let script = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null | head -1";
    let said = world.says("processes", sh(script), json!({})).await?;
    ensure!(said.trim().parse::<u64>().is_ok_and(|most| most <= 1 << 15), "{said}");
    Ok(())
}

pub(crate) async fn the_first_to_go_for_want_of_memory_follows_the_class(world: &World) -> Result<()> {
    let said = world.says("first-to-go", sh("cat /proc/self/oom_score_adj"), json!({})).await?;
    ensure!(said == "1000\n", "{said}");
    let asks = json!({ "requests": { "memory": "32Mi" } });
    let said = world.says("second-to-go", limited("cat /proc/self/oom_score_adj", asks), json!({})).await?;
    ensure!(said.trim().parse::<i32>().is_ok_and(|score| (3..1000).contains(&score)), "{said}");
    Ok(())
}

pub(crate) async fn a_pod_as_a_whole_may_be_limited(world: &World) -> Result<()> {
    // The container has no limit of its own: it is the pod's that it meets.
    let more = json!({ "resources": { "requests": { "memory": "8Mi" }, "limits": { "memory": "16Mi" } } });
    let spec = with(json!({ "containers": [sh("exec tail /dev/zero")] }), more);
    let ended = world.run("limited-pod", spec).await?;
    let killed = crate::world::end(&ended.pod, "c").is_some_and(|(_, code, _)| code == 137);
    ensure!(killed, "{:?}", ended.pod.status);
    let class = ended.pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    ensure!(class == Some("Burstable"), "{:?}", ended.pod.status);
    Ok(())
}
