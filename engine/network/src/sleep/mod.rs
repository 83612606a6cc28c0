//! Workloads that sleep while nobody needs them: scaled to zero after a time without a new connection to their services,
//! and back with the first one, which waits meanwhile.
//!
//! The kernel holds the first packets and counts new connections; once the pods are there the packets go on as if nothing
//! had been, and nothing of ours is on the way. All state is in the objects, so a restart forgets nothing.

mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use shipway_driver::{Change, Queue, Shared, cached};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::nft::{Care, ElementKey, Entry, Held, HeldPackets, Sleepers, has_open};
use crate::records::{key, service_keys};
use crate::{Network, NetworkError};
use workload::{Id, Kind, Workload, slim_deployment, slim_stateful_set};

/// The part of the time that passes between two looks at the counters.
const LOOKS: u32 = 4;
/// Packets whose service does not wake in this time are dropped; their senders try again.
const PATIENCE: Duration = Duration::from_mins(1);
/// A failed change is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// One workload that may sleep.
#[derive(Default)]
struct Sleeping {
    /// The destinations of its services.
    services: BTreeMap<String, BTreeSet<ElementKey>>,
    /// The services whose connections are held.
    held: BTreeSet<String>,
    /// Set while it is on its way to be awake.
    waking: bool,
    packets: Vec<Held>,
    /// Since when the first of the packets waits.
    called: Option<Instant>,
    since: Option<Instant>,
    counted: u64,
}

struct Dormitory {
    client: Client,
    network: Network,
    deployments: Store<Deployment>,
    sets: Store<StatefulSet>,
    services: Store<Service>,
    queue: Arc<Queue<Id>>,
    table: Sleepers,
    /// Opened when the first workload may sleep.
    packets: Option<HeldPackets>,
    all: BTreeMap<Id, Sleeping>,
}

/// Puts workloads to sleep and wakes them until stopped.
pub(crate) async fn watch_over(client: Client, network: Network, stop: CancellationToken) -> Result<(), NetworkError> {
    let queue: Arc<Queue<Id>> = Arc::new(Queue::new());
    let (deployments, one) = Shared::new(Api::<Deployment>::all(client.clone()), slim_deployment, stop.clone());
    let (sets, two) = Shared::new(Api::<StatefulSet>::all(client.clone()), slim_stateful_set, stop.clone());
    let told = queue.clone();
    deployments.listen(move |change| told.add(id(Kind::Deployment, &**change.object())));
    let told = queue.clone();
    sets.listen(move |change| told.add(id(Kind::StatefulSet, &**change.object())));
    let (deployments, sets) = (deployments.store(), sets.store());
    let (touched, mut changes) = tokio::sync::watch::channel(());
    let (services, three) = {
        let told = move |_: &Change<Service>| touched.send_modify(|()| ());
        cached(Api::<Service>::all(client.clone()), watcher::Config::default(), stop.clone(), told)
    };
    let table = Sleepers::new(network.config())?;
    let mut backends = network.services_changed();
    let mut all =
        Dormitory { client, network, deployments, sets, services, queue, table, packets: None, all: BTreeMap::new() };
    let work = async {
        let Dormitory { deployments, sets, services, .. } = &all;
        let known = async {
            tokio::join!(deployments.wait_until_ready(), sets.wait_until_ready(), services.wait_until_ready())
        };
        let known = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            known = known => known,
        };
        if known.0.is_err() || known.1.is_err() || known.2.is_err() {
            return Ok(());
        }
        if all.candidates().is_empty() {
            all.table.delete()?;
        }
        let queue = all.queue.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                id = queue.next() => {
                    let again = all.look(&id).await;
                    match again {
                        Ok(again) => again.into_iter().for_each(|after| queue.add_after(id.clone(), after)),
                        Err(error) => {
                            tracing::warn!(%error, workload = id.2, "sleeping goes wrong, it is tried again");
                            queue.add_after(id.clone(), RETRY);
                        }
                    }
                    queue.done(&id);
                }
                packets = next(all.packets.as_ref()) => match packets {
                    Ok(packets) => all.take(packets).await,
                    Err(error) => return Err(NetworkError::kernel("read held packets")(error)),
                },
                Ok(()) = changes.changed() => all.candidates().into_iter().for_each(|id| queue.add(id)),
                Ok(()) = backends.changed() => all.waking().for_each(|id| queue.add(id.clone())),
            }
        }
    };
    tokio::select! {
        done = work => done,
        _ = async { tokio::join!(one, two, three) } => Ok(()),
    }
}

async fn next(packets: Option<&HeldPackets>) -> std::io::Result<Vec<Held>> {
    match packets {
        Some(packets) => packets.next().await,
        None => std::future::pending().await,
    }
}

fn id(kind: Kind, object: &impl ResourceExt) -> Id {
    (kind, object.namespace().unwrap_or_default(), object.name_any())
}

