//! Reading log files: where the last lines begin, and complete lines from there on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 64 * 1024;

/// Where the last `lines` lines begin: the file and the offset in it.
pub(super) fn tail_start(files: &[File], lines: u64) -> io::Result<(usize, u64)> {
    let Some(last) = files.len().checked_sub(1) else { return Ok((0, 0)) };
    if lines == 0 {
        return Ok((last, files[last].metadata()?.len()));
    }
    // The line end of the very last line does not begin a further one.
    let mut left = lines + 1;
    for (number, file) in files.iter().enumerate().rev() {
        let length = file.metadata()?.len();
        if number == last && length > 0 && !ends_with_line_end(file, length)? {
            left -= 1;
        }
        if let Some(offset) = nth_line_end_from_behind(file, length, &mut left)? {
            return Ok((number, offset + 1));
        }
    }
    Ok((0, 0))
}

fn ends_with_line_end(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last == [b'\n'])
}

fn nth_line_end_from_behind(file: &File, length: u64, left: &mut u64) -> io::Result<Option<u64>> {
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize(usize::try_from(end - start).expect("a block fits in memory"), 0);
        file.read_exact_at(&mut block, start)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            *left -= 1;
            if *left == 0 {
                return Ok(Some(start + at as u64));
            }
        }
        end = start;
    }
    Ok(None)
}

/// Complete lines of one file as it grows; an unfinished line is kept for the next time.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn from(mut file: File, offset: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, rest: Vec::new() })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Reads at most one block and hands each complete line to `take`; `false` at the end of the file.
    pub(super) fn block(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        let read = (&mut self.file).take(BLOCK).read_to_end(&mut self.rest)?;
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            take(&self.rest[from..from + length]);
            from += length + 1;
        }
        self.rest.drain(..from);
        Ok(read > 0)
    }
}
