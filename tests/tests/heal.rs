//! What breaks comes back, and the users of a service do not notice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use shipway_tests::{Instance, Loop, Signal, free_port, kill, wait_for};

/// An instance with three replicas of the example, and a client for it.
struct Served {
    instance: Instance,
    address: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start() -> Result<Self> {
        // Another test of this process may have installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let instance = Instance::new()?;
        let port = free_port()?;
        let published = format!("{port}:8080");
        instance.ok(&["run", "examples/hello/hello.py", "--replicas", "3", "--port", &published, "--detach"])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { instance, address: SocketAddr::from(([127, 0, 0, 1], port)), runtime })
    }

    /// A new client each time: the API's process may be another by now.
    fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.instance.home().join("kubeconfig"))?;
        self.runtime.block_on(async {
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            Ok(Client::try_from(config)?)
        })
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::default_namespaced(self.client()?);
        let of_app = ListParams::default().labels("app=hello");
        Ok(self.runtime.block_on(pods.list(&of_app))?.items)
    }

    fn ready(&self) -> Result<Vec<Pod>> {
        let is_ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            pod.metadata.deletion_timestamp.is_none()
                && conditions.into_iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True")
        };
        Ok(self.pods()?.into_iter().filter(is_ready).collect())
    }

    /// The processes of the example inside containers, by pod name.
    fn processes(&self) -> Result<BTreeMap<String, u32>> {
        let mut found = BTreeMap::new();
        let pods: Vec<String> = self.pods()?.iter().map(ResourceExt::name_any).collect();
        for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment).into_owned();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("/app/hello.py") && !line.starts_with("/.shipway") {
                let host = environment.split('\0').find_map(|it| it.strip_prefix("HOSTNAME="));
                found.extend(pods.iter().find(|pod| Some(pod.as_str()) == host).map(|pod| (pod.clone(), pid)));
            }
        }
        Ok(found)
    }
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

#[test]
fn a_killed_process_is_restarted_and_counted_and_a_deleted_pod_is_replaced() -> Result<()> {
    let served = Served::start()?;
    let (victim, pid) = served.processes()?.into_iter().next().context("no process of the example is found")?;
    kill(pid, Signal::KILL)?;
    wait_for("the restart to be counted", Duration::from_secs(20), || {
        let pods = served.ready()?;
        Ok(pods.len() == 3 && pods.iter().any(|pod| pod.name_any() == victim && restarts(pod) == 1))
    })?;

    let pods: Api<Pod> = Api::default_namespaced(served.client()?);
    served.runtime.block_on(pods.delete(&victim, &DeleteParams::default()))?;
    wait_for("the pod to be replaced", Duration::from_secs(20), || {
        let pods = served.ready()?;
        Ok(pods.len() == 3 && pods.iter().all(|pod| pod.name_any() != victim))
    })
}

#[test]
fn killing_the_engine_fails_no_request_and_the_next_one_adopts_the_same_processes() -> Result<()> {
    let served = Served::start()?;
    let before = served.processes()?;
    ensure!(before.len() == 3, "{before:?}");
    let asking = Loop::start(served.address);
    served.instance.kill_engine()?;
    std::thread::sleep(Duration::from_secs(1));
    served.instance.ok(&["up"])?;
    wait_for("three replicas to be ready again", Duration::from_secs(20), || Ok(served.ready()?.len() == 3))?;
    std::thread::sleep(Duration::from_secs(1));
    let outcome = asking.stop()?;
    ensure!(outcome.failed.is_empty(), "{} failed: {:?}", outcome.failed.len(), outcome.failed);
    ensure!(outcome.answered > 100, "only {} answers", outcome.answered);
    ensure!(served.processes()? == before, "{before:?} became {:?}", served.processes()?);
    ensure!(served.pods()?.iter().all(|pod| restarts(pod) == 0));
    Ok(())
}

#[test]
fn a_rolling_restart_fails_no_request() -> Result<()> {
    let served = Served::start()?;
    let before: Vec<String> = served.ready()?.iter().map(ResourceExt::name_any).collect();
    let asking = Loop::start(served.address);
    let deployments: Api<Deployment> = Api::default_namespaced(served.client()?);
    let annotation = serde_json::json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
    let patch = serde_json::json!({ "spec": { "template": { "metadata": { "annotations": annotation } } } });
    let patch = Patch::Strategic(patch);
    served.runtime.block_on(deployments.patch("hello", &PatchParams::default(), &patch))?;
    wait_for("every replica to be another", Duration::from_mins(1), || {
        let now = served.ready()?;
        Ok(now.len() == 3 && served.pods()?.len() == 3 && now.iter().all(|pod| !before.contains(&pod.name_any())))
    })?;
    let outcome = asking.stop()?;
    ensure!(outcome.failed.is_empty(), "{} failed: {:?}", outcome.failed.len(), outcome.failed);
    ensure!(outcome.bodies.len() > 3, "{:?}", outcome.bodies);
    Ok(())
}

/// A load of requests, while the app is rolled out, rolled back, and scaled by what its pods use.
#[test]
fn a_rollout_a_rollback_and_autoscaling_under_load_fail_no_request() -> Result<()> {
    let served = Served::start()?;
    let deployments: Api<Deployment> = Api::default_namespaced(served.client()?);
    let asking = [0; 4].map(|_| Loop::start(served.address));
    let first = served.ready()?;
    let change = |value: Option<&str>| {
        let annotation = serde_json::json!({ "example.com/version": value });
        let patch = serde_json::json!({ "spec": { "template": { "metadata": { "annotations": annotation } } } });
        served.runtime.block_on(deployments.patch("hello", &PatchParams::default(), &Patch::Merge(patch)))
    };
    for version in [Some("two"), None] {
        let generation = change(version)?.metadata.generation;
        wait_for("the rollout to be over", Duration::from_mins(1), || {
            let status = served.runtime.block_on(deployments.get("hello"))?.status.unwrap_or_default();
            let all = [status.replicas, status.updated_replicas, status.available_replicas];
            Ok(status.observed_generation >= generation && all == [Some(3); 3])
        })?;
    }
    let hash = |pod: &Pod| pod.labels().get("pod-template-hash").cloned();
    ensure!(hash(&first[0]) == hash(&served.ready()?[0]), "the rollback is the first revision again");

    let scalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(served.client()?);
    // Anything that runs uses more than a thousandth of a processor under this load, and nothing here uses a hundred.
    for (target, size) in [("1m", 5), ("100", 3)] {
        let scaler = serde_json::json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": "hello" },
            "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "hello" },
                "minReplicas": 3, "maxReplicas": 5,
                "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } },
                "metrics": [{ "type": "Resource",
                    "resource": { "name": "cpu", "target": { "type": "AverageValue", "averageValue": target } } }],
            },
        });
        let ours = PatchParams::apply("test").force();
        served.runtime.block_on(scalers.patch("hello", &ours, &Patch::Apply(scaler)))?;
        let what = format!("{size} replicas");
        wait_for(&what, Duration::from_mins(2), || Ok(served.ready()?.len() == size && served.pods()?.len() == size))?;
    }
    for outcome in asking.map(Loop::stop) {
        let outcome = outcome?;
        ensure!(outcome.failed.is_empty(), "{} failed: {:?}", outcome.failed.len(), outcome.failed);
        ensure!(outcome.bodies.len() > 8, "{:?}", outcome.bodies);
    }
    Ok(())
}
