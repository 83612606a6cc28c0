//! What the log asks of a disk: a directory of files, positioned reads and writes, and syncs that mean what they say.
//!
//! [`Directory`] is the real one. Tests put a simulated disk in its place that tears and drops whatever was not synced.
//! Assumed of a real disk: a sector of 512 bytes is written whole or not at all, and writing next to synced bytes does
//! not damage them.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::StoreError;

/// Holds the exclusive right to a directory until it is dropped.
pub trait DiskLock: Send + Sync + Debug {}

/// One directory of files. Names are plain file names.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Takes the exclusive right to the directory, or says [`StoreError::Locked`].
    fn lock(&self) -> Result<Box<dyn DiskLock>, StoreError>;
    /// Where a file is, for messages.
    fn path(&self, name: &str) -> PathBuf;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns once all names made, changed and removed so far are durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// One open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`, or fails with `UnexpectedEof`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where needed. Durable only after [`DiskFile::sync`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once every byte written so far is durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the local file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens `path`, making it (mode 0700: the store holds secrets) and its parents durably when missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(|e| StoreError::io("resolve", path, e))?;
        let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| StoreError::io("create", &path, e))?;
        for parent in missing.iter().filter_map(|part| part.parent()) {
            sync_directory(parent).map_err(|e| StoreError::io("sync", parent, e))?;
        }
        Ok(Self { path })
    }
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Disk for Directory {
    fn lock(&self) -> Result<Box<dyn DiskLock>, StoreError> {
        let path = self.path.join("lock");
        let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).clone();
        let file = options.open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(FileLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { directory: self.path.clone() }),
            Err(TryLockError::Error(source)) => {
                Err(StoreError::NoLocks { directory: self.path.clone(), source: Arc::new(source) })
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is none of ours.
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(LocalFile(options.open(self.path.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(OpenOptions::new().read(true).write(true).open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }
}

/// The kernel releases the lock when the file is closed, also when the process is killed.
#[derive(Debug)]
struct FileLock {
    _file: File,
}

impl DiskLock for FileLock {}

#[derive(Debug)]
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
