//! TLS to the servers behind this one: trust in what the `APIService` names, and the front proxy's own certificate.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::route::Route;
use crate::pki::KeyPairPem;
use crate::proxy::Anybody;
use crate::webhook::roots;

/// The settings for a route, made when it is first used.
pub(super) fn config(route: &Route, own: Option<&KeyPairPem>) -> Result<Arc<ClientConfig>, String> {
    route.tls.get_or_init(|| make(route, own).map(Arc::new)).clone()
}

fn make(route: &Route, own: Option<&KeyPairPem>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = if route.blind {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(route.bundle.as_deref())?)
    };
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).map_err(|error| error.to_string())?;
            let config = builder.with_client_auth_cert(chain.map_err(|error| error.to_string())?, key);
            config.map_err(|error| error.to_string())?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connects to the first place that answers and makes sure of who is there.
pub(super) async fn connect(
    places: &[String],
    name: String,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let mut problem = "nowhere to connect to".to_owned();
    for place in places {
        match TcpStream::connect(place.as_str()).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                let stream = TlsConnector::from(config).connect(name, stream).await;
                return stream.map_err(|error| format!("tls to {place}: {error}"));
            }
            Err(error) => problem = format!("dial tcp {place}: {error}"),
        }
    }
    Err(problem)
}
