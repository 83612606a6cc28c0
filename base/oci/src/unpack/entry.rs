//! What one archive entry says, checked before anything of it touches the disk: a clean path, its kind and attributes.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bound on a path in bytes, as the kernel has it.
const PATH_LIMIT: usize = 4096;
/// Begins the name of an entry that hides something of a lower layer.
const WHITEOUT: &[u8] = b".wh.";
/// Hides all that lower layers have in its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins names that an older layered file system kept for itself.
const RESERVED: &[u8] = b".wh..wh.";
/// Extended attributes that are kept; all others could change how the overlay reads the layer, or mean nothing here.
const KEPT_ATTRIBUTES: [&str; 2] = ["security.capability", "user."];

/// The path of an entry below the layer's root; empty for the root.
pub(super) type Names = Vec<OsString>;

/// What to make of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Symlink(OsString),
    Hardlink(Names),
    Fifo,
    /// Hide this name of the layers below.
    Whiteout,
    /// Hide all that the layers below have in this folder.
    Opaque,
    /// Nothing.
    Skip,
}

/// An entry, checked.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) names: Names,
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
}

/// Owner, mode, time and the kept extended attributes.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) modified: i64,
    pub(super) extended: Vec<(OsString, Vec<u8>)>,
}

/// Why an entry is refused, or that the archive cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(&'static str),
    Read(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Checks one entry.
pub(super) fn check<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Checked, Fault> {
    let mut names = clean(&entry.path_bytes())?;
    let mut kind = kind(entry, &names)?;
    if let Some(hidden) = names.last().and_then(|name| name.as_bytes().strip_prefix(WHITEOUT)).map(<[u8]>::to_vec) {
        let name = names.pop().expect("it was looked at");
        kind = match name.as_bytes() {
            OPAQUE => Kind::Opaque,
            name if name.starts_with(RESERVED) => Kind::Skip,
            _ if matches!(hidden.as_slice(), b"" | b"." | b"..") => {
                return Err(Fault::Refused("is a whiteout of nothing"));
            }
            _ => {
                names.push(OsString::from_vec(hidden));
                Kind::Whiteout
            }
        };
    } else if names.is_empty() && kind != Kind::Directory && kind != Kind::Skip {
        return Err(Fault::Refused("stands for the root and is not a directory"));
    }
    let attributes = attributes(entry)?;
    Ok(Checked { names, kind, attributes })
}

fn kind<R: Read>(entry: &tar::Entry<'_, R>, names: &Names) -> Result<Kind, Fault> {
    use tar::EntryType;
    let target = || entry.link_name_bytes().ok_or(Fault::Refused("is a link without a target"));
    Ok(match entry.header().entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        // Its holes would be written out, and a few bytes of it can stand for any size.
        EntryType::GNUSparse => return Err(Fault::Refused("is a sparse file")),
        EntryType::Symlink => match target()?.into_owned() {
            bytes if bytes.is_empty() || bytes.contains(&0) || bytes.len() > PATH_LIMIT => {
                return Err(Fault::Refused("is a link with a malformed target"));
            }
            bytes => Kind::Symlink(OsString::from_vec(bytes)),
        },
        EntryType::Link => match clean(&target()?) {
            Ok(names) if !names.is_empty() => Kind::Hardlink(names),
            _ => return Err(Fault::Refused("is a hard link to something outside the layer")),
        },
        EntryType::Fifo => Kind::Fifo,
        EntryType::XGlobalHeader => Kind::Skip,
        // The runtime mounts its own devices over /dev, so those of old base images are never seen.
        EntryType::Char | EntryType::Block if names.first().is_some_and(|first| first == "dev") => Kind::Skip,
        EntryType::Char | EntryType::Block => return Err(Fault::Refused("is a device node")),
        _ => return Err(Fault::Refused("is of an unknown kind")),
    })
}

/// Splits a path; refuses what is absolute, climbs or is malformed.
fn clean(path: &[u8]) -> Result<Names, Fault> {
    if path.len() > PATH_LIMIT {
        return Err(Fault::Refused("has a path that is too long"));
    }
    if path.contains(&0) {
        return Err(Fault::Refused("has a zero byte in its path"));
    }
    if path.first() == Some(&b'/') {
        return Err(Fault::Refused("has an absolute path"));
    }
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(Fault::Refused("climbs out with `..`")),
            name if name.len() > 255 => return Err(Fault::Refused("has a name that is too long")),
            name => names.push(OsStr::from_bytes(name).to_owned()),
        }
    }
    Ok(names)
}

fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Attributes, Fault> {
    let header = entry.header();
    let number = |value: u64| u32::try_from(value).map_err(|_| Fault::Refused("has an impossible owner"));
    let mut attributes = Attributes {
        mode: header.mode()? & 0o7777,
        owner: number(header.uid()?)?,
        group: number(header.gid()?)?,
        modified: i64::try_from(header.mtime()?).unwrap_or(0),
        extended: Vec::new(),
    };
    let Some(extensions) = entry.pax_extensions()? else { return Ok(attributes) };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else { continue };
        if KEPT_ATTRIBUTES.iter().any(|kept| name == *kept || (kept.ends_with('.') && name.starts_with(kept))) {
            attributes.extended.push((name.into(), extension.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}
