//! Why a pod fits on no node, in the words of `kubectl describe`, which people and tools look for.

use std::fmt;

/// What a node was refused by; each is one bit, so that a set of them is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Filter {
    /// Cordons.
    Unschedulable = 1,
    /// Hard taints.
    Taints = 1 << 1,
    /// Node selector and required node affinity.
    Selection = 1 << 2,
    /// Ports of the host.
    Ports = 1 << 3,
    /// Room.
    Resources = 1 << 4,
    /// Claims, volumes and where these can be reached.
    Volumes = 1 << 5,
    /// Hard constraints of even spreading.
    Spread = 1 << 6,
    /// Affinity to and from other pods.
    Affinity = 1 << 7,
}

/// A set of filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters(u16);

impl Filters {
    /// The set with that one too.
    pub fn add(&mut self, filter: Filter) {
        self.0 |= filter as u16;
    }

    /// Whether that one is in the set.
    pub fn has(self, filter: Filter) -> bool {
        self.0 & filter as u16 != 0
    }
}

/// Why a node cannot take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The node is cordoned.
    Unschedulable,
    /// The pod does not tolerate all of its taints.
    Tainted,
    /// The pod's node selector or required affinity names other nodes.
    NotSelected,
    /// The pod names its nodes, and this is none of them.
    NotNamed,
    /// It has as many pods as it takes.
    TooManyPods,
    /// Too little of this resource is left.
    Insufficient(Box<str>),
    /// Another pod has one of the host ports.
    PortTaken,
    /// The pods that it has to be with are elsewhere.
    Affinity,
    /// Pods that it must not be with are there.
    AntiAffinity,
    /// Pods are there that must not be with it.
    OthersAntiAffinity,
    /// It would be more uneven than allowed.
    Uneven,
    /// It is in none of the domains that pods are spread over.
    NoDomain,
    /// A bound volume is not to be had from there.
    VolumeElsewhere,
    /// A claim is bound to a volume that does not exist.
    VolumeMissing,
    /// No volume that a claim could have is to be had there, and none will be made.
    NoVolume,
    /// The claim is for one pod alone and another has it.
    VolumeTaken,
}

impl Reason {
    /// Whether it could be otherwise with fewer pods on the node.
    pub(crate) fn depends_on_pods(&self) -> bool {
        use Reason::{AntiAffinity, Insufficient, OthersAntiAffinity, PortTaken, TooManyPods, Uneven, VolumeTaken};
        matches!(
            self,
            TooManyPods | Insufficient(_) | PortTaken | AntiAffinity | OthersAntiAffinity | Uneven | VolumeTaken
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Tainted => "node(s) had untolerated taint(s)",
            Self::NotSelected => "node(s) didn't match Pod's node affinity/selector",
            Self::NotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Self::PortTaken => "node(s) didn't have free ports for the requested pod ports",
            Self::Affinity => "node(s) didn't match pod affinity rules",
            Self::AntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::OthersAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules",
            Self::Uneven => "node(s) didn't match pod topology spread constraints",
            Self::NoDomain => "node(s) didn't match pod topology spread constraints (missing required label)",
            Self::VolumeElsewhere => "node(s) didn't match PersistentVolume's node affinity",
            Self::VolumeMissing => "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            Self::NoVolume => "node(s) didn't find available persistent volumes to bind",
            Self::VolumeTaken => {
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
            }
        })
    }
}

/// All that is against one node: the reasons of the first filter that refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) filter: Filter,
    pub(crate) first: Reason,
    pub(crate) more: Vec<Reason>,
    /// Whether fewer pods on the node could help.
    pub(crate) depends_on_pods: bool,
}

impl Refusal {
    pub(crate) fn one(filter: Filter, reason: Reason) -> Self {
        Self { filter, depends_on_pods: reason.depends_on_pods(), first: reason, more: Vec::new() }
    }

    pub(crate) fn reasons(&self) -> impl Iterator<Item = &Reason> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

/// Why a pod fits on no node: how many nodes there are, and for each reason how many gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfit {
    pub(crate) nodes: usize,
    /// What kept all nodes from being looked at.
    pub(crate) before: Option<String>,
    pub(crate) reasons: Vec<(String, usize)>,
    pub(crate) filters: Filters,
    /// Why it would not help to have others leave.
    pub(crate) preemption: Option<String>,
    /// Whether it does not wait for others to leave a node any more.
    pub(crate) gives_up: bool,
}

impl Unfit {
    /// What refused it, on any node.
    pub fn filters(&self) -> Filters {
        self.filters
    }

    pub(crate) fn count(&mut self, reason: &dyn fmt::Display, many: usize) {
        let said = reason.to_string();
        match self.reasons.iter_mut().find(|(known, _)| *known == said) {
            Some((_, count)) => *count += many,
            None => self.reasons.push((said, many)),
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(before) = &self.before {
            write!(f, " {before}.")?;
        } else if !self.reasons.is_empty() {
            let mut counted: Vec<String> =
                self.reasons.iter().map(|(reason, many)| format!("{many} {reason}")).collect();
            counted.sort();
            write!(f, " {}.", counted.join(", "))?;
        }
        match &self.preemption {
            Some(why) => write!(f, " preemption: {why}"),
            None => Ok(()),
        }
    }
}
