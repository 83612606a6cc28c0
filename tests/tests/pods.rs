//! Pods beyond the usual: init containers, several containers, volumes, probes, limits, restarts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Pod, Secret};
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use shipway_tests::{Instance, wait_for};
use tokio::runtime::Runtime;

/// An instance with an image that holds a shell and a few tools, and a client for it.
struct Cluster {
    instance: Instance,
    runtime: Runtime,
    client: Client,
}

impl Cluster {
    fn start() -> Result<Self> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let instance = Instance::up()?;
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("tools.sh");
        // The tools that a script plainly names are packed with it.
        std::fs::write(
            &script,
            "#!/bin/sh\ncat /dev/null\nls /\nid\nrm -f x\ntest -e /\ntail -c 1 /etc/hosts\nsleep 1000\n",
        )?;
        instance.ok(&["run", &script.display().to_string(), "--detach"])?;
        instance.ok(&["rm", "tools"])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kubeconfig = Kubeconfig::read_from(instance.home().join("kubeconfig"))?;
        let client = runtime.block_on(async {
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { instance, runtime, client })
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    fn create<K>(&self, object: &Value) -> Result<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let api: Api<K> = Api::default_namespaced(self.client.clone());
        Ok(self.runtime.block_on(api.create(&PostParams::default(), &serde_json::from_value(object.clone())?))?)
    }

    fn pod(&self, name: &str) -> Result<Pod> {
        Ok(self.runtime.block_on(self.pods().get(name))?)
    }

    fn log(&self, name: &str, container: &str, previous: bool) -> Result<String> {
        let parameters = LogParams { container: Some(container.to_owned()), previous, ..LogParams::default() };
        Ok(self.runtime.block_on(self.pods().logs(name, &parameters))?)
    }

    fn wait_phase(&self, name: &str, phase: &str) -> Result<()> {
        wait_for(&format!("{name} to be {phase}"), Duration::from_secs(20), || {
            let pod = self.pod(name)?;
            let now = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            ensure!(now == Some(phase), "{:?}", pod.status);
            Ok(true)
        })
    }
}

fn shell(name: &str, command: &str, more: Value) -> Value {
    let mut container = json!({
        "name": name, "image": "shipway.local/tools:latest", "command": ["/bin/sh", "-c", command],
    });
    if let (Some(container), Value::Object(more)) = (container.as_object_mut(), more) {
        container.extend(more);
    }
    container
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == container)
}

#[test]
fn init_containers_volumes_and_environment_come_together() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.create::<ConfigMap>(&json!({ "metadata": { "name": "settings" }, "data": { "colour": "blue" } }))?;
    cluster.create::<Secret>(&json!({ "metadata": { "name": "key" }, "stringData": { "word": "sesame" } }))?;
    let scratch = json!([{ "name": "scratch", "mountPath": "/scratch" }]);
    let mounts = json!([
        { "name": "scratch", "mountPath": "/scratch" },
        { "name": "settings", "mountPath": "/etc/settings", "readOnly": true },
    ]);
    let environment = json!([
        { "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "key", "key": "word" } } },
        { "name": "SELF", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "BOTH", "value": "$(SELF)-$(WORD)" },
    ]);
    let reading = "cat /scratch/from-init /etc/settings/colour; echo; echo $BOTH $METAPARTICLE_IN_CONTAINER";
    cluster.create::<Pod>(&json!({
        "metadata": { "name": "together" },
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [shell("first", "echo made > /scratch/from-init", json!({ "volumeMounts": scratch }))],
            "containers": [
                shell("one", reading, json!({ "volumeMounts": mounts, "env": environment })),
                shell("two", "test -e /scratch/from-init && echo also", json!({ "volumeMounts": scratch })),
            ],
            "volumes": [
                { "name": "scratch", "emptyDir": {} },
                { "name": "settings", "configMap": { "name": "settings" } },
            ],
        },
    }))?;
    cluster.wait_phase("together", "Succeeded")?;
    let log = cluster.log("together", "one", false)?;
    ensure!(log == "made\nblue\ntogether-sesame true\n", "{log:?}");
    ensure!(cluster.log("together", "two", false)? == "also\n");
    Ok(())
}

