//! Header blocks: names and values behind one zlib stream a direction.

use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::dictionary;
use crate::error::StreamError;

/// The longest header block after inflation, in bytes.
const PLAIN_MAX: usize = 16 * 1024;
/// The most headers of a stream.
const HEADERS_MAX: usize = 64;

/// The headers of a stream, names in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn parse(mut block: &[u8]) -> Result<Self, StreamError> {
        let count = number(&mut block)?;
        if count > HEADERS_MAX {
            return Err(StreamError::Protocol("a stream has too many headers"));
        }
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let name = text(&mut block)?.to_ascii_lowercase();
            all.push((name, text(&mut block)?));
        }
        Ok(Self(all))
    }
}

fn number(block: &mut &[u8]) -> Result<usize, StreamError> {
    let (bytes, rest) = block.split_first_chunk().ok_or(SHORT)?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| SHORT)
}

fn text(block: &mut &[u8]) -> Result<String, StreamError> {
    let length = number(block)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(SHORT)?;
    *block = rest;
    String::from_utf8(bytes.to_vec()).map_err(|_| StreamError::Protocol("a header is not text"))
}

const SHORT: StreamError = StreamError::Protocol("a header block is cut short");
const BROKEN: StreamError = StreamError::Protocol("a header block cannot be inflated");

/// The client's zlib stream.
pub(super) struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// The plain bytes of one block.
    pub(super) fn block(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            let (before, held) = (self.0.total_in(), plain.len());
            let result = self.0.decompress_vec(packed, &mut plain, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).map_err(|_| BROKEN)?;
            packed = packed.get(taken..).ok_or(BROKEN)?;
            match result {
                Ok(Status::StreamEnd) => return Err(BROKEN),
                Ok(_) if plain.len() < plain.capacity() && packed.is_empty() => return Ok(plain),
                Ok(_) if plain.len() > PLAIN_MAX => {
                    return Err(StreamError::Protocol("a header block is too long"));
                }
                Ok(_) if plain.len() == plain.capacity() => plain.reserve(plain.len()),
                Ok(_) if taken == 0 && plain.len() == held => return Err(BROKEN),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| BROKEN)?;
                }
                Err(_) => return Err(BROKEN),
            }
        }
    }
}

/// The server's zlib stream: replies carry no header, so stored blocks (RFC 1951, section 3.2.4) are the shortest, and
/// cost no compressor's memory.
#[derive(Default)]
pub(super) struct Deflater {
    begun: bool,
}

impl Deflater {
    /// A block without headers.
    pub(super) fn empty(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        if !std::mem::replace(&mut self.begun, true) {
            // A window of 32 KiB, no dictionary.
            out.extend_from_slice(&[0x78, 0x01]);
        }
        out.extend_from_slice(&[0x00, 0x04, 0x00, 0xfb, 0xff, 0, 0, 0, 0]);
        // An empty block makes inflaters give out what they hold before they ask for more.
        out.extend_from_slice(&[0x00, 0x00, 0x00, 0xff, 0xff]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    #[test]
    fn blocks_of_one_stream_are_read_one_after_the_other() {
        let (mut client, mut inflater) = (testing::Headers::new(), Inflater::default());
        for port in ["80", "8080", "443"] {
            let block = client.block(&[("streamType", "data"), ("port", port), ("requestID", "7")]);
            let headers = Headers::parse(&inflater.block(&block).unwrap()).unwrap();
            assert_eq!((headers.get("streamtype"), headers.get("port")), (Some("data"), Some(port)));
        }
    }

    #[test]
    fn a_block_that_inflates_without_end_is_refused() {
        let block = testing::Headers::new().raw(&vec![b'x'; 10_000_000]);
        assert!(block.len() < 20_000, "{}", block.len());
        assert!(Inflater::default().block(&block).is_err());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for block in [&b""[..], &[0, 0, 0, 1], &[0xff; 8], &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]] {
            assert!(Headers::parse(block).is_err(), "{block:?}");
        }
    }

    #[test]
    fn replies_are_a_zlib_stream() {
        let (mut ours, mut theirs) = (Deflater::default(), Inflater::default());
        for _ in 0..3 {
            let block = ours.empty();
            assert_eq!(theirs.block(&block).unwrap(), [0; 4]);
            // As a flush of zlib ends: without it, Go's inflater fails at the second block.
            assert!(block.ends_with(&[0, 0, 0xff, 0xff]));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, more: Vec<u8>) {
            let mut inflater = Inflater::default();
            drop(inflater.block(&bytes));
            drop(inflater.block(&more));
            drop(Headers::parse(&bytes));
            let mut begun = testing::Headers::new().raw(b"abc");
            begun.extend(&bytes);
            drop(Inflater::default().block(&begun));
        }
    }
}
