//! The volumes of a pod as pieces of work: what they show is read from the API, then written off the async threads.

use k8s_openapi::api::core::v1::Pod;

use super::Shared;
use crate::machine::Machine;
use crate::pod;
use crate::references::{self, Contents};
use crate::tokens::Tokens;
use crate::volume::{FOLDERS, Sources, VolumeError, Volumes};

impl<M: Machine> Shared<M> {
    pub(super) fn volumes(&self, pod: &Pod) -> Volumes {
        Volumes::new(&self.pod_folder(pod))
    }

    pub(super) async fn make_volumes(&self, pod: &Pod, tokens: &Tokens) -> Result<(), String> {
        self.fill_volumes(pod, tokens, Volumes::prepare).await
    }

    /// Brings volumes that show objects up to date.
    pub(crate) async fn refresh_volumes(&self, pod: &Pod, tokens: &Tokens) -> Result<(), String> {
        self.fill_volumes(pod, tokens, |volumes, sources| volumes.refresh(sources).map(drop)).await
    }

    async fn fill_volumes<F>(&self, pod: &Pod, tokens: &Tokens, fill: F) -> Result<(), String>
    where
        F: FnOnce(&Volumes, &Sources<'_>) -> Result<(), VolumeError> + Send + 'static,
    {
        if pod.spec.as_ref().is_none_or(|spec| spec.volumes.as_ref().is_none_or(Vec::is_empty)) {
            return Ok(());
        }
        let reading = Contents::read(&self.client, pod::namespace(pod), references::of_volumes(pod));
        let (contents, tokens) = tokio::join!(reading, tokens.read(&self.client, pod));
        let mut contents = contents.map_err(|error| error.to_string())?;
        contents.insert_tokens(tokens.map_err(|error| error.to_string())?);
        let (volumes, allocatable, pod) = (self.volumes(pod), self.allocatable, pod.clone());
        let (node, folders) = (self.names.node.clone(), self.home.join(FOLDERS));
        let filled = tokio::task::spawn_blocking(move || {
            let (node, folders) = (node.as_str(), folders.as_path());
            fill(&volumes, &Sources { pod: &pod, contents: &contents, allocatable: &allocatable, node, folders })
        });
        filled.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Removes the volumes of a pod that has come to its end.
    pub(crate) async fn remove_volumes(&self, pod: &Pod) {
        let volumes = self.volumes(pod);
        let removed = tokio::task::spawn_blocking(move || volumes.remove()).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(pod = pod::name(pod), %error, "could not remove all of the pod's volumes");
        }
    }
}
