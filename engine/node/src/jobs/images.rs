//! Images for the pod's containers and volumes, with the credentials that its secrets hold and the events that tell how they came.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use shipway_driver::EventKind;

use super::Shared;
use crate::image::{Image, PullPolicy, Told};
use crate::keyring::Keyring;
use crate::machine::Machine;
use crate::observed::Happened;
use crate::pod;
use crate::references::{Contents, Reference};

impl<M: Machine> Shared<M> {
    /// The image of one container, with the events that tell how it came.
    pub(crate) async fn fetch(&self, pod: &Pod, container: &str) -> Happened {
        let spec = pod::any_container(pod, container);
        let image = spec.as_ref().and_then(|spec| spec.image.as_deref()).unwrap_or_default();
        let policy = PullPolicy::of(spec.as_ref().and_then(|spec| spec.image_pull_policy.as_deref()), image);
        let result = self.fetch_image(pod, Some(container), image, policy).await;
        Happened::Fetched { container: container.to_owned(), result }
    }

    pub(super) async fn fetch_image(
        &self,
        pod: &Pod,
        container: Option<&str>,
        image: &str,
        policy: PullPolicy,
    ) -> Result<Arc<Image>, (String, String)> {
        let keys = self.keys(pod, container).await;
        let (result, told) = self.machine.fetch(image, policy, &keys).await;
        for told in told {
            match told {
                Told::Normal(reason, message) => self.tell(pod, container, EventKind::Normal, reason, &message),
                Told::Warning(reason, message) => self.warn(pod, container, reason, &message),
            }
        }
        result
    }

    /// What the pod's secrets for registries hold. What is missing may not be needed: it is only told.
    async fn keys(&self, pod: &Pod, container: Option<&str>) -> Keyring {
        let spec = pod.spec.as_ref();
        let names = spec.and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
        let mut keys = Keyring::default();
        if names.is_empty() {
            return keys;
        }
        let wanted = names.iter().map(|secret| Reference::Secret(secret.name.clone()));
        let contents = Contents::read(&self.client, pod::namespace(pod), wanted).await.unwrap_or_default();
        let mut missing = Vec::new();
        for secret in names {
            let found = contents.secret(&secret.name).map(|data| keys.add(&data));
            if !matches!(found, Some(Ok(()))) {
                missing.push(secret.name.as_str());
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.warn(pod, container, "FailedToRetrieveImagePullSecret", &message);
        }
        keys
    }
}
