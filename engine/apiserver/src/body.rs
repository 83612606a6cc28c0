//! Bodies: one boxed type for requests and replies, a bounded reader, and replies that stream shared bytes.
//!
//! A list of thousands of objects is never built as a whole: [`parts`] gathers small pieces into chunks while the
//! connection takes them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full, LengthLimitError, Limited, StreamBody};

use crate::error::ApiError;

/// What a body fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request or reply body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Pieces are gathered until a chunk has this many bytes.
pub(crate) const CHUNK: usize = 64 * 1024;
/// How long a request body may take to arrive.
const PATIENCE: Duration = Duration::from_mins(1);

/// A body of known bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is produced while it is read.
pub(crate) fn stream(chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A body of many shared pieces with their total length.
pub(crate) fn parts(pieces: impl Iterator<Item = Bytes> + Send + Unpin + 'static, length: u64) -> Body {
    Parts { pieces, held: None, left: length }.boxed_unsync()
}

/// Reads a request body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(ApiError::TooLarge(limit));
    }
    // Boxed where the types are known, so that callers need not work out that it can be sent.
    let Ok(collected) = tokio::time::timeout(PATIENCE, collect(body, limit)).await else {
        let text = format!("the request body did not arrive within {} s", PATIENCE.as_secs());
        return Err(ApiError::BadRequest(text));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge(limit)),
        Err(error) => Err(ApiError::BadRequest(format!("the request body broke off: {error}"))),
    }
}

/// Reads a body whole, of at most `limit` bytes.
pub(crate) fn collect(body: Body, limit: usize) -> BoxFuture<'static, Result<Collected<Bytes>, BoxError>> {
    Limited::new(body, limit).collect().boxed()
}

struct Parts<I> {
    pieces: I,
    /// A piece too large to be worth copying, sent behind what was gathered before it.
    held: Option<Bytes>,
    left: u64,
}

impl<I: Iterator<Item = Bytes>> Parts<I> {
    fn chunk(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.held.take() {
            return Some(piece);
        }
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK {
            match self.pieces.next() {
                Some(piece) if piece.len() >= CHUNK / 2 => {
                    if chunk.is_empty() {
                        return Some(piece);
                    }
                    self.held = Some(piece);
                    break;
                }
                Some(piece) => {
                    if chunk.capacity() == 0 {
                        chunk.reserve(usize::try_from(self.left).map_or(CHUNK, |left| left.min(CHUNK + CHUNK / 2)));
                    }
                    chunk.extend_from_slice(&piece);
                }
                None => break,
            }
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }
}

impl<I: Iterator<Item = Bytes> + Unpin> http_body::Body for Parts<I> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let chunk = self.chunk();
        if let Some(chunk) = &chunk {
            self.left = self.left.saturating_sub(chunk.len() as u64);
        }
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_of_any_size_arrive_whole_and_in_order() {
        let sizes = [1, 40_000, 3, 70_000, 65_536, 0, 9, 30_000, 30_000, 30_000];
        let pieces: Vec<Bytes> =
            sizes.iter().enumerate().map(|(i, &n)| vec![u8::try_from(i).unwrap(); n].into()).collect();
        let expected = pieces.concat();
        let body = parts(pieces.into_iter(), expected.len() as u64);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(expected.len() as u64));
        assert!(body.collect().await.unwrap().to_bytes() == expected);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        assert!(matches!(read(full(vec![0; 11]), 10).await, Err(ApiError::TooLarge(10))));
        assert_eq!(read(full(vec![0; 10]), 10).await.unwrap().len(), 10);
    }
}
