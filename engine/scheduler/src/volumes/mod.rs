//! Claims, volumes and storage classes: where a pod's volumes are to be had, and which ones are to be had or made where.
//!
//! Pure like the rest: who binds claims and makes volumes is somebody else.

mod find;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use shipway_driver::matching;

use crate::reason::Reason;
use crate::wanted::{Key, Wanted};

/// The annotation by which whoever makes volumes learns where one is wanted.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner that makes none.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The access mode that allows one pod.
const ONE_POD: &str = "ReadWriteOncePod";

/// All that is known of storage.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    claims: HashMap<Key, Arc<PersistentVolumeClaim>>,
    all: BTreeMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    /// Volumes that were given to a claim, which may not show yet.
    given: HashMap<String, Key>,
}

/// What is done for a claim once the node is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It gets that volume.
    Use(String),
    /// One is made for it.
    Provision,
}

/// What a pod's claims ask of a node.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    known: &'a Volumes,
    /// Why the pod has to wait, whatever the node.
    pub(crate) before: Option<String>,
    bound: Vec<&'a str>,
    unbound: Vec<&'a Arc<PersistentVolumeClaim>>,
    /// The claims that no other pod may have.
    pub(crate) alone: Vec<Key>,
}

impl Volumes {
    /// Takes in a claim, or that it is gone.
    pub fn set_claim(&mut self, key: Key, claim: Option<Arc<PersistentVolumeClaim>>) {
        match claim {
            Some(claim) => self.claims.insert(key, claim),
            None => self.claims.remove(&key),
        };
    }

    /// Takes in a volume, or that it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>) {
        match volume {
            Some(volume) => self.all.insert(name.to_owned(), volume),
            None => self.all.remove(name),
        };
    }

    /// Takes in a storage class, or that it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        match class {
            Some(class) => self.classes.insert(name.to_owned(), class),
            None => self.classes.remove(name),
        };
    }

    /// Notes that claims of that namespace get volumes, until [`Volumes::take_back`].
    pub(crate) fn give(&mut self, namespace: &str, steps: &[(String, Step)]) {
        for (claim, step) in steps {
            if let Step::Use(volume) = step {
                self.given.insert(volume.clone(), (namespace.to_owned(), claim.clone()));
            }
        }
    }

    /// Ends what [`Volumes::give`] began.
    pub(crate) fn take_back(&mut self, steps: &[(String, Step)]) {
        for (_, step) in steps {
            if let Step::Use(volume) = step {
                self.given.remove(volume);
            }
        }
    }

    pub(crate) fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.all.get(name)
    }

    pub(crate) fn claim(&self, key: &Key) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(key)
    }

    pub(crate) fn asked<'a>(&'a self, wanted: &Wanted) -> Asked<'a> {
        let mut asked = Asked { known: self, before: None, bound: Vec::new(), unbound: Vec::new(), alone: Vec::new() };
        for name in &wanted.claims {
            let key = (wanted.namespace().to_owned(), name.clone());
            match self.claims.get(&key) {
                Some(claim) => asked.take(claim, name, key),
                None => asked.wait(format!("persistentvolumeclaim \"{name}\" not found")),
            }
        }
        asked
    }

    /// Whether the claim gets its volume only when a pod that uses it has a node.
    fn waits_for_pod(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = claim.spec.as_ref().and_then(|spec| self.classes.get(spec.storage_class_name.as_ref()?));
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
    }

    fn makes(&self, claim: &PersistentVolumeClaim, node: &Node) -> bool {
        let class = claim.spec.as_ref().and_then(|spec| self.classes.get(spec.storage_class_name.as_ref()?));
        class.is_some_and(|class| class.provisioner != NO_PROVISIONER && find::is_reached(class, node))
    }
}

/// The volume that a claim is bound to.
pub(crate) fn bound_to(claim: &PersistentVolumeClaim) -> Option<&str> {
    let volume = claim.spec.as_ref()?.volume_name.as_deref().filter(|volume| !volume.is_empty())?;
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let completed =
        claim.metadata.annotations.as_ref().is_some_and(|it| it.contains_key("pv.kubernetes.io/bind-completed"));
    (phase == Some("Bound") || completed).then_some(volume)
}

/// The node that was chosen for a claim before.
pub(crate) fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str)
}

impl<'a> Asked<'a> {
    fn take(&mut self, claim: &'a Arc<PersistentVolumeClaim>, name: &str, key: Key) {
        let spec = claim.spec.as_ref();
        let named = spec.and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if spec.is_some_and(|spec| spec.access_modes.iter().flatten().any(|mode| mode == ONE_POD)) {
            self.alone.push(key);
        }
        if claim.metadata.deletion_timestamp.is_some() {
            self.wait(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        } else if phase == Some("Lost") {
            let lost = format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{named}\"");
            self.wait(lost);
        } else if let Some(volume) = bound_to(claim) {
            self.bound.push(volume);
        } else if named.is_empty() && self.known.waits_for_pod(claim) {
            self.unbound.push(claim);
        } else {
            self.wait("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }

    fn wait(&mut self, why: String) {
        self.before.get_or_insert(why);
    }

    /// What is to be done for the claims on that node, or why the node cannot be had.
    pub(crate) fn plan(&self, node: &Node) -> Result<Vec<(String, Step)>, Reason> {
        for name in &self.bound {
            let volume = self.known.all.get(*name).ok_or(Reason::VolumeMissing)?;
            if !can_reach(volume, node) {
                return Err(Reason::VolumeElsewhere);
            }
        }
        let mut steps: Vec<(String, Step)> = Vec::new();
        for claim in &self.unbound {
            let step = self.step(claim, node, &steps).ok_or(Reason::NoVolume)?;
            steps.push((claim.metadata.name.clone().unwrap_or_default(), step));
        }
        Ok(steps)
    }

    fn step(&self, claim: &PersistentVolumeClaim, node: &Node, before: &[(String, Step)]) -> Option<Step> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if let Some(selected) = selected_node(claim).filter(|selected| !selected.is_empty()) {
            return (selected == name && self.known.makes(claim, node)).then_some(Step::Provision);
        }
        let is_free = |volume: &str| {
            !self.known.given.contains_key(volume)
                && !before.iter().any(|(_, step)| *step == Step::Use(volume.to_owned()))
        };
        let volumes = self.known.all.values().filter(|volume| can_reach(volume, node));
        let found = find::smallest(claim, volumes, is_free).map(Step::Use);
        found.or_else(|| self.known.makes(claim, node).then_some(Step::Provision))
    }
}

/// Whether the volume can be had on the node.
pub(crate) fn can_reach(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|selector| matching::selects_node(selector, node))
}
