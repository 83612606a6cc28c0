//! Segments opened for reading back what is no longer in memory.
//!
//! Keeps a few open, so that a long log does not run into the limit of open files.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::index::{Place, Version};
use crate::segment;
use crate::{Disk, DiskFile, StoreError};

/// How many stay open.
const OPEN: usize = 32;

/// The read side of the segments.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    /// The most recently used first.
    open: Mutex<VecDeque<(u32, Arc<dyn DiskFile>)>>,
}

impl Files {
    /// The files of a disk.
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, open: Mutex::new(VecDeque::new()) }
    }

    /// Where a segment is, for messages.
    pub(crate) fn path(&self, segment: u32) -> PathBuf {
        self.disk.path(&segment::name(segment))
    }

    /// Reads `length` bytes at a place.
    pub(crate) fn read(&self, place: Place, length: usize) -> Result<Vec<u8>, StoreError> {
        let file = self.file(place.segment)?;
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, u64::from(place.offset));
        read.map_err(|e| StoreError::io("read", &self.path(place.segment), e))?;
        Ok(bytes)
    }

    /// Reads one value and checks it.
    pub(crate) fn value(&self, version: &Version) -> Result<Bytes, StoreError> {
        let bytes = self.read(version.place, version.length as usize)?;
        if crc32c::crc32c(&bytes) != version.crc {
            let path = self.path(version.place.segment);
            return Err(StoreError::corrupt(&path, version.place.offset.into(), "a value has a wrong checksum"));
        }
        Ok(bytes.into())
    }

    fn file(&self, segment: u32) -> Result<Arc<dyn DiskFile>, StoreError> {
        // A panic under this lock leaves at worst a file too few in it.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.iter().position(|(number, _)| *number == segment).and_then(|at| open.remove(at));
        let file = if let Some((_, file)) = known {
            file
        } else {
            let file = self.disk.open(&segment::name(segment));
            file.map_err(|e| StoreError::io("open", &self.path(segment), e))?
        };
        open.push_front((segment, Arc::clone(&file)));
        open.truncate(OPEN);
        Ok(file)
    }
}
