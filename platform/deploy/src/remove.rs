//! Removes an app: its Service and Deployment, and waits until its pods are gone; or brings back what was there before
//! a rollout that failed.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::app::{APP_LABEL, App, MANAGER};
use crate::error::DeployError;

/// How long pods may take to go; longer than their usual grace period.
const PATIENCE: Duration = Duration::from_secs(45);

/// The kinds that an app is made of.
trait Object: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned {}

impl<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned> Object for K {}

/// Removes the app; returns once no pod of it is left.
pub async fn remove(client: &kube::Client, namespace: &str, name: &str) -> Result<(), DeployError> {
    let service = delete::<Service>(client, namespace, name).await?;
    let deployment = delete::<Deployment>(client, namespace, name).await?;
    if !service && !deployment {
        return Err(DeployError::NoSuchApp { name: name.to_owned() });
    }
    pods_gone(client, namespace, name).await
}

/// The app's objects as they were before a rollout.
#[derive(Clone, Debug)]
pub struct Snapshot {
    deployment: Option<Box<Deployment>>,
    service: Option<Box<Service>>,
}

impl Snapshot {
    /// Whether the app was there.
    pub fn existed(&self) -> bool {
        self.deployment.is_some()
    }
}

/// Remembers the app as it is now.
pub async fn snapshot(client: &kube::Client, app: &App) -> Result<Snapshot, DeployError> {
    Ok(Snapshot { deployment: present(client, app).await?, service: present(client, app).await? })
}

async fn present<K: Object>(client: &kube::Client, app: &App) -> Result<Option<Box<K>>, DeployError> {
    let api: Api<K> = Api::namespaced(client.clone(), &app.namespace);
    let found = api.get_opt(&app.name).await;
    let found = found.map_err(|source| DeployError::api(&format!("look at {}", app.name), source))?;
    Ok(found.filter(|found| found.meta().deletion_timestamp.is_none()).map(Box::new))
}

/// Brings back what was there before: the former revision and its ports, or nothing.
pub async fn restore(client: &kube::Client, app: &App, before: Snapshot) -> Result<(), DeployError> {
    match before.service {
        Some(service) => {
            let spec = service.spec.unwrap_or_default();
            let former = json!([
                { "op": "replace", "path": "/spec/ports", "value": spec.ports },
                { "op": "replace", "path": "/spec/type", "value": spec.type_ },
                { "op": "replace", "path": "/spec/selector", "value": spec.selector },
            ]);
            bring_back::<Service>(client, app, former).await?;
        }
        None => drop(delete::<Service>(client, &app.namespace, &app.name).await?),
    }
    if let Some(deployment) = before.deployment {
        let former = json!([{ "op": "replace", "path": "/spec", "value": deployment.spec }]);
        return bring_back::<Deployment>(client, app, former).await;
    }
    delete::<Deployment>(client, &app.namespace, &app.name).await?;
    pods_gone(client, &app.namespace, &app.name).await
}

async fn bring_back<K: Object>(client: &kube::Client, app: &App, former: Value) -> Result<(), DeployError> {
    let api: Api<K> = Api::namespaced(client.clone(), &app.namespace);
    let former = Patch::Json::<()>(serde_json::from_value(former).expect("this is a JSON patch"));
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let restored = api.patch(&app.name, &parameters, &former).await;
    restored.map(|_| ()).map_err(|source| DeployError::api(&format!("bring {} back", app.name), source))
}

/// Deletes one object; false where there was none.
async fn delete<K: Object>(client: &kube::Client, namespace: &str, name: &str) -> Result<bool, DeployError> {
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(source) => Err(DeployError::api(&format!("delete {} {name}", K::kind(&())), source)),
    }
}

async fn pods_gone(client: &kube::Client, namespace: &str, name: &str) -> Result<(), DeployError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_app = watcher::Config::default().labels(&format!("{APP_LABEL}={name}"));
    let (left, writer) = kube::runtime::reflector::store::<Pod>();
    let mut changes = pin!(watcher(pods, of_app).default_backoff().reflect(writer));
    let going = async {
        while let Some(change) = changes.next().await {
            let listed = matches!(change, Ok(watcher::Event::InitDone | watcher::Event::Delete(_)));
            if listed && left.is_empty() {
                return;
            }
        }
    };
    let lingering = |_| DeployError::Lingering { name: name.to_owned(), seconds: PATIENCE.as_secs() };
    timeout(PATIENCE, going).await.map_err(lingering)
}
