//! What the kernel must be able to do before the first pod is made: a missing feature is named at once, with its remedy.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::FsOpenFlags;

use crate::error::ContainerError;

/// Each namespace that a pod has, and the option that a kernel without it was built without.
const NAMESPACES: &[(&str, &str)] = &[
    ("cgroup", "CONFIG_CGROUPS"),
    ("ipc", "CONFIG_IPC_NS"),
    ("mnt", "CONFIG_NAMESPACES"),
    ("net", "CONFIG_NET_NS"),
    ("pid", "CONFIG_PID_NS"),
    ("uts", "CONFIG_UTS_NS"),
];

/// Fails with the name of what is missing.
pub(crate) fn check() -> Result<(), ContainerError> {
    let missing = NAMESPACES.iter().find(|(name, _)| !Path::new("/proc/self/ns").join(name).exists());
    if let Some((name, option)) = missing {
        return unsupported(format!("this kernel has no {name} namespaces: use one built with {option}"));
    }
    // Asking for a filesystem also loads its module.
    match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NODEV) => unsupported(
            "this kernel has no overlayfs, which images are mounted with: use one built with CONFIG_OVERLAY_FS, or load \
             the module overlay",
        ),
        Err(Errno::PERM) => unsupported(
            "root may not mount here (CAP_SYS_ADMIN is missing): run on the host itself or in a privileged container",
        ),
        // Older kernels have no such call, and are asked when the first image is mounted.
        _ => Ok(()),
    }
}

fn unsupported(message: impl Into<String>) -> Result<(), ContainerError> {
    Err(ContainerError::Unsupported(message.into()))
}