impl Dormitory {
    fn workload(&self, (kind, namespace, name): &Id) -> Option<Workload> {
        match kind {
            Kind::Deployment => {
                Workload::of_deployment(&*self.deployments.get(&ObjectRef::new(name).within(namespace))?)
            }
            Kind::StatefulSet => Workload::of_stateful_set(&*self.sets.get(&ObjectRef::new(name).within(namespace))?),
        }
    }

    /// The workloads that may sleep or sleep.
    fn candidates(&self) -> Vec<Id> {
        let deployments = self.deployments.state().into_iter();
        let deployments = deployments.filter(|it| Workload::of_deployment(it).is_some());
        let sets = self.sets.state().into_iter().filter(|it| Workload::of_stateful_set(it).is_some());
        let deployments = deployments.map(|it| id(Kind::Deployment, &*it));
        deployments.chain(sets.map(|it| id(Kind::StatefulSet, &*it))).collect()
    }

    fn waking(&self) -> impl Iterator<Item = &Id> {
        self.all.iter().filter(|(_, sleeping)| sleeping.waking).map(|(id, _)| id)
    }

    /// Looks at one workload; says when to look again.
    async fn look(&mut self, id: &Id) -> Result<Option<Duration>, NetworkError> {
        let Some(workload) = self.workload(id) else {
            return self.forget(id).map(|()| None);
        };
        let Some(after) = workload.sleep_after else {
            // It may not sleep any more.
            self.patch(id, &workload.woken()).await?;
            return self.forget(id).map(|()| None);
        };
        let namespace = &id.1;
        let state = self.services.state();
        let own = state
            .iter()
            .filter(|service| service.namespace().as_ref() == Some(namespace) && workload.is_behind(service));
        let services: BTreeMap<String, BTreeSet<ElementKey>> =
            own.map(|service| (key(service), service_keys(service))).filter(|(_, keys)| !keys.is_empty()).collect();
        if services.is_empty() && !workload.sleeps() {
            return self.forget(id).map(|()| None);
        }
        let sleeping = self.all.entry(id.clone()).or_default();
        sleeping.services = services;
        sleeping.held.retain(|service| sleeping.services.contains_key(service));
        if workload.sleeps() {
            sleeping.waking = !sleeping.packets.is_empty();
            sleeping.held = sleeping.services.keys().cloned().collect();
            let waking = sleeping.waking;
            self.tell()?;
            if waking {
                self.patch(id, &workload.woken()).await?;
            }
            return Ok(None);
        }
        if workload.slept_with.is_some() {
            self.patch(id, &workload.woken()).await?;
        }
        if self.all.get(id).is_some_and(|sleeping| !sleeping.held.is_empty()) {
            return self.hand_over(id).map(Some);
        }
        self.consider(id, &workload, after).await
    }

    /// Lets those go on whose service has pods by now.
    fn hand_over(&mut self, id: &Id) -> Result<Duration, NetworkError> {
        let Some(sleeping) = self.all.get_mut(id) else { return Ok(RETRY) };
        sleeping.waking = true;
        let network = &self.network;
        sleeping.held.retain(|service| !network.is_served(service));
        let done = sleeping.held.is_empty();
        let held: BTreeSet<&ElementKey> =
            sleeping.held.iter().filter_map(|service| sleeping.services.get(service)).flatten().collect();
        let (stay, go): (Vec<Held>, Vec<Held>) = std::mem::take(&mut sleeping.packets)
            .into_iter()
            .partition(|packet| wanted(packet).iter().any(|key| held.contains(key)));
        sleeping.packets = stay;
        let late = sleeping.called.is_some_and(|called| called.elapsed() >= PATIENCE);
        let lost = if late { std::mem::take(&mut sleeping.packets) } else { Vec::new() };
        if done || late {
            (sleeping.waking, sleeping.since, sleeping.called) = (false, None, None);
        }
        // First the way is free, then they go.
        self.tell()?;
        if let Some(packets) = &self.packets {
            packets.release(&go).map_err(NetworkError::kernel("let held packets go on"))?;
            packets.give_up(&lost).map_err(NetworkError::kernel("drop held packets"))?;
        }
        Ok(if done { Duration::ZERO } else { PATIENCE })
    }

