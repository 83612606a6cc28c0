//! What each signer of the cluster demands of a request
//! (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers), and how long
//! its certificates are good. Pure.

use std::time::Duration;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

const NODES: &str = "system:nodes";
const NODE: &str = "system:node:";
const SHORTEST: Duration = Duration::from_mins(10);
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    /// Certificates by which the API knows its clients.
    Client,
    /// Those of nodes.
    NodeClient,
    /// Certificates by which nodes are known.
    NodeServer,
}

/// What a request asks to be certified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) common_name: String,
    organizations: Vec<String>,
    hosts: usize,
    addresses: usize,
    mails: usize,
    uris: usize,
}

/// How long a certificate is good: as asked for, within bounds.
pub(super) fn lifetime(seconds: Option<i32>) -> Duration {
    let asked = seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    asked.map_or(LONGEST, |asked| asked.clamp(SHORTEST, LONGEST))
}

impl Asked {
    /// From a request in PEM form.
    pub(super) fn read(request: &[u8]) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("the request cannot be read: {error}");
        let (_, pem) = x509_parser::pem::parse_x509_pem(request).map_err(|error| failed(&error))?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| failed(&error))?;
        let subject = &request.certification_request_info.subject;
        let mut common_names = texts(subject.iter_common_name())?;
        if common_names.len() > 1 {
            return Err("the subject has more than one common name".to_owned());
        }
        let common_name = common_names.pop().unwrap_or_default();
        let organizations = texts(subject.iter_organization())?;
        let mut asked = Self { common_name, organizations, ..Self::default() };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| asked.count(name));
            }
        }
        Ok(asked)
    }

    fn count(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(_) => self.hosts += 1,
            GeneralName::IPAddress(_) => self.addresses += 1,
            GeneralName::RFC822Name(_) => self.mails += 1,
            GeneralName::URI(_) => self.uris += 1,
            _ => {}
        }
    }
}

fn texts<'a>(parts: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Result<Vec<String>, String> {
    let text = |part: &AttributeTypeAndValue<'_>| part.as_str().map(str::to_owned);
    parts.map(text).collect::<Result<_, _>>().map_err(|_| "the subject holds what is no text".to_owned())
}

