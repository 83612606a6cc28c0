//! Files that change all at once: the visible names point through `..data`, a link that is swapped to a new folder by
//! one rename. A reader sees the old state or the new one, never a mixture.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::content::File;

const DATA: &str = "..data";
const NEXT: &str = "..data_next";

/// Makes `folder` show exactly `files`; returns whether it had to change.
pub(super) fn write(folder: &Path, files: &[File], group: Option<u32>) -> io::Result<bool> {
    if same(folder, files) {
        return Ok(false);
    }
    let current = std::fs::read_link(folder.join(DATA)).ok();
    let fresh = fill(folder, files, group)?;
    let next = folder.join(NEXT);
    remove_link(&next)?;
    symlink(fresh.file_name().expect("a made folder has a name"), &next)?;
    std::fs::rename(&next, folder.join(DATA))?;
    show(folder, files)?;
    if let Some(old) = current {
        std::fs::remove_dir_all(folder.join(old))?;
    }
    Ok(true)
}

fn same(folder: &Path, files: &[File]) -> bool {
    let data = folder.join(DATA);
    let equal = |file: &File| std::fs::read(data.join(&file.path)).is_ok_and(|bytes| bytes == file.bytes);
    data.exists() && files.iter().all(equal) && count(&data).is_ok_and(|count| count == files.len())
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}

/// A new folder with the files, under a name that was never used here.
fn fill(folder: &Path, files: &[File], group: Option<u32>) -> io::Result<PathBuf> {
    let mut number = 0_u32;
    let fresh = loop {
        let fresh = folder.join(format!("..{}.{number}", jiff::Timestamp::now().as_nanosecond()));
        match std::fs::create_dir(&fresh) {
            Ok(()) => break fresh,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    };
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    for file in files {
        let path = fresh.join(&file.path);
        let parent = path.parent().expect("it lies in the fresh folder");
        std::fs::create_dir_all(parent)?;
        std::fs::write(&path, &file.bytes)?;
        let readable = if group.is_some() { 0o440 } else { 0 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode | readable))?;
        if file.owner.is_some() || group.is_some() {
            std::os::unix::fs::chown(&path, file.owner, group)?;
        }
    }
    Ok(fresh)
}

/// One visible link for each top name, and none for names that are gone.
fn show(folder: &Path, files: &[File]) -> io::Result<()> {
    let tops: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(&*name) {
            remove_link(&folder.join(&*name))?;
        }
    }
    for top in tops {
        match symlink(Path::new(DATA).join(top), folder.join(top)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn remove_link(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
