//! An HTTP or HTTPS request as probes and hooks make it: any answer from 200 to 399 is a success, redirects are not
//! followed, certificates are not verified (as documented for HTTPS probes).

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Get {
    /// Instead of the pod's own address.
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) tls: bool,
    pub(super) headers: Vec<(String, String)>,
}

impl Get {
    fn host(&self, address: IpAddr) -> String {
        self.host.clone().unwrap_or_else(|| address.to_string())
    }

    pub(super) fn url(&self, address: IpAddr) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", self.host(address), self.port, self.path())
    }

    fn path(&self) -> String {
        if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) }
    }

    pub(super) async fn ask(&self, address: IpAddr) -> Result<(), String> {
        let host = self.host(address);
        let failed = |error: &dyn std::fmt::Display| format!("Get \"{}\": {error}", self.url(address));
        let stream = TcpStream::connect((host.as_str(), self.port)).await.map_err(|error| failed(&error))?;
        let status = if self.tls {
            let stream = tls::connect(stream, &host).await.map_err(|error| failed(&error))?;
            self.send(stream, &host).await
        } else {
            self.send(stream, &host).await
        };
        let status = status.map_err(|error| failed(&error))?;
        if (200..400).contains(&status.as_u16()) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
    }

    async fn send(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin, host: &str) -> Result<StatusCode, String> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let answer = sender.send_request(self.request(host)?);
        tokio::pin!(connection, answer);
        // Both are dropped with the head of the answer; nobody reads its body.
        let answered = tokio::select! {
            answered = &mut answer => answered,
            ended = &mut connection => match ended {
                // The server closed behind its answer, which is at hand already.
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        };
        answered.map(|answer| answer.status()).map_err(|error| error.to_string())
    }

    fn request(&self, host: &str) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::get(self.path()).body(Empty::new()).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        let own_host = HeaderValue::from_str(&format!("{host}:{}", self.port)).map_err(|error| error.to_string())?;
        headers.insert(HOST, own_host);
        headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        headers.insert("connection", HeaderValue::from_static("close"));
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("header {name}: {error}"))?;
            let value = HeaderValue::from_str(value).map_err(|error| format!("header {name}: {error}"))?;
            headers.insert(name, value);
        }
        Ok(request)
    }
}