impl Signer {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Self::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::NodeClient),
            "kubernetes.io/kubelet-serving" => Some(Self::NodeServer),
            _ => None,
        }
    }

    /// Whether the signer's rules are kept; an error says which one is not.
    pub(super) fn check(self, asked: &Asked, usages: &[String]) -> Result<(), String> {
        let (needed, allowed): (&[&str], &[&str]) = match self {
            Self::Client => (&["client auth"], &["digital signature", "key encipherment"]),
            Self::NodeClient => (&["client auth", "digital signature"], &["key encipherment"]),
            Self::NodeServer => (&["server auth", "digital signature"], &["key encipherment"]),
        };
        if let Some(other) = usages.iter().find(|usage| !needed.iter().chain(allowed).any(|known| *known == **usage)) {
            return Err(format!("the signer does not allow the usage {other:?}"));
        }
        if let Some(missing) = needed.iter().find(|usage| !usages.iter().any(|given| given == **usage)) {
            return Err(format!("the signer demands the usage {missing:?}"));
        }
        if self == Self::Client { Ok(()) } else { self.check_node(asked) }
    }

    fn check_node(self, asked: &Asked) -> Result<(), String> {
        let no = |why: &str| Err(why.to_owned());
        let is_server = self == Self::NodeServer;
        if asked.organizations != [NODES] {
            return no("subject organization is not system:nodes");
        }
        if !asked.common_name.starts_with(NODE) {
            return no("subject common name does not begin with system:node:");
        }
        if is_server && asked.hosts + asked.addresses == 0 {
            return no("a DNS or IP subjectAltName is required");
        }
        if !is_server && asked.hosts + asked.addresses > 0 {
            return no("DNS and IP subjectAltNames are not allowed");
        }
        if asked.mails + asked.uris > 0 {
            return no("email and URI subjectAltNames are not allowed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
    const SERVER: [&str; 2] = ["digital signature", "server auth"];
    /// Made by openssl: `/O=system:nodes/CN=system:node:alpha`, DNS alpha, IP 10.0.0.1, mail a@b.c, URI x:y.
    const REQUEST: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIIBIjCBygIBADAzMRUwEwYDVQQKDAxzeXN0ZW06bm9kZXMxGjAYBgNVBAMMEXN5
c3RlbTpub2RlOmFscGhhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhBcAEVvp
bl7P/lnUBE6w+jkjpPEoCXk26qDHaxkqIn23B1j46NcKt0OidZsk65K24Mq0M9TA
ON62Gtba4ewF9KA1MDMGCSqGSIb3DQEJDjEmMCQwIgYDVR0RBBswGYIFYWxwaGGH
BAoAAAGBBWFAYi5jhgN4OnkwCgYIKoZIzj0EAwIDRwAwRAIgCAJwhV71NPrFAmyR
SKCilGgn5r0xpeum12eFt3D7RwcCIC1Qv2vI34HQA1OsQ0dT60UOOMFGCZhSiuCq
opdpNY07
-----END CERTIFICATE REQUEST-----";

    fn node() -> Asked {
        Asked { common_name: "system:node:alpha".to_owned(), organizations: vec![NODES.to_owned()], ..Asked::default() }
    }

    fn refused(signer: Signer, asked: &Asked, usages: &[&str]) -> String {
        let usages: Vec<String> = usages.iter().map(|usage| (*usage).to_owned()).collect();
        signer.check(asked, &usages).err().unwrap_or_default()
    }

    #[test]
    fn a_request_is_read_as_it_is() {
        let expected = Asked { hosts: 1, addresses: 1, mails: 1, uris: 1, ..node() };
        assert_eq!(Asked::read(REQUEST.as_bytes()), Ok(expected));
        for wrong in ["", "nonsense", &REQUEST.replace('M', "")] {
            assert!(Asked::read(wrong.as_bytes()).is_err());
        }
    }

    #[test]
    fn each_signer_has_its_usages() {
        let no = String::new();
        assert_eq!(refused(Signer::Client, &Asked::default(), &["client auth"]), no);
        assert_eq!(refused(Signer::Client, &Asked::default(), &CLIENT), no);
        assert_eq!(refused(Signer::NodeClient, &node(), &CLIENT), no);
        let serving = Asked { hosts: 1, ..node() };
        assert_eq!(refused(Signer::NodeServer, &serving, &SERVER), no);
        let not_allowed = |usage: &str| format!("the signer does not allow the usage {usage:?}");
        assert_eq!(refused(Signer::Client, &node(), &SERVER), not_allowed("server auth"));
        assert_eq!(refused(Signer::NodeServer, &serving, &["client auth"]), not_allowed("client auth"));
        let missing = "the signer demands the usage \"digital signature\"";
        assert_eq!(refused(Signer::NodeClient, &node(), &["client auth"]), missing);
    }

    #[test]
    fn a_node_asks_for_itself_alone() {
        let cases = [
            (Signer::NodeClient, Asked { organizations: Vec::new(), ..node() }, "organization"),
            (Signer::NodeClient, Asked { common_name: "jane".to_owned(), ..node() }, "common name"),
            (Signer::NodeClient, Asked { hosts: 1, ..node() }, "DNS and IP"),
            (Signer::NodeClient, Asked { addresses: 1, ..node() }, "DNS and IP"),
            (Signer::NodeClient, Asked { mails: 1, ..node() }, "email"),
            (Signer::NodeServer, Asked { hosts: 1, uris: 1, ..node() }, "URI"),
            (Signer::NodeServer, node(), "is required"),
        ];
        for (signer, asked, why) in cases {
            let usages: &[&str] = if signer == Signer::NodeServer { &SERVER } else { &CLIENT };
            let error = refused(signer, &asked, usages);
            assert!(error.contains(why), "{error}");
        }
        let masters = Asked { organizations: vec![NODES.to_owned(), "system:masters".to_owned()], ..node() };
        assert!(!refused(Signer::NodeClient, &masters, &CLIENT).is_empty());
    }

    #[test]
    fn a_certificate_is_good_for_ten_minutes_to_a_year() {
        assert_eq!(lifetime(None), LONGEST);
        assert_eq!(lifetime(Some(-5)), SHORTEST);
        assert_eq!(lifetime(Some(3600)), Duration::from_hours(1));
        assert_eq!(lifetime(Some(i32::MAX)), LONGEST);
    }
}
