//! A disk in memory that behaves as badly as a real one may; for tests of the log and of what stands on it.
//!
//! It keeps apart what is in the page cache and what is durable. At a chosen operation it fails once, or loses its power;
//! after that, any subset of the sectors and any first part of the name changes that were not synced may be there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use crate::disk::DiskLock;
use crate::{Disk, DiskFile, StoreError};

const SECTOR: usize = 512;

/// What happens at one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It and all after it fail.
    PowerCut,
    /// It fails, those after it do not. A failed sync has dropped what it should have made durable, as Linux does.
    Error(io::ErrorKind),
    /// The code that asked for it panics.
    Panic,
}

/// The disk; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Clone, Default)]
struct Inner {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changed_names: Vec<NameChange>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    dead: bool,
    locked: bool,
    /// Bytes that all files together may have.
    space: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl SimDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic that a test asked for is no reason to stop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has operation number `at` (writes, syncs and changes of names count, from 0) go wrong.
    pub fn fault_at(&self, at: u64, fault: Fault) {
        self.inner().fault = Some((at, fault));
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Whether the fault was a power cut and has happened.
    pub fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// Bounds the bytes of all files.
    pub fn set_space(&self, space: Option<usize>) {
        self.inner().space = space;
    }

    /// The bytes of all files.
    pub fn used(&self) -> usize {
        let inner = self.inner();
        inner.names.values().map(|file| inner.files[*file].cached.len()).sum()
    }

    /// The machine after the power came back: what was synced, and of the rest whatever `seed` says.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let before = self.inner();
        let mut after = Inner { durable_names: before.durable_names.clone(), ..Inner::default() };
        let kept = rng.usize(..=before.changed_names.len());
        for change in &before.changed_names[..kept] {
            change.apply(&mut after.durable_names);
        }
        after.names = after.durable_names.clone();
        after.files = before.files.iter().map(|file| file.after_power_cut(&mut rng)).collect();
        Self(Arc::new(Mutex::new(after)))
    }

    /// The machine after only the process was killed: the page cache is still there, and still not durable.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let inner = Inner { fault: None, dead: false, locked: false, operations: 0, ..self.inner().clone() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The bytes of a file.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let inner = self.inner();
        inner.files[inner.names[name]].cached.clone()
    }

    /// Puts other bytes in place of a file's, durably.
    pub fn replace(&self, name: &str, bytes: &[u8]) {
        let mut inner = self.inner();
        let file = inner.names[name];
        inner.files[file] = File { cached: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() };
    }
}

impl Inner {
    /// Counts an operation. `Ok(None)`: it works. `Ok(Some)`: it fails. Err: the machine is off already.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(off());
        }
        let at = self.operations;
        self.operations += 1;
        let fault = self.fault.filter(|(when, _)| *when == at).map(|(_, fault)| fault);
        self.dead = fault == Some(Fault::PowerCut);
        assert_ne!(fault, Some(Fault::Panic), "this was asked for");
        Ok(fault)
    }

    fn change(&mut self, change: NameChange) -> io::Result<()> {
        let fault = self.operation()?;
        if !matches!(fault, Some(Fault::Error(_))) {
            change.apply(&mut self.names);
            self.changed_names.push(change);
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::PowerCut | Self::Panic => off(),
            Self::Error(kind) => kind.into(),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Rename(from, to) => {
                let file = names.remove(from).expect("only existing files are renamed");
                names.insert(to.clone(), file);
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl File {
    fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
        bytes.resize(bytes.len().max(at + part.len()), 0);
        bytes[at..at + part.len()].copy_from_slice(part);
    }

    fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let mut bytes = self.durable.clone();
        // All, none, or each sector by chance: the extremes are the likely ones.
        let keep = [0, 50, 90, 100][rng.usize(..4)];
        for (at, write) in &self.pending {
            let mut from = 0;
            while from < write.len() {
                let to = write.len().min(((at + from) / SECTOR + 1) * SECTOR - at);
                if rng.u32(..100) < keep {
                    Self::put(&mut bytes, at + from, &write[from..to]);
                }
                from = to;
            }
        }
        Self { cached: bytes.clone(), durable: bytes, pending: Vec::new() }
    }
}

fn off() -> io::Error {
    io::Error::other("the machine is off")
}

impl Disk for SimDisk {
    fn lock(&self) -> Result<Box<dyn DiskLock>, StoreError> {
        if std::mem::replace(&mut self.inner().locked, true) {
            return Err(StoreError::Locked { directory: self.path("") });
        }
        Ok(Box::new(SimLock(self.clone())))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("/sim").join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let inner = self.inner();
        if inner.dead { Err(off()) } else { Ok(inner.names.keys().cloned().collect()) }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        let id = inner.files.len();
        inner.files.push(File::default());
        inner.change(NameChange::Create(name.to_owned(), id))?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner();
        let id = *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner().change(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner().change(NameChange::Remove(name.to_owned()))
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.inner();
        if let Some(fault) = inner.operation()? {
            // Whether they get to the disk is the power cut's to say.
            return Err(fault.error());
        }
        inner.durable_names = inner.names.clone();
        inner.changed_names.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.inner().locked = false;
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: usize,
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.inner().files[self.id].cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.inner();
        if inner.dead {
            return Err(off());
        }
        let at = usize::try_from(offset).expect("a file in memory is as long as memory at most");
        let bytes = inner.files[self.id].cached.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).expect("a file in memory is as long as memory at most");
        let used = self.disk.used();
        let mut inner = self.disk.inner();
        let fault = inner.operation()?;
        let growth = (at + bytes.len()).saturating_sub(inner.files[self.id].cached.len());
        if growth > 0 && inner.space.is_some_and(|space| used + growth > space) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // A write that fails got some of the way.
        let done = if matches!(fault, Some(Fault::Error(_))) { &bytes[..bytes.len() / 2] } else { bytes };
        let file = &mut inner.files[self.id];
        File::put(&mut file.cached, at, done);
        file.pending.push((at, done.to_vec()));
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let fault = inner.operation()?;
        let file = &mut inner.files[self.id];
        match fault {
            None => {
                for (at, write) in std::mem::take(&mut file.pending) {
                    File::put(&mut file.durable, at, &write);
                }
                Ok(())
            }
            Some(fault) => {
                if matches!(fault, Fault::Error(_)) {
                    // The pages count as clean from now on: the cache has them, the disk does not, no sync will tell.
                    file.pending.clear();
                }
                Err(fault.error())
            }
        }
    }
}
