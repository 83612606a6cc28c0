//! What one policy says, read from its object. Pure.
//!
//! What cannot be understood (a network that is none, a peer of another address family) allows nothing: it never opens
//! what the policy closes.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ranges::{Range, block, united, without};

pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const EVERY_PORT: Range = (0, 65_535);

/// One policy of a namespace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    /// The pods of its namespace that it is about.
    pub(crate) about: LabelSelector,
    /// What may come in; nothing when the policy does not speak of it.
    pub(crate) ingress: Option<Vec<Rule>>,
    /// What may go out; nothing when the policy does not speak of it.
    pub(crate) egress: Option<Vec<Rule>>,
}

/// One rule: these peers at these ports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// None for everybody.
    pub(crate) peers: Option<Mentioned>,
    /// None for every protocol and port.
    pub(crate) ports: Option<Vec<Port>>,
}

/// The peers that a rule mentions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mentioned {
    pub(crate) pods: Vec<Who>,
    /// Addresses, whoever has them.
    pub(crate) blocks: Vec<Range>,
}

/// Pods by what they and their namespaces are labelled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Who {
    pub(crate) namespaces: Namespaces,
    pub(crate) pods: LabelSelector,
}

/// The namespaces of a peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Namespaces {
    /// The policy's own.
    Named(String),
    Labelled(LabelSelector),
}

/// One port of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) protocol: u8,
    pub(crate) number: Number,
}

/// Which numbers a port stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    In(Range),
    /// The number that the pod which is spoken to has under that name.
    Named(String),
}

impl Who {
    /// Every pod.
    pub(crate) fn everybody() -> Self {
        Self { namespaces: Namespaces::Labelled(LabelSelector::default()), pods: LabelSelector::default() }
    }

    /// A text that is the same for the same choice.
    pub(crate) fn key(&self) -> String {
        let text = |selector: &LabelSelector| {
            let parts = (&selector.match_labels, &selector.match_expressions);
            serde_json::to_string(&parts).expect("selectors are texts")
        };
        match &self.namespaces {
            Namespaces::Named(name) => format!("{name} {}", text(&self.pods)),
            Namespaces::Labelled(selector) => format!("{} {}", text(selector), text(&self.pods)),
        }
    }
}

impl Policy {
    /// Reads an object.
    pub(crate) fn of(object: &NetworkPolicy) -> Self {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let Some(spec) = &object.spec else {
            return Self { about: LabelSelector::default(), ingress: Some(Vec::new()), egress: None };
        };
        let told = |kind: &str| spec.policy_types.as_ref().map(|types| types.iter().any(|it| it == kind));
        let about_ingress = told("Ingress").unwrap_or(true);
        let about_egress = told("Egress").unwrap_or(spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
        let rule = |peers: &Option<Vec<NetworkPolicyPeer>>, ports: &Option<Vec<NetworkPolicyPort>>| Rule {
            peers: named(peers.as_deref()).map(|peers| mentioned(namespace, peers)),
            ports: named(ports.as_deref()).map(|ports| ports.iter().filter_map(port).collect()),
        };
        let ingress = || spec.ingress.iter().flatten().map(|it| rule(&it.from, &it.ports)).collect();
        let egress = || spec.egress.iter().flatten().map(|it| rule(&it.to, &it.ports)).collect();
        Self {
            about: spec.pod_selector.clone().unwrap_or_default(),
            ingress: about_ingress.then(ingress),
            egress: about_egress.then(egress),
        }
    }
}

/// An empty list is as good as none: it restricts nothing.
fn named<T>(list: Option<&[T]>) -> Option<&[T]> {
    list.filter(|list| !list.is_empty())
}

fn mentioned(namespace: &str, peers: &[NetworkPolicyPeer]) -> Mentioned {
    let mut all = Mentioned::default();
    for peer in peers {
        if let Some(network) = &peer.ip_block {
            let except = network.except.iter().flatten().filter_map(|text| block(text)).collect();
            all.blocks.extend(block(&network.cidr).map(|whole| without(whole, except)).unwrap_or_default());
        } else if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
            let namespaces = match &peer.namespace_selector {
                Some(selector) => Namespaces::Labelled(selector.clone()),
                None => Namespaces::Named(namespace.to_owned()),
            };
            all.pods.push(Who { namespaces, pods: peer.pod_selector.clone().unwrap_or_default() });
        }
    }
    all.blocks = united(all.blocks);
    all
}

fn port(port: &NetworkPolicyPort) -> Option<Port> {
    let protocol = protocol(port.protocol.as_deref())?;
    let number = match &port.port {
        None => Number::In(EVERY_PORT),
        Some(IntOrString::String(name)) => Number::Named(name.clone()),
        Some(IntOrString::Int(first)) => {
            let first = u32::from(u16::try_from(*first).ok()?);
            let last = port.end_port.map_or(Some(first), |last| u16::try_from(last).ok().map(u32::from))?;
            Number::In((first, last))
        }
    };
    Some(Port { protocol, number })
}

/// The number of a protocol in the IP header.
pub(crate) fn protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" | "" => Some(TCP),
        "UDP" => Some(UDP),
        "SCTP" => Some(SCTP),
        _ => None,
    }
}
