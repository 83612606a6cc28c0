//! Garbage collection: removes the content that no reference reaches, beside writers in other processes.
//!
//! Safe because a name appears and disappears only under the store's lock, because [`Store::tag`] checks the whole image
//! under that lock, and because content younger than a grace time, or than the oldest [`Hold`], is spared.

use std::collections::HashSet;
use std::fs::{self, DirEntry, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::image::parts;
use crate::store::{temporary, touch};
use crate::{Digest, Error, Result, Store};

/// How long content without a reference is spared after it was written or renewed.
pub const GRACE: Duration = Duration::from_mins(5);

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// While it lives, nothing that was written or renewed after it was made is collected, however long that takes. The
/// hold of a process that died does not count.
#[derive(Debug)]
pub struct Hold {
    #[expect(dead_code, reason = "held for its lock, which closing releases")]
    file: File,
    path: PathBuf,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a hold file stays behind");
        }
    }
}

impl Store {
    /// Begins a long piece of work (a pull, a pack) whose content is referenced only at its end.
    pub fn hold(&self) -> Result<Hold> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let (file, path) = temporary(self.ingest(), "hold")?;
        Ok(Hold { file, path })
    }

    /// Removes what no reference reaches.
    pub fn collect(&self) -> Result<Collected> {
        self.collect_older(GRACE, &[])
    }

    /// As [`Store::collect`], with another grace time and further manifests that are in use without a reference.
    pub fn collect_older(&self, grace: Duration, keep: &[Digest]) -> Result<Collected> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let now = self.now()?;
        let cutoff = now.checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let cutoff = self.sweep_ingest(cutoff)?;
        let live = self.live(keep)?;
        let mut collected = Collected::default();
        for entry in entries(self.blobs())? {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|hex| Digest::from_hex(hex).ok());
            if digest.is_some_and(|digest| live.contains(&digest)) {
                continue;
            }
            let data = entry.metadata().map_err(|e| Error::io("read", &entry.path(), e))?;
            if modified(&data, &entry.path())? < cutoff {
                fs::remove_file(entry.path()).map_err(|e| Error::io("remove", &entry.path(), e))?;
                collected.blobs += 1;
                collected.bytes += data.len();
            }
        }
        Ok(collected)
    }

    fn live(&self, keep: &[Digest]) -> Result<HashSet<Digest>> {
        let mut live = HashSet::new();
        for manifest in self.list()?.iter().map(|tagged| tagged.digest).chain(keep.iter().copied()) {
            match parts(self, &manifest) {
                Ok(parts) => live.extend(parts),
                Err(Error::BlobMissing { .. }) => tracing::warn!(%manifest, "a reference names missing content"),
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    /// Removes what dead writers left; gives the earlier of `cutoff` and the start of the oldest living hold.
    fn sweep_ingest(&self, mut cutoff: SystemTime) -> Result<SystemTime> {
        let bound = cutoff;
        for entry in entries(self.ingest())? {
            let path = entry.path();
            let Ok(file) = File::open(&path) else { continue };
            let began = modified(&file.metadata().map_err(|e| Error::io("read", &path, e))?, &path)?;
            let hold = entry.file_name().to_string_lossy().starts_with("hold-");
            if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
                if hold {
                    cutoff = cutoff.min(began);
                }
            } else if began < bound {
                remove_if_there(&path)?;
            }
        }
        Ok(cutoff)
    }

    /// The file system's own clock, which also dates the blobs.
    fn now(&self) -> Result<SystemTime> {
        let path = self.path().join("lock");
        let file = File::options().write(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
        touch(&file).map_err(|e| Error::io("touch", &path, e))?;
        modified(&file.metadata().map_err(|e| Error::io("read", &path, e))?, &path)
    }
}

fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    fs::read_dir(folder).and_then(Iterator::collect).map_err(|e| Error::io("read", folder, e))
}

fn modified(data: &fs::Metadata, path: &Path) -> Result<SystemTime> {
    data.modified().map_err(|e| Error::io("read", path, e))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{Image, ImageConfig, LayerBuilder, compose};

    struct Stopping<'a>(&'a AtomicBool);

    impl Drop for Stopping<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn image(store: &Store, text: &str) -> Digest {
        let mut builder = LayerBuilder::new(store).unwrap();
        builder.file("f".as_ref(), 0o644, &mut text.as_bytes(), text.len() as u64).unwrap();
        let layer = builder.finish().unwrap();
        compose(store, &[layer], &ImageConfig::default()).unwrap()
    }

    #[test]
    fn what_is_referenced_or_kept_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (named, kept, loose) = (image(&store, "named"), image(&store, "kept"), image(&store, "loose"));
        store.tag(&"named".parse().unwrap(), &named).unwrap();
        assert_eq!(store.collect().unwrap(), Collected::default(), "young content is spared");
        std::thread::sleep(Duration::from_millis(20));
        let collected = store.collect_older(Duration::ZERO, &[kept]).unwrap();
        assert_eq!(collected.blobs, 3);
        assert!(collected.bytes > 0);
        Image::load(&store, &named).unwrap();
        Image::load(&store, &kept).unwrap();
        assert!(!store.has(&loose));
    }

    #[test]
    fn a_hold_spares_what_was_written_under_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let before = store.put(b"before").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let hold = store.hold().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let during = store.put(b"during").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        store.collect_older(Duration::ZERO, &[]).unwrap();
        assert!(!store.has(&before));
        assert!(store.has(&during));
        drop(hold);
        store.collect_older(Duration::ZERO, &[]).unwrap();
        assert!(!store.has(&during));
        assert_eq!(fs::read_dir(store.ingest()).unwrap().count(), 0);
    }

    #[test]
    fn collecting_beside_writers_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Also when an assertion fails, or the collector would go on for ever.
            let _stopping = Stopping(&stop);
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    store.collect_older(Duration::ZERO, &[]).unwrap();
                }
            });
            for n in 0..20 {
                let hold = store.hold().unwrap();
                let digest = image(&store, &format!("image {n}"));
                store.tag(&format!("image:{n}").parse().unwrap(), &digest).unwrap();
                drop(hold);
            }
        });
        for tagged in store.list().unwrap() {
            for part in parts(&store, &tagged.digest).unwrap() {
                assert!(store.has(&part));
            }
        }
    }
}