#[test]
fn a_failing_container_is_restarted_with_back_off_and_its_former_log_is_kept() -> Result<()> {
    let cluster = Cluster::start()?;
    let spec = json!({ "containers": [shell("c", "echo this is the end; exit 4", json!({}))] });
    cluster.create::<Pod>(&json!({ "metadata": { "name": "failing" }, "spec": spec }))?;
    wait_for("the back-off", Duration::from_secs(20), || {
        let pod = cluster.pod("failing")?;
        let status = status(&pod, "c").context("no status yet")?;
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        Ok(waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
            && last.is_some_and(|last| last.exit_code == 4)
            && status.restart_count >= 1)
    })?;
    ensure!(cluster.log("failing", "c", true)?.contains("this is the end"));
    Ok(())
}

#[test]
fn probes_decide_about_readiness_and_restarts() -> Result<()> {
    let cluster = Cluster::start()?;
    let probes = json!({
        "readinessProbe": { "exec": { "command": ["/bin/sh", "-c", "test -e /ready"] }, "periodSeconds": 1 },
        "livenessProbe": {
            "exec": { "command": ["/bin/sh", "-c", "test ! -e /sick"] }, "periodSeconds": 1, "failureThreshold": 1,
        },
        "lifecycle": {},
    });
    let command = "sleep 1; echo > /ready; sleep 2; echo > /sick; sleep 1000";
    let spec = json!({ "containers": [shell("c", command, probes)], "terminationGracePeriodSeconds": 1 });
    cluster.create::<Pod>(&json!({ "metadata": { "name": "probed" }, "spec": spec }))?;
    let ready = |expected: bool| {
        wait_for(&format!("ready to be {expected}"), Duration::from_secs(20), || {
            Ok(status(&cluster.pod("probed")?, "c")
                .is_some_and(|status| status.ready == expected && status.restart_count == 0))
        })
    };
    ready(false)?;
    ready(true)?;
    wait_for("the restart", Duration::from_secs(20), || {
        Ok(status(&cluster.pod("probed")?, "c").is_some_and(|status| status.restart_count >= 1))
    })
}

#[test]
fn too_much_memory_is_reported_as_such() -> Result<()> {
    let cluster = Cluster::start()?;
    let limits = json!({ "resources": { "limits": { "memory": "16Mi" } } });
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [shell("c", "tail /dev/zero", limits)],
    });
    cluster.create::<Pod>(&json!({ "metadata": { "name": "greedy" }, "spec": spec }))?;
    cluster.wait_phase("greedy", "Failed")?;
    let pod = cluster.pod("greedy")?;
    let ended = status(&pod, "c").and_then(|status| status.state.as_ref()?.terminated.clone());
    let ended = ended.context("it has not ended")?;
    ensure!(ended.reason.as_deref() == Some("OOMKilled") && ended.exit_code == 137, "{ended:?}");
    Ok(())
}

#[test]
fn a_program_that_heeds_term_says_goodbye_and_the_pod_is_gone() -> Result<()> {
    let cluster = Cluster::start()?;
    let command = "trap 'echo goodbye; exit 0' TERM; echo hello; while :; do sleep 0.05; done";
    let spec = json!({ "containers": [shell("c", command, json!({}))] });
    cluster.create::<Pod>(&json!({ "metadata": { "name": "polite" }, "spec": spec }))?;
    cluster.wait_phase("polite", "Running")?;
    wait_for("its first word", Duration::from_secs(5), || Ok(cluster.log("polite", "c", false)?.contains("hello")))?;
    cluster.runtime.block_on(cluster.pods().delete("polite", &DeleteParams::default()))?;
    wait_for("it to be gone", Duration::from_secs(5), || {
        Ok(cluster.runtime.block_on(cluster.pods().get_opt("polite"))?.is_none())
    })?;
    ensure!(cluster.instance.ok(&["status"])?.contains("Ready"));
    Ok(())
}
