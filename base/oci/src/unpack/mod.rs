//! Unpacked layers: one directory per layer content, shared by all images and containers that use it.
//!
//! A layer is unpacked aside and renamed, under a lock per layer, so any number of threads and processes may ask for it at
//! once. The files are not flushed one by one; instead each directory says in which boot of the machine it was made, and
//! one from an earlier boot is made anew, because a power cut may have torn it. When that mark was written last says when
//! the layer was last asked for.

mod entry;
mod tree;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::source::Source;
use crate::store::touch;
use crate::{Collected, Digest, Error, Image, Result, Store};

/// Where the kernel says which boot this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Bounds on one layer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: 64 << 30 }
    }
}

/// A directory of unpacked layers.
#[derive(Clone, Debug)]
pub struct Layers {
    dir: PathBuf,
    boot: String,
    limits: Limits,
}

impl Layers {
    /// Opens the directory and makes it if it is missing.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let boot = fs::read_to_string(BOOT).map_err(|e| Error::io("read", Path::new(BOOT), e))?;
        Ok(Self { dir: dir.to_owned(), boot, limits: Limits::default() })
    }

    /// The same with other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The unpacked layers of the image, lowest first; unpacks those that are not there, as many at once as there are
    /// processors. Blocks.
    pub fn ensure(&self, store: &Store, image: &Image) -> Result<Vec<PathBuf>> {
        let layers = image.layers()?;
        let mut missing = Vec::new();
        for layer in &layers {
            if !self.renew(&layer.1)? {
                missing.push(layer);
            }
        }
        let workers = thread::available_parallelism().map_or(1, NonZero::get).min(missing.len());
        let queue = Mutex::new(missing.into_iter());
        let work = || -> Result<()> {
            while let Some((blob, content)) = queue.lock().expect("no worker panics with the queue").next() {
                self.unpack(store, blob, content)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            running.into_iter().try_for_each(|worker| worker.join().expect("unpacking does not panic"))
        })?;
        Ok(layers.iter().map(|(_, content)| self.root(content)).collect())
    }

    /// Which layer lies, or lay, at a path that [`Layers::ensure`] gave: its uncompressed digest.
    pub fn content_at(path: &Path) -> Option<Digest> {
        Digest::from_hex(path.parent()?.file_name()?.to_str()?).ok()
    }

    /// Removes the unpacked layers that are not in `keep` (uncompressed digests) and were not asked for within `grace`.
    /// The caller knows which are in use.
    pub fn retain(&self, keep: &HashSet<Digest>, grace: Duration) -> Result<Collected> {
        let mut collected = Collected::default();
        for entry in fs::read_dir(&self.dir).map_err(|e| Error::io("read", &self.dir, e))? {
            let name = entry.map_err(|e| Error::io("read", &self.dir, e))?.file_name();
            let Some(content) = name.to_str().and_then(|name| Digest::from_hex(name).ok()) else { continue };
            if !keep.contains(&content) {
                let _lock = self.lock(&content)?;
                if self.age(&content).is_some_and(|age| age < grace) {
                    continue;
                }
                collected.bytes += bytes_below(&self.dir.join(&name));
                collected.blobs += 1;
                self.discard(&content)?;
            }
        }
        Ok(collected)
    }

    fn root(&self, content: &Digest) -> PathBuf {
        self.dir.join(content.hex()).join("root")
    }

    fn staging(&self, content: &Digest) -> PathBuf {
        self.dir.join(format!(".new-{}", content.hex()))
    }

    /// Whether the layer is there and from this boot.
    fn ready(&self, content: &Digest) -> bool {
        fs::read_to_string(self.dir.join(content.hex()).join("boot")).is_ok_and(|boot| boot == self.boot)
    }

    /// Says that the layer is about to be used; false if it has to be unpacked.
    fn renew(&self, content: &Digest) -> Result<bool> {
        let _lock = self.lock(content)?;
        if !self.ready(content) {
            return Ok(false);
        }
        let mark = self.dir.join(content.hex()).join("boot");
        File::open(&mark).and_then(|file| touch(&file)).map_err(|e| Error::io("touch", &mark, e))?;
        Ok(true)
    }

    /// How long ago the layer was asked for; none if that is not known.
    fn age(&self, content: &Digest) -> Option<Duration> {
        let mark = fs::metadata(self.dir.join(content.hex()).join("boot")).ok()?;
        mark.modified().ok()?.elapsed().ok()
    }

    fn lock(&self, content: &Digest) -> Result<File> {
        let path = self.dir.join(format!(".lock-{}", content.hex()));
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|e| Error::io("open", &path, e))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", &path, e))?;
        Ok(file)
    }

    fn unpack(&self, store: &Store, blob: &Digest, content: &Digest) -> Result<()> {
        let _lock = self.lock(content)?;
        if self.ready(content) {
            return Ok(());
        }
        self.discard(content)?;
        let staging = self.staging(content);
        let made = self.fill(store, blob, content, &staging);
        if made.is_err() {
            remove_tree(&staging)?;
        }
        made
    }

    fn fill(&self, store: &Store, blob: &Digest, content: &Digest, staging: &Path) -> Result<()> {
        let root = staging.join("root");
        fs::create_dir_all(&root).map_err(|e| Error::io("create", &root, e))?;
        let path = store.blob_path(blob);
        let reader = Source::open(store.open_blob(blob)?).map_err(|e| Error::io("read", &path, e))?;
        tree::unpack(reader, &root, content, self.limits)?;
        let mark = staging.join("boot");
        fs::write(&mark, &self.boot).map_err(|e| Error::io("write", &mark, e))?;
        let target = self.dir.join(content.hex());
        fs::rename(staging, &target).map_err(|e| Error::io("create", &target, e))
    }

    /// Removes what an earlier boot or a dead process left of this layer, aside first so that no half of it is seen.
    fn discard(&self, content: &Digest) -> Result<()> {
        let (target, staging) = (self.dir.join(content.hex()), self.staging(content));
        remove_tree(&staging)?;
        match fs::rename(&target, &staging) {
            Ok(()) => remove_tree(&staging),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("remove", &target, e)),
        }
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Bytes of the files below; what cannot be read counts nothing, since this is a figure for people.
fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_below(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests;
