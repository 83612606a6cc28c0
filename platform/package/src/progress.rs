//! Signs of life while packing, which may take seconds the first time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Told what goes on. Called from several threads.
pub trait Progress: Sync {
    /// A new piece of work began.
    fn step(&self, what: &str);

    /// So many files with so many bytes are packed by now.
    fn packed(&self, files: u64, bytes: u64);

    /// Something that a user should know: what was left out, and why.
    fn note(&self, what: &str) {
        self.step(what);
    }
}

/// Says nothing.
impl Progress for () {
    fn step(&self, _: &str) {}
    fn packed(&self, _: u64, _: u64) {}
}

/// Counts what is packed.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, files: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    pub(crate) fn step(&self, what: &str) {
        self.progress.step(what);
    }

    pub(crate) fn add(&self, files: u64, bytes: u64) {
        let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.progress.packed(files, bytes);
    }

    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}
