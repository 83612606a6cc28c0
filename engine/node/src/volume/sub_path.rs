//! A path inside a volume that containers may write to: links in it lead nowhere outside, whatever a container does to
//! them meanwhile, because the kernel resolves them with the volume as the root.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a resolution is tried that the kernel could not finish because of a rename at that moment.
const TRIES: usize = 16;

/// Opens `sub` inside `volume`, making the folders that are missing.
pub(super) fn open(volume: &Path, sub: &str) -> Result<OwnedFd, String> {
    let parts: Vec<&str> = plain_parts(sub)?;
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| format!("open {}: {error}", volume.display()))?;
    let mut made = String::new();
    let mut at: Option<OwnedFd> = None;
    for part in parts {
        let parent = std::mem::take(&mut made);
        made = if parent.is_empty() { part.to_owned() } else { format!("{parent}/{part}") };
        at = Some(match resolve(&root, &made) {
            Err(Errno::NOENT) => {
                let below = at.as_ref().unwrap_or(&root);
                match rustix::fs::mkdirat(below, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(format!("make subPath \"{made}\": {error}")),
                }
                resolve(&root, &made).map_err(|error| format!("open subPath \"{made}\": {error}"))?
            }
            other => other.map_err(|error| format!("open subPath \"{made}\": {error}"))?,
        });
    }
    Ok(at.unwrap_or(root))
}

/// No file that is read is larger.
const LARGEST: u64 = 64 * 1024;

/// What a plain file inside `volume` holds; none where there is no such file.
pub(super) fn read(volume: &Path, sub: &str) -> Result<Option<String>, String> {
    let path = plain_parts(sub)?.join("/");
    let failed = |error: &dyn std::fmt::Display| format!("read \"{sub}\": {error}");
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(&error))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, &path, flags, Mode::empty(), how) {
        Err(Errno::NOENT) => return Ok(None),
        other => std::fs::File::from(other.map_err(|error| failed(&error))?),
    };
    let found = file.metadata().map_err(|error| failed(&error))?;
    if !found.is_file() || found.len() > LARGEST {
        return Err(failed(&"it is no plain file of at most 64 KiB"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map(Some).map_err(|_| failed(&"it is no text"))
}

fn resolve(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn plain_parts(sub: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    for part in Path::new(sub).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().ok_or("subPath is not text")?),
            Component::CurDir => {}
            _ => return Err(format!("subPath \"{sub}\" must be relative and without \"..\"")),
        }
    }
    Ok(parts)
}
