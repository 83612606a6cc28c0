//! Removes an app: its Service and Deployment, and waits until its pods are gone; or brings back what was there before
//! a rollout that failed.

use std::pin::pin;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::app::{APP_LABEL, App, MANAGER};
use crate::error::DeployError;

/// Removes the app; returns once no pod of it is left.
pub async fn remove(client: &kube::Client, namespace: &str, name: &str) -> Result<(), DeployError> {
    let service = delete::<Service>(client, namespace, name).await?;
    let deployment = delete::<Deployment>(client, namespace, name).await?;
    if !service && !deployment {
        return Err(DeployError::NoSuchApp { name: name.to_owned() });
    }
    pods_gone(client, namespace, name).await;
    Ok(())
}

/// The app's Deployment as it was before a rollout, or that there was none.
#[derive(Clone, Debug)]
pub struct Snapshot(Option<Box<Deployment>>);

impl Snapshot {
    /// Whether the app was there.
    pub fn existed(&self) -> bool {
        self.0.is_some()
    }
}

/// Remembers the app as it is now.
pub async fn snapshot(client: &kube::Client, app: &App) -> Result<Snapshot, DeployError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &app.namespace);
    let found = deployments.get_opt(&app.name).await;
    let found = found.map_err(|source| DeployError::api(&format!("look at {}", app.name), source))?;
    Ok(Snapshot(found.filter(|found| found.metadata.deletion_timestamp.is_none()).map(Box::new)))
}

/// Brings back what was there before: the former revision, or nothing.
pub async fn restore(client: &kube::Client, app: &App, before: Snapshot) -> Result<(), DeployError> {
    let Some(before) = before.0 else {
        return match remove(client, &app.namespace, &app.name).await {
            Ok(()) | Err(DeployError::NoSuchApp { .. }) => Ok(()),
            Err(error) => Err(error),
        };
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &app.namespace);
    let former = serde_json::json!([{ "op": "replace", "path": "/spec", "value": before.spec }]);
    let former = Patch::Json::<()>(serde_json::from_value(former).expect("this is a JSON patch"));
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let restored = deployments.patch(&app.name, &parameters, &former).await;
    restored.map(|_| ()).map_err(|source| DeployError::api(&format!("bring {} back", app.name), source))
}

/// Deletes one object; false where there was none.
async fn delete<K>(client: &kube::Client, namespace: &str, name: &str) -> Result<bool, DeployError>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(source) => Err(DeployError::api(&format!("delete {} {name}", K::kind(&())), source)),
    }
}

async fn pods_gone(client: &kube::Client, namespace: &str, name: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_app = watcher::Config::default().labels(&format!("{APP_LABEL}={name}"));
    let (left, writer) = kube::runtime::reflector::store::<Pod>();
    let mut changes = pin!(watcher(pods, of_app).default_backoff().reflect(writer));
    while let Some(change) = changes.next().await {
        let listed = matches!(change, Ok(watcher::Event::InitDone | watcher::Event::Delete(_)));
        if listed && left.is_empty() {
            return;
        }
    }
}
