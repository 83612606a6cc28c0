//! The volumes of a pod as pieces of work: what they show is read from the API, then written off the async threads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::Shared;
use crate::amount::Allocatable;
use crate::image::PullPolicy;
use crate::machine::{Machine, Sandbox};
use crate::pod;
use crate::references::{self, Contents, Files};
use crate::tokens::Tokens;
use crate::volume::{FOLDERS, PodMount, Sources, VolumeError, Volumes, volumes};

/// A pod's volumes and all that they are made from.
pub(super) struct Shown {
    volumes: Volumes,
    pod: Pod,
    contents: Contents,
    allocatable: Allocatable,
    node: String,
    folders: PathBuf,
}

impl Shown {
    fn with<T>(&self, act: impl FnOnce(&Volumes, &Sources<'_>) -> Result<T, VolumeError>) -> Result<T, String> {
        let Self { volumes, pod, contents, allocatable, node, folders } = self;
        act(volumes, &Sources { pod, contents, allocatable, node, folders }).map_err(|error| error.to_string())
    }
}

impl<M: Machine> Shared<M> {
    pub(super) fn volumes(&self, pod: &Pod) -> Volumes {
        Volumes::new(&self.pod_folder(pod))
    }

    /// Makes places for the pod's volumes; none where it has no volumes.
    pub(super) async fn make_volumes(&self, pod: &Pod, tokens: &Tokens) -> Result<Option<Shown>, String> {
        let Some(shown) = self.read_volumes(pod, tokens).await? else { return Ok(None) };
        let made = tokio::task::spawn_blocking(move || shown.with(Volumes::prepare).map(|()| Some(shown)));
        made.await.map_err(|error| error.to_string())?
    }

    /// Writes what volumes show, inside the pod.
    pub(super) async fn fill_volumes(&self, shown: Option<Shown>, sandbox: &M::Sandbox) -> Result<(), String> {
        let Some(shown) = shown else { return Ok(()) };
        let work = move || shown.with(|volumes, sources| volumes.refresh(sources).map(drop));
        self.machine.inside(sandbox.supervisor(), Box::new(work)).await
    }

    /// Brings volumes that show objects up to date.
    pub(crate) async fn refresh_volumes(&self, pod: &Pod, tokens: &Tokens, sandbox: &M::Sandbox) -> Result<(), String> {
        self.fill_volumes(self.read_volumes(pod, tokens).await?, sandbox).await
    }

    async fn read_volumes(&self, pod: &Pod, tokens: &Tokens) -> Result<Option<Shown>, String> {
        if pod.spec.as_ref().is_none_or(|spec| spec.volumes.as_ref().is_none_or(Vec::is_empty)) {
            return Ok(None);
        }
        let reading = Contents::read(&self.client, pod::namespace(pod), references::of_volumes(pod));
        let (contents, tokens) = tokio::join!(reading, tokens.read(&self.client, pod));
        let mut contents = contents.map_err(|error| error.to_string())?;
        contents.insert_tokens(tokens.map_err(|error| error.to_string())?);
        let (node, folders) = (self.names.node.clone(), self.home.join(FOLDERS));
        let (volumes, pod, allocatable) = (self.volumes(pod), pod.clone(), self.allocatable);
        Ok(Some(Shown { volumes, pod, contents, allocatable, node, folders }))
    }

    /// The images that volumes show, found or pulled.
    pub(super) async fn image_mounts(&self, pod: &Pod) -> Result<Vec<PodMount>, String> {
        let mut mounts = Vec::new();
        for volume in volumes(pod) {
            let Some(source) = &volume.image else { continue };
            let image = source.reference.as_deref().unwrap_or_default();
            let policy = PullPolicy::of(source.pull_policy.as_deref(), image);
            let found = self.fetch_image(pod, None, image, policy).await;
            let found =
                found.map_err(|(_, message)| VolumeError { volume: volume.name.clone(), message }.to_string())?;
            mounts.push(self.volumes(pod).image(volume, &found.lowers));
        }
        Ok(mounts)
    }

    /// The files that a container takes variables from, which only the pod sees.
    pub(super) async fn read_files(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &M::Sandbox,
    ) -> Result<Files, String> {
        let wanted = references::files_of(container);
        if wanted.is_empty() {
            return Ok(Files::new());
        }
        let found = Arc::new(Mutex::new(Files::new()));
        let (volumes, pod, into) = (self.volumes(pod), pod.clone(), found.clone());
        let work = move || {
            for (name, path) in wanted {
                if let Some(text) = volumes.read(&pod, &name, &path)? {
                    into.lock().unwrap_or_else(PoisonError::into_inner).insert((name, path), text);
                }
            }
            Ok(())
        };
        self.machine.inside(sandbox.supervisor(), Box::new(work)).await?;
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(found)
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
