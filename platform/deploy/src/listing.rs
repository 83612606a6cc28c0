//! The apps there are, and how many replicas each should have.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::json;

use crate::app::{MANAGED_BY, MANAGER};
use crate::error::DeployError;

/// One app as it is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// Name of the app.
    pub name: String,
    /// Namespace of its objects.
    pub namespace: String,
    /// Image of its replicas.
    pub image: String,
    /// Replicas that are ready.
    pub ready: i32,
    /// Replicas wanted.
    pub replicas: i32,
    /// The published ports.
    pub ports: Vec<i32>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
}

/// All apps that this crate deployed, by namespace and name.
pub async fn list(client: &kube::Client) -> Result<Vec<AppStatus>, DeployError> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let deployments = Api::<Deployment>::all(client.clone()).list(&ours).await;
    let deployments = deployments.map_err(|source| DeployError::api("list the apps", source))?;
    let services = Api::<Service>::all(client.clone()).list(&ours).await;
    let services = services.map_err(|source| DeployError::api("list the services", source))?;
    Ok(deployments.iter().map(|deployment| status(deployment, &services.items)).collect())
}

fn status(deployment: &Deployment, services: &[Service]) -> AppStatus {
    let spec = deployment.spec.as_ref();
    let container = spec.and_then(|spec| spec.template.spec.as_ref()?.containers.first());
    let service = services.iter().find(|service| {
        service.metadata.name == deployment.metadata.name && service.metadata.namespace == deployment.metadata.namespace
    });
    let ports = service.and_then(|service| service.spec.as_ref()?.ports.as_ref());
    AppStatus {
        name: deployment.name_any(),
        namespace: deployment.namespace().unwrap_or_default(),
        image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
        ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
        replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ports: ports.into_iter().flatten().map(|port| port.port).collect(),
        created: deployment.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()),
    }
}

/// Sets how many replicas an app should have.
pub async fn scale(client: &kube::Client, namespace: &str, name: &str, replicas: u32) -> Result<(), DeployError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let patch = json!({ "spec": { "replicas": replicas } });
    match deployments.patch_scale(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(DeployError::NoSuchApp { name: name.to_owned() }),
        Err(source) => Err(DeployError::api(&format!("scale {name}"), source)),
    }
}
