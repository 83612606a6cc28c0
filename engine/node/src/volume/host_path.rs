//! hostPath volumes: the host's own files, after the check that the type asks for.

use std::fs::{FileType, Metadata};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks `path` against the volume's type, making what the type says is to be made.
pub(super) fn check(path: &Path, kind: &str) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(format!("hostPath {} must be absolute and without \"..\"", path.display()));
    }
    let found = std::fs::metadata(path).ok();
    let is = |test: fn(&FileType) -> bool| found.as_ref().map(Metadata::file_type).is_some_and(|kind| test(&kind));
    match kind {
        "" if found.is_some() => Ok(()),
        "" | "DirectoryOrCreate" if found.is_none() => make_folder(path),
        "FileOrCreate" if found.is_none() => make_file(path),
        "DirectoryOrCreate" | "Directory" => {
            if is(FileType::is_dir) {
                Ok(())
            } else {
                refuse("a directory")
            }
        }
        "FileOrCreate" | "File" => {
            if is(FileType::is_file) {
                Ok(())
            } else {
                refuse("a file")
            }
        }
        "Socket" => {
            if is(FileType::is_socket) {
                Ok(())
            } else {
                refuse("a socket file")
            }
        }
        "CharDevice" => {
            if is(FileType::is_char_device) {
                Ok(())
            } else {
                refuse("a character device")
            }
        }
        "BlockDevice" => {
            if is(FileType::is_block_device) {
                Ok(())
            } else {
                refuse("a block device")
            }
        }
        other => Err(format!("unknown hostPath type \"{other}\"")),
    }
}

fn make_folder(path: &Path) -> Result<(), String> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| format!("make {}: {error}", path.display()))
}

fn make_file(path: &Path) -> Result<(), String> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    made.map(drop).map_err(|error| format!("make {}: {error}", path.display()))
}
