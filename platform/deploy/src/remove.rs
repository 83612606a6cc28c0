//! Removes an app: its Service and Deployment, and waits until its pods are gone.

use std::pin::pin;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, PropagationPolicy};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::app::APP_LABEL;
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
