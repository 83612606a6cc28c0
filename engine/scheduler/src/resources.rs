//! Amounts of what nodes offer and pods ask for, in whole numbers: thousandths of a core, bytes, pieces.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use shipway_schema::quantity::Quantity;

/// Scores count a pod that asks for no processor time as if it asked for this much.
const UNASKED_CPU: i64 = 100;
/// And one that asks for no memory as if it asked for this much.
const UNASKED_MEMORY: i64 = 200 << 20;

/// Amounts by resource; what is not named is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// In thousandths of a core.
    pub cpu: i64,
    /// In bytes.
    pub memory: i64,
    /// Local ephemeral storage, in bytes.
    pub storage: i64,
    /// How many pods.
    pub pods: i64,
    /// Huge pages in bytes and extended resources in pieces, by name.
    others: Vec<(Box<str>, i64)>,
}

impl Resources {
    /// Reads written quantities; one that cannot be read counts as none, since the API refuses such.
    pub fn read(written: Option<&BTreeMap<String, Written>>) -> Self {
        let mut amounts = Self::default();
        for (name, amount) in written.into_iter().flatten() {
            let Ok(amount) = Quantity::parse(&amount.0) else { continue };
            let amount = if name == "cpu" { amount.to_milli() } else { amount.to_units() };
            *amounts.entry(name) = i64::try_from(amount).unwrap_or(i64::MAX);
        }
        amounts
    }

    /// What a pod asks for all in all: its containers and sidecars together, or its largest moment of initialization
    /// where that is more; what it asks for as a whole instead, where it does; and its overhead.
    pub fn requested(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let statuses = pod.status.as_ref();
        let running = statuses.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let starting = statuses.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
        let mut together = Self::default();
        spec.containers.iter().for_each(|container| together.add(&of_container(container, running)));
        let (sidecars, peak) = initialization(spec, starting);
        together.add(&sidecars);
        together.raise(&peak);
        together.replace_by(spec.resources.as_ref());
        together.add(&Self::read(spec.overhead.as_ref()));
        together
    }

    /// The same as scores count it: nothing is for free.
    pub(crate) fn or_usual(&self) -> (i64, i64) {
        let usual = |amount: i64, usual: i64| if amount == 0 { usual } else { amount };
        (usual(self.cpu, UNASKED_CPU), usual(self.memory, UNASKED_MEMORY))
    }

    fn entry(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.storage,
            "pods" => &mut self.pods,
            _ => {
                let place = self.others.binary_search_by(|(known, _)| (**known).cmp(name));
                let place = place.unwrap_or_else(|place| {
                    self.others.insert(place, (name.into(), 0));
                    place
                });
                &mut self.others[place].1
            }
        }
    }

    /// So much of a huge page size or an extended resource.
    pub(crate) fn other(&self, name: &str) -> i64 {
        self.others.binary_search_by(|(known, _)| (**known).cmp(name)).map_or(0, |place| self.others[place].1)
    }

    /// Huge pages and extended resources.
    pub(crate) fn others(&self) -> impl Iterator<Item = (&str, i64)> {
        self.others.iter().map(|(name, amount)| (&**name, *amount))
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// Makes each amount at least the other's.
    fn raise(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.cpu = with(self.cpu, other.cpu);
        self.memory = with(self.memory, other.memory);
        self.storage = with(self.storage, other.storage);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.others {
            let own = self.entry(name);
            *own = with(*own, *amount);
        }
    }

    /// Takes what the pod as a whole asks for in place of what its containers do.
    fn replace_by(&mut self, whole: Option<&ResourceRequirements>) {
        for (name, _) in whole.and_then(|whole| whole.requests.as_ref()).into_iter().flatten() {
            let asked = Self::read(whole.and_then(|whole| whole.requests.as_ref())).entry(name).to_owned();
            *self.entry(name) = asked;
        }
    }
}

/// What one container asks for, or still holds where a resize has not reached it yet.
fn of_container(container: &Container, statuses: &[ContainerStatus]) -> Resources {
    let requests = |resources: Option<&ResourceRequirements>| {
        Resources::read(resources.and_then(|resources| resources.requests.as_ref()))
    };
    let mut asked = requests(container.resources.as_ref());
    if let Some(status) = statuses.iter().find(|status| status.name == container.name) {
        asked.raise(&requests(status.resources.as_ref()));
        asked.raise(&Resources::read(status.allocated_resources.as_ref()));
    }
    asked
}

/// What the sidecars ask for together, and the most that is asked for while the pod is initialized: each init container
/// runs beside the sidecars that were started before it.
fn initialization(spec: &PodSpec, statuses: &[ContainerStatus]) -> (Resources, Resources) {
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let asked = of_container(container, statuses);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&asked);
            peak.raise(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add(&asked);
            peak.raise(&moment);
        }
    }
    (sidecars, peak)
}
