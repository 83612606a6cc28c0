//! The file of the audit log: a bounded queue, one thread that writes, and files put aside by size.
//!
//! When the queue is full an event is dropped and counted; the count is logged with the next event that fits.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::AuditConfig;
use crate::clock;

/// At most so many events wait.
const WAITING: usize = 10_000;
/// At most so many bytes of events wait.
const WAITING_BYTES: usize = 32 * 1024 * 1024;

/// Takes events and has them written.
pub(super) struct Sink {
    queue: Mutex<Option<SyncSender<Vec<u8>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl Sink {
    pub(super) fn open(config: &AuditConfig) -> std::io::Result<Self> {
        let log = Log::open(config)?;
        let (queue, waiting) = sync_channel(WAITING);
        let load = Arc::new(Load::default());
        let own = load.clone();
        let writer = std::thread::Builder::new().name("audit".into()).spawn(move || write(log, &waiting, &own))?;
        Ok(Self { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)), load })
    }

    /// Queues an event; drops and counts it when there is no place.
    pub(super) fn put(&self, event: &serde_json::Value) {
        let mut line = event.to_string().into_bytes();
        line.push(b'\n');
        let size = line.len();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = self.load.bytes.fetch_add(size, Ordering::Relaxed) + size <= WAITING_BYTES;
        let sent = fits && queue.as_ref().is_some_and(|queue| queue.try_send(line).is_ok());
        if !sent {
            self.load.bytes.fetch_sub(size, Ordering::Relaxed);
            self.load.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything queued is written.
    pub(super) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the audit log panicked");
        }
    }
}

fn write(mut log: Log, waiting: &Receiver<Vec<u8>>, load: &Load) {
    while let Ok(line) = waiting.recv() {
        let mut next = Some(line);
        while let Some(line) = next {
            load.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            log.put(&line, load);
            next = waiting.try_recv().ok();
        }
        log.flush();
        let dropped = load.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "audit events were dropped: more came than could be written");
        }
    }
}

/// The open file.
struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
    limit: u64,
    kept: usize,
}

impl Log {
    fn open(config: &AuditConfig) -> std::io::Result<Self> {
        let (file, size) = append(&config.path)?;
        let (path, limit, kept) = (config.path.clone(), config.rotate_bytes.max(1), config.kept_files);
        Ok(Self { path, file, size, limit, kept })
    }

    fn put(&mut self, line: &[u8], load: &Load) {
        if self.size > 0
            && self.size + line.len() as u64 > self.limit
            && let Err(error) = self.rotate()
        {
            tracing::warn!(%error, "the audit log could not be put aside");
        }
        match self.file.write_all(line) {
            Ok(()) => self.size += line.len() as u64,
            Err(error) => {
                load.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "an audit event could not be written");
            }
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.file.flush() {
            tracing::warn!(%error, "the audit log could not be written");
        }
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let time = clock::now().strftime("%Y%m%dT%H%M%S%.9f");
        std::fs::rename(&self.path, self.path.with_file_name(format!("{name}.{time}")))?;
        (self.file, self.size) = append(&self.path)?;
        let mut aside = aside(&self.path, &name)?;
        aside.sort_unstable();
        for old in aside.iter().take(aside.len().saturating_sub(self.kept)) {
            std::fs::remove_file(old)?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> std::io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((BufWriter::new(file), size))
}

/// The files put aside.
fn aside(path: &Path, name: &str) -> std::io::Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!("{name}.");
    let own = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_prefix(&prefix).is_some_and(|time| time.starts_with("20") && time.contains('T'))
    };
    Ok(std::fs::read_dir(folder)?.flatten().filter(own).map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_are_put_aside_by_size_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let config = AuditConfig { rotate_bytes: 100, kept_files: 2, ..AuditConfig::new(PathBuf::new(), path.clone()) };
        let sink = Sink::open(&config).unwrap();
        for number in 0..50 {
            sink.put(&json!({"number": number, "pad": "x".repeat(40)}));
        }
        sink.close();
        let newest = std::fs::read_to_string(&path).unwrap();
        assert!(newest.ends_with('\n') && newest.contains("\"number\":49"), "{newest}");
        assert_eq!(aside(&path, "audit.log").unwrap().len(), 2);
        sink.put(&json!({"late": true}));
        assert_eq!(sink.load.dropped.load(Ordering::Relaxed), 1, "what comes after the end is counted");
    }
}
