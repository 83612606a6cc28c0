//! TLS between the API server and nodes in other processes, where both show who they are by client certificates of the
//! cluster's authority. A node answers nobody but the API server; the API server asks nobody but the node by that name,
//! wherever that name says it is reached.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{Authority, KeyPairPem};
use crate::error::ApiError;
use crate::identity::{Identity, MASTERS};

/// How old the API server's own certificate becomes; it would be good for a year.
const RENEWED: Duration = Duration::from_hours(30 * 24);
/// As whom the API server asks nodes.
const ASKER: &str = "kube-apiserver-kubelet-client";

/// Takes a client certificate of the authority that is for one user alone.
#[derive(Debug)]
struct Only {
    user: String,
    by_authority: Arc<dyn ClientCertVerifier>,
}

impl Only {
    fn new(ca: &str, user: String) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self { user, by_authority: verifier.map_err(|error| error.to_string())? })
    }

    fn check(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        self.by_authority.verify_client_cert(own, others, now)?;
        let shown = Identity::from_certificate(own).is_some_and(|identity| identity.user == self.user);
        if shown { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }
}

impl ClientCertVerifier for Only {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(own, others, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// A node shows the certificate by which the API knows it; what counts is who it is, not where.
impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(own, others, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own(pair: &KeyPairPem) -> Result<Own, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| error.to_string())?;
    Ok((chain.map_err(|error| error.to_string())?, key))
}

/// What the API server needs to ask nodes in other processes: a certificate, made anew long before it ends.
pub struct NodeCaller {
    authority: Authority,
    pair: Mutex<(Instant, KeyPairPem)>,
}

impl std::fmt::Debug for NodeCaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCaller").finish_non_exhaustive()
    }
}

impl NodeCaller {
    /// With certificates of the authority.
    pub fn new(authority: Authority) -> Result<Self, ApiError> {
        let pair = Mutex::new((Instant::now(), pair(&authority)?));
        Ok(Self { authority, pair })
    }

    fn pair(&self) -> Result<KeyPairPem, ApiError> {
        let mut made = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
        if made.0.elapsed() > RENEWED {
            *made = (Instant::now(), pair(&self.authority)?);
        }
        Ok(made.1.clone())
    }

    /// TLS to the node of that name.
    pub(crate) fn config(&self, node: &str) -> Result<ClientConfig, String> {
        let (chain, key) = own(&self.pair().map_err(|error| error.to_string())?)?;
        let verifier = Only::new(self.authority.ca_pem(), Identity::node(node).user)?;
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.dangerous();
        let config = builder.with_custom_certificate_verifier(Arc::new(verifier)).with_client_auth_cert(chain, key);
        config.map_err(|error| error.to_string())
    }
}

fn pair(authority: &Authority) -> Result<KeyPairPem, ApiError> {
    authority.issue_client(&Identity::new(ASKER, &[MASTERS]))
}

/// TLS for a node that answers the API server and nobody else; it shows the certificate by which the API knows it.
pub fn node_server_config(ca: &str, pair: &KeyPairPem) -> Result<Arc<ServerConfig>, ApiError> {
    let make = || {
        let (chain, key) = own(pair)?;
        let verifier = Only::new(ca, ASKER.to_owned())?;
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.with_client_cert_verifier(Arc::new(verifier));
        builder.with_single_cert(chain, key).map(Arc::new).map_err(|error| error.to_string())
    };
    make().map_err(|message| ApiError::Pki { path: "the node's certificate".into(), message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// Whether somebody with `client` and a node with `server` come to speak.
    async fn speak(client: ClientConfig, server: Arc<ServerConfig>) -> bool {
        let (one, other) = duplex(64 * 1024);
        let name = ServerName::try_from("node").unwrap();
        let asking = async {
            let mut stream = TlsConnector::from(Arc::new(client)).connect(name, one).await?;
            stream.write_all(b"?").await?;
            stream.read_u8().await
        };
        let answering = async {
            let mut stream = TlsAcceptor::from(server).accept(other).await?;
            stream.read_u8().await?;
            stream.write_all(b"!").await?;
            stream.flush().await
        };
        let (asked, _) = tokio::join!(asking, answering);
        asked.is_ok()
    }

    #[tokio::test]
    async fn a_node_speaks_to_the_api_server_alone_and_the_api_server_to_that_node_alone() {
        let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::open(dir.path()).unwrap();
        let stranger = Authority::open(foreign.path()).unwrap();
        let alpha = authority.issue_client(&Identity::node("alpha")).unwrap();
        let door = || node_server_config(authority.ca_pem(), &alpha).unwrap();
        let caller = NodeCaller::new(Authority::open(dir.path()).unwrap()).unwrap();
        assert!(speak(caller.config("alpha").unwrap(), door()).await);
        assert!(!speak(caller.config("beta").unwrap(), door()).await, "another node was taken for beta");
        let shows = |authority: &Authority, identity: &Identity| {
            let pair = Mutex::new((Instant::now(), authority.issue_client(identity).unwrap()));
            NodeCaller { authority: Authority::open(dir.path()).unwrap(), pair }
        };
        let beta = shows(&authority, &Identity::node("beta"));
        assert!(!speak(beta.config("alpha").unwrap(), door()).await, "a node was answered");
        let forged = shows(&stranger, &Identity::new(ASKER, &[MASTERS]));
        assert!(!speak(forged.config("alpha").unwrap(), door()).await, "a stranger was answered");
    }
}
