//! The content store: one directory of blobs named by their sha256, shared by any number of processes.
//!
//! A blob appears under its name only when it is whole, hashed and on disk (temporary file, fsync, rename, fsync of the
//! directory), so a reader never sees half of one. A writer that dies or meets a full disk leaves nothing under a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock};
use sha2::{Digest as _, Sha256};

use crate::{Digest, Error, Result};

/// A content store. Cheap to clone; every process and thread may have its own.
#[derive(Clone, Debug)]
pub struct Store {
    layout: Arc<Layout>,
}

#[derive(Debug)]
struct Layout {
    root: PathBuf,
    blobs: PathBuf,
    ingest: PathBuf,
    references: PathBuf,
    lock: PathBuf,
}

/// A lock on the whole store, given back when dropped: shared for the short moment in which a name appears, exclusive
/// while garbage is collected.
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock, which closing releases")] File);

impl Store {
    /// Opens the store in `dir` and makes what is missing of it.
    pub fn open(dir: &Path) -> Result<Self> {
        let layout = Layout {
            root: dir.to_owned(),
            blobs: dir.join("blobs/sha256"),
            ingest: dir.join("ingest"),
            references: dir.join("references"),
            lock: dir.join("lock"),
        };
        for folder in [&layout.blobs, &layout.ingest, &layout.references] {
            fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        }
        Ok(Self { layout: Arc::new(layout) })
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.layout.root
    }

    pub(crate) fn blobs(&self) -> &Path {
        &self.layout.blobs
    }

    pub(crate) fn ingest(&self) -> &Path {
        &self.layout.ingest
    }

    pub(crate) fn references(&self) -> &Path {
        &self.layout.references
    }

    /// The file of a blob, whether it exists or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout.blobs.join(digest.hex())
    }

    pub(crate) fn lock(&self, operation: FlockOperation) -> Result<Lock> {
        let path = &self.layout.lock;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|e| Error::io("open", path, e))?;
        flock(&file, operation).map_err(|e| Error::io("lock", path, e))?;
        Ok(Lock(file))
    }

    /// A new blob, to be written piece by piece.
    pub fn writer(&self) -> Result<BlobWriter> {
        let (file, path) = temporary(&self.layout.ingest, "blob")?;
        Ok(BlobWriter { store: self.clone(), file, path, hasher: Sha256::new(), size: 0, failed: None })
    }

    /// Stores these bytes.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.size(&digest) == Some(bytes.len() as u64) && self.renew(&digest)? {
            return Ok(digest);
        }
        let mut writer = self.writer()?;
        let path = writer.path.clone();
        writer.write_all(bytes).map_err(|e| Error::io("write", &path, e))?;
        writer.finish().map(|(digest, _)| digest)
    }

    /// Opens a blob for reading. Its bytes are not checked here.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => self.missing(digest),
            _ => Error::io("open", &path, e),
        })
    }

    /// Reads a whole blob of at most `limit` bytes and checks its hash.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
        if size > limit {
            return Err(Error::BlobTooLarge { digest: *digest, size, limit });
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io("read", &path, e))?;
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(Error::BlobDamaged { digest: *digest, found, store: self.layout.root.clone() }),
        }
    }

    /// Whether the blob is here.
    pub fn has(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// The size of a blob in bytes, if it is here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest)).ok().map(|data| data.len())
    }

    /// Says that the blob is about to be referenced: garbage collection spares it for [`crate::GRACE`] from now.
    /// False if it is not here.
    pub fn renew(&self, digest: &Digest) -> Result<bool> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => touch(&file).map(|()| true).map_err(|e| Error::io("touch", &path, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("open", &path, e)),
        }
    }

    pub(crate) fn missing(&self, digest: &Digest) -> Error {
        Error::BlobMissing { digest: *digest, store: self.layout.root.clone() }
    }
}

/// A blob being written. Dropped before [`BlobWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    file: File,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
    failed: Option<io::ErrorKind>,
}

