//! Frames (RFC 6455, section 5): taken apart as they come, and put together.

use bytes::{Buf, Bytes, BytesMut};

use crate::channel::CHUNK;
use crate::converse::Decode;
use crate::error::StreamError;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Bit of the first byte: the last frame of its message.
const LAST: u8 = 0x80;
/// Bit of the second byte: the payload is masked.
const MASKED: u8 = 0x80;
/// The longest payload of a control frame.
const CONTROL_MAX: u64 = 125;
/// Code of a close that nothing forced.
const NORMAL: u16 = 1000;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A piece of a message.
    Data { first: bool, bytes: Bytes },
    /// To be answered with a pong of the same bytes.
    Ping(Bytes),
    /// The client is done.
    Close,
}

/// A data frame whose payload is coming.
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// Whether nothing of its message was handed on yet.
    first: bool,
}

/// Takes frames apart.
#[derive(Default)]
pub(crate) struct Decoder {
    payload: Option<Payload>,
    /// A message has begun whose last frame has not come.
    unfinished: bool,
}

/// The fixed part of a frame.
struct Head {
    last: bool,
    code: u8,
    mask: [u8; 4],
    length: u64,
    /// Bytes of this part itself.
    size: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Option<Self>, StreamError> {
        let [one, two, rest @ ..] = bytes else { return Ok(None) };
        if one & 0x70 != 0 {
            return Err(StreamError::Protocol("a frame uses reserved bits"));
        }
        if two & MASKED == 0 {
            return Err(StreamError::Protocol("a frame from the client is not masked"));
        }
        let (length, wide) = match two & !MASKED {
            126 => (rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes))), 2),
            127 => (rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)), 8),
            short => (Some(u64::from(short)), 0),
        };
        let mask = rest.get(wide..).and_then(<[u8]>::first_chunk);
        let (Some(length), Some(mask)) = (length, mask) else { return Ok(None) };
        Ok(Some(Self { last: one & LAST != 0, code: one & 0x0f, mask: *mask, length, size: wide + 6 }))
    }
}

impl Decode for Decoder {
    type Event = Event;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, StreamError> {
        loop {
            if let Some(payload) = &mut self.payload {
                if buffer.is_empty() && payload.left > 0 {
                    return Ok(None);
                }
                let (event, done) = payload.piece(buffer);
                if done {
                    self.payload = None;
                }
                return Ok(Some(event));
            }
            let Some(head) = Head::read(buffer)? else { return Ok(None) };
            if head.code < CLOSE {
                buffer.advance(head.size);
                self.begin(&head)?;
                continue;
            }
            match control(&head, buffer)? {
                Some(Control::Ping(bytes)) => return Ok(Some(Event::Ping(bytes))),
                Some(Control::Close) => return Ok(Some(Event::Close)),
                Some(Control::Pong) => {}
                None => return Ok(None),
            }
        }
    }
}

impl Decoder {
    fn begin(&mut self, head: &Head) -> Result<(), StreamError> {
        let first = match head.code {
            CONTINUATION if self.unfinished => false,
            TEXT | BINARY if !self.unfinished => true,
            CONTINUATION | TEXT | BINARY => return Err(StreamError::Protocol("messages are interleaved")),
            _ => return Err(StreamError::Protocol("a frame of unknown kind")),
        };
        self.unfinished = !head.last;
        self.payload = Some(Payload { left: head.length, mask: head.mask, first });
        Ok(())
    }
}

impl Payload {
    /// What is there of it, and whether that is the rest.
    fn piece(&mut self, buffer: &mut BytesMut) -> (Event, bool) {
        let here = u64::try_from(buffer.len().min(CHUNK)).unwrap_or(u64::MAX).min(self.left);
        let length = usize::try_from(here).expect("not more than the buffer holds");
        let mut bytes = buffer.split_to(length);
        unmask(&mut bytes, self.mask);
        self.mask.rotate_left(length % 4);
        self.left -= here;
        let event = Event::Data { first: std::mem::take(&mut self.first), bytes: bytes.freeze() };
        (event, self.left == 0)
    }
}

enum Control {
    Ping(Bytes),
    Pong,
    Close,
}

