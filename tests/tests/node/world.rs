//! The engine that all checks share, and how they ask it.

use anyhow::{Context, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use shipway_tests::{Image, Instance};

/// An engine with the image of small tools.
pub(crate) struct World {
    pub(crate) instance: Instance,
    client: Client,
}

/// A pod that has come to its end.
pub(crate) struct Ended {
    pub(crate) pod: Pod,
    /// What its first container wrote.
    pub(crate) log: String,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let instance = Instance::new()?;
        instance.load(Image::Busybox)?;
        instance.ok(&["up", "--api-port", "0"])?;
        let client = connect(&instance).await?;
        Ok(Self { instance, client })
    }

    /// A new client: the engine may be another by now.
    pub(crate) async fn connect(&self) -> Result<Client> {
        connect(&self.instance).await
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    pub(crate) async fn make<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let api: Api<K> = Api::default_namespaced(self.client.clone());
        Ok(api.create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Creates a pod of that name.
    pub(crate) async fn create(&self, name: &str, spec: Value) -> Result<Pod> {
        self.make(json!({ "metadata": { "name": name }, "spec": spec })).await
    }

    /// Waits until something holds of a pod.
    pub(crate) async fn until(&self, name: &str, holds: impl Fn(&Pod) -> bool + Send) -> Result<Pod> {
        let holds = |pod: Option<&Pod>| pod.is_some_and(&holds);
        let found = await_condition(self.pods(), name, holds).await?;
        found.with_context(|| format!("pod {name} is gone"))
    }

    /// Waits until a pod is gone.
    pub(crate) async fn until_gone(&self, name: &str) -> Result<()> {
        await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_none()).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Runs a pod to its end, whatever that is, and takes it away.
    pub(crate) async fn run(&self, name: &str, mut spec: Value) -> Result<Ended> {
        if spec["restartPolicy"].is_null() {
            spec["restartPolicy"] = json!("Never");
        }
        self.create(name, spec).await?;
        let pod = self.until(name, |pod| matches!(phase(pod), "Succeeded" | "Failed")).await?;
        let log = self.log(name, &pod.spec.as_ref().context("a specification")?.containers[0].name).await;
        self.delete(name).await?;
        // Of a pod that was never started there is none.
        Ok(Ended { pod, log: log.unwrap_or_default() })
    }

    /// What a container writes that runs a script to its good end.
    pub(crate) async fn says(&self, name: &str, container: Value, more: Value) -> Result<String> {
        let ended = self.run(name, with(json!({ "containers": [container] }), more)).await?;
        anyhow::ensure!(phase(&ended.pod) == "Succeeded", "{}{:?}", ended.log, ended.pod.status);
        Ok(ended.log)
    }

    pub(crate) async fn log(&self, name: &str, container: &str) -> Result<String> {
        let parameters = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        Ok(self.pods().logs(name, &parameters).await?)
    }

    pub(crate) async fn patch(&self, name: &str, patch: Value) -> Result<()> {
        self.pods().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits for an event about a pod; gives its message.
    pub(crate) async fn event(&self, pod: &str, reason: &str) -> Result<String> {
        let api: Api<Event> = Api::default_namespaced(self.client.clone());
        let of_pod = ListParams::default().fields(&format!("involvedObject.name={pod},reason={reason}"));
        loop {
            if let Some(event) = api.list(&of_pod).await?.items.pop() {
                return Ok(event.message.unwrap_or_default());
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

async fn connect(instance: &Instance) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(instance.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A container called `c` that runs a shell script.
pub(crate) fn sh(script: &str) -> Value {
    json!({
        "name": "c", "image": "busybox:1.36", "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", script],
    })
}

/// The same with further fields, or others.
pub(crate) fn with(mut object: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The status of a container, of whatever kind.
pub(crate) fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// Reason, exit code and message of a container that has ended.
pub(crate) fn end(pod: &Pod, name: &str) -> Option<(String, i32, String)> {
    let end = status(pod, name)?.state.as_ref()?.terminated.clone()?;
    Some((end.reason.unwrap_or_default(), end.exit_code, end.message.unwrap_or_default()))
}

/// The reason for which a container waits.
pub(crate) fn waits(pod: &Pod, name: &str) -> String {
    let state = |status: &ContainerStatus| status.state.clone().unwrap_or_default();
    let waiting = |state: ContainerState| state.waiting.and_then(|waiting| waiting.reason);
    status(pod, name).map(state).and_then(waiting).unwrap_or_default()
}

pub(crate) fn restarts(pod: &Pod, name: &str) -> i32 {
    status(pod, name).map_or(0, |status| status.restart_count)
}

/// The status of a condition; empty where there is none.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> &'a str {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|it| it.type_ == kind).map_or("", |it| &it.status)
}
