//! What exists only inside a pod's mount namespace: memory volumes, those that show secrets among them, and subPaths. It
//! vanishes with the pod's supervisor and never shows on the host.
//!
//! Entering a mount namespace changes a thread for good, so each request gets a thread of its own that ends with it.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use tokio::sync::oneshot;

use super::sub_path;

/// A mount to be made inside a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PodMount {
    /// A tmpfs shared by the pod's containers.
    Memory {
        /// The volume's folder.
        onto: PathBuf,
        /// In bytes; half of the machine's memory when not set.
        size: Option<u64>,
        /// The group that may write there.
        group: Option<u32>,
    },
    /// A tmpfs for files that the node writes: what they say never reaches a disk.
    Objects {
        /// The volume's folder.
        onto: PathBuf,
    },
    /// The content of an image, for reading.
    Image {
        /// Unpacked layers, lowest first.
        lowers: Vec<PathBuf>,
        /// The volume's folder.
        onto: PathBuf,
    },
    /// A file or folder inside a volume, pinned so that no link can exchange it afterwards.
    SubPath {
        /// The volume.
        volume: PathBuf,
        /// Inside it.
        sub: String,
        /// Where it can be bound from.
        onto: PathBuf,
    },
}

/// Makes `mounts` in the mount namespace of process `supervisor`.
pub(crate) async fn mount(supervisor: i32, mounts: Vec<PodMount>) -> Result<(), String> {
    if mounts.is_empty() {
        return Ok(());
    }
    inside(supervisor, move || mounts.iter().try_for_each(mount_one)).await
}

/// Does something, which may block, in the mount namespace of process `supervisor`.
pub(crate) async fn inside(
    supervisor: i32,
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let (answer, answered) = oneshot::channel();
    let work = move || {
        if answer.send(enter(supervisor).and_then(|()| work())).is_err() {
            tracing::debug!("something was done for a pod that is not waited for any more");
        }
    };
    std::thread::Builder::new().name("pod-mounts".to_owned()).spawn(work).map_err(|error| error.to_string())?;
    answered.await.map_err(|_| "the mounting thread ended early".to_owned())?
}

fn enter(supervisor: i32) -> Result<(), String> {
    let path = format!("/proc/{supervisor}/ns/mnt");
    let namespace = File::open(&path).map_err(|error| format!("open {path}: {error}"))?;
    // A thread that shares its root and working folder with others may not change its mount namespace.
    unshare(CloneFlags::CLONE_FS).map_err(|error| format!("unshare the file system view: {error}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|error| format!("enter {path}: {error}"))
}

fn mount_one(mount: &PodMount) -> Result<(), String> {
    match mount {
        PodMount::Memory { onto, size, group } => mount_memory(onto, *size, *group),
        PodMount::Objects { onto } => mount_objects(onto),
        PodMount::Image { lowers, onto } => mount_image(lowers, onto),
        PodMount::SubPath { volume, sub, onto } => pin(&sub_path::open(volume, sub)?, onto),
    }
}

fn mount_memory(onto: &Path, size: Option<u64>, group: Option<u32>) -> Result<(), String> {
    let mode = if group.is_some() { "2777" } else { "1777" };
    let mut options = format!("mode={mode}");
    if let Some(size) = size {
        write!(options, ",size={size}").expect("a string takes all that is written");
    }
    if let Some(group) = group {
        write!(options, ",gid={group}").expect("a string takes all that is written");
    }
    tmpfs(onto, &options).map_err(|error| format!("mount a tmpfs on {}: {error}", onto.display()))
}

/// The folder itself, which is empty, is the lowest layer: the kernel wants two where nothing can be written.
fn mount_image(lowers: &[PathBuf], onto: &Path) -> Result<(), String> {
    let mount = || {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for lower in lowers.iter().rev().map(PathBuf::as_path).chain([onto]) {
            fsconfig_set_string(context.as_fd(), "lowerdir+", lower)?;
        }
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mounted = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        move_mount(mounted.as_fd(), "", CWD, onto, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    let mounted: rustix::io::Result<()> = mount();
    mounted.map_err(|error| format!("mount the image on {}: {error}", onto.display()))
}

fn mount_objects(onto: &Path) -> Result<(), String> {
    let mounted = match tmpfs(onto, "mode=755,noswap") {
        // Before Linux 6.4 it cannot be kept from swap.
        Err(rustix::io::Errno::INVAL) => tmpfs(onto, "mode=755"),
        other => other,
    };
    mounted.map_err(|error| format!("mount a tmpfs on {}: {error}", onto.display()))
}

fn tmpfs(onto: &Path, options: &str) -> rustix::io::Result<()> {
    let options = std::ffi::CString::new(options).expect("digits and words hold no zero byte");
    rustix::mount::mount("tmpfs", onto, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
}

fn pin(target: &OwnedFd, onto: &Path) -> Result<(), String> {
    let describe = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", onto.display());
    match rustix::mount::unmount(onto, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(describe("unmount", &error)),
    }
    let stat = rustix::fs::fstat(target).map_err(|error| describe("look at what is for", &error))?;
    let folder = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    make_mount_point(onto, folder).map_err(|error| describe("make", &error))?;
    let source = format!("/proc/thread-self/fd/{}", target.as_raw_fd());
    rustix::mount::mount_bind(source, onto).map_err(|error| describe("bind onto", &error))
}

fn make_mount_point(onto: &Path, folder: bool) -> std::io::Result<()> {
    if folder {
        if onto.is_file() {
            std::fs::remove_file(onto)?;
        }
        return std::fs::create_dir_all(onto);
    }
    if onto.is_dir() {
        std::fs::remove_dir(onto)?;
    }
    std::fs::create_dir_all(onto.parent().expect("a mount point lies in the pod's folder"))?;
    File::create(onto).map(drop)
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountPropagationFlags, mount_change};

    use super::*;

    /// A thread in a mount namespace of its own, until what is returned second is dropped.
    fn other_namespace() -> (i32, std::sync::mpsc::Sender<()>) {
        let (tell, told) = std::sync::mpsc::channel();
        let (hold, until) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a namespace");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("heard");
            assert!(until.recv().is_err(), "nothing is sent");
        });
        (told.recv().expect("told"), hold)
    }

    #[tokio::test]
    async fn what_is_written_inside_does_not_reach_the_disk() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: it needs root");
            return;
        }
        let home = tempfile::tempdir().expect("a folder");
        let (place, _hold) = other_namespace();
        let (onto, file) = (home.path().to_owned(), home.path().join("token"));
        mount(place, vec![PodMount::Objects { onto: onto.clone() }]).await.expect("mounted");
        let inner = file.clone();
        let write = move || std::fs::write(&inner, "secret").map_err(|error| error.to_string());
        inside(place, write).await.expect("written");
        assert!(!file.exists(), "it is on the disk");
        let read = move || {
            let magic = rustix::fs::statfs(&onto).map_err(|error| error.to_string())?.f_type;
            let text = std::fs::read_to_string(onto.join("token")).map_err(|error| error.to_string())?;
            if (magic, text.as_str()) == (0x0102_1994, "secret") { Ok(()) } else { Err(format!("{magic:x} {text}")) }
        };
        inside(place, read).await.expect("it is there, in memory");
    }
}
