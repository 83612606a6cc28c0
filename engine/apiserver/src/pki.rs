//! Certificates: one authority per instance, and what it issues for the server and its clients.
//!
//! ECDSA P-256 throughout. Private keys are created with mode 0600; nothing is ever overwritten.

mod der;
mod mutual;
mod request;
mod sign;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::ApiError;
use crate::identity::Identity;

pub use crate::access::TokenKey;
pub use crate::aggregate::FrontProxy;
pub use mutual::{NodeCaller, node_server_config};
pub use request::{key_digest, node_request, validity};

const NAME: &str = "shipway-ca";
const DAY: Duration = Duration::from_hours(24);
/// How far back certificates are valid, for clocks that differ.
const SKEW: Duration = Duration::from_hours(1);

/// A certificate with its private key, both in PEM form.
#[derive(Clone)]
pub struct KeyPairPem {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS#8).
    pub key: String,
}

impl std::fmt::Debug for KeyPairPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPairPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The certificate authority of one instance.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's key, which it does not lend.
    key: KeyPair,
    path: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens `ca.crt` and `ca.key` in a folder, or makes both when neither is there.
    pub fn open(dir: &Path) -> Result<Self, ApiError> {
        Self::named(dir, NAME)
    }

    /// The same for an authority of another name.
    pub(crate) fn named(dir: &Path, name: &str) -> Result<Self, ApiError> {
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let failed = |message: String| ApiError::Pki { path: dir.display().to_string(), message };
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("{}: {error}", path.display()))),
        };
        let (certificate, key) = match (read(&certificate_path)?, read(&key_path)?) {
            (Some(certificate), Some(key)) => (certificate, key),
            // The key is written first, so a certificate without a key is damage and not a first start cut short.
            (Some(_), None) => return Err(failed("ca.crt is there and ca.key is not".into())),
            (None, key) => {
                std::fs::create_dir_all(dir).map_err(|error| failed(error.to_string()))?;
                let key = match key {
                    Some(key) => key,
                    None => new_key().map_err(|error| failed(error.to_string()))?.serialize_pem(),
                };
                write_private(&key_path, &key).map_err(|error| failed(format!("ca.key: {error}")))?;
                let certificate = self_signed(&key, name).map_err(|error| failed(error.to_string()))?;
                write_private(&certificate_path, &certificate).map_err(|error| failed(format!("ca.crt: {error}")))?;
                (certificate, key)
            }
        };
        let open = || KeyPair::from_pem(&key).map_err(|error| failed(format!("ca.key: {error}")));
        let issuer = Issuer::new(authority_params(name), open()?);
        Ok(Self { certificate, issuer, key: open()?, path: dir.display().to_string() })
    }

    /// The authority's certificate in PEM form, for clients to trust.
    pub fn ca_pem(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a server that is reached under these names and addresses; valid for ten years.
    pub fn issue_server(&self, names: &[String], addresses: &[IpAddr]) -> Result<KeyPairPem, ApiError> {
        let mut params = params("shipway-apiserver", None, DAY * 3650);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            let name = name.as_str().try_into().map_err(|error| self.failed(&format!("{name:?}: {error}")))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        self.issue(&params)
    }

    /// A certificate for a client: user name and group as subject; valid for one year. `rcgen` writes one organisation,
    /// so an identity with more groups is refused; certificates of others may carry several.
    pub fn issue_client(&self, identity: &Identity) -> Result<KeyPairPem, ApiError> {
        if identity.groups.len() > 1 {
            return Err(self.failed(&format!("{} is in more groups than the one a certificate carries", identity.user)));
        }
        let mut params = params(&identity.user, identity.groups.first().map(String::as_str), DAY * 365);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Result<KeyPairPem, ApiError> {
        let make = || {
            let key = new_key()?;
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok(KeyPairPem { certificate: certificate.pem(), key: key.serialize_pem() })
        };
        make().map_err(|error: rcgen::Error| self.failed(&error))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> ApiError {
        ApiError::Pki { path: self.path.clone(), message: error.to_string() }
    }

    /// TLS for the server: HTTP/2 and HTTP/1.1, client certificates of this authority welcome and not required.
    pub fn server_config(&self, pair: &KeyPairPem) -> Result<Arc<ServerConfig>, ApiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.certificate.as_bytes()) {
            let certificate = certificate.map_err(|error| self.failed(&error))?;
            roots.add(certificate).map_err(|error| self.failed(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| self.failed(&error))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| self.failed(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.failed(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.map_err(|error| self.failed(&error))?, key)
            .map_err(|error| self.failed(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The key in `sa.key` of a folder, made when it is not there.
pub(crate) fn token_key(dir: &Path) -> Result<KeyPair, ApiError> {
    let failed = |error: &dyn std::fmt::Display| ApiError::Pki {
        path: dir.display().to_string(),
        message: format!("sa.key: {error}"),
    };
    let path = dir.join("sa.key");
    if let Err(error) = std::fs::metadata(&path) {
        if error.kind() != ErrorKind::NotFound {
            return Err(failed(&error));
        }
        std::fs::create_dir_all(dir).map_err(|error| failed(&error))?;
        let key = new_key().map_err(|error| failed(&error))?;
        write_private(&path, &key.serialize_pem()).map_err(|error| failed(&error))?;
    }
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    KeyPair::from_pem(&text).map_err(|error| failed(&error))
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn self_signed(key: &str, name: &str) -> Result<String, rcgen::Error> {
    Ok(authority_params(name).self_signed(&KeyPair::from_pem(key)?)?.pem())
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name, None, DAY * 3650);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn params(common_name: &str, organisation: Option<&str>, valid: Duration) -> CertificateParams {
    let mut subject = DistinguishedName::new();
    if let Some(organisation) = organisation {
        subject.push(DnType::OrganizationName, organisation);
    }
    subject.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = (now - SKEW).into();
    params.not_after = (now + valid).into();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_authority_is_made_once_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let again = Authority::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_client_certificate_says_who_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let identity = Identity::new("jane", &["developers"]);
        for identity in [identity, Identity::admin(), Identity::node("alpha"), Identity::scheduler()] {
            let pair = authority.issue_client(&identity).unwrap();
            let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            let read = Identity::from_certificate(&der).unwrap();
            assert!(read.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
            assert_eq!((read.user, read.groups), (identity.user, identity.groups));
        }
        let many = Identity::new("jane", &["a", "b"]);
        assert!(matches!(authority.issue_client(&many), Err(ApiError::Pki { .. })));
    }

    #[test]
    fn a_lost_key_is_an_error_and_not_a_new_authority() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(Authority::open(dir.path()), Err(ApiError::Pki { .. })));
    }

    #[test]
    fn the_key_of_tokens_is_made_once_and_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let public = |key: KeyPair| key.public_key_pem();
        let first = public(token_key(dir.path()).unwrap());
        assert_eq!(first, public(token_key(dir.path()).unwrap()));
        let mode = std::fs::metadata(dir.path().join("sa.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join("sa.key"), "nonsense").unwrap();
        assert!(matches!(token_key(dir.path()), Err(ApiError::Pki { .. })));
    }
}
