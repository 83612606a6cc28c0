//! What makes the next time faster: answers that hold as long as certain files do not change. All of it can be thrown
//! away; an entry that cannot be read is as good as none.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shipway_oci::Digest;

use crate::PackError;

/// Entries kept of each kind.
const ENTRIES: usize = 256;
/// A file that changed this shortly before it was looked at may change once more without a new time stamp, since the
/// kernel's clock for files ticks every few milliseconds.
const TICK: Duration = Duration::from_millis(20);

/// A folder of answers, one file each, by kind and question.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// What tells a changed file from an unchanged one without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    device: u64,
    pub(crate) mode: u32,
}

impl Stamp {
    pub(crate) fn of(data: &fs::Metadata) -> Self {
        Self {
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
            inode: data.ino(),
            device: data.dev(),
            mode: data.mode(),
        }
    }

    /// The stamp of what the path leads to; None if that is nothing.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|data| Self::of(&data))
    }

    /// Seconds since 1970 of the last change of the content.
    pub(crate) fn modified_seconds(&self) -> u64 {
        u64::try_from(self.modified.0).unwrap_or(0)
    }

    /// Whether the stamp would tell a change from now on. See [`TICK`].
    pub(crate) fn is_settled(&self) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let nanoseconds = u32::try_from(self.changed.1).unwrap_or(0);
        let changed = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK)
    }
}

/// An answer and the files that it depends on, also those that must stay absent.
#[derive(Serialize, Deserialize)]
struct Watched<T> {
    files: Vec<(PathBuf, Option<Stamp>)>,
    answer: T,
}

impl Cache {
    pub(crate) fn open(dir: &Path) -> Result<Self, PackError> {
        fs::create_dir_all(dir).map_err(|e| PackError::io("create", dir, e))?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, kind: &str, question: &str) -> PathBuf {
        self.dir.join(kind).join(format!("{}.json", Digest::of(question.as_bytes()).hex()))
    }

    /// The answer, if there is one.
    pub(crate) fn read<T: DeserializeOwned>(&self, kind: &str, question: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path(kind, question)).ok()?).ok()
    }

    /// Keeps an answer.
    pub(crate) fn write<T: Serialize>(&self, kind: &str, question: &str, answer: &T) -> Result<(), PackError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let path = self.path(kind, question);
        let folder = path.parent().expect("it was joined");
        fs::create_dir_all(folder).map_err(|e| PackError::io("create", folder, e))?;
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{}-{unique}", std::process::id()));
        let bytes = serde_json::to_vec(answer).map_err(|e| PackError::io("write", &path, io::Error::other(e)))?;
        let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            fs::remove_file(&temporary).map_err(|e| PackError::io("remove", &temporary, e))?;
            return Err(PackError::io("write", &path, error));
        }
        prune(folder).map_err(|e| PackError::io("tidy", folder, e))
    }

    /// The answer, if all files that it depends on are as they were.
    pub(crate) fn read_watched<T: DeserializeOwned>(&self, kind: &str, question: &str) -> Option<T> {
        let Watched { files, answer } = self.read(kind, question)?;
        files.iter().all(|(path, stamp)| Stamp::at(path) == *stamp).then_some(answer)
    }

    /// Keeps an answer that holds as long as these files are as they are.
    pub(crate) fn write_watched<T: Serialize>(
        &self,
        kind: &str,
        question: &str,
        answer: &T,
        files: impl IntoIterator<Item = PathBuf>,
    ) -> Result<(), PackError> {
        let files: Vec<_> = files.into_iter().map(|path| (Stamp::at(&path), path)).map(|(s, p)| (p, s)).collect();
        if files.iter().all(|(_, stamp)| stamp.is_none_or(|stamp| stamp.is_settled())) {
            self.write(kind, question, &Watched { files, answer })?;
        }
        Ok(())
    }
}

/// Removes the oldest entries beyond the bound, and what a dead process left half written.
fn prune(folder: &Path) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(data) => entries.push((data.modified()?, entry.path())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    if entries.len() <= ENTRIES {
        return Ok(());
    }
    entries.sort();
    for (_, path) in &entries[..entries.len() - ENTRIES / 2] {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_answer_holds_until_a_file_changes_or_appears() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let (present, absent) = (dir.path().join("present"), dir.path().join("absent"));
        fs::write(&present, "1").unwrap();
        cache.write_watched("kind", "early?", &1, [present.clone()]).unwrap();
        assert_eq!(cache.read_watched::<u8>("kind", "early?"), None, "the file is too young to be told apart");
        std::thread::sleep(TICK * 2);
        let keep = || cache.write_watched("kind", "why?", &7, [present.clone(), absent.clone()]).unwrap();
        keep();
        assert_eq!(cache.read_watched("kind", "why?"), Some(7));
        assert_eq!(cache.read_watched::<u8>("kind", "other?"), None);
        fs::write(&absent, "").unwrap();
        assert_eq!(cache.read_watched::<u8>("kind", "why?"), None);
        std::thread::sleep(TICK * 2);
        keep();
        fs::write(&present, "2").unwrap();
        assert_eq!(cache.read_watched::<u8>("kind", "why?"), None);
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        for n in 0..ENTRIES + 10 {
            cache.write("kind", &n.to_string(), &n).unwrap();
        }
        assert!(fs::read_dir(dir.path().join("kind")).unwrap().count() <= ENTRIES);
    }
}
