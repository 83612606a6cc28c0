//! The bytes of a layer or an archive of images: decompressed by what they begin with (gzip, zstd or plain), and metered
//! so that neither the archive as a whole nor the headers between two entries can grow without bound.
//!
//! Whoever needs the digest of the whole asks for it with [`Hashed`]: the members of an archive are hashed one by one.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use crate::Digest;

/// Bytes that the headers between two entries of an archive (long names, extended attributes) may take.
pub(crate) const HEADER_LIMIT: u64 = 1 << 20;
/// How gzip and zstd begin.
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];
pub(crate) const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A decompressing, metered reader.
pub(crate) struct Source {
    input: Box<dyn Read>,
    state: Rc<RefCell<State>>,
}

struct State {
    allowance: u64,
    used: u64,
}

/// The caller's hand on a [`Source`] that a tar reader owns.
#[derive(Clone)]
pub(crate) struct Meter(Rc<RefCell<State>>);

impl Source {
    pub(crate) fn open(input: impl Read + 'static) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 17, input);
        let start = reader.fill_buf()?;
        let input: Box<dyn Read> = if start.starts_with(&GZIP) {
            Box::new(flate2::bufread::MultiGzDecoder::new(reader))
        } else if start.starts_with(&ZSTD) {
            Box::new(zstd::Decoder::with_buffer(reader)?)
        } else {
            Box::new(reader)
        };
        let state = State { allowance: u64::MAX, used: 0 };
        Ok(Self { input, state: Rc::new(RefCell::new(state)) })
    }

    pub(crate) fn meter(&self) -> Meter {
        Meter(Rc::clone(&self.state))
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let most = usize::try_from(state.allowance).unwrap_or(usize::MAX).min(into.len());
        if most == 0 && !into.is_empty() {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more bytes than allowed"));
        }
        let count = self.input.read(&mut into[..most])?;
        state.allowance -= count as u64;
        state.used += count as u64;
        Ok(count)
    }
}

impl Meter {
    /// Lets at most this many further bytes through.
    pub(crate) fn allow(&self, bytes: u64) {
        self.0.borrow_mut().allowance = bytes;
    }

    /// Bytes let through so far.
    pub(crate) fn used(&self) -> u64 {
        self.0.borrow().used
    }

    /// Whether the allowance is used up.
    pub(crate) fn exhausted(&self) -> bool {
        self.0.borrow().allowance == 0
    }
}

/// A reader that hashes what passes.
pub(crate) struct Hashed<R> {
    input: R,
    hasher: Sha256,
}

impl<R> Hashed<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, hasher: Sha256::new() }
    }

    /// The digest of all that was read.
    pub(crate) fn digest(self) -> Digest {
        Digest::finish(self.hasher)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into)?;
        self.hasher.update(&into[..count]);
        Ok(count)
    }
}
