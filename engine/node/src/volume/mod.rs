//! A pod's volumes on this machine: made before its containers, kept up to date while they run, removed with the pod.
//!
//! Every volume is a folder under `<home>/pods/<uid>/volumes/` (or the host's own path, or a link to a claim's); memory volumes,
//! and those that may show secrets, are mounted onto theirs inside the pod's mount namespace only, so the host and its disks
//! never see them. Blocking: call it from `spawn_blocking`, and what writes files from inside the pod.

mod atomic;
mod content;
mod host_path;
mod namespace;
mod persistent;
mod sub_path;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume, VolumeMount};

pub(crate) use content::Sources;
pub(crate) use namespace::{PodMount, inside, mount};
pub(crate) use persistent::{Claimed, FOLDERS, NODE, claim_of};

/// A volume that could not be made; the pod waits and tries again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
pub(crate) struct VolumeError {
    pub(crate) volume: String,
    pub(crate) message: String,
}

/// The folders of one pod's volumes.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// Below the pod's own folder.
    pub(crate) fn new(pod_folder: &Path) -> Self {
        Self { root: pod_folder.to_owned() }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// Makes a place for every volume of the pod. What shows objects is written by [`Volumes::refresh`], but refused here
    /// if it cannot be.
    pub(crate) fn prepare(&self, sources: &Sources<'_>) -> Result<(), VolumeError> {
        for volume in volumes(sources.pod) {
            self.prepare_one(volume, sources)
                .map_err(|message| VolumeError { volume: volume.name.clone(), message })?;
        }
        Ok(())
    }

    /// Writes what changed in volumes that show objects, from inside the pod; returns whether anything did.
    pub(crate) fn refresh(&self, sources: &Sources<'_>) -> Result<bool, VolumeError> {
        let mut changed = false;
        for volume in volumes(sources.pod) {
            let error = |message| VolumeError { volume: volume.name.clone(), message };
            if let Some(files) = content::files(volume, sources).map_err(error)? {
                changed |= self.write(volume, &files, sources.pod).map_err(error)?;
            }
        }
        Ok(changed)
    }

    fn prepare_one(&self, volume: &Volume, sources: &Sources<'_>) -> Result<(), String> {
        if let Some(host_path) = &volume.host_path {
            return host_path::check(Path::new(&host_path.path), host_path.type_.as_deref().unwrap_or_default());
        }
        if content::files(volume, sources)?.is_some() {
            return make_folder(&self.folder(&volume.name), 0o755);
        }
        if let Some(name) = claim_of(sources.pod, volume) {
            return persistent::prepare(&self.folder(&volume.name), volume, sources, &name);
        }
        if volume.image.is_some() {
            return make_folder(&self.folder(&volume.name), 0o755);
        }
        if volume.empty_dir.is_none() {
            return Err("this kind of volume is not supported by this node".to_owned());
        }
        let folder = self.folder(&volume.name);
        make_folder(&folder, 0o777)?;
        match fs_group(sources.pod) {
            Some(group) => give_to_group(&folder, group).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    fn write(&self, volume: &Volume, files: &[content::File], pod: &Pod) -> Result<bool, String> {
        let folder = self.folder(&volume.name);
        make_folder(&folder, 0o755)?;
        atomic::write(&folder, files, fs_group(pod)).map_err(|error| error.to_string())
    }

    /// The memory volumes, to be mounted inside the pod.
    pub(crate) fn memory(&self, pod: &Pod) -> Vec<PodMount> {
        let of_memory =
            |volume: &&Volume| volume.empty_dir.as_ref().is_some_and(|empty| empty.medium.as_deref() == Some("Memory"));
        let memory = volumes(pod).filter(of_memory).map(|volume| PodMount::Memory {
            onto: self.folder(&volume.name),
            size: volume.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref()).and_then(crate::amount::units),
            group: fs_group(pod),
        });
        let objects = volumes(pod).filter(|volume| is_private(volume));
        memory.chain(objects.map(|volume| PodMount::Objects { onto: self.folder(&volume.name) })).collect()
    }

    /// The mount of an image's layers.
    pub(crate) fn image(&self, volume: &Volume, lowers: &[PathBuf]) -> PodMount {
        PodMount::Image { lowers: lowers.to_vec(), onto: self.folder(&volume.name) }
    }

    /// What a file in one of the pod's own folders holds. Call it from inside the pod.
    pub(crate) fn read(&self, pod: &Pod, name: &str, path: &str) -> Result<Option<String>, String> {
        let volume = volumes(pod).find(|volume| volume.name == name);
        if volume.is_none_or(|volume| volume.empty_dir.is_none()) {
            return Err(format!("volume \"{name}\" is not an emptyDir of the pod"));
        }
        sub_path::read(&self.folder(name), path)
    }

    /// Where a container's mount comes from; with a subPath, also the mount that has to be made inside the pod first.
    pub(crate) fn source(
        &self,
        pod: &Pod,
        mount: &VolumeMount,
        sub_path: Option<&str>,
        (container, position): (&str, usize),
    ) -> Result<Source, String> {
        let volume = volumes(pod).find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume \"{}\" is not one of the pod's", mount.name))?;
        let base = match &volume.host_path {
            Some(host_path) => PathBuf::from(&host_path.path),
            None if claim_of(pod, volume).is_some() => std::fs::read_link(self.folder(&volume.name))
                .map_err(|error| format!("volume \"{}\" was not prepared: {error}", volume.name))?,
            None => self.folder(&volume.name),
        };
        let claim = volume.persistent_volume_claim.as_ref();
        let of_claim = claim.is_some_and(|claim| claim.read_only == Some(true));
        let shown = shows_objects(volume) || volume.image.is_some();
        let read_only = mount.read_only == Some(true) || of_claim || shown;
        let Some(sub) = sub_path.filter(|sub| !sub.is_empty()) else {
            return Ok(Source { path: base, read_only, first: None });
        };
        let onto = self.root.join("subpaths").join(container).join(position.to_string());
        let first = PodMount::SubPath { volume: base, sub: sub.to_owned(), onto: onto.clone() };
        Ok(Source { path: onto, read_only, first: Some(first) })
    }

    /// Removes everything, also what containers left there.
    pub(crate) fn remove(&self) -> std::io::Result<()> {
        for part in ["volumes", "subpaths", "etc"] {
            match std::fs::remove_dir_all(self.root.join(part)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where a mount of a container comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    /// What has to be mounted inside the pod before.
    pub(crate) first: Option<PodMount>,
}

pub(crate) fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn shows_objects(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Whether what it shows is kept off the disk, as by a kubelet.
fn is_private(volume: &Volume) -> bool {
    shows_objects(volume) && volume.config_map.is_none()
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), String> {
    let done = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)));
    done.map_err(|error| format!("make {}: {error}", folder.display()))
}

/// Lets the group own and write all that is there and all that will be made there.
fn give_to_group(path: &Path, group: u32) -> std::io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return std::os::unix::fs::lchown(path, None, Some(group));
    }
    chown(path, None, Some(group))?;
    let more = if metadata.is_dir() { 0o2770 } else { 0o660 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(metadata.mode() & 0o7777 | more))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_to_group(&entry?.path(), group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
