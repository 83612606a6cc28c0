//! Volumes that outlive their pods: where on this machine the bytes of a claim are.
//!
//! A pod's own folder holds a link to them, so that containers which start later, and engines too, find the place.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::{Sources, fs_group, give_to_group, host_path, make_folder};
use crate::pod;

/// Below a node's home: the folders that it keeps for volumes, each named like its volume.
pub(crate) const FOLDERS: &str = "volumes";
/// Which node keeps a volume's folder.
pub(crate) const NODE: &str = "shipway.dev/node";

/// The claim that a volume stands for.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
    named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod::name(pod), volume.name)))
}

/// A claim as far as a mount needs it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claimed {
    pub(crate) claim: PersistentVolumeClaim,
    /// What it is bound to, where that is there.
    pub(crate) volume: Option<PersistentVolume>,
}

/// Finds the bytes of a claim, makes the folder where it is ours to make, and links to it from `link`.
pub(super) fn prepare(link: &Path, volume: &Volume, sources: &Sources<'_>, name: &str) -> Result<(), String> {
    let found = sources.contents.claim(name).ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
    if volume.ephemeral.is_some() && !belongs_to(&found.claim, sources.pod) {
        return Err(format!("PVC \"{name}\" was not created for the pod"));
    }
    let bound = bound(found, name)?;
    let place = place(bound, sources)?;
    if bound.spec.as_ref().is_some_and(|spec| spec.local.is_some()) {
        share(&place, sources.pod)?;
    }
    point(link, &place).map_err(|error| format!("link to {}: {error}", place.display()))
}

fn belongs_to(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == pod::uid(pod))
}

fn bound<'a>(found: &'a Claimed, name: &str) -> Result<&'a PersistentVolume, String> {
    if found.claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let phase = found.claim.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase != Some("Bound") {
        return Err(format!("persistentvolumeclaim \"{name}\" is not bound (phase {})", phase.unwrap_or("Pending")));
    }
    let volume =
        found.volume.as_ref().ok_or_else(|| format!("the volume of persistentvolumeclaim \"{name}\" is gone"))?;
    let spec = volume.spec.as_ref();
    if spec.and_then(|spec| spec.claim_ref.as_ref()?.uid.as_ref()) != found.claim.metadata.uid.as_ref() {
        return Err(format!("the volume of persistentvolumeclaim \"{name}\" is bound to another claim"));
    }
    if spec.is_some_and(|spec| spec.volume_mode.as_deref() == Some("Block")) {
        return Err("volumes of mode Block are not supported by this node".to_owned());
    }
    Ok(volume)
}

fn place(volume: &PersistentVolume, sources: &Sources<'_>) -> Result<PathBuf, String> {
    let spec = volume.spec.as_ref();
    if let Some(source) = spec.and_then(|spec| spec.host_path.as_ref()) {
        let path = PathBuf::from(&source.path);
        host_path::check(&path, source.type_.as_deref().unwrap_or_default())?;
        return Ok(path);
    }
    let Some(source) = spec.and_then(|spec| spec.local.as_ref()) else {
        return Err("volumes other than hostPath and local are not supported by this node".to_owned());
    };
    let path = PathBuf::from(&source.path);
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let keeper = volume.metadata.labels.as_ref().and_then(|labels| labels.get(NODE));
    if keeper.is_some_and(|keeper| keeper == sources.node) && path == sources.folders.join(name) && !path.exists() {
        make_folder(&path, 0o777)?;
    }
    host_path::check(&path, "Directory").map_err(|_| format!("path \"{}\" does not exist", path.display()))?;
    Ok(path)
}

/// Lets the pod's group write, unless all there is was given to it before and the pod trusts in that.
fn share(place: &Path, pod: &Pod) -> Result<(), String> {
    let Some(group) = fs_group(pod) else { return Ok(()) };
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let trusts = context.is_some_and(|it| it.fs_group_change_policy.as_deref() == Some("OnRootMismatch"));
    let shared = std::fs::metadata(place).is_ok_and(|found| found.gid() == group && found.mode() & 0o2060 == 0o2060);
    if trusts && shared {
        return Ok(());
    }
    give_to_group(place, group).map_err(|error| format!("give {} to group {group}: {error}", place.display()))
}