impl BlobWriter {
    /// Makes the blob durable under its digest; gives the digest and the size in bytes.
    pub fn finish(self) -> Result<(Digest, u64)> {
        if let Some(kind) = self.failed {
            return Err(Error::io("write", &self.path, kind));
        }
        let digest = Digest::finish(self.hasher.clone());
        let path = self.store.blob_path(&digest);
        if self.store.size(&digest) == Some(self.size) && self.store.renew(&digest)? {
            return Ok((digest, self.size));
        }
        self.file.sync_all().map_err(|e| Error::io("write", &self.path, e))?;
        {
            let _lock = self.store.lock(FlockOperation::LockShared)?;
            touch(&self.file).map_err(|e| Error::io("touch", &self.path, e))?;
            fs::rename(&self.path, &path).map_err(|e| Error::io("create", &path, e))?;
        }
        sync_directory(self.store.blobs())?;
        Ok((digest, self.size))
    }

    /// The file that is being written, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes).inspect_err(|e| {
            if e.kind() != io::ErrorKind::Interrupted {
                self.failed = Some(e.kind());
            }
        })?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), error = %e, "a temporary file stays behind");
            }
            _ => {}
        }
    }
}

/// A new file in `folder` with a name of its own, locked as long as its writer lives.
pub(crate) fn temporary(folder: &Path, kind: &str) -> Result<(File, PathBuf)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        let path = folder.join(format!("{kind}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&path) {
            Ok(file) => {
                flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", &path, e))?;
                // Before it was locked it looked like what a dead writer left, and a collector may have taken it away.
                if file.metadata().map_err(|e| Error::io("read", &path, e))?.nlink() > 0 {
                    return Ok((file, path));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", &path, e)),
        }
    }
}

/// Writes a small file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write_atomically(staging: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let (mut file, temporary) = temporary(staging, "file")?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|e| Error::io("write", &temporary, e))
        .and_then(|()| fs::rename(&temporary, path).map_err(|e| Error::io("create", path, e)));
    if written.is_err() {
        fs::remove_file(&temporary).map_err(|e| Error::io("remove", &temporary, e))?;
        return written;
    }
    sync_directory(path.parent().expect("a file has a folder"))
}

pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("write", path, e))
}

pub(crate) fn touch(file: &File) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_is_put_is_read_back() {
        let (_dir, store) = store();
        let digest = store.put(b"hello").unwrap();
        assert_eq!(store.read_blob(&digest, 10).unwrap(), b"hello");
        assert_eq!(store.size(&digest), Some(5));
        assert!(matches!(store.read_blob(&digest, 4), Err(Error::BlobTooLarge { .. })));
        assert!(matches!(store.open_blob(&Digest::of(b"other")), Err(Error::BlobMissing { .. })));
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() {
        let (_dir, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"half").unwrap();
        drop(writer);
        assert_eq!(files(store.ingest()), 0);
        assert_eq!(files(store.blobs()), 0);
    }

    #[test]
    fn a_damaged_blob_is_noticed() {
        let (_dir, store) = store();
        let digest = store.put(b"hello").unwrap();
        fs::write(store.blob_path(&digest), b"hullo").unwrap();
        assert!(matches!(store.read_blob(&digest, 10), Err(Error::BlobDamaged { .. })));
    }

    #[test]
    fn many_writers_of_one_blob_agree() {
        let (_dir, store) = store();
        let bytes = vec![7; 300_000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut writer = store.writer().unwrap();
                    for piece in bytes.chunks(1000) {
                        writer.write_all(piece).unwrap();
                    }
                    assert_eq!(writer.finish().unwrap(), (Digest::of(&bytes), 300_000));
                });
            }
        });
        assert_eq!(files(store.blobs()), 1);
        assert_eq!(files(store.ingest()), 0);
        assert_eq!(store.read_blob(&Digest::of(&bytes), 1 << 20).unwrap(), bytes);
    }
}
