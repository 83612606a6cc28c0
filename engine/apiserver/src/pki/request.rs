//! The other side of signing: what a node asks for, how it knows the authority before it trusts anything, and for how long
//! what it was given is good.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::new_key;
use crate::error::ApiError;
use crate::identity::Identity;

fn failed(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> ApiError {
    move |error| ApiError::Pki { path: what.into(), message: error.to_string() }
}

/// A new key and the request for a client certificate of the node of that name, both in PEM form.
pub fn node_request(node: &str) -> Result<(String, String), ApiError> {
    let make = || {
        let identity = Identity::node(node);
        let mut subject = DistinguishedName::new();
        for group in identity.groups {
            subject.push(DnType::OrganizationName, group);
        }
        subject.push(DnType::CommonName, identity.user);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        let key = new_key()?;
        Ok((key.serialize_pem(), params.serialize_request(&key)?.pem()?))
    };
    make().map_err(|error: rcgen::Error| failed("the node's request")(&error))
}

/// What an authority is known by: `sha256:` and the digest of its public key, as `kubeadm` writes it.
pub fn key_digest(authority: &str) -> Result<String, ApiError> {
    let failed = failed("the authority's certificate");
    let (_, pem) = x509_parser::pem::parse_x509_pem(authority.as_bytes()).map_err(|error| failed(&error))?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).map_err(|error| failed(&error))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw);
    let mut text = "sha256:".to_owned();
    for byte in digest.as_ref() {
        write!(text, "{byte:02x}").expect("a String takes any text");
    }
    Ok(text)
}

/// From when, and until when, a certificate in PEM form is good.
pub fn validity(certificate: &str) -> Result<(SystemTime, SystemTime), ApiError> {
    let failed = failed("a certificate");
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|error| failed(&error))?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).map_err(|error| failed(&error))?;
    let times = certificate.validity();
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok((at(times.not_before.timestamp()), at(times.not_after.timestamp())))
}

#[cfg(test)]
mod tests {
    use super::super::Authority;
    use super::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn what_a_node_asks_for_makes_it_that_node() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let (_, request) = node_request("alpha").unwrap();
        let usages = ["digital signature".to_owned(), "client auth".to_owned()];
        let made = authority.sign(request.as_bytes(), &usages, Duration::from_hours(1)).unwrap();
        let identity = Identity::from_certificate(&CertificateDer::from_pem_slice(made.as_bytes()).unwrap()).unwrap();
        assert_eq!(identity.as_node(), Some("alpha"));
        let (from, to) = validity(&made).unwrap();
        assert!(from < SystemTime::now() && to.duration_since(SystemTime::now()).unwrap() <= Duration::from_hours(1));
        assert!(validity("nonsense").is_err());
    }

    #[test]
    fn an_authority_is_known_by_its_key() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |dir: &tempfile::TempDir| key_digest(Authority::open(dir.path()).unwrap().ca_pem()).unwrap();
        assert_eq!(of(&one), of(&one));
        assert_ne!(of(&one), of(&other));
        assert_eq!(of(&one).len(), "sha256:".len() + 64);
        assert!(key_digest("nonsense").is_err());
    }
}