fn point(link: &Path, place: &Path) -> std::io::Result<()> {
    if std::fs::read_link(link).is_ok_and(|known| known == place) {
        return Ok(());
    }
    if let Some(folder) = link.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(place, link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Allocatable;
    use crate::references::Contents;
    use serde_json::{Value, json};

    const HERE: Allocatable = Allocatable { cpu_milli: 1000, memory: 1 << 30, storage: 0 };

    struct Try {
        home: tempfile::TempDir,
        claim: Value,
        volume: Value,
    }

    impl Try {
        fn new() -> Self {
            let home = tempfile::tempdir().expect("a folder");
            let path = home.path().join("volumes/v");
            Self {
                claim: json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}),
                volume: json!({
                    "metadata": {"name": "v", "labels": {NODE: "here"}},
                    "spec": {"local": {"path": path}, "claimRef": {"uid": "u"}},
                }),
                home,
            }
        }

        fn link(&self) -> PathBuf {
            self.home.path().join("pod/volumes/data")
        }

        fn prepare(&self, volume: Value) -> Result<(), String> {
            let pod = json!({"metadata": {"name": "p", "uid": "pod"}, "spec": {"containers": []}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let mut contents = Contents::default();
            let claimed = Claimed {
                claim: serde_json::from_value(self.claim.clone()).expect("a claim"),
                volume: serde_json::from_value(self.volume.clone()).expect("a volume"),
            };
            contents.insert_claim("c", claimed);
            let folders = self.home.path().join(FOLDERS);
            let sources =
                Sources { pod: &pod, contents: &contents, allocatable: &HERE, node: "here", folders: &folders };
            let volume: Volume = serde_json::from_value(volume).expect("a volume");
            let name = claim_of(&pod, &volume).expect("a claim");
            prepare(&self.link(), &volume, &sources, &name)
        }
    }

    fn data() -> Value {
        json!({"name": "data", "persistentVolumeClaim": {"claimName": "c"}})
    }

    #[test]
    fn the_folder_is_made_once_and_linked_to() {
        let tried = Try::new();
        tried.prepare(data()).expect("a volume");
        let place = std::fs::read_link(tried.link()).expect("a link");
        std::fs::write(place.join("kept"), "x").expect("written");
        tried.prepare(data()).expect("a second time");
        assert_eq!(std::fs::read_to_string(tried.link().join("kept")).expect("kept"), "x");
    }

    #[test]
    fn what_is_not_ours_must_be_there() {
        let mut tried = Try::new();
        tried.volume["metadata"]["labels"] = json!({NODE: "elsewhere"});
        assert!(tried.prepare(data()).expect_err("not here").contains("does not exist"));
        tried.volume["spec"] =
            json!({"hostPath": {"path": tried.home.path(), "type": "Directory"}, "claimRef": {"uid": "u"}});
        tried.prepare(data()).expect("it is there");
    }

    #[test]
    fn a_claim_must_be_bound_to_its_volume() {
        let refused = |change: fn(&mut Try)| {
            let mut tried = Try::new();
            change(&mut tried);
            tried.prepare(data()).expect_err("refused")
        };
        assert!(refused(|it| it.claim["status"]["phase"] = json!("Pending")).contains("is not bound"));
        assert!(
            refused(|it| it.claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")).contains("deleted")
        );
        assert!(refused(|it| it.volume = Value::Null).contains("is gone"));
        assert!(refused(|it| it.volume["spec"]["claimRef"]["uid"] = json!("w")).contains("another claim"));
        assert!(refused(|it| it.volume["spec"]["volumeMode"] = json!("Block")).contains("Block"));
        assert!(refused(|it| it.volume["spec"]["local"] = Value::Null).contains("not supported"));
    }

    #[test]
    fn a_claim_made_for_a_pod_is_for_no_other() {
        let tried = Try::new();
        let scratch = json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        assert!(tried.prepare(scratch).expect_err("it has another name").contains("p-scratch"));
        let found = Claimed { claim: serde_json::from_value(tried.claim.clone()).expect("a claim"), volume: None };
        assert!(!belongs_to(&found.claim, &Pod::default()));
    }
}
