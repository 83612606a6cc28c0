//! Netlink messages of the nftables subsystem, and the batch that makes several of them one atomic change.

use super::attribute::{Attributes, pad};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_SUBSYS_CTNETLINK`.
const CONNECTIONS: u16 = 1;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFPROTO_IPV4`: the family of everything we make.
const FAMILY: u8 = 2;

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
/// Where in a message header the flags are.
const FLAGS_AT: usize = 6;
/// A netlink header and the netfilter header behind it.
const HEADERS: usize = 20;

/// The kinds of message we send and read (`nf_tables_msg_types`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    DeleteRule = 8,
    NewSet = 9,
    GetSet = 10,
    DeleteSet = 11,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
}

/// Appends one message.
pub(crate) fn message(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u16,
    sequence: u32,
    build: impl FnOnce(&mut Attributes<'_>),
) {
    let start = header(out, SUBSYSTEM << 8 | kind as u16, flags, sequence, FAMILY, 0);
    build(&mut Attributes::new(out));
    close(out, start);
}

/// Appends one message of the subsystem that tracks connections.
pub(crate) fn tracked(out: &mut Vec<u8>, kind: u16, flags: u16, build: impl FnOnce(&mut Attributes<'_>)) {
    let start = header(out, CONNECTIONS << 8 | kind, flags, 1, FAMILY, 0);
    build(&mut Attributes::new(out));
    close(out, start);
}

/// Appends one message of the subsystem that holds packets, about the queue of that number.
pub(crate) fn queued(out: &mut Vec<u8>, kind: u16, flags: u16, queue: u16, build: impl FnOnce(&mut Attributes<'_>)) {
    let start = header(out, kind, flags, 1, 0, queue);
    build(&mut Attributes::new(out));
    close(out, start);
}

fn header(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&0_u32.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0_u32.to_ne_bytes());
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    start
}

fn close(out: &mut Vec<u8>, start: usize) {
    let length = u32::try_from(out.len() - start).expect("a message is far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    pad(out);
}

/// Messages that the kernel takes or refuses together.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    last: Option<usize>,
}

impl Batch {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(4096);
        let start = header(&mut bytes, BATCH_BEGIN, 0, 0, 0, SUBSYSTEM);
        close(&mut bytes, start);
        Self { bytes, sequence: 0, last: None }
    }

    /// Whether it holds no message.
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Appends one message.
    pub(crate) fn push(&mut self, kind: Kind, flags: u16, build: impl FnOnce(&mut Attributes<'_>)) {
        self.sequence += 1;
        self.last = Some(self.bytes.len());
        message(&mut self.bytes, kind, flags, self.sequence, build);
    }

    /// The bytes to send. The last message asks for an acknowledgement, so that success is told too.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if let Some(last) = self.last {
            let at = last + FLAGS_AT..last + FLAGS_AT + 2;
            let flags = u16::from_ne_bytes([self.bytes[at.start], self.bytes[at.start + 1]]);
            self.bytes[at].copy_from_slice(&(flags | ACK).to_ne_bytes());
        }
        let start = header(&mut self.bytes, BATCH_END, 0, self.sequence + 1, 0, SUBSYSTEM);
        close(&mut self.bytes, start);
        self.bytes
    }
}

/// One message as read: its kind without the subsystem, its flags and what follows the two headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read<'a> {
    /// The whole kind: control messages have numbers below 16.
    pub(crate) kind: u16,
    /// Header flags.
    pub(crate) flags: u16,
    /// Everything behind the netlink header.
    pub(crate) body: &'a [u8],
}

impl Read<'_> {
    /// The attributes behind the netfilter header.
    pub(crate) fn attributes(&self) -> &[u8] {
        self.body.get(HEADERS - 16..).unwrap_or_default()
    }
}

/// Reads the messages of one buffer; stops at the first that does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Read<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Read { kind, flags, body })
    })
}

#[cfg(test)]
mod tests {
    use super::super::attribute::find_text;
    use super::*;

    #[test]
    fn a_batch_has_these_golden_bytes() {
        let mut batch = Batch::new();
        batch.push(Kind::NewTable, CREATE, |table| table.text(1, "t"));
        let bytes = batch.finish();
        let expected: [u8; 68] = [
            20, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, // begin
            28, 0, 0, 0, 0, 10, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, // new table, create, acknowledged
            6, 0, 1, 0, b't', 0, 0, 0, // its name
            20, 0, 0, 0, 17, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, // end
        ];
        if cfg!(target_endian = "little") {
            assert_eq!(bytes, expected);
        }
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.len(), 3);
        assert_eq!(read[1].kind, 10 << 8);
        assert_eq!(find_text(read[1].attributes(), 1), Some("t"));
    }

    #[test]
    fn an_unfinished_message_ends_the_reading() {
        let bytes = Batch::new().finish();
        assert_eq!(messages(&bytes[..bytes.len() - 1]).count(), 1);
        assert_eq!(messages(&[1, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
    }
}
