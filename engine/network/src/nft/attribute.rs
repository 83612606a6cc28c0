//! Netlink attributes: a length, a kind, a value, padded to four bytes; written into a growing buffer and read back.
//!
//! Numbers inside nftables attributes are big-endian, lengths and kinds are in the machine's order.

const NESTED: u16 = 0x8000;
const KIND: u16 = 0x3fff;
const HEADER: usize = 4;

/// Writes attributes at the end of a buffer.
pub(crate) struct Attributes<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Attributes<'a> {
    /// Appends to `out`, which must be padded to four bytes.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// An attribute of raw bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.out.extend_from_slice(value);
        self.close(start);
    }

    /// A string, ended by a zero byte.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(0);
        self.close(start);
    }

    /// A big-endian 32-bit number.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(&mut self, kind: u16, build: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.open(kind | NESTED);
        build(&mut Attributes { out: self.out });
        self.close(start);
    }

    /// Attributes inside an attribute, as they were read.
    pub(crate) fn nest_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NESTED, value);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 2]);
        self.out.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.out.len() - start).expect("callers split what may exceed 64 KiB");
        self.out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(self.out);
    }
}

/// Pads to four bytes.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Reads attributes; stops at the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..HEADER)?.try_into().ok()?);
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

/// The value of the first attribute of that kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The text of the first attribute of that kind.
pub(crate) fn find_text(bytes: &[u8], kind: u16) -> Option<&str> {
    let value = find(bytes, kind)?;
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nested_attributes_are_read_back() {
        let mut out = Vec::new();
        let mut writer = Attributes::new(&mut out);
        writer.text(1, "abc");
        writer.nest(2, |inner| {
            inner.number(3, 0x0102_0304);
            inner.bytes(4, &[9]);
        });
        assert_eq!(out.len() % 4, 0);
        assert_eq!(find_text(&out, 1), Some("abc"));
        let inner = find(&out, 2).unwrap();
        assert_eq!(attributes(inner).collect::<Vec<_>>(), vec![(3, &[1, 2, 3, 4][..]), (4, &[9][..])]);
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_ends(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(attributes(&bytes).count() <= 64);
        }

        #[test]
        fn what_was_written_is_read(values in proptest::collection::vec((1_u16..100, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let mut out = Vec::new();
            for (kind, value) in &values {
                Attributes::new(&mut out).bytes(*kind, value);
            }
            let read: Vec<_> = attributes(&out).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }
    }
}
