//! The folders of volumes that were made for claims on this node: a volume that goes takes its folder with it, unless it is to
//! be retained. The folder is gone before its volume's object is.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use shipway_driver::{Queue, cached, drive};
use tokio_util::sync::CancellationToken;

use crate::error::{NodeError, is_conflict, is_not_found};
use crate::volume::{FOLDERS, NODE};

/// What a volume waits for until its folder is removed.
const FINALIZER: &str = "shipway.dev/folder";

/// Removes folders until stopped.
pub(crate) async fn run(client: Client, node: &str, home: &Path, stop: CancellationToken) {
    let queue = Arc::new(Queue::<String>::new());
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let wake = queue.clone();
    let config = watcher::Config::default().labels(&format!("{NODE}={node}"));
    let (volumes, watching) = cached(api, config, stop.clone(), move |change| {
        let volume = change.object();
        if volume.metadata.deletion_timestamp.is_some() {
            wake.add(volume.name_any());
        }
    });
    let folders = home.join(FOLDERS);
    let removing = drive(queue, 1, stop, move |name: String| {
        let volume = volumes.find(|volume| volume.metadata.name.as_deref() == Some(name.as_str()));
        let (client, folders) = (client.clone(), folders.clone());
        async move {
            if let Some(volume) = volume.filter(|it| it.finalizers().iter().any(|it| it == FINALIZER)) {
                remove(&client, &folders, &volume).await?;
            }
            Ok::<Option<Duration>, NodeError>(None)
        }
    });
    tokio::join!(watching, removing);
}

async fn remove(client: &Client, folders: &Path, volume: &PersistentVolume) -> Result<(), NodeError> {
    let name = volume.name_any();
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if let Some(folder) = folder(folders, &name).filter(|_| policy == Some("Delete")) {
        let removed = tokio::task::spawn_blocking(move || remove_folder(&folder)).await;
        removed
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| NodeError::Runtime(format!("remove the folder of volume {name}: {error}")))?;
    }
    let left: Vec<_> = volume.finalizers().iter().filter(|it| *it != FINALIZER).collect();
    let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version, "finalizers": left}});
    let api: Api<PersistentVolume> = Api::all(client.clone());
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        // Gone, or changed under us: the watch brings it again.
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        other => other.map(drop).map_err(|error| NodeError::api(format!("let volume {name} go"), error)),
    }
}

/// Whatever the object says of its path: only what lies in our own folder is ours to remove.
fn folder(folders: &Path, name: &str) -> Option<PathBuf> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    plain.then(|| folders.join(name))
}

fn remove_folder(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Answer};

    async fn removed(policy: &str) -> (bool, Vec<serde_json::Value>) {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("v");
        std::fs::create_dir_all(folder.join("deep")).expect("made");
        let volume = json!({
            "metadata": {"name": "v", "finalizers": ["kubernetes.io/pv-protection", FINALIZER]},
            "spec": {"persistentVolumeReclaimPolicy": policy, "local": {"path": "/etc"}},
        });
        let (client, asked) = testing::api(|_| Answer::Echo(json!({"metadata": {"name": "v"}})));
        let volume: PersistentVolume = serde_json::from_value(volume).expect("a volume");
        remove(&client, home.path(), &volume).await.expect("removed");
        let patches =
            asked.lock().expect("not poisoned").iter().map(|one| one.body["metadata"]["finalizers"].clone()).collect();
        (!folder.exists(), patches)
    }

    #[tokio::test]
    async fn the_folder_goes_first_and_only_if_it_is_not_to_be_kept() {
        let left = vec![json!(["kubernetes.io/pv-protection"])];
        assert_eq!(removed("Delete").await, (true, left.clone()));
        assert_eq!(removed("Retain").await, (false, left));
    }

    #[test]
    fn nothing_outside_is_ours_to_remove() {
        let folders = Path::new("/home/volumes");
        assert_eq!(folder(folders, "pvc-1"), Some(PathBuf::from("/home/volumes/pvc-1")));
        for name in ["..", ".", "", "/etc", "a/b", "../pods"] {
            assert_eq!(folder(folders, name), None, "{name}");
        }
    }
}
