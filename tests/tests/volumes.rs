//! Claims: what a pod writes into one is there for the next pod, until the claim is deleted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use shipway_tests::{Instance, wait_for};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);

/// An instance with an image that holds a shell and `cat`, and a client for it.
struct Cluster {
    instance: Instance,
    runtime: Runtime,
    client: Client,
}

impl Cluster {
    fn start() -> Result<Self> {
        // Another test of this process may have installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let instance = Instance::up()?;
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("tools.sh");
        // The tools that a script plainly names are packed with it.
        std::fs::write(&script, "#!/bin/sh\ncat /dev/null\nsleep 1000\n")?;
        instance.ok(&["run", &script.display().to_string(), "--detach"])?;
        instance.ok(&["rm", "tools"])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = client(&instance, &runtime)?;
        Ok(Self { instance, runtime, client })
    }

    /// Ends the engine and all containers, and starts another.
    fn restart(&mut self) -> Result<()> {
        self.instance.ok(&["down"])?;
        self.instance.ok(&["up"])?;
        self.client = client(&self.instance, &self.runtime)?;
        Ok(())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::default_namespaced(self.client.clone())
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    fn claim(&self, more: &Value) -> Result<()> {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let claim = serde_json::from_value(json!({"metadata": {"name": "data"}, "spec": spec}))?;
        self.runtime.block_on(self.claims().create(&PostParams::default(), &claim))?;
        Ok(())
    }

    /// Runs a shell command with the claim at `/data` to its end; returns what it wrote.
    fn run(&self, name: &str, command: &str) -> Result<String> {
        let container = json!({
            "name": "c", "image": "shipway.local/tools:latest", "command": ["/bin/sh", "-c", command],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        });
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        let spec = json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes});
        let pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        self.runtime.block_on(self.pods().create(&PostParams::default(), &pod))?;
        wait_for(&format!("{name} to end"), PATIENCE, || {
            let pod = self.runtime.block_on(self.pods().get(name))?;
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            ensure!(phase == Some("Succeeded"), "{:?}", pod.status);
            Ok(true)
        })?;
        let log = self.runtime.block_on(self.pods().logs(name, &LogParams::default()))?;
        self.runtime.block_on(self.pods().delete(name, &DeleteParams::default()))?;
        Ok(log)
    }

    fn volume(&self) -> Result<PersistentVolume> {
        let all: Api<PersistentVolume> = Api::all(self.client.clone());
        let found = self.runtime.block_on(all.list(&ListParams::default()))?.items.pop();
        found.context("there is no volume")
    }

    fn volumes(&self) -> Result<usize> {
        let all: Api<PersistentVolume> = Api::all(self.client.clone());
        Ok(self.runtime.block_on(all.list(&ListParams::default()))?.items.len())
    }

    fn delete_claim(&self) -> Result<()> {
        self.runtime.block_on(self.claims().delete("data", &DeleteParams::default()))?;
        Ok(())
    }
}

fn client(instance: &Instance, runtime: &Runtime) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(instance.home().join("kubeconfig"))?;
    runtime.block_on(async {
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    })
}

#[test]
fn data_outlives_its_pod_and_goes_with_its_claim() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.claim(&json!({}))?;
    cluster.run("writer", "echo kept > /data/file")?;
    let log = cluster.run("reader", "cat /data/file")?;
    ensure!(log == "kept\n", "{log}");
    let spec = cluster.volume()?.spec.context("a specification")?;
    let folder = spec.local.context("a local volume")?.path;
    ensure!(std::path::Path::new(&folder).starts_with(cluster.instance.home()), "{folder}");
    ensure!(std::fs::read_to_string(format!("{folder}/file"))? == "kept\n");
    cluster.delete_claim()?;
    wait_for("the volume to be gone", PATIENCE, || Ok(cluster.volumes()? == 0))?;
    ensure!(!std::path::Path::new(&folder).exists(), "{folder} is still there");
    Ok(())
}

#[test]
fn data_is_there_for_the_next_engine() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.claim(&json!({}))?;
    cluster.run("writer", "echo kept > /data/file")?;
    cluster.restart()?;
    let log = cluster.run("reader", "cat /data/file")?;
    ensure!(log == "kept\n", "{log}");
    Ok(())
}

#[test]
fn a_volume_that_somebody_made_is_used_and_kept() -> Result<()> {
    let cluster = Cluster::start()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("given"), "from outside\n")?;
    let volume = json!({"metadata": {"name": "mine"}, "spec": {
        "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": folder.path(), "type": "Directory"},
    }});
    let all: Api<PersistentVolume> = Api::all(cluster.client.clone());
    cluster.runtime.block_on(all.create(&PostParams::default(), &serde_json::from_value(volume)?))?;
    cluster.claim(&json!({"storageClassName": ""}))?;
    let log = cluster.run("both", "cat /data/given; echo back > /data/taken")?;
    ensure!(log == "from outside\n", "{log}");
    cluster.delete_claim()?;
    wait_for("the volume to be released", PATIENCE, || {
        let status = cluster.volume()?.status.and_then(|status| status.phase);
        ensure!(status.as_deref() == Some("Released"), "{status:?}");
        Ok(true)
    })?;
    ensure!(std::fs::read_to_string(folder.path().join("taken"))? == "back\n");
    Ok(())
}
