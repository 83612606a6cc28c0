//! The client's side of the protocols, as little of it as the tests need.

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::spdy::dictionary;

/// A masked WebSocket frame; `first` is its first byte.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 99, 200, 1];
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => out.push(0x80 | u8::try_from(short).unwrap()),
        Ok(middle) => {
            out.push(0xfe);
            out.extend(middle.to_be_bytes());
        }
        Err(_) => {
            out.push(0xff);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// The next WebSocket frame of the server: its kind and payload.
pub(crate) async fn frame(io: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let kind = io.read_u8().await.expect("a frame");
    let length = match io.read_u8().await.expect("a length") {
        126 => u64::from(io.read_u16().await.expect("a length")),
        127 => io.read_u64().await.expect("a length"),
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    io.read_exact(&mut payload).await.expect("a payload");
    (kind & 0x0f, payload)
}

/// Headers as a SPDY client sends them.
pub(crate) struct Headers(Compress);

impl Headers {
    pub(crate) fn new() -> Self {
        let mut deflate = Compress::new(Compression::best(), true);
        deflate.set_dictionary(&dictionary()).expect("a dictionary");
        Self(deflate)
    }

    pub(crate) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        self.raw(&plain)
    }

    pub(crate) fn raw(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(plain.len() + 1024);
        self.0.compress_vec(plain, &mut out, FlushCompress::Sync).expect("compressed");
        out
    }

    /// A SYN_STREAM frame.
    pub(crate) fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = self.block(headers);
        let mut payload = [stream.to_be_bytes(), [0; 4]].concat();
        payload.extend([0, 0]);
        payload.extend(block);
        spdy_control(1, &payload)
    }
}

pub(crate) fn spdy_control(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3, 0, kind, 0];
    out.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    out.extend(payload);
    out
}

pub(crate) fn spdy_data(stream: u32, last: bool, data: &[u8]) -> Vec<u8> {
    let mut out = stream.to_be_bytes().to_vec();
    out.push(u8::from(last));
    out.extend(&u32::try_from(data.len()).unwrap().to_be_bytes()[1..]);
    out.extend(data);
    out
}

/// A data frame of the server: stream, whether it is the last one, data.
pub(crate) type SpdyData = (u32, bool, Vec<u8>);

/// The next data frame in `buffer`; control frames before it are skipped.
pub(crate) fn spdy_next(buffer: &mut BytesMut) -> Option<SpdyData> {
    loop {
        let head: [u8; 8] = buffer.get(..8)?.try_into().unwrap();
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if buffer.len() < 8 + length {
            return None;
        }
        buffer.advance(8);
        let payload = buffer.split_to(length).to_vec();
        if head[0] & 0x80 == 0 {
            return Some((u32::from_be_bytes([head[0], head[1], head[2], head[3]]), head[4] & 1 == 1, payload));
        }
    }
}

/// Reads data frames until `stream` has ended; gives all that came for it.
pub(crate) async fn spdy_rest(io: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, stream: u32) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        while let Some((of, last, bytes)) = spdy_next(buffer) {
            if of == stream {
                data.extend(bytes);
            }
            if of == stream && last {
                return data;
            }
        }
        assert!(io.read_buf(buffer).await.expect("a connection") > 0, "ended early");
    }
}
