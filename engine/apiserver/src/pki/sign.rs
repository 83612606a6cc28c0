//! Certificates for keys of others: a request (PKCS#10) becomes a certificate with its subject, its names and its key, and
//! with the uses that the signer allows.
//!
//! Written out here and not by `rcgen`, which would keep only the last of a subject's organisations: they are groups, and
//! none may be lost. Whether the request should be granted at all is decided elsewhere.

use jiff::{SignedDuration, Timestamp};
use rcgen::SigningKey;
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, SKEW, der};
use crate::clock;
use crate::error::ApiError;

/// ecdsa-with-SHA256 (1.2.840.10045.4.3.2).
const SIGNATURE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// Extensions below id-ce (2.5.29).
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
const PURPOSES: &[u8] = &[0x55, 0x1d, 0x25];
/// Purposes below id-kp (1.3.6.1.5.5.7.3).
const SERVER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

impl Authority {
    /// Signs a request in PEM form for these uses, in the words of a `CertificateSigningRequest`. The certificate is valid
    /// for as long as asked for and never longer than the authority's own.
    pub fn sign(&self, request: &[u8], usages: &[String], valid: std::time::Duration) -> Result<String, ApiError> {
        self.signed(request, usages, valid).map_err(|message| self.failed(&message))
    }

    fn signed(&self, request: &[u8], usages: &[String], valid: std::time::Duration) -> Result<String, String> {
        let (_, request) =
            x509_parser::pem::parse_x509_pem(request).map_err(|error| format!("the request: {error}"))?;
        let (rest, request) =
            X509CertificationRequest::from_der(&request.contents).map_err(|error| format!("the request: {error}"))?;
        if !rest.is_empty() {
            return Err("the request: there is something behind it".into());
        }
        request.verify_signature().map_err(|_| "the request is not signed with the key that it shows")?;
        let (_, own) =
            x509_parser::pem::parse_x509_pem(self.certificate.as_bytes()).map_err(|error| error.to_string())?;
        let (_, own) = X509Certificate::from_der(&own.contents).map_err(|error| error.to_string())?;
        let asked = &request.certification_request_info;
        let algorithm = der::value(der::SEQUENCE, &[&der::identifier(SIGNATURE)]);
        let extensions = [uses(usages)?, constraints(), authority_key(&own), names(&request)?].concat();
        let extensions = der::value(der::SEQUENCE, &[&extensions]);
        let certificate = der::value(
            der::SEQUENCE,
            &[
                &der::value(der::context(0, true), &[&der::value(der::INTEGER, &[&[2]])]),
                &der::value(der::INTEGER, &[&serial()?]),
                &algorithm,
                own.subject().as_raw(),
                &validity(&own, valid)?,
                asked.subject.as_raw(),
                asked.subject_pki.raw,
                &der::value(der::context(3, true), &[&extensions]),
            ],
        );
        let signature = self.key.sign(&certificate).map_err(|error| error.to_string())?;
        let signature = der::value(der::BIT_STRING, &[&[0], &signature]);
        Ok(pem(&der::value(der::SEQUENCE, &[&certificate, &algorithm, &signature])))
    }
}

/// A random positive number of 16 bytes.
fn serial() -> Result<[u8; 16], String> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| "there is no randomness")?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

fn validity(own: &X509Certificate<'_>, valid: std::time::Duration) -> Result<Vec<u8>, String> {
    let now = clock::now();
    let end = Timestamp::from_second(own.validity().not_after.timestamp()).map_err(|error| error.to_string())?;
    if end <= now {
        return Err("the authority's own certificate has expired".into());
    }
    let wished = SignedDuration::try_from(valid).ok().and_then(|valid| now.checked_add(valid).ok());
    let begin = now.checked_sub(SKEW).unwrap_or(now);
    let end = wished.map_or(end, |wished| wished.min(end));
    Ok(der::value(der::SEQUENCE, &[&der::time(begin), &der::time(end)]))
}

/// What the key may be used for: by operation, and by purpose.
fn uses(usages: &[String]) -> Result<Vec<u8>, String> {
    let (mut operations, mut purposes) = (0, Vec::new());
    for usage in usages {
        match usage.as_str() {
            "digital signature" => operations |= 0x80,
            "key encipherment" => operations |= 0x20,
            "server auth" => purposes.extend(der::identifier(SERVER)),
            "client auth" => purposes.extend(der::identifier(CLIENT)),
            other => return Err(format!("this authority signs nothing for the use {other:?}")),
        }
    }
    let mut extensions = Vec::new();
    if operations != 0 {
        extensions.extend(der::extension(KEY_USAGE, true, &der::bits(operations)));
    }
    if !purposes.is_empty() {
        extensions.extend(der::extension(PURPOSES, false, &der::value(der::SEQUENCE, &[&purposes])));
    }
    Ok(extensions)
}

/// Never an authority itself.
fn constraints() -> Vec<u8> {
    der::extension(CONSTRAINTS, true, &der::value(der::SEQUENCE, &[]))
}

/// Which key of the authority has signed.
fn authority_key(own: &X509Certificate<'_>) -> Vec<u8> {
    let id = own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    id.map_or_else(Vec::new, |id| {
        let named = der::value(der::context(0, false), &[id]);
        der::extension(AUTHORITY_KEY, false, &der::value(der::SEQUENCE, &[&named]))
    })
}

