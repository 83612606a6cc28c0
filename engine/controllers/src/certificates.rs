//! Certificates for those who ask: what was approved is signed, a node's request for a client certificate of its own is
//! approved by the rights of whoever asks, and what is settled or forgotten goes after a while.
//!
//! The authority's key is not here: whoever starts the controllers lends the act of signing.

mod age;
mod approval;
mod rules;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use shipway_driver::{Queue, cached};
use tokio_util::sync::CancellationToken;

use crate::owned::ignore_stale;
use crate::world::World;

/// Turns a request in PEM form, the uses it is for and the time it is valid into a certificate in PEM form, or says why not.
pub type Sign = dyn Fn(&[u8], &[String], Duration) -> Result<String, String> + Send + Sync;

/// The cluster's certificate authority, as far as controllers are concerned.
#[derive(Clone)]
pub struct Authority {
    /// What clients trust the API by, in PEM form.
    pub root: Arc<str>,
    /// How requests are signed.
    pub sign: Arc<Sign>,
}

impl Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Answers requests for certificates, until stopped.
pub(crate) async fn run(world: World, authority: Authority, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let wake = queue.clone();
    let api: Api<CertificateSigningRequest> = Api::all(world.client.clone());
    let (requests, watch) =
        cached(api.clone(), kube::runtime::watcher::Config::default(), stop.clone(), move |change| {
            wake.add(change.object().name_any());
        });
    let desk = Desk { api, client: world.client.clone(), authority };
    let working = world.meter().drive(queue, 1, stop, move |name: String| {
        let (desk, found) = (desk.clone(), requests.get(&ObjectRef::new(&name)));
        async move {
            match found {
                Some(request) => desk.look(&request).await,
                None => Ok(None),
            }
        }
    });
    tokio::join!(watch, working);
}

/// Where requests are dealt with, one look at a time.
#[derive(Clone)]
struct Desk {
    api: Api<CertificateSigningRequest>,
    client: Client,
    authority: Authority,
}

impl Desk {
    async fn look(&self, request: &CertificateSigningRequest) -> Result<Option<Duration>, kube::Error> {
        let left = age::left(request, Timestamp::now());
        if left == Some(Duration::ZERO) {
            return self.remove(request).await.map(|()| None);
        }
        if !is_issued(request) && !said(request, "Denied") && !said(request, "Failed") {
            if said(request, "Approved") {
                self.sign(request).await?;
            } else if let Some(why) = approval::reason(&self.client, request).await? {
                let patch = change(request, &json!({ "conditions": with(request, "Approved", "AutoApproved", why) }));
                ignore_stale(self.api.patch_approval(&request.name_any(), &PatchParams::default(), &patch).await)?;
            }
        }
        Ok(left)
    }

    /// Signs what was approved for a signer of ours, or tells for good why it cannot be signed.
    async fn sign(&self, request: &CertificateSigningRequest) -> Result<(), kube::Error> {
        let spec = &request.spec;
        let Some(signer) = rules::Signer::named(&spec.signer_name) else { return Ok(()) };
        let usages = spec.usages.as_deref().unwrap_or_default();
        let checked = rules::Asked::read(&spec.request.0).and_then(|asked| signer.check(&asked, usages));
        let lifetime = rules::lifetime(spec.expiration_seconds);
        let status = match checked.and_then(|()| (self.authority.sign)(&spec.request.0, usages, lifetime)) {
            Ok(certificate) => json!({ "certificate": ByteString(certificate.into_bytes()) }),
            Err(why) => json!({ "conditions": with(request, "Failed", "SignerValidationFailure", &why) }),
        };
        let (name, patch) = (request.name_any(), change(request, &status));
        ignore_stale(self.api.patch_status(&name, &PatchParams::default(), &patch).await)
    }

    async fn remove(&self, request: &CertificateSigningRequest) -> Result<(), kube::Error> {
        let this = Preconditions { uid: request.uid(), ..Preconditions::default() };
        ignore_stale(self.api.delete(&request.name_any(), &DeleteParams::default().preconditions(this)).await)
    }
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn said(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The conditions of a request and one more.
fn with(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> Vec<CertificateSigningRequestCondition> {
    let now = Some(Time(Timestamp::now()));
    let mut all = conditions(request).to_vec();
    all.push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: now.clone(),
        last_transition_time: now,
    });
    all
}

/// A change of the status of a request that is as it was seen.
fn change(request: &CertificateSigningRequest, status: &serde_json::Value) -> Patch<serde_json::Value> {
    Patch::Merge(json!({ "metadata": { "resourceVersion": request.metadata.resource_version }, "status": status }))
}
