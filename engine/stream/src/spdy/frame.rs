//! SPDY frames: taken apart as they come, and put together.

use bytes::{Buf, Bytes, BytesMut};

use super::headers::{Deflater, Headers, Inflater};
use crate::channel::CHUNK;
use crate::converse::Decode;
use crate::error::StreamError;

const HEAD: usize = 8;
/// First byte of a control frame; version 3 follows.
const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const SYN_STREAM: u8 = 1;
const SYN_REPLY: u8 = 2;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const HEADERS: u8 = 8;
/// Flag of data and of openings: nothing follows on the stream.
const LAST: u8 = 1;
/// `RST_STREAM` with this status: the stream was not taken.
const REFUSED: u32 = 3;
/// The longest control frame, in bytes.
const CONTROL_MAX: usize = 16 * 1024;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Open {
        stream: u32,
        headers: Headers,
        last: bool,
    },
    /// A piece of a data frame; `last` with the last piece of the stream's last one.
    Data {
        stream: u32,
        bytes: Bytes,
        last: bool,
    },
    Reset(u32),
    /// To be sent back as it is.
    Ping(Bytes),
    Nothing,
}

/// A data frame whose payload is coming.
struct Payload {
    stream: u32,
    left: usize,
    last: bool,
}

/// Takes frames apart.
#[derive(Default)]
pub(super) struct Decoder {
    payload: Option<Payload>,
    inflater: Inflater,
}

impl Decode for Decoder {
    type Event = Event;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, StreamError> {
        if self.payload.is_none() {
            let Some(&[first, second, third, fourth, flags, a, b, c]) = buffer.first_chunk::<HEAD>() else {
                return Ok(None);
            };
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).expect("24 bits");
            if first & CONTROL != 0 {
                return self.control([first, second, third, fourth], flags, length, buffer);
            }
            buffer.advance(HEAD);
            let stream = u32::from_be_bytes([first, second, third, fourth]);
            self.payload = Some(Payload { stream, left: length, last: flags & LAST != 0 });
        }
        Ok(self.piece(buffer))
    }
}

impl Decoder {
    fn piece(&mut self, buffer: &mut BytesMut) -> Option<Event> {
        let payload = self.payload.as_mut()?;
        if buffer.is_empty() && payload.left > 0 {
            return None;
        }
        let bytes = buffer.split_to(buffer.len().min(payload.left).min(CHUNK)).freeze();
        payload.left -= bytes.len();
        let (stream, done) = (payload.stream, payload.left == 0);
        let last = payload.last && done;
        if done {
            self.payload = None;
        }
        Some(Event::Data { stream, bytes, last })
    }

    fn control(
        &mut self,
        kind: [u8; 4],
        flags: u8,
        length: usize,
        buffer: &mut BytesMut,
    ) -> Result<Option<Event>, StreamError> {
        if kind[..2] != [CONTROL, VERSION] {
            return Err(StreamError::Protocol("a frame of another version of SPDY"));
        }
        if length > CONTROL_MAX {
            return Err(StreamError::Protocol("a control frame is too long"));
        }
        if buffer.len() < HEAD + length {
            return Ok(None);
        }
        let frame = buffer.split_to(HEAD + length).freeze();
        let payload = &frame[HEAD..];
        let event = match kind[2..] {
            [0, SYN_STREAM] => {
                let headers = self.headers(payload, 10)?;
                Event::Open { stream: number(payload)?, headers, last: flags & LAST != 0 }
            }
            [0, SYN_REPLY | HEADERS] => {
                // Nobody asked, but the headers are part of one zlib stream.
                self.headers(payload, 4)?;
                Event::Nothing
            }
            [0, RST_STREAM] => Event::Reset(number(payload)?),
            // Even ones would answer pings of ours.
            [0, PING] if number(payload)? % 2 == 1 => Event::Ping(frame),
            _ => Event::Nothing,
        };
        Ok(Some(event))
    }

    fn headers(&mut self, payload: &[u8], skip: usize) -> Result<Headers, StreamError> {
        let block = payload.get(skip..).ok_or(SHORT)?;
        Headers::parse(&self.inflater.block(block)?)
    }
}

const SHORT: StreamError = StreamError::Protocol("a control frame is too short");

fn number(payload: &[u8]) -> Result<u32, StreamError> {
    let bytes = payload.first_chunk().ok_or(SHORT)?;
    Ok(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// What stands before `length` bytes of data.
pub(super) fn data_head(stream: u32, last: bool, length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&stream.to_be_bytes());
    out.push(if last { LAST } else { 0 });
    push_length(length, out);
}

fn push_length(length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).expect("pieces are short");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
}

fn control_frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut out = vec![CONTROL, VERSION, 0, kind, 0];
    push_length(payload.len(), &mut out);
    out.extend_from_slice(payload);
    out.into()
}

/// Says that a stream is not taken.
pub(super) fn refusal(stream: u32) -> Bytes {
    control_frame(RST_STREAM, &[stream.to_be_bytes(), REFUSED.to_be_bytes()].concat())
}

/// Says that streams are taken.
#[derive(Default)]
pub(super) struct Replies(Deflater);

impl Replies {
    pub(super) fn to(&mut self, stream: u32) -> Bytes {
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.0.empty());
        control_frame(SYN_REPLY, &payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, spdy_control, spdy_data};
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

    #[test]
    fn openings_data_and_pings_are_told_apart() {
        let mut headers = testing::Headers::new();
        let ping = spdy_control(PING, &1_u32.to_be_bytes());
        let bytes =
            [headers.open(1, &[("streamtype", "error")]), spdy_data(1, true, b""), ping.clone(), headers.open(3, &[])];
        for step in [1, 5, 1000] {
            let events = all(&bytes.concat(), step).unwrap();
            assert!(matches!(&events[0], Event::Open { stream: 1, headers, last: false }
                if headers.get("streamtype") == Some("error")));
            assert_eq!(events[1], Event::Data { stream: 1, bytes: Bytes::new(), last: true });
            assert_eq!(events[2], Event::Ping(ping.clone().into()));
            assert!(matches!(events[3], Event::Open { stream: 3, .. }) && events.len() == 4);
        }
    }

    #[test]
    fn a_control_frame_that_is_too_long_or_of_another_version_is_refused() {
        assert!(all(&[0x80, 3, 0, SYN_STREAM, 0, 0xff, 0xff, 0xff], 8).is_err());
        assert!(all(&[0x80, 2, 0, SYN_STREAM, 0, 0, 0, 0], 8).is_err());
        assert!(all(&spdy_control(SYN_STREAM, &[0; 9]), 100).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, kind in 0_u8..12, step in 1_usize..40) {
            drop(all(&bytes, step));
            drop(all(&spdy_control(kind, &bytes), step));
        }

        #[test]
        fn all_data_arrives(sent in prop::collection::vec(any::<u8>(), 0..2000), step in 1_usize..400) {
            let events = all(&spdy_data(5, true, &sent), step).unwrap();
            let mut got = Vec::new();
            let mut ends = 0;
            for event in events {
                let Event::Data { stream: 5, bytes, last } = event else { panic!("{event:?}") };
                got.extend(bytes);
                ends += usize::from(last);
            }
            prop_assert_eq!((got, ends), (sent, 1));
        }
    }
}
