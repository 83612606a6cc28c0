//! A bare HTTP/1.1 client over TLS for load: it parses nothing that it need not, so that what is measured is the server.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kube::config::Kubeconfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An API server and the credential to use there.
pub(crate) struct Target {
    authority: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

/// One request.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) media: &'static str,
    pub(crate) body: Bytes,
}

impl Ask {
    /// A request without a body.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), media: "application/json", body: Bytes::new() }
    }

    /// A JSON object to create.
    pub(crate) fn post(path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self { method: Method::POST, path: path.into(), media: "application/json", body: body.to_string().into() }
    }

    /// A JSON merge patch.
    pub(crate) fn patch(path: impl Into<String>, body: &serde_json::Value) -> Self {
        let media = "application/merge-patch+json";
        Self { method: Method::PATCH, path: path.into(), media, body: body.to_string().into() }
    }
}

impl Target {
    /// The server of the kubeconfig in a home.
    pub(crate) fn of(home: &Path) -> Result<Self> {
        let config = Kubeconfig::read_from(home.join("kubeconfig"))?;
        let cluster = config.clusters.first().and_then(|named| named.cluster.as_ref()).context("no cluster")?;
        let user = config.auth_infos.first().and_then(|named| named.auth_info.as_ref()).context("no user")?;
        let server = cluster.server.as_deref().context("the cluster has no address")?;
        let authority = server.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned();
        let decode = |text: Option<&String>| anyhow::Ok(BASE64_STANDARD.decode(text.context("a key is missing")?)?);
        let authority_certificate = decode(cluster.certificate_authority_data.as_ref())?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&authority_certificate) {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_slice_iter(&decode(user.client_certificate_data.as_ref())?)
            .collect::<Result<Vec<_>, _>>()?;
        let secret = user.client_key_data.as_ref().context("the user has no key")?.expose_secret();
        let key = PrivateKeyDer::from_pem_slice(&BASE64_STANDARD.decode(secret)?)?;
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        Ok(Self { authority, name: ServerName::try_from(host)?, tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, authority: self.authority.clone() })
    }
}

/// One connection; one request at a time.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Connection {
    /// Sends a request that has to succeed and gives the reply's head with its body still to come.
    pub(crate) async fn open(&mut self, ask: &Ask) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        let request = Request::builder().method(&ask.method).uri(&ask.path).header(HOST, &self.authority);
        let request = request.header(CONTENT_TYPE, ask.media).body(Full::new(ask.body.clone()))?;
        let response = self.sender.send_request(request).await?;
        if !response.status().is_success() {
            let status = response.status();
            let said = response.into_body().collect().await?.to_bytes();
            bail!("{} {} was answered with {status}: {}", ask.method, ask.path, String::from_utf8_lossy(&said));
        }
        Ok(response)
    }

    /// Sends a request and reads the whole reply; gives its length in bytes.
    pub(crate) async fn send(&mut self, ask: &Ask) -> Result<usize> {
        let mut body = self.open(ask).await?.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }

    /// Sends a request and parses the reply.
    pub(crate) async fn json(&mut self, ask: &Ask) -> Result<serde_json::Value> {
        let bytes = self.open(ask).await?.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&bytes)?)
    }
}
