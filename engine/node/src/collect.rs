//! Images that nobody runs, removed as the disk fills up.
//!
//! Above [`Policy::high`] percent of use, images go in the order of their last use until [`Policy::low`] is reached. What
//! a pod of this node names or holds stays, and so does what exists nowhere else; a layer under a container stays, of
//! whichever node that shares the images, and whatever its image is called. What no name leads to any more is removed whenever there is a look, full disk or not.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ContainerStatus, ObjectReference, Pod};
use kube::runtime::reflector;
use shipway_driver::EventKind;
use shipway_oci::{Digest, GRACE, Image, Layers, Reference, Store, Tagged};
use tokio_util::sync::CancellationToken;

use crate::image::is_local;
use crate::jobs::Shared;
use crate::machine::Host;
use crate::pod;
use crate::volume::volumes;

/// How often there is a look when nothing is pulled: a kubelet's period.
const PERIOD: Duration = Duration::from_mins(5);

/// When images go. The defaults are a kubelet's.
#[derive(Clone, Copy, Debug)]
struct Policy {
    /// Percent of the disk in use from which images go.
    high: u64,
    /// Percent of the disk in use at which no more go.
    low: u64,
    /// How long an image has been unused before it goes.
    least: Duration,
    /// How long an image may be unused, however empty the disk is.
    most: Option<Duration>,
}

const POLICY: Policy = Policy { high: 85, low: 80, least: Duration::from_mins(2), most: None };

/// A disk, in bytes.
#[derive(Clone, Copy, Debug)]
struct Disk {
    capacity: u64,
    available: u64,
}

impl Disk {
    fn of(home: &Path) -> std::io::Result<Self> {
        let disk = rustix::fs::statvfs(home)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Self { capacity: bytes(disk.f_blocks), available: bytes(disk.f_bavail) })
    }

    /// What has to be freed; none while the disk is not too full.
    fn excess(self, policy: Policy) -> Option<u64> {
        let used = 100 - (self.available.saturating_mul(100) / self.capacity.max(1)).min(100);
        (used >= policy.high).then(|| (self.capacity / 100 * (100 - policy.low)).saturating_sub(self.available))
    }
}

/// When each image was used last, as far as this engine has seen.
type LastUsed = HashMap<Digest, SystemTime>;

/// What a look came to.
#[derive(Debug, Default, PartialEq)]
struct Swept {
    /// The bytes that had to be freed.
    wanted: u64,
    /// The bytes of the images that went.
    found: u64,
}

/// Looks from time to time and after each pull, until stopped.
pub(crate) async fn run(shared: Arc<Shared<Host>>, pods: reflector::Store<Pod>, stop: CancellationToken) {
    let Some(beside) = shared.collects.clone() else { return };
    let mut last_used = LastUsed::new();
    loop {
        let due = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => true,
            () = shared.machine.images.pulled() => false,
        };
        // After a pull, only a full disk is worth the look.
        let full = || Disk::of(&shared.home).is_ok_and(|disk| disk.excess(POLICY).is_some());
        if due || full() {
            match look(&shared, &pods, &beside, std::mem::take(&mut last_used)).await {
                Ok((seen, swept)) => {
                    last_used = seen;
                    report(&shared, &swept);
                }
                Err(error) => tracing::warn!(%error, "images that nobody uses were not collected"),
            }
        }
    }
}

async fn look(
    shared: &Shared<Host>,
    pods: &reflector::Store<Pod>,
    beside: &Path,
    mut last_used: LastUsed,
) -> Result<(LastUsed, Swept), Box<dyn std::error::Error + Send + Sync>> {
    let machine = &shared.machine;
    // In this order: an image is let go only when its container is there, and one taken from here on is young.
    let (mut images, mut layers) = machine.images.held();
    let under = machine.runtime.layers_in_use(&states(beside)?).await?;
    layers.extend(under.iter().filter_map(|path| Layers::content_at(path)));
    let (store, unpacked, home) =
        (machine.images.store().clone(), machine.images.layers().clone(), shared.home.clone());
    let pods = pods.state();
    let work = move || {
        images.extend(pods.iter().flat_map(|pod| named(&store, pod)));
        let disk = Disk::of(&home).map_err(|error| error.to_string())?;
        let swept = sweep(&store, &unpacked, disk, &Used { images, layers }, &mut last_used);
        swept.map(|swept| (last_used, swept)).map_err(|error| error.to_string())
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// Where the further nodes below a folder keep their containers.
fn states(beside: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(beside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        nodes => nodes?.map(|node| Ok(node?.path().join("pods"))).collect(),
    }
}

fn report(shared: &Shared<Host>, swept: &Swept) {
    if swept.found > 0 {
        tracing::info!(bytes = swept.found, "images that nobody used were removed");
    }
    if swept.found < swept.wanted {
        let node = &shared.names.node;
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.clone()),
            uid: Some(node.clone()),
            ..ObjectReference::default()
        };
        let message =
            format!("the disk is too full: {} bytes had to be freed, unused images had {}", swept.wanted, swept.found);
        shared.recorder.event(&about, EventKind::Warning, "FreeDiskSpaceFailed", &message);
    }
}

