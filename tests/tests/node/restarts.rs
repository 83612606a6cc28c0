//! The engine is killed and started again while pods live, end, are probed and are resized; a supervisor is killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use shipway_tests::{Signal, kill, wait_for};
use tokio::runtime::Runtime;

use crate::world::{World, condition, end, phase, restarts, sh, with};

pub(crate) const NAME: &str = "restarts: pods_outlive_their_engine";

const PATIENCE: Duration = Duration::from_secs(30);

fn alone(container: Value) -> Value {
    json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container] })
}

/// Pods that will be in the midst of something.
async fn prepare(world: &World) -> Result<()> {
    world.create("keeps-on", alone(sh("echo begun; sleep 1000"))).await?;
    world.create("ends-meanwhile", alone(sh("sleep 2; echo ended; exit 6"))).await?;
    let late = json!({ "readinessProbe": { "exec": { "command": ["test", "-e", "/tmp/up"] }, "periodSeconds": 1 } });
    world.create("ready-later", alone(with(sh("sleep 3; touch /tmp/up; sleep 1000"), late))).await?;
    let first = with(sh("sleep 2; echo first"), json!({ "name": "first" }));
    let spec = with(alone(sh("echo second")), json!({ "initContainers": [first] }));
    world.create("in-its-init", spec).await?;
    let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [sh("sleep 1000")] });
    world.create("loses-its-supervisor", spec).await?;
    for name in ["keeps-on", "ends-meanwhile", "ready-later", "loses-its-supervisor"] {
        world.until(name, |pod| phase(pod) == "Running").await?;
    }
    Ok(())
}

/// The supervisor of a pod.
fn supervisor(pod: &Pod) -> Result<u32> {
    let uid = pod.metadata.uid.clone().context("a pod has a uid")?;
    for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("@supervise") && line.contains(&uid) {
            return Ok(pid);
        }
    }
    anyhow::bail!("pod {uid} has no supervisor")
}

pub(crate) fn pods_outlive_their_engine(world: &World, runtime: &Runtime) -> Result<()> {
    runtime.block_on(prepare(world))?;
    let kept = runtime.block_on(world.pods().get("keeps-on"))?;
    let (before, lost) = (supervisor(&kept)?, runtime.block_on(world.pods().get("loses-its-supervisor"))?);
    world.instance.kill_engine()?;
    // With nobody there to see it.
    kill(supervisor(&lost)?, Signal::KILL)?;
    std::thread::sleep(Duration::from_millis(2500));
    world.instance.ok(&["up"])?;
    let pods: Api<Pod> = Api::default_namespaced(runtime.block_on(world.connect())?);
    let until = |name: &'static str, holds: fn(&Pod) -> bool| -> Result<Pod> {
        let found = await_condition(pods.clone(), name, move |pod: Option<&Pod>| pod.is_some_and(holds));
        let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, found).await });
        found.with_context(|| format!("waiting for {name}"))??.context("it is gone")
    };
    let pod = until("keeps-on", |pod| condition(pod, "Ready") == "True")?;
    ensure!(restarts(&pod, "c") == 0 && supervisor(&pod)? == before, "{:?}", pod.status);
    let pod = until("ends-meanwhile", |pod| phase(pod) == "Failed")?;
    ensure!(end(&pod, "c").is_some_and(|(_, code, _)| code == 6), "{:?}", pod.status);
    let log = runtime.block_on(pods.logs("ends-meanwhile", &kube::api::LogParams::default()))?;
    ensure!(log == "ended\n", "{log}");
    until("ready-later", |pod| condition(pod, "Ready") == "True")?;
    let pod = until("in-its-init", |pod| phase(pod) == "Succeeded")?;
    ensure!(restarts(&pod, "first") == 0, "{:?}", pod.status);
    let pod = until("loses-its-supervisor", |pod| restarts(pod, "c") == 1 && condition(pod, "Ready") == "True")?;

    // The same with the engine there: it is noticed at once.
    let start = Instant::now();
    kill(supervisor(&pod)?, Signal::KILL)?;
    let pod = until("loses-its-supervisor", |pod| restarts(pod, "c") == 2 || condition(pod, "Ready") == "False")?;
    ensure!(start.elapsed() < Duration::from_secs(5), "{:?}", pod.status);
    kill(supervisor(&kept)?, Signal::KILL)?;
    let pod = until("keeps-on", |pod| phase(pod) == "Failed")?;
    ensure!(
        end(&pod, "c").is_some_and(|(reason, code, _)| reason == "ContainerStatusUnknown" && code == 137),
        "{:?}",
        pod.status
    );
    wait_for("its processes to be gone", PATIENCE, || Ok(supervisor(&pod).is_err()))
}
