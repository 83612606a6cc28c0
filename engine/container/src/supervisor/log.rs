//! One log file that is rotated by size and never stops its container: what cannot be written is dropped and counted.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::disk::gone_is_fine;

/// Rotated files kept: `.1` is the newest.
const KEPT: u32 = 4;

pub(super) struct Log {
    path: PathBuf,
    limit: u64,
    file: Option<File>,
    size: u64,
    dropped: u64,
}

impl Log {
    pub(super) fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut log = Self { path, limit, file: None, size: 0, dropped: 0 };
        log.reopen()?;
        Ok(log)
    }

    /// Lines that are missing.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, bytes: &[u8], lines: u64) {
        if self.append(bytes).is_err() {
            self.dropped += lines;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let added = bytes.len() as u64;
        if self.limit > 0 && self.size > 0 && self.size + added > self.limit {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(bytes) {
            // No half line may stay, or the next one is glued to it.
            file.set_len(self.size)?;
            return Err(error);
        }
        self.size += added;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            gone_is_fine(fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)))?;
        }
        gone_is_fine(fs::rename(&self.path, numbered(&self.path, 1)))?;
        self.file = None;
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_rotated_and_only_a_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/0.log");
        let mut log = Log::open(path.clone(), 10).unwrap();
        for number in 0..8 {
            log.write(format!("line-{number}\n").as_bytes(), 1);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line-7\n");
        assert_eq!(fs::read_to_string(numbered(&path, 1)).unwrap(), "line-6\n");
        assert_eq!(fs::read_to_string(numbered(&path, KEPT)).unwrap(), "line-3\n");
        assert!(!numbered(&path, KEPT + 1).exists());
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_nothing_fails() {
        let mut log = Log::open("/dev/full".into(), 0).unwrap();
        log.write(b"a\nb\n", 2);
        log.write(b"c\n", 1);
        assert_eq!(log.dropped(), 3);
    }
}
