//! What a pod keeps on the node's disk, and whether that is more than it may.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::admit::Sentence;
use crate::volume::volumes;
use crate::{amount, pod};

const STORAGE: &str = "ephemeral-storage";
/// The kernel's unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Whether the pod has a limit that has to be looked after. Folders in memory keep their own.
pub(super) fn is_limited(pod: &Pod) -> bool {
    folders(pod).next().is_some() || pod::containers(pod).any(|container| limit(container).is_some())
}

/// The pod's folders on the disk that have a limit.
fn folders(pod: &Pod) -> impl Iterator<Item = (&str, &Quantity)> {
    volumes(pod).filter_map(|volume| {
        let empty = volume.empty_dir.as_ref().filter(|empty| empty.medium.as_deref() != Some("Memory"))?;
        Some((volume.name.as_str(), empty.size_limit.as_ref()?))
    })
}

fn limit(container: &Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)
}

/// Why the pod is to go, if it is; `own` is what each container writes beside volumes.
pub(super) fn excess(pod: &Pod, home: &Path, own: &[(String, Vec<PathBuf>)]) -> Option<Sentence> {
    let evicted = |message: String| Sentence { reason: "Evicted", message, disrupts: true };
    let beyond = |used: u64, limit: &Quantity| amount::units(limit).is_some_and(|limit| used > limit);
    let full = folders(pod).find(|(name, limit)| beyond(size(&folder(pod, home, name)), limit));
    if let Some((name, limit)) = full {
        return Some(evicted(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ", limit.0)));
    }
    let used_by = |name: &str| -> u64 {
        own.iter().filter(|(whose, _)| whose == name).flat_map(|(_, places)| places).map(|place| size(place)).sum()
    };
    for container in pod::containers(pod) {
        if let Some(limit) = limit(container).filter(|limit| beyond(used_by(&container.name), limit)) {
            let name = &container.name;
            return Some(evicted(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{}\". ",
                limit.0
            )));
        }
    }
    // The pod as a whole has a limit when each of its containers has.
    let spec = pod.spec.as_ref()?;
    let limits: Option<Vec<u64>> = spec.containers.iter().map(|it| limit(it).and_then(amount::units)).collect();
    let most: u64 = limits.filter(|limits| !limits.is_empty())?.into_iter().sum();
    (all(pod, home, own) > most)
        .then(|| evicted(format!("Pod ephemeral local storage usage exceeds the total limit of containers {most}. ")))
}

/// All that the pod keeps on the node's disk.
pub(super) fn all(pod: &Pod, home: &Path, own: &[(String, Vec<PathBuf>)]) -> u64 {
    let empty = volumes(pod).filter(|volume| volume.empty_dir.is_some());
    let folders: u64 = empty.map(|volume| size(&folder(pod, home, &volume.name))).sum();
    folders + own.iter().flat_map(|(_, places)| places).map(|place| size(place)).sum::<u64>()
}

fn folder(pod: &Pod, home: &Path, name: &str) -> PathBuf {
    home.join("pods").join(pod::uid(pod)).join("volumes").join(name)
}

/// The bytes that a folder and all below it take on its disk; what vanishes meanwhile takes none. Links are not followed.
fn size(folder: &Path) -> u64 {
    let mut sum = 0;
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        sum += found.blocks() * BLOCK;
        if found.is_dir() {
            left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(volumes: Value, limits: Value) -> Pod {
        let container = json!({"name": "c", "resources": {"limits": limits}});
        let spec = json!({"containers": [container], "volumes": volumes});
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).expect("a pod")
    }

    fn fill(path: &Path, kib: usize) {
        std::fs::create_dir_all(path).expect("made");
        std::fs::write(path.join("f"), vec![1; kib << 10]).expect("written");
    }

    #[test]
    fn a_folder_a_container_and_a_pod_each_have_their_limit() {
        let home = tempfile::tempdir().expect("a folder");
        let (folder, layer) = (home.path().join("pods/u/volumes/v"), home.path().join("layer"));
        fill(&folder, 600);
        fill(&layer, 600);
        // What a link leads to belongs to somebody else.
        std::os::unix::fs::symlink("/usr", folder.join("link")).expect("linked");
        let own = [("c".to_owned(), vec![layer])];
        let said = |pod: &Pod| excess(pod, home.path(), &own).map(|sentence| sentence.message);
        let empty = |limit: &str| json!([{"name": "v", "emptyDir": {"sizeLimit": limit}}]);
        let storage = |limit: &str| json!({"ephemeral-storage": limit});
        assert!(said(&pod(empty("500Ki"), json!({}))).expect("it is beyond").contains("EmptyDir volume \"v\""));
        assert_eq!(said(&pod(empty("1Mi"), json!({}))), None);
        assert!(said(&pod(json!([]), storage("500Ki"))).expect("it is beyond").starts_with("Container c exceeded"));
        assert_eq!(said(&pod(json!([]), storage("1Mi"))), None);
        assert!(said(&pod(empty("1Mi"), storage("1Mi"))).expect("both are beyond").starts_with("Pod ephemeral"));
        assert!(!is_limited(&pod(
            json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi", "medium": "Memory"}}]),
            json!({})
        )));
    }
}