/// The images that a pod names, or was seen to run.
fn named(store: &Store, pod: &Pod) -> Vec<Digest> {
    let status = pod.status.as_ref();
    let seen = |list: Option<&Vec<ContainerStatus>>| -> Vec<Digest> {
        let ids = list.into_iter().flatten().filter_map(|one| one.image_id.rsplit_once('@'));
        ids.filter_map(|(_, digest)| digest.parse().ok()).collect()
    };
    let lists = [
        status.and_then(|status| status.container_statuses.as_ref()),
        status.and_then(|status| status.init_container_statuses.as_ref()),
        status.and_then(|status| status.ephemeral_container_statuses.as_ref()),
    ];
    let mut all: Vec<Digest> = lists.into_iter().flat_map(seen).collect();
    let images = pod::containers(pod).map(|container| container.image.as_deref());
    let added = pod::ephemerals(pod).map(|container| container.image.as_deref());
    let shown = volumes(pod).map(|volume| volume.image.as_ref().and_then(|image| image.reference.as_deref()));
    for image in images.chain(added).chain(shown).flatten() {
        let reference: Option<Reference> = image.parse().ok();
        all.extend(reference.and_then(|reference| store.resolve(&reference).ok().flatten()));
    }
    all
}

/// What has to stay.
struct Used {
    /// Manifests.
    images: HashSet<Digest>,
    /// Unpacked layers.
    layers: HashSet<Digest>,
}

/// Removes what is too much, and what no name leads to.
fn sweep(
    store: &Store,
    unpacked: &Layers,
    disk: Disk,
    used: &Used,
    last_used: &mut LastUsed,
) -> shipway_oci::Result<Swept> {
    let images = store.list()?;
    let now = SystemTime::now();
    last_used.retain(|digest, _| images.iter().any(|image| image.digest == *digest));
    for image in &images {
        let last = last_used.entry(image.digest).or_insert(image.created);
        *last = if used.images.contains(&image.digest) { now } else { (*last).max(image.created) };
    }
    let wanted = disk.excess(POLICY);
    let victims = choose(&images, used, last_used, (wanted, now), POLICY);
    for image in images.iter().filter(|image| victims.contains(&image.digest)) {
        store.untag(&image.reference)?;
    }
    let keep: Vec<Digest> = used.images.iter().copied().collect();
    store.collect_older(GRACE, &keep)?;
    let mut layers = used.layers.clone();
    for digest in store.list()?.iter().map(|image| image.digest).chain(keep) {
        if let Ok(image) = Image::load(store, &digest) {
            layers.extend(image.layers()?.into_iter().map(|(_, content)| content));
        }
    }
    unpacked.retain(&layers, GRACE)?;
    let sizes: HashMap<Digest, u64> = images.iter().map(|image| (image.digest, image.size)).collect();
    let found = victims.iter().filter_map(|digest| sizes.get(digest)).sum();
    Ok(Swept { wanted: wanted.unwrap_or_default(), found })
}

/// The images that go, least recently used first.
fn choose(
    images: &[Tagged],
    used: &Used,
    last_used: &LastUsed,
    (wanted, now): (Option<u64>, SystemTime),
    policy: Policy,
) -> Vec<Digest> {
    let unused = |digest: &Digest| {
        let last = last_used.get(digest).copied().unwrap_or(now);
        now.duration_since(last).unwrap_or_default()
    };
    let local: HashSet<Digest> =
        images.iter().filter(|image| is_local(&image.reference)).map(|image| image.digest).collect();
    let free = |image: &&Tagged| !local.contains(&image.digest) && !used.images.contains(&image.digest);
    let mut candidates: Vec<&Tagged> = images.iter().filter(free).collect();
    candidates.sort_by_key(|image| (std::cmp::Reverse(unused(&image.digest)), image.digest));
    candidates.dedup_by_key(|image| image.digest);
    let mut left = wanted.unwrap_or_default();
    let mut victims = Vec::new();
    for image in candidates {
        let age = unused(&image.digest);
        let old = policy.most.is_some_and(|most| age > most);
        if old || (left > 0 && age >= policy.least) {
            left = left.saturating_sub(image.size);
            victims.push(image.digest);
        }
    }
    victims
}

#[cfg(test)]
mod tests;
