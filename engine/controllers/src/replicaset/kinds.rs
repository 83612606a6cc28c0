//! The kinds that ask for a number of pods and nothing more.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;

/// What is asked for.
pub(super) struct Asked<'a> {
    pub(super) replicas: i32,
    pub(super) min_ready: i32,
    pub(super) selector: LabelSelector,
    pub(super) template: Option<&'a PodTemplateSpec>,
}

/// A kind that asks for a number of pods.
pub(super) trait Replicated:
    k8s_openapi::Metadata<Ty = ObjectMeta>
    + k8s_openapi::Resource<Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    fn asked(&self) -> Option<Asked<'_>>;

    /// What is written about it; the fields have the same names in both kinds.
    fn status(&self) -> ReplicaSetStatus;

    /// Whether its status counts pods that are going.
    fn counts_ending() -> bool;
}

impl Replicated for ReplicaSet {
    fn asked(&self) -> Option<Asked<'_>> {
        let spec = self.spec.as_ref()?;
        Some(Asked {
            replicas: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            selector: spec.selector.clone(),
            template: spec.template.as_ref(),
        })
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn counts_ending() -> bool {
        true
    }
}

impl Replicated for ReplicationController {
    fn asked(&self) -> Option<Asked<'_>> {
        let spec = self.spec.as_ref()?;
        Some(Asked {
            replicas: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            selector: LabelSelector { match_labels: spec.selector.clone(), match_expressions: None },
            template: spec.template.as_ref(),
        })
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|conditions| {
            let of_set = conditions.into_iter().map(|one| ReplicaSetCondition {
                type_: one.type_,
                status: one.status,
                reason: one.reason,
                message: one.message,
                last_transition_time: one.last_transition_time,
            });
            of_set.collect()
        });
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating_replicas: None,
            conditions,
        }
    }

    fn counts_ending() -> bool {
        false
    }
}
