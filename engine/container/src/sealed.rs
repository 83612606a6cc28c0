//! The executable as the helpers run it: through a read-only mount that exists in no namespace, so that a container
//! that gets hold of a helper's `/proc/<pid>/exe` cannot write to the binary (CVE-2019-5736).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

/// A read-only clone of what lies at the path, not attached anywhere.
pub(crate) fn read_only(path: &Path) -> io::Result<OwnedFd> {
    let mount = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    make_read_only(&mount)?;
    Ok(mount)
}

/// How a process that holds the descriptor names it.
pub(crate) fn path_of(fd: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

#[expect(unsafe_code, reason = "mount_setattr(2) has no safe wrapper")]
/// Sets the read-only attribute of a detached or attached mount.
pub(crate) fn make_read_only(mount: &impl AsFd) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is an empty C string and the attributes have the size that is passed; the kernel only reads
    // both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
