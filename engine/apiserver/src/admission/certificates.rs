//! Certificate requests: who may approve and sign for a signer, and what a client certificate may not claim.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::Request;
use crate::authorize::{self, Attributes};
use crate::error::ApiError;
use crate::identity::MASTERS;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Approving needs the right to `approve` for the signer, a certificate in the status the right to `sign`.
pub(super) fn check_signer(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(old) = request.old else { return Ok(()) };
    let verb = match request.subresource {
        "approval" => "approve",
        "status" if object["status"]["certificate"] != old["status"]["certificate"] => "sign",
        _ => return Ok(()),
    };
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    let any = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let may = |name: &str| {
        let group = "certificates.k8s.io";
        let attributes = Attributes { verb, group, resource: "signers", name, ..Attributes::default() };
        authorize::allowed_now(&request.call.server, request.identity(), &attributes)
    };
    if may(signer) || may(&any) {
        return Ok(());
    }
    Err(request.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// A request says who made it, whatever the maker wrote there.
pub(super) fn set_requestor(request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
    let (Some(spec), info) = (object["spec"].as_object_mut(), request.identity().info()) else { return Ok(()) };
    for field in ["username", "uid", "groups", "extra"] {
        match info.get(field) {
            Some(value) => spec.insert(field.into(), value.clone()),
            None => spec.shift_remove(field),
        };
    }
    Ok(())
}

/// A client certificate may not make its bearer an administrator of everything.
pub(super) fn check_subject(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    let spec = &object["spec"];
    if spec["signerName"] == CLIENT_SIGNER && claims_masters(spec["request"].as_str().unwrap_or_default()) {
        return Err(request.forbidden(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}

/// Whether a PEM request in base64 names the administrators' group; one that cannot be read is refused elsewhere.
fn claims_masters(text: &str) -> bool {
    let Ok(pem) = BASE64_STANDARD.decode(text) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let subject = &parsed.certification_request_info.subject;
    subject.iter_organization().any(|group| group.as_str().is_ok_and(|group| group == MASTERS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn the_administrators_group_is_found_in_a_request() {
        let request = |group: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::OrganizationName, group);
            let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
            BASE64_STANDARD.encode(pem)
        };
        assert!(claims_masters(&request(MASTERS)));
        assert!(!claims_masters(&request("developers")));
        assert!(!claims_masters("garbage"));
    }
}
