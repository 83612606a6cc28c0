//! Rules about other pods: affinity to them or from them, and even spreading among them.

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use shipway_driver::matching::{self, Labels};

use super::controller;
use crate::snapshot::Namespaces;

/// Which pods a rule is about.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    /// None chooses no pod.
    selector: Option<LabelSelector>,
}

impl Who {
    pub(crate) fn is(&self, pod: &Pod, known: &Namespaces) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let none = Labels::new();
        let in_namespace = || {
            self.namespaces.iter().any(|it| it == namespace)
                || self
                    .namespace_selector
                    .as_ref()
                    .is_some_and(|selector| matching::selects(selector, known.get(namespace).unwrap_or(&none)))
        };
        let selected = |selector| matching::selects(selector, pod.metadata.labels.as_ref().unwrap_or(&none));
        in_namespace() && self.selector.as_ref().is_some_and(selected)
    }

    /// Whether the labels of namespaces decide.
    pub(crate) fn asks_for_namespaces(&self) -> bool {
        self.namespace_selector.as_ref().is_some_and(|selector| {
            selector.match_labels.as_ref().is_some_and(|labels| !labels.is_empty())
                || selector.match_expressions.as_ref().is_some_and(|expressions| !expressions.is_empty())
        })
    }

    /// The same in writing.
    fn written(&self) -> String {
        serde_json::to_string(&(&self.namespaces, &self.namespace_selector, &self.selector)).unwrap_or_default()
    }
}

/// Pods that are counted by node.
#[derive(Clone, Debug)]
pub(crate) enum Counted {
    /// Those that all of the rules are about.
    All(Vec<Who>),
    /// Those that the rule is about and that are not being deleted.
    Staying(Who),
    /// Those in that namespace that the object with that uid controls and that are not being deleted.
    Owned(String, String),
}

impl Counted {
    pub(crate) fn is(&self, pod: &Pod, known: &Namespaces) -> bool {
        let stays = || pod.metadata.deletion_timestamp.is_none();
        match self {
            Self::All(rules) => rules.iter().all(|who| who.is(pod, known)),
            Self::Staying(who) => stays() && who.is(pod, known),
            Self::Owned(namespace, uid) => {
                pod.metadata.namespace.as_ref() == Some(namespace)
                    && stays()
                    && controller(pod).is_some_and(|owner| owner.uid == *uid)
            }
        }
    }

    /// What tells it from others.
    pub(crate) fn written(&self) -> String {
        match self {
            Self::All(rules) => rules.iter().map(Who::written).collect(),
            Self::Staying(who) => format!("staying {}", who.written()),
            Self::Owned(namespace, uid) => format!("owned {namespace} {uid}"),
        }
    }
}

/// The pods in the nodes of one domain.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) topology: String,
    pub(crate) who: Who,
}

/// How a pod is drawn to the domains of others.
#[derive(Clone, Debug)]
pub(crate) struct Pull {
    pub(crate) force: Force,
    pub(crate) term: Term,
    /// Force and term in writing, by which equal ones of several pods are kept as one.
    pub(crate) written: String,
}

/// How strong a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// It has to be with them.
    With,
    /// It must not be with them.
    Without,
    /// It is rather with them, or without where the weight is below zero.
    Rather(i64),
}

pub(super) fn pulls(pod: &Pod, spec: &PodSpec) -> Vec<Pull> {
    let Some(affinity) = &spec.affinity else { return Vec::new() };
    let mut pulls = Vec::new();
    let mut pull = |force: Force, term: &PodAffinityTerm| {
        let term = Term { topology: term.topology_key.clone(), who: who(pod, term) };
        let written = format!("{force:?} {} {}", term.topology, term.who.written());
        pulls.push(Pull { force, term, written });
    };
    if let Some(with) = &affinity.pod_affinity {
        let required = with.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.for_each(|term| pull(Force::With, term));
        for it in with.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            pull(Force::Rather(it.weight.into()), &it.pod_affinity_term);
        }
    }
    if let Some(without) = &affinity.pod_anti_affinity {
        let required = without.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.for_each(|term| pull(Force::Without, term));
        for it in without.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            pull(Force::Rather(-i64::from(it.weight)), &it.pod_affinity_term);
        }
    }
    pulls
}

fn who(pod: &Pod, term: &PodAffinityTerm) -> Who {
    let mut namespaces = term.namespaces.clone().unwrap_or_default();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.extend(pod.metadata.namespace.clone());
    }
    let mut selector = term.label_selector.clone();
    if let Some(selector) = &mut selector {
        also(selector, pod, term.match_label_keys.as_deref(), "In");
        also(selector, pod, term.mismatch_label_keys.as_deref(), "NotIn");
    }
    Who { namespaces, namespace_selector: term.namespace_selector.clone(), selector }
}

/// Adds what the pod's own values of these labels say to a selector; a label that it does not have says nothing.
fn also(selector: &mut LabelSelector, pod: &Pod, keys: Option<&[String]>, operator: &str) {
    for key in keys.unwrap_or_default() {
        let Some(value) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) else { continue };
        let own = LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        };
        selector.match_expressions.get_or_insert_default().push(own);
    }
}

/// A rule that pods are spread evenly.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pub(crate) topology: String,
    pub(crate) counted: Counted,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: usize,
    /// Whether a node is refused for it.
    pub(crate) is_hard: bool,
    /// Whether only the nodes count that the pod's selector and affinity allow.
    pub(crate) honours_affinity: bool,
    /// Whether only the nodes count whose taints the pod tolerates.
    pub(crate) honours_taints: bool,
}

pub(super) fn spread(pod: &Pod, spec: &PodSpec) -> Vec<Spread> {
    spec.topology_spread_constraints.iter().flatten().map(|it| constraint(pod, it)).collect()
}

fn constraint(pod: &Pod, it: &TopologySpreadConstraint) -> Spread {
    let mut selector = it.label_selector.clone();
    if let Some(selector) = &mut selector {
        also(selector, pod, it.match_label_keys.as_deref(), "In");
    }
    let namespaces = pod.metadata.namespace.iter().cloned().collect();
    Spread {
        topology: it.topology_key.clone(),
        counted: Counted::Staying(Who { namespaces, namespace_selector: None, selector }),
        max_skew: it.max_skew.into(),
        min_domains: it.min_domains.and_then(|least| usize::try_from(least).ok()).unwrap_or(1),
        is_hard: it.when_unsatisfiable == "DoNotSchedule",
        honours_affinity: it.node_affinity_policy.as_deref() != Some("Ignore"),
        honours_taints: it.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// How pods are spread that do not say how: evenly over nodes, and over zones where there are such.
pub(crate) fn usual_spread(counted: &Counted) -> Vec<Spread> {
    let over = |topology: &str, max_skew: i64| Spread {
        topology: topology.to_owned(),
        counted: counted.clone(),
        max_skew,
        min_domains: 1,
        is_hard: false,
        honours_affinity: true,
        honours_taints: false,
    };
    vec![over("kubernetes.io/hostname", 3), over("topology.kubernetes.io/zone", 5)]
}

impl Who {
    /// The pods that a service of that namespace sends to.
    pub(crate) fn selected(namespace: &str, labels: Labels) -> Self {
        let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
        Self { namespaces: vec![namespace.to_owned()], namespace_selector: None, selector: Some(selector) }
    }
}