fn control(head: &Head, buffer: &mut BytesMut) -> Result<Option<Control>, StreamError> {
    if !head.last || head.length > CONTROL_MAX {
        return Err(StreamError::Protocol("a control frame is fragmented or too long"));
    }
    let length = usize::try_from(head.length).expect("at most 125");
    if buffer.len() < head.size + length {
        return Ok(None);
    }
    buffer.advance(head.size);
    let mut bytes = buffer.split_to(length);
    unmask(&mut bytes, head.mask);
    Ok(Some(match head.code {
        PING => Control::Ping(bytes.freeze()),
        PONG => Control::Pong,
        CLOSE => Control::Close,
        _ => return Err(StreamError::Protocol("a frame of unknown kind")),
    }))
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// What stands before a binary message of `length` bytes.
pub(crate) fn head(length: usize, out: &mut Vec<u8>) {
    frame_head(BINARY, length, out);
}

fn frame_head(code: u8, length: usize, out: &mut Vec<u8>) {
    out.push(LAST | code);
    match length {
        0..=125 => out.push(u8::try_from(length).expect("at most 125")),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&u16::try_from(length).expect("at most 65,535").to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The answer to a ping.
pub(crate) fn pong(bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    frame_head(PONG, bytes.len(), &mut out);
    out.extend_from_slice(bytes);
    out.into()
}

/// A close with a code: clients take one without for a failure.
pub(crate) fn close(out: &mut Vec<u8>) {
    frame_head(CLOSE, 2, out);
    out.extend_from_slice(&NORMAL.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::masked;
    use proptest::prelude::*;

    fn all(mut bytes: &[u8], step: usize) -> Result<Vec<Event>, StreamError> {
        let (mut decoder, mut buffer, mut events) = (Decoder::default(), BytesMut::new(), Vec::new());
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(step.clamp(1, bytes.len()));
            buffer.extend_from_slice(now);
            bytes = later;
            while let Some(event) = decoder.decode(&mut buffer)? {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Messages put together again, and how many pings came between.
    fn messages(events: Vec<Event>) -> (Vec<Vec<u8>>, usize) {
        let (mut whole, mut pings) = (Vec::<Vec<u8>>::new(), 0);
        for event in events {
            match event {
                Event::Data { first: true, bytes } => whole.push(bytes.to_vec()),
                Event::Data { first: false, bytes } => whole.last_mut().expect("begun").extend_from_slice(&bytes),
                Event::Ping(_) => pings += 1,
                Event::Close => {}
            }
        }
        (whole, pings)
    }

    #[test]
    fn a_message_in_fragments_with_a_ping_between_is_one_message() {
        let bytes = [masked(0x02, b"\0ab"), masked(0x89, b"are you there"), masked(0x80, b"cd")].concat();
        for step in [1, 3, bytes.len()] {
            let (whole, pings) = messages(all(&bytes, step).unwrap());
            assert_eq!((whole, pings), (vec![b"\0abcd".to_vec()], 1));
        }
    }

    #[test]
    fn what_the_protocol_forbids_is_refused() {
        let cases: [&[u8]; 6] = [
            &[0x82, 0x01, 0],                   // not masked
            &[0xc2, 0x80, 0, 0, 0, 0],          // a reserved bit
            &[0x80, 0x80, 0, 0, 0, 0],          // a continuation of nothing
            &[0x09, 0x80, 0, 0, 0, 0],          // a ping in fragments
            &[0x89, 0xfe, 0x01, 0, 0, 0, 0, 0], // a ping that is too long
            &[0x83, 0x80, 0, 0, 0, 0],          // an unknown kind
        ];
        for case in cases {
            assert!(all(case, 100).is_err(), "{case:?}");
        }
        let interleaved = [masked(0x02, b"a"), masked(0x02, b"b")].concat();
        assert!(all(&interleaved, 100).is_err());
    }

    #[test]
    fn a_promise_of_a_huge_frame_holds_no_memory() {
        let head = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, b'x'];
        let events = all(&head, 100).unwrap();
        assert_eq!(events, [Event::Data { first: true, bytes: Bytes::from_static(b"x") }]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, step in 1_usize..40) {
            drop(all(&bytes, step));
        }

        #[test]
        fn every_message_arrives(sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5), step in 1_usize..400) {
            let bytes: Vec<u8> = sent.iter().flat_map(|message| masked(0x82, message)).collect();
            prop_assert_eq!(messages(all(&bytes, step).unwrap()).0, sent);
        }
    }
}
