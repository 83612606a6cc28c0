//! Which requests need nobody's word: those for a node's client certificate, by somebody who may make such requests. That
//! is a matter of roles, and so asked of the API.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::Client;
use kube::api::{Api, PostParams};

use super::rules::{Asked, Signer};

/// Rights that approve: for a node that asks for itself, and for whoever may ask for any node.
const RIGHTS: [(&str, &str); 2] = [
    ("selfnodeclient", "The node may ask for its own client certificate."),
    ("nodeclient", "Its maker may ask for client certificates of nodes."),
];

/// Why a request is approved at once, if it is.
pub(super) async fn reason(
    client: &Client,
    request: &CertificateSigningRequest,
) -> Result<Option<&'static str>, kube::Error> {
    let spec = &request.spec;
    for (right, why) in RIGHTS.into_iter().filter(|(right, _)| is_concerned(spec, right)) {
        if may(client, spec, right).await? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

fn is_concerned(spec: &CertificateSigningRequestSpec, right: &str) -> bool {
    if Signer::named(&spec.signer_name) != Some(Signer::NodeClient) {
        return false;
    }
    let Ok(asked) = Asked::read(&spec.request.0) else { return false };
    let fits = Signer::NodeClient.check(&asked, spec.usages.as_deref().unwrap_or_default()).is_ok();
    fits && (right == "nodeclient" || spec.username.as_ref() == Some(&asked.common_name))
}

async fn may(client: &Client, spec: &CertificateSigningRequestSpec, right: &str) -> Result<bool, kube::Error> {
    let attributes = ResourceAttributes {
        group: Some("certificates.k8s.io".to_owned()),
        resource: Some("certificatesigningrequests".to_owned()),
        subresource: Some(right.to_owned()),
        verb: Some("create".to_owned()),
        version: Some("*".to_owned()),
        ..ResourceAttributes::default()
    };
    let asked = SubjectAccessReviewSpec {
        user: spec.username.clone(),
        uid: spec.uid.clone(),
        groups: spec.groups.clone(),
        extra: spec.extra.clone(),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec: asked, ..SubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
