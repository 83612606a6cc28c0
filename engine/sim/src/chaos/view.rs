//! What the observer reads of objects in the store: few fields, whatever else they have.

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) controller: bool,
}

impl Meta {
    /// The owner that controls the object.
    pub(super) fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

impl Pod {
    /// Its number, if it is one of a set in order.
    pub(super) fn ordinal(&self) -> Option<i64> {
        self.metadata.controller().filter(|owner| owner.kind == "StatefulSet")?;
        self.metadata.name.rsplit_once('-')?.1.parse().ok()
    }

    pub(super) fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    pub(super) fn is_going(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether it counts towards what its owner was asked for.
    pub(super) fn is_live(&self) -> bool {
        !self.is_finished() && !self.is_going()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|it| it.kind == "Ready" && it.status == "True")
    }
}

/// Whatever makes pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Replicated {
    pub(super) metadata: Meta,
    pub(super) spec: ReplicatedSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ReplicatedSpec {
    #[serde(alias = "parallelism")]
    pub(super) replicas: i64,
    /// As sets of pods that are all alike roll.
    pub(super) strategy: Strategy,
    /// As all others do.
    pub(super) update_strategy: Strategy,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Strategy {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) rolling_update: Option<Rolling>,
}

/// The simulation gives both as numbers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Rolling {
    pub(super) max_surge: i64,
    pub(super) max_unavailable: i64,
}

impl ReplicatedSpec {
    /// The most pods there may be at a time.
    pub(super) fn most(&self) -> i64 {
        self.replicas + self.strategy.rolling_update.as_ref().map_or(0, |rolling| rolling.max_surge)
    }

    /// The most pods there may be on one node, of what has one a node.
    pub(super) fn most_a_node(&self) -> i64 {
        1 + self.update_strategy.rolling_update.as_ref().map_or(0, |rolling| rolling.max_surge)
    }

    /// The fewest pods that may be available at a time.
    pub(super) fn fewest(&self) -> i64 {
        let rolling = self.strategy.rolling_update.as_ref();
        rolling.map_or(0, |rolling| (self.replicas - rolling.max_unavailable).max(0))
    }
}
