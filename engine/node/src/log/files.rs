//! The files of one run's log, oldest first: the rotated ones and the one being written.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Opens all of them; the current one is opened first, so that a rotation meanwhile loses nothing.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<File>> {
    let current = File::open(path).map(Some).or_else(absent)?;
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    let mut rotated: Vec<(SystemTime, File)> = Vec::new();
    for entry in std::fs::read_dir(path.parent().unwrap_or(Path::new("/")))? {
        let entry = entry?;
        if is_rotated(path, &entry.file_name().to_string_lossy())
            && let Some(file) = File::open(entry.path()).map(Some).or_else(absent)?
        {
            let metadata = file.metadata()?;
            if seen.insert((metadata.dev(), metadata.ino())) {
                rotated.push((metadata.modified()?, file));
            }
        }
    }
    rotated.sort_by_key(|(modified, _)| *modified);
    let mut files: Vec<File> = rotated.into_iter().map(|(_, file)| file).collect();
    if let Some(current) = current {
        let metadata = current.metadata()?;
        if seen.insert((metadata.dev(), metadata.ino())) {
            files.push(current);
        }
    }
    Ok(files)
}

/// `0.log.<anything>` beside `0.log`, unless it was compressed or is still being written.
fn is_rotated(path: &Path, name: &str) -> bool {
    let own = path.file_name().map(|own| own.to_string_lossy()).unwrap_or_default();
    let ending = name.strip_prefix(&*own).and_then(|rest| rest.strip_prefix('.'));
    ending.is_some_and(|ending| !ending.ends_with("gz") && !ending.ends_with("tmp"))
}

fn absent(error: io::Error) -> io::Result<Option<File>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

/// Whether `path` now names another file than `file`.
pub(super) fn replaced(path: &Path, file: &File) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(now) => {
            let then = file.metadata()?;
            Ok((now.dev(), now.ino()) != (then.dev(), then.ino()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
