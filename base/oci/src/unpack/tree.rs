//! Writes the entries of a layer below one directory, in the form that overlayfs reads: whiteouts are 0:0 character
//! devices, opaque folders carry an extended attribute.
//!
//! Every step goes from the root's descriptor one name at a time and never follows a symbolic link, so that no archive,
//! however made, writes or links outside.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::fs::{Gid, Uid};
use rustix::fs::{fchmod, fchown, fsetxattr, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat};
use rustix::io::Errno;

use super::Limits;
use super::entry::{Attributes, Checked, Fault, Kind, Names, check};
use crate::source::{HEADER_LIMIT, Hashed, Meter, Source};
use crate::{Digest, Error, Result};

/// The attribute by which overlayfs knows an opaque folder.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Unpacks the layer below `root` and checks that its content is `expected`.
pub(super) fn unpack(source: Source, root: &Path, expected: &Digest, limits: Limits) -> Result<()> {
    let meter = source.meter();
    let mut archive = tar::Archive::new(Hashed::new(source));
    let mut tree = Tree::open(root)?;
    let unreadable = |source: io::Error| Error::LayerUnreadable { layer: *expected, source };
    let mut entries = archive.entries().map_err(unreadable)?;
    let mut count = 0;
    loop {
        meter.allow(HEADER_LIMIT);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| too_large(&meter, e, expected, "header bytes", HEADER_LIMIT))?;
        meter.allow(limits.bytes.saturating_sub(meter.used()));
        count += 1;
        if count > limits.entries {
            return Err(Error::LayerTooLarge { layer: *expected, what: "entries", limit: limits.entries });
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let outcome = check(&mut entry).and_then(|checked| tree.write(checked, &mut entry)).and_then(|()| {
            io::copy(&mut entry, &mut io::sink())?;
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(Fault::Refused(reason)) => return Err(Error::Refused { layer: *expected, entry: name, reason }),
            Err(Fault::Read(e)) if e.kind() == io::ErrorKind::StorageFull => return Err(Error::io("write", root, e)),
            Err(Fault::Read(e)) => return Err(too_large(&meter, e, expected, "bytes", limits.bytes)),
        }
    }
    meter.allow(limits.bytes.saturating_sub(meter.used()));
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|e| too_large(&meter, e, expected, "bytes", limits.bytes))?;
    tree.finish().map_err(|e| Error::io("write", root, e))?;
    match rest.digest() {
        found if found == *expected => Ok(()),
        found => Err(Error::LayerDamaged { layer: *expected, found }),
    }
}

fn too_large(meter: &Meter, source: io::Error, layer: &Digest, what: &'static str, limit: u64) -> Error {
    if meter.exhausted() {
        return Error::LayerTooLarge { layer: *layer, what, limit };
    }
    Error::LayerUnreadable { layer: *layer, source }
}

struct Tree {
    root: OwnedFd,
    privileged: bool,
    /// The folder that was opened last: most entries stand beside their predecessor.
    last: Option<(Names, OwnedFd)>,
    /// Attributes of folders, which later entries would disturb.
    folders: Vec<(Names, Attributes)>,
}

impl Tree {
    fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty()).map_err(|e| Error::io("open", root, e))?;
        let privileged = rustix::process::geteuid().is_root();
        Ok(Self { root: fd, privileged, last: None, folders: Vec::new() })
    }

    fn write(&mut self, entry: Checked, content: &mut dyn Read) -> Result<(), Fault> {
        let Checked { names, kind, attributes } = entry;
        match kind {
            Kind::Skip => return Ok(()),
            Kind::Opaque => return self.make_opaque(&names),
            Kind::Directory => return self.make_directory(names, attributes),
            _ => {}
        }
        let source = match &kind {
            Kind::Hardlink(source) => Some((self.existing_parent(source)?, source.last().expect("it is not empty"))),
            _ => None,
        };
        let (name, folder) = names.split_last().expect("only folders may be the root");
        let privileged = self.privileged;
        let parent = self.parent(folder)?;
        match kind {
            Kind::Whiteout => return hide(parent, name),
            Kind::File => return make_file(parent, name, &attributes, content, privileged),
            Kind::Symlink(target) => replace(parent, name, || symlinkat(&target, parent, name))?,
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(attributes.mode);
                replace(parent, name, || mknodat(parent, name, FileType::Fifo, mode, 0))?;
            }
            Kind::Hardlink(_) => {
                let (source, source_name) = source.expect("it was opened above");
                return hard_link(source.as_fd(), source_name, parent, name);
            }
            Kind::Skip | Kind::Opaque | Kind::Directory => unreachable!("returned above"),
        }
        dress(parent, name, &attributes, privileged)
    }

    fn make_directory(&mut self, names: Names, attributes: Attributes) -> Result<(), Fault> {
        if let Some((name, folder)) = names.split_last() {
            let parent = self.parent(folder)?;
            match kind_of(parent, name)? {
                Some(FileType::Directory) => {}
                Some(FileType::CharacterDevice) => {
                    unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from)?;
                    mkdirat(parent, name, Mode::RWXU).map_err(io::Error::from)?;
                    self.make_opaque(&names)?;
                }
                Some(_) => {
                    unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from)?;
                    mkdirat(parent, name, Mode::RWXU).map_err(io::Error::from)?;
                }
                None => mkdirat(parent, name, Mode::RWXU).map_err(io::Error::from)?,
            }
        }
        self.folders.push((names, attributes));
        Ok(())
    }

    fn make_opaque(&mut self, names: &Names) -> Result<(), Fault> {
        let parent = self.parent(names)?;
        let folder = open_folder(parent, OsStr::new(".")).map_err(io::Error::from)?;
        fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    /// The folder's descriptor; makes what is missing of it.
    fn parent(&mut self, folder: &[OsString]) -> Result<BorrowedFd<'_>, Fault> {
        if folder.is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(names, _)| names.as_slice() != folder) {
            let mut current = self.root.try_clone()?;
            for name in folder {
                current = match open_folder(current.as_fd(), name) {
                    Err(Errno::NOENT) => {
                        mkdirat(&current, name.as_os_str(), Mode::from_raw_mode(0o755)).map_err(io::Error::from)?;
                        open_folder(current.as_fd(), name)
                    }
                    opened => opened,
                }
                .map_err(descent)?;
            }
            self.last = Some((folder.to_vec(), current));
        }
        Ok(self.last.as_ref().expect("it was set above").1.as_fd())
    }

    /// The folder of something that must be there already.
    fn existing_parent(&self, names: &Names) -> Result<OwnedFd, Fault> {
        let mut current = self.root.try_clone()?;
        for name in &names[..names.len() - 1] {
            current = open_folder(current.as_fd(), name).map_err(|errno| match errno {
                Errno::NOENT => Fault::Refused("is a hard link to something that is not in the layer"),
                other => descent(other),
            })?;
        }
        Ok(current)
    }

    /// Gives the folders their attributes, innermost first.
    fn finish(mut self) -> io::Result<()> {
        self.last = None;
        for (names, attributes) in self.folders.iter().rev() {
            let mut current = self.root.try_clone()?;
            let mut gone = false;
            for name in names {
                match open_folder(current.as_fd(), name) {
                    Ok(next) => current = next,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                        gone = true;
                        break;
                    }
                    Err(errno) => return Err(errno.into()),
                }
            }
            if !gone {
                dress_open(current.as_fd(), attributes, self.privileged)?;
                rustix::fs::futimens(&current, &times(attributes))?;
            }
        }
        Ok(())
    }
}

