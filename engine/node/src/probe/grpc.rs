//! The gRPC health check as probes ask it: one call of `grpc.health.v1.Health/Check` over plain HTTP/2
//! (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). Its two messages have one field each and are written and
//! read here by hand.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// No answer is longer.
const LONGEST: usize = 4096;
/// `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// Code of a method that the server does not have.
const UNIMPLEMENTED: &str = "12";

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Health {
    pub(super) port: u16,
    /// Whose health; empty for the server's as a whole.
    pub(super) service: String,
}

impl Health {
    pub(super) async fn ask(&self, address: IpAddr) -> Result<(), String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("failed to connect service \"{address}:{}\": {error}", self.port);
        let stream = TcpStream::connect((address, self.port)).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let request = self.request(address).map_err(|error| failed(&error))?;
        let talking = async {
            let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
            judge(answer).await
        };
        tokio::pin!(connection, talking);
        tokio::select! {
            biased;
            judged = &mut talking => judged,
            ended = &mut connection => match ended {
                Ok(()) => talking.await,
                Err(error) => Err(failed(&error)),
            },
        }
    }

    fn request(&self, address: IpAddr) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let uri = format!("http://{}/grpc.health.v1.Health/Check", std::net::SocketAddr::new(address, self.port));
        Request::post(uri)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, "kube-probe/1.36")
            .body(Full::new(self.message()))
    }

    /// The request's message behind its five bytes: not compressed, and how long it is.
    fn message(&self) -> Bytes {
        let mut content = BytesMut::new();
        if !self.service.is_empty() {
            content.put_u8(0x0a);
            varint(self.service.len(), &mut content);
            content.put_slice(self.service.as_bytes());
        }
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
        framed.put_slice(&content);
        framed.freeze()
    }
}

fn varint(mut number: usize, into: &mut BytesMut) {
    while number >= 0x80 {
        into.put_u8(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    into.put_u8(u8::try_from(number).expect("seven bits"));
}

async fn judge(answer: Response<Incoming>) -> Result<(), String> {
    let (head, body) = answer.into_parts();
    if head.status != 200 {
        return Err(format!("error: unexpected HTTP status code received from server: {}", head.status));
    }
    let whole = Limited::new(body, LONGEST).collect().await.map_err(|error| error.to_string())?;
    // An answer without a message has its status in the head.
    refused(whole.trailers().unwrap_or(&head.headers))?;
    let status = status(&whole.to_bytes())?;
    if status == 1 {
        return Ok(());
    }
    let word = usize::try_from(status).ok().and_then(|status| STATUSES.get(status)).copied();
    Err(format!("service unhealthy (responded with \"{}\")", word.unwrap_or("UNKNOWN")))
}

/// What the server says of the call as such.
fn refused(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => Ok(()),
        UNIMPLEMENTED => Err("error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health)"
            .to_owned()),
        "" => Err("error: health rpc probe failed: the answer has no status".to_owned()),
        code => Err(format!("error: health rpc probe failed: code {code}: {}", text("grpc-message"))),
    }
}

/// The status in a framed answer; a field that is not there is 0.
fn status(framed: &[u8]) -> Result<u64, String> {
    let malformed = || "error: health rpc probe failed: the answer is malformed".to_owned();
    let Some([0, length @ ..]) = framed.first_chunk::<5>() else { return Err(malformed()) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| malformed())?;
    match framed[5..].get(..length).ok_or_else(malformed)? {
        [] => Ok(0),
        [0x08, number] if *number < 0x80 => Ok(u64::from(*number)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_have_the_documented_form() {
        let asked = |service: &str| Health { port: 1, service: service.to_owned() }.message().to_vec();
        assert_eq!(asked(""), [0, 0, 0, 0, 0]);
        assert_eq!(asked("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = asked(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Ok(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Ok(0));
        for malformed in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 1, 8]] {
            assert!(status(malformed).is_err(), "{malformed:?}");
        }
        assert!(status(&[0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
