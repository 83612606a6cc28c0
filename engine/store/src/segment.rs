//! Segments: the files that a log consists of.
//!
//! A segment is made whole under another name (zero-filled, head, sync) and only then given its own, so one that can be seen
//! is complete, and overwriting its zeros changes no metadata: a sync of it costs one write to the disk. It is never shorter
//! than it was made, so a truncated one is known as damaged. Its identity seeds the checksum of each frame in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Disk, DiskFile, StoreError};

/// Where the first frame begins.
pub(crate) const FIRST: usize = 64;
/// The version of the format that this code reads and writes.
pub(crate) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"SHIPWLOG";
const SUFFIX: &str = ".log";
/// A segment in the making; whatever has this suffix at the start is left over from a crash.
pub(crate) const UNFINISHED: &str = ".tmp";
/// Zeros are written and synced piece by piece, so that making a segment never holds up a commit for long.
const PIECE: usize = 512 << 10;

/// What makes a segment this one and no other: the log it belongs to, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Drawn at random when the log was made.
    pub(crate) log: u64,
    /// Counts from 1 without a gap.
    pub(crate) number: u32,
}

impl Identity {
    /// The seed of the checksums of its frames.
    pub(crate) fn seed(self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.log.to_le_bytes()), &self.number.to_le_bytes())
    }

    /// The head of a file of `size` bytes.
    pub(crate) fn encode(self, size: usize) -> [u8; FIRST] {
        let mut bytes = [0; FIRST];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.log.to_le_bytes());
        bytes[24..32].copy_from_slice(&(size as u64).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the head of a file, given all of its bytes.
    pub(crate) fn decode(file: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |detail| StoreError::corrupt(file, 0, detail);
        let head = bytes.get(..FIRST).ok_or_else(|| corrupt("the file is shorter than its head"))?;
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        if &head[..8] != MAGIC || u32_at(60) != crc32c::crc32c(&head[..60]) {
            return Err(corrupt("the head of the segment has a wrong checksum"));
        }
        if u32_at(8) != VERSION {
            return Err(StoreError::Format { file: file.to_owned(), found: u32_at(8), supported: VERSION });
        }
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (log, size) = (u64_at(16), u64_at(24));
        if (bytes.len() as u64) < size {
            let detail = format!("the file was made {size} bytes long, but is {}", bytes.len());
            return Err(StoreError::corrupt(file, bytes.len() as u64, detail));
        }
        Ok(Self { log, number: u32_at(12) })
    }
}

/// The file name of segment `number`; names sort as their numbers do.
pub(crate) fn name(number: u32) -> String {
    format!("{number:08x}{SUFFIX}")
}

/// The number that a file name stands for, if it is a segment's.
pub(crate) fn number(file: &str) -> Option<u32> {
    let number = u32::from_str_radix(file.strip_suffix(SUFFIX)?, 16).ok()?;
    (name(number) == file).then_some(number)
}

/// A segment that is written to.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Which one it is.
    pub(crate) identity: Identity,
    /// The file.
    pub(crate) file: Arc<dyn DiskFile>,
    /// Its length: zeros to be overwritten. A frame that is larger than a segment makes it grow.
    pub(crate) size: usize,
}

/// Makes an empty segment of `size` bytes, durable under its own name when this returns. Gives up early once `stop` is set.
pub(crate) fn make(disk: &dyn Disk, identity: Identity, size: usize, stop: &AtomicBool) -> Result<Segment, StoreError> {
    let name = name(identity.number);
    let unfinished = format!("{name}{UNFINISHED}");
    let made = fill(disk, &unfinished, identity, size, stop);
    if made.is_err()
        && let Err(error) = disk.remove(&unfinished)
    {
        tracing::warn!(%error, file = %disk.path(&unfinished).display(), "cannot remove an unfinished segment");
    }
    let file = made?;
    disk.rename(&unfinished, &name).map_err(|e| StoreError::io("rename", &disk.path(&unfinished), e))?;
    disk.sync_names().map_err(|e| StoreError::io("sync the directory of", &disk.path(&name), e))?;
    Ok(Segment { identity, file, size })
}

fn fill(
    disk: &dyn Disk,
    name: &str,
    identity: Identity,
    size: usize,
    stop: &AtomicBool,
) -> Result<Arc<dyn DiskFile>, StoreError> {
    let path = disk.path(name);
    let file = disk.create(name).map_err(|e| StoreError::io("create", &path, e))?;
    let zeros = vec![0; PIECE.min(size)];
    for offset in (0..size).step_by(PIECE) {
        if stop.load(Ordering::Relaxed) {
            return Err(StoreError::Closed);
        }
        let piece = &zeros[..zeros.len().min(size - offset)];
        file.write_at(piece, offset as u64).map_err(|e| StoreError::io("write", &path, e))?;
        file.sync().map_err(|e| StoreError::io("sync", &path, e))?;
    }
    file.write_at(&identity.encode(size), 0).map_err(|e| StoreError::io("write", &path, e))?;
    file.sync().map_err(|e| StoreError::io("sync", &path, e))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_every_flipped_bit_of_it_is_noticed() {
        let identity = Identity { log: 0x0123_4567_89ab_cdef, number: 42 };
        let head = identity.encode(FIRST);
        assert_eq!(Identity::decode(Path::new("x"), &head).unwrap(), identity);
        for bit in 0..FIRST * 8 {
            let mut flipped = head;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(Identity::decode(Path::new("x"), &flipped), Err(StoreError::Corrupt { offset: 0, .. })),
                "{bit}"
            );
        }
    }

    #[test]
    fn a_head_of_a_later_format_is_refused_by_its_version() {
        let mut head = Identity { log: 1, number: 1 }.encode(FIRST);
        head[8..12].copy_from_slice(&9u32.to_le_bytes());
        let crc = crc32c::crc32c(&head[..60]);
        head[60..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Identity::decode(Path::new("x"), &head), Err(StoreError::Format { found: 9, .. })));
    }

    #[test]
    fn only_whole_segment_names_are_numbers() {
        assert_eq!(number(&name(0xbeef)), Some(0xbeef));
        for other in ["0000beef.log.tmp", "beef.log", "0000BEEF.log", "lock", "+000beef.log"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