/// The names that were asked for, of the kinds that are checked by somebody: mail, host, URI, address.
fn names(request: &X509CertificationRequest<'_>) -> Result<Vec<u8>, String> {
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(asked) = extension else { continue };
        for name in &asked.general_names {
            let (number, text) = match name {
                GeneralName::RFC822Name(mail) => (1, mail.as_bytes()),
                GeneralName::DNSName(host) => (2, host.as_bytes()),
                GeneralName::URI(uri) => (6, uri.as_bytes()),
                GeneralName::IPAddress(address) => (7, *address),
                _ => continue,
            };
            if number != 7 && !text.is_ascii() {
                return Err(format!("{name}: a name may only hold ASCII"));
            }
            names.extend(der::value(der::context(number, false), &[text]));
        }
    }
    if names.is_empty() {
        return Ok(names);
    }
    Ok(der::extension(NAMES, false, &der::value(der::SEQUENCE, &[&names])))
}

fn pem(certificate: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use std::time::Duration;

    const YEAR: Duration = Duration::from_hours(365 * 24);

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        (dir, authority)
    }

    fn request(key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:alpha");
        let name = Ia5String::try_from("alpha.example.org").unwrap();
        params.subject_alt_names = vec![SanType::DnsName(name), SanType::IpAddress("10.0.0.1".parse().unwrap())];
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn usages(all: &[&str]) -> Vec<String> {
        all.iter().map(|usage| (*usage).to_owned()).collect()
    }

    fn der_of(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
    }

    #[test]
    fn a_signed_request_is_a_certificate_that_its_authority_vouches_for() {
        let (_dir, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let uses = usages(&["digital signature", "key encipherment", "server auth"]);
        let made = der_of(&authority.sign(request(&key).as_bytes(), &uses, Duration::from_mins(10)).unwrap());
        let (rest, certificate) = X509Certificate::from_der(&made).unwrap();
        assert!(rest.is_empty());
        let own = der_of(authority.ca_pem());
        let (_, own) = X509Certificate::from_der(&own).unwrap();
        certificate.verify_signature(Some(own.public_key())).unwrap();
        assert_eq!(certificate.issuer().as_raw(), own.subject().as_raw());
        assert!(!certificate.is_ca() && certificate.validity().is_valid());
        let left = certificate.validity().time_to_expiration().unwrap().whole_seconds();
        assert!((590..=600).contains(&left), "{left}");
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && !purposes.client_auth);
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names[..], [GeneralName::DNSName("alpha.example.org"), GeneralName::IPAddress(&[10, 0, 0, 1])]);
        assert_eq!(Identity::from_certificate(&made).unwrap().user, "system:node:alpha");
    }

    /// Made by openssl with the subject `/O=dev/CN=jane/O=ops`.
    const TWO_GROUPS: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIHlMIGNAgEAMCsxDDAKBgNVBAoMA2RldjENMAsGA1UEAwwEamFuZTEMMAoGA1UE
CgwDb3BzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPPpf7v1ahWovuRRdJvsb
smCukZXbgAy2OysBZfoEk20KzQKxMzVoQOFdh5/mTlQd3wexJENP59j5os+qttSl
NqAAMAoGCCqGSM49BAMCA0cAMEQCIHsQgZvtstulzD0bRQOQSDfr3pjJPVe2/fCb
kEcO4eqHAiB8dUJpTs3iKBVRpSLoXpUoAyyOdrtI/rgBGO8cWLZVbw==
-----END CERTIFICATE REQUEST-----";

    #[test]
    fn no_group_of_a_request_is_lost() {
        let (_dir, authority) = authority();
        let made = authority.sign(TWO_GROUPS.as_bytes(), &usages(&["client auth"]), YEAR).unwrap();
        let identity = Identity::from_certificate(&der_of(&made)).unwrap();
        assert_eq!((identity.user.as_str(), identity.groups), ("jane", vec!["dev".to_owned(), "ops".to_owned()]));
    }

    #[test]
    fn a_certificate_does_not_outlive_its_authority() {
        let (_dir, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let uses = usages(&["client auth"]);
        let own = der_of(authority.ca_pem());
        let end = |der: &[u8]| X509Certificate::from_der(der).unwrap().1.validity().not_after.timestamp();
        for wish in [YEAR * 100, Duration::MAX] {
            let made = der_of(&authority.sign(request(&key).as_bytes(), &uses, wish).unwrap());
            assert_eq!(end(&made), end(&own));
        }
    }

    #[test]
    fn what_is_no_request_or_a_forged_one_is_refused() {
        let (_dir, authority) = authority();
        let good = request(&KeyPair::generate().unwrap());
        let mut forged = der_of(&good);
        let place = forged.windows(5).position(|bytes| bytes == b"alpha").unwrap();
        forged[place] = b'o';
        let forged = pem(&forged).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        let truncated = good.replace('M', "");
        for wrong in [forged.as_str(), &truncated, authority.ca_pem(), "", "nonsense"] {
            authority.sign(wrong.as_bytes(), &usages(&["client auth"]), YEAR).unwrap_err();
        }
        let error = authority.sign(good.as_bytes(), &usages(&["cert sign"]), YEAR).unwrap_err().to_string();
        assert!(error.contains("signs nothing for the use \"cert sign\""), "{error}");
    }
}
