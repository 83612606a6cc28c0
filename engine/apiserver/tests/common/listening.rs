//! A server on a free port of this machine, asked over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use shipway_apiserver::pki::{Authority, KeyPairPem};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Cluster;

pub struct Listening {
    pub cluster: Cluster,
    pub authority: Authority,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Listening {
    pub async fn new() -> Self {
        Self::over(Cluster::new().await).await
    }

    pub async fn over(cluster: Cluster) -> Self {
        let authority = Authority::open(&cluster.dir.path().join("pki")).unwrap();
        let pair = authority.issue_server(&["localhost".into()], &["127.0.0.1".parse().unwrap()]).unwrap();
        let tls = authority.server_config(&pair).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (server, stopped) = (cluster.server.clone(), stop.clone());
        let task = tokio::spawn(async move { server.serve(listener, tls, stopped).await.unwrap() });
        Self { cluster, authority, address, stop, task }
    }

    pub fn tls(&self, client: Option<&KeyPairPem>) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        match client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    pub async fn connect(&self, client: Option<&KeyPairPem>, http2: bool) -> TlsStream<TcpStream> {
        let mut config = self.tls(client);
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    /// Code and body of the reply to a GET, with a bearer token if one is given.
    pub async fn get(
        &self,
        path: &str,
        client: Option<&KeyPairPem>,
        http2: bool,
        bearer: Option<&str>,
    ) -> (u16, String) {
        let mut request = Request::get(format!("https://localhost{path}"));
        if let Some(token) = bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.ask(request.body(Full::default()).unwrap(), client, http2).await
    }

    /// The same with a token and nothing else.
    pub async fn with_token(&self, path: &str, token: &str) -> u16 {
        self.get(path, None, true, Some(token)).await.0
    }

    pub async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
        client: Option<&KeyPairPem>,
        http2: bool,
    ) -> (u16, String) {
        let stream = self.connect(client, http2).await;
        if !http2 {
            request.headers_mut().insert("host", "localhost".parse().unwrap());
        }
        let response = if http2 {
            let (mut send, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            send.send_request(request).await.unwrap()
        } else {
            let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            send.send_request(request).await.unwrap()
        };
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }
}
