//! Small JSON files, replaced whole: a reader sees the old or the new content, never half.
//!
//! No fsync: after a crash of the machine the processes they describe are gone as well.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec(value)?)?;
    fs::rename(&fresh, path)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    gone_is_fine(fs::remove_file(path))
}

/// Removes a folder, with all in it, that may be gone already. Symbolic links are removed, not followed.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    gone_is_fine(fs::remove_dir_all(path))
}

pub(crate) fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
