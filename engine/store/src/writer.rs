//! The end of the log: appends a batch as one frame and returns once it is on disk.
//!
//! A frame is written only after the sync of the one before it has succeeded. That is what lets recovery tell a torn tail
//! (nothing valid after it) from damage (something valid after it).

use std::path::PathBuf;
use std::sync::Arc;

use crate::frame::{Builder, Written};
use crate::index::Place;
use crate::segment::{self, FIRST, Segment};
use crate::spare::Spares;
use crate::{Commit, Disk, StoreError};

/// Why a batch is not in the log.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing of it was written: there was no room for a new segment. The next batch may try again.
    Refused(StoreError),
    /// Some of it may be on disk and may be not. Nothing may be written after it.
    Broken(StoreError),
}

/// Appends to the log.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    active: Segment,
    /// Where the next frame goes.
    end: usize,
    /// The sequence of the next frame.
    sequence: u64,
    spares: Spares,
    builder: Builder,
}

impl Writer {
    /// Goes on at `end` of the active segment.
    pub(crate) fn new(disk: Arc<dyn Disk>, active: Segment, end: usize, sequence: u64, mut spares: Spares) -> Self {
        spares.order(active.identity.number + 1);
        Self { disk, active, end, sequence, spares, builder: Builder::default() }
    }

    /// Makes commits of consecutive revisions (at least one) durable. Returns where their frame lies, and where in it
    /// their values.
    pub(crate) fn append(&mut self, commits: &[Commit]) -> Result<(Place, &[Written]), AppendError> {
        self.builder.fill(commits);
        // A frame larger than a segment has one of its own, which grows.
        if self.end + self.builder.size() > self.active.size && self.end > FIRST {
            self.roll()?;
        }
        let frame = self.builder.seal(self.active.identity.seed(), self.sequence, commits[0].revision);
        let offset = self.end as u64;
        self.active.file.write_at(frame, offset).map_err(|e| self.broken("write", e))?;
        self.active.file.sync().map_err(|e| self.broken("sync", e))?;
        let place = Place {
            segment: self.active.identity.number,
            offset: u32::try_from(self.end).expect("segments are bounded far below 4 GiB"),
        };
        self.end += self.builder.size();
        self.sequence += 1;
        Ok((place, self.builder.written()))
    }

    fn roll(&mut self) -> Result<(), AppendError> {
        let number = self.active.identity.number + 1;
        self.active = self.spares.take(number).map_err(|error| match error {
            StoreError::Full { .. } => AppendError::Refused(error),
            other => AppendError::Broken(other),
        })?;
        self.end = FIRST;
        self.spares.order(number + 1);
        Ok(())
    }

    fn broken(&self, doing: &'static str, error: std::io::Error) -> AppendError {
        AppendError::Broken(StoreError::io(doing, &self.path(), error))
    }

    fn path(&self) -> PathBuf {
        self.disk.path(&segment::name(self.active.identity.number))
    }
}
