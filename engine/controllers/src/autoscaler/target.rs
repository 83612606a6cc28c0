//! What is scaled: any kind with a `scale` subresource, custom ones included.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};

/// The target of an autoscaler as it is now.
pub(super) struct Target {
    api: Api<DynamicObject>,
    scale: Scale,
    /// The name of its resource for messages.
    pub(super) resource: String,
}

/// The resource that a reference names.
pub(super) async fn resource(client: &Client, to: &CrossVersionObjectReference) -> Result<ApiResource, String> {
    let version = to.api_version.as_deref().unwrap_or("v1");
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, &to.kind);
    let found = kube::discovery::pinned_kind(client, &kind).await;
    found.map(|(resource, _)| resource).map_err(|error| match error {
        kube::Error::Discovery(_) => format!("no matches for kind \"{}\" in group \"{group}\"", to.kind),
        other => other.to_string(),
    })
}

impl Target {
    /// Finds it.
    pub(super) async fn find(
        client: &Client,
        namespace: &str,
        to: &CrossVersionObjectReference,
    ) -> Result<Self, String> {
        let resource = resource(client, to).await?;
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let scale = api.get_scale(&to.name).await.map_err(|error| error.to_string())?;
        Ok(Self { api, scale, resource: resource.plural })
    }

    /// How many replicas are asked for.
    pub(super) fn asked(&self) -> i32 {
        self.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
    }

    /// How many replicas there are.
    pub(super) fn there(&self) -> i32 {
        self.scale.status.as_ref().map_or(0, |status| status.replicas)
    }

    /// Which pods are its own, as text; empty where it does not say.
    pub(super) fn selector(&self) -> &str {
        self.scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default()
    }

    /// Asks for another number, if the target is still what was found.
    pub(super) async fn scale_to(&self, replicas: i32) -> Result<(), kube::Error> {
        let mut wanted = self.scale.clone();
        wanted.spec.get_or_insert_default().replicas = Some(replicas);
        let name = wanted.metadata.name.clone().unwrap_or_default();
        self.api.replace_scale(&name, &PostParams::default(), &wanted).await.map(drop)
    }
}