fn open_folder(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn descent(errno: Errno) -> Fault {
    match errno {
        Errno::LOOP | Errno::NOTDIR => Fault::Refused("goes through something that is not a directory of this layer"),
        other => Fault::Read(other.into()),
    }
}

fn kind_of(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<FileType>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes a name, in place of an earlier entry of that name if need be; folders are not replaced.
fn replace<T>(parent: BorrowedFd<'_>, name: &OsStr, make: impl Fn() -> Result<T, Errno>) -> Result<T, Fault> {
    match make() {
        Err(Errno::EXIST) => {
            if kind_of(parent, name)? == Some(FileType::Directory) {
                return Err(Fault::Refused("replaces a directory of the same layer"));
            }
            unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from)?;
            Ok(make().map_err(io::Error::from)?)
        }
        outcome => Ok(outcome.map_err(io::Error::from)?),
    }
}

/// A name that hides one of the layers below. What this layer itself has of that name stays: a folder is made opaque.
fn hide(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
    match kind_of(parent, name)? {
        None => mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0).map_err(io::Error::from)?,
        Some(FileType::Directory) => {
            let folder = open_folder(parent, name).map_err(io::Error::from)?;
            fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty()).map_err(io::Error::from)?;
        }
        Some(_) => {}
    }
    Ok(())
}

fn make_file(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    attributes: &Attributes,
    content: &mut dyn Read,
    privileged: bool,
) -> Result<(), Fault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = replace(parent, name, || openat(parent, name, flags, Mode::RUSR | Mode::WUSR))?;
    let mut file = File::from(fd);
    io::copy(content, &mut file)?;
    dress_open(file.as_fd(), attributes, privileged)?;
    rustix::fs::futimens(&file, &times(attributes)).map_err(io::Error::from)?;
    Ok(())
}

fn hard_link(source: BorrowedFd<'_>, source_name: &OsStr, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Fault> {
    match kind_of(source, source_name)? {
        None => return Err(Fault::Refused("is a hard link to something that is not in the layer")),
        Some(FileType::RegularFile | FileType::Symlink | FileType::Fifo) => {}
        Some(_) => return Err(Fault::Refused("is a hard link to a directory or device")),
    }
    replace(parent, name, || linkat(source, source_name, parent, name, AtFlags::empty()))
}

/// Owner, mode and attributes of something open. The mode comes last: changing the owner clears bits of it.
fn dress_open(file: BorrowedFd<'_>, attributes: &Attributes, privileged: bool) -> io::Result<()> {
    if privileged {
        fchown(file, Some(Uid::from_raw(attributes.owner)), Some(Gid::from_raw(attributes.group)))?;
    }
    fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    for (name, value) in &attributes.extended {
        match fsetxattr(file, name.as_os_str(), value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::PERM) => tracing::debug!(?name, "extended attribute left out"),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Owner and time of a link or pipe, which has no descriptor.
fn dress(parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes, privileged: bool) -> Result<(), Fault> {
    if privileged {
        let (owner, group) = (Uid::from_raw(attributes.owner), Gid::from_raw(attributes.group));
        rustix::fs::chownat(parent, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)?;
    }
    utimensat(parent, name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
    Ok(())
}

fn times(attributes: &Attributes) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: attributes.modified, tv_nsec: 0 },
    }
}
