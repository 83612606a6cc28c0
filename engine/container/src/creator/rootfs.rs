//! The container's root: image layers below, a folder of its own on top, joined by overlayfs.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

use crate::error::{Context, Failure, FailureKind};
use crate::layout::ContainerPaths;
use crate::spec::ContainerSpec;

/// The kernel's limit (`OVL_MAX_STACK`).
const LAYERS_MAX: usize = 500;

/// Mounts the root and returns its path.
pub(super) fn mount(spec: &ContainerSpec, paths: &ContainerPaths) -> Result<PathBuf, Failure> {
    check(&spec.lowers)?;
    let (upper, work, root) = (paths.upper(), paths.work(), paths.root());
    for folder in [&upper, &work, &root] {
        fs::create_dir_all(folder).or_internal(|| format!("make {}", folder.display()))?;
    }
    let overlay = Overlay { lowers: &spec.lowers, upper: &upper, work: &work, devices: spec.privileged };
    let mounted = overlay.mount(&root).or_else(|error| match error {
        // Kernels before 6.5 do not know `lowerdir+`; options of the old call must fit into one page.
        rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::TOOBIG => {
            overlay.mount_by_options(&root)
        }
        error => Err(error.into()),
    });
    mounted.or_fail(FailureKind::CreateContainer, || format!("mount the root filesystem at {}", root.display()))?;
    refuse_links(&root)?;
    Ok(root)
}

fn check(lowers: &[PathBuf]) -> Result<(), Failure> {
    if lowers.is_empty() || lowers.len() > LAYERS_MAX {
        return Err(Failure::create(format!("a root filesystem of {} layers: 1 to {LAYERS_MAX} work", lowers.len())));
    }
    match lowers.iter().find(|lower| !lower.is_dir()) {
        Some(missing) => {
            Err(Failure::create(format!("the root filesystem is missing: no folder {}", missing.display())))
        }
        None => Ok(()),
    }
}

/// libcontainer makes links and nodes below these by path before it enters the root; a link in the image would lead it
/// out into the host's tree.
fn refuse_links(root: &Path) -> Result<(), Failure> {
    for name in ["dev", "proc", "sys"] {
        match fs::symlink_metadata(root.join(name)) {
            Ok(found) if !found.is_dir() => {
                return Err(Failure::create(format!("the image's /{name} is not a folder")));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::create(format!("cannot look at the image's /{name}: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

struct Overlay<'a> {
    lowers: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
    devices: bool,
}

impl Overlay<'_> {
    fn mount(&self, root: &Path) -> rustix::io::Result<()> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in self.lowers.iter().rev() {
            fsconfig_set_string(context.as_fd(), "lowerdir+", lower)?;
        }
        fsconfig_set_string(context.as_fd(), "upperdir", self.upper)?;
        fsconfig_set_string(context.as_fd(), "workdir", self.work)?;
        // The top layer never outlives its container, so it need not survive a crash; without this, unmounting syncs
        // the whole filesystem below.
        fsconfig_set_flag(context.as_fd(), "volatile")?;
        fsconfig_create(context.as_fd())?;
        let attributes = if self.devices { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(mount.as_fd(), "", CWD, root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    fn mount_by_options(&self, root: &Path) -> io::Result<()> {
        let lowers: Vec<_> = self.lowers.iter().rev().map(|lower| escaped(lower)).collect();
        let (upper, work) = (escaped(self.upper), escaped(self.work));
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lowers.join(":"));
        let flags = if self.devices { MsFlags::empty() } else { MsFlags::MS_NODEV };
        Ok(nix::mount::mount(Some("overlay"), root, Some("overlay"), flags, Some(options.as_str()))?)
    }
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_layer_paths_are_escaped() {
        assert_eq!(escaped(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }

    #[test]
    fn a_missing_layer_is_named() {
        assert!(check(&["/no/such/layer".into()]).unwrap_err().message.contains("/no/such/layer"));
        assert!(check(&[]).is_err());
    }
}