    /// Puts a workload to sleep whose services had no new connection for that time and have none open.
    async fn consider(
        &mut self,
        id: &Id,
        workload: &Workload,
        after: Duration,
    ) -> Result<Option<Duration>, NetworkError> {
        self.tell()?;
        if workload.replicas == 0 {
            return Ok(None);
        }
        let counts = self.table.counts()?;
        let Some(sleeping) = self.all.get_mut(id) else { return Ok(None) };
        let keys: BTreeSet<ElementKey> = sleeping.services.values().flatten().cloned().collect();
        let counted = keys.iter().filter_map(|key| counts.get(key)).sum();
        let now = Instant::now();
        if sleeping.counted != counted || sleeping.since.is_none() {
            (sleeping.counted, sleeping.since) = (counted, Some(now));
        }
        let idle = sleeping.since.map_or(Duration::ZERO, |since| now - since);
        if idle < after {
            return Ok(Some((after / LOOKS).min(after.saturating_sub(idle)).max(Duration::from_millis(250))));
        }
        if has_open(&keys).map_err(NetworkError::kernel("list connections"))? {
            sleeping.since = Some(now);
            return Ok(Some(after / LOOKS));
        }
        // From now on nobody new gets there; who comes meanwhile is held and wakes it again.
        sleeping.held = sleeping.services.keys().cloned().collect();
        sleeping.since = None;
        self.tell()?;
        tracing::info!(workload = id.2, namespace = id.1, "nobody needs it: it sleeps");
        self.patch(id, &workload.lulled()).await?;
        Ok(None)
    }

    /// Takes held packets, and wakes those whom they want.
    async fn take(&mut self, packets: Vec<Held>) {
        let mut called = BTreeSet::new();
        let mut strangers = Vec::new();
        for packet in packets {
            let keys = wanted(&packet);
            let owner = self.all.iter_mut().find(|(_, sleeping)| {
                let held = sleeping.held.iter().filter_map(|service| sleeping.services.get(service));
                held.flatten().any(|key| keys.contains(key))
            });
            match owner {
                Some((id, sleeping)) => {
                    sleeping.packets.push(packet);
                    sleeping.called.get_or_insert_with(Instant::now);
                    if !sleeping.waking {
                        sleeping.waking = true;
                        called.insert(id.clone());
                    }
                }
                // It woke between the packet and now.
                None => strangers.push(packet),
            }
        }
        if let Some(Err(error)) = self.packets.as_ref().map(|packets| packets.release(&strangers)) {
            tracing::warn!(%error, "held packets could not go on; their senders try again");
        }
        for id in called {
            self.wake(&id).await;
        }
    }

    async fn wake(&mut self, id: &Id) {
        let Some(workload) = self.workload(id) else { return };
        tracing::info!(workload = id.2, namespace = id.1, "somebody needs it: it wakes");
        if workload.sleeps()
            && let Err(error) = self.patch(id, &workload.woken()).await
        {
            tracing::warn!(%error, workload = id.2, "it could not be woken, it is tried again");
        }
        // Also when the change has not been seen, or it was only about to sleep.
        self.queue.add_after(id.clone(), RETRY);
    }

    /// Forgets a workload that may not sleep, and lets go whoever waited for it.
    fn forget(&mut self, id: &Id) -> Result<(), NetworkError> {
        let Some(sleeping) = self.all.remove(id) else { return Ok(()) };
        self.tell()?;
        if let Some(packets) = &self.packets {
            packets.release(&sleeping.packets).map_err(NetworkError::kernel("let held packets go on"))?;
        }
        Ok(())
    }

    /// Tells the kernel who sleeps and whom to count.
    fn tell(&mut self) -> Result<(), NetworkError> {
        let mut wanted: BTreeSet<Entry> = BTreeSet::new();
        for sleeping in self.all.values() {
            for (service, keys) in &sleeping.services {
                wanted.extend(keys.iter().map(|key| (Care::Count, key.clone())));
                if sleeping.held.contains(service) {
                    wanted.extend(keys.iter().map(|key| (Care::Hold, key.clone())));
                }
            }
        }
        if self.packets.is_none() {
            if wanted.is_empty() {
                return Ok(());
            }
            let opened = HeldPackets::open(&self.network.config().instance);
            self.packets = Some(opened.map_err(NetworkError::kernel("open a queue of packets"))?);
        }
        let number = self.packets.as_ref().map_or(0, HeldPackets::number);
        self.table.tell(&wanted, number)
    }

    async fn patch(&self, (kind, namespace, name): &Id, change: &Value) -> Result<(), NetworkError> {
        let (patch, parameters) = (Patch::Merge(change), PatchParams::default());
        let patched = match kind {
            Kind::Deployment => Api::<Deployment>::namespaced(self.client.clone(), namespace)
                .patch(name, &parameters, &patch)
                .await
                .map(drop),
            Kind::StatefulSet => Api::<StatefulSet>::namespaced(self.client.clone(), namespace)
                .patch(name, &parameters, &patch)
                .await
                .map(drop),
        };
        match patched {
            // Gone meanwhile: its deletion is on the way.
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
            other => Ok(other?),
        }
    }
}

/// The destinations that a packet may have meant: of a service's address, or of a port on the host.
fn wanted(packet: &Held) -> [ElementKey; 2] {
    crate::nft::destinations(packet.address, packet.protocol, packet.port)
}
