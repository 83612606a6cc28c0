//! Watches policies, namespaces and pods and keeps what follows from them in the kernel.
//!
//! While there is no policy, nothing but policies is looked at. The first one has everything looked at once.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use shipway_driver::{Change, Queue, Shared, cached, drive};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::model::{Key, Model, PodFacts};
use super::read::{Policy, protocol};
use crate::nft::Filter;
use crate::{Network, NetworkError};

/// Where rules expect the DNS server to be, as in clusters in which it is a pod.
const DNS_NAMESPACE: &str = "kube-system";
const DNS_NAME: &str = "kube-dns";
const DNS_LABEL: &str = "k8s-app";
const DNS_PORTS: [(&str, u8, u16); 2] = [("dns", 17, 53), ("dns-tcp", 6, 53)];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Policy(Key),
    Namespace(String),
    Pod(Key),
}

struct Enforcer {
    network: Network,
    policies: Store<NetworkPolicy>,
    namespaces: Store<Namespace>,
    pods: Store<Pod>,
    state: Mutex<State>,
}

struct State {
    model: Model,
    filter: Filter,
}

/// Enforces policies until stopped. `arrivals` are the pods that wait for it.
pub(crate) async fn enforce(
    client: Client,
    network: Network,
    pods: Shared<Pod>,
    mut arrivals: mpsc::Receiver<String>,
    stop: CancellationToken,
) -> Result<(), NetworkError> {
    let queue = Arc::new(Queue::new());
    let (policies, watching_policies) = {
        let queue = queue.clone();
        let changed = move |change: &Change<NetworkPolicy>| queue.add(Subject::Policy(key_of(&**change.object())));
        cached(Api::<NetworkPolicy>::all(client.clone()), watcher::Config::default(), stop.clone(), changed)
    };
    let (namespaces, watching_namespaces) = {
        let queue = queue.clone();
        let changed = move |change: &Change<Namespace>| queue.add(Subject::Namespace(change.object().name_any()));
        cached(Api::<Namespace>::all(client), watcher::Config::default(), stop.clone(), changed)
    };
    let state = State { model: Model::default(), filter: Filter::new(network.config())? };
    let enforcer = Arc::new(Enforcer { network, policies, namespaces, pods: pods.store(), state: Mutex::new(state) });
    let work = async {
        let Enforcer { policies, namespaces, .. } = &*enforcer;
        let known =
            async { tokio::join!(policies.wait_until_ready(), namespaces.wait_until_ready(), pods.is_complete()) };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            known = known => if known.0.is_err() || known.1.is_err() {
                return Ok(());
            }
        }
        enforcer.begin()?;
        enforcer.listen(&pods, &queue);
        let reconciling = enforcer.clone();
        let reconcile = move |subject: Subject| std::future::ready(reconciling.reconcile(&subject));
        let arriving = async {
            while let Some(uid) = arrivals.recv().await {
                let pod = enforcer.pods.find(|pod| pod.metadata.uid.as_deref() == Some(&uid));
                if let Some(pod) = pod {
                    queue.add(Subject::Pod(key_of(&*pod)));
                }
            }
        };
        // One at a time: the kernel takes changes one after the other anyway.
        tokio::select! {
            () = drive(queue.clone(), 1, stop.clone(), reconcile) => {}
            () = arriving => {}
        }
        Ok(())
    };
    let done = tokio::select! {
        done = work => done,
        _ = async { tokio::join!(watching_policies, watching_namespaces) } => Ok(()),
    };
    enforcer.network.guard().end();
    done
}

fn key_of<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl Enforcer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, pods: &Shared<Pod>, queue: &Arc<Queue<Subject>>) {
        let (enforcer, queue) = (self.clone(), queue.clone());
        pods.listen(move |change: &Change<Pod>| {
            let pod = change.object();
            if let (Change::Deleted(_), Some(uid)) = (change, &pod.metadata.uid) {
                enforcer.network.guard().forget(uid);
            }
            if !enforcer.state().model.is_empty() {
                queue.add(Subject::Pod(key_of(&**pod)));
            }
        });
    }

    /// Puts everything that there is into the kernel, in place of what an earlier process put there.
    fn begin(&self) -> Result<(), NetworkError> {
        let mut state = self.state();
        if self.policies.is_empty() {
            state.filter.delete()?;
            drop(state);
            self.network.guard().begin(false, []);
            return Ok(());
        }
        let settled = self.learn(&mut state.model);
        let State { model, filter } = &mut *state;
        filter.tell(model)?;
        drop(state);
        self.network.guard().begin(true, settled);
        Ok(())
    }

    /// Looks at everything. Returns the pods of this node that it saw.
    fn learn(&self, model: &mut Model) -> Vec<(String, Ipv4Addr)> {
        let dns = PodFacts {
            labels: [(DNS_LABEL.to_owned(), DNS_NAME.to_owned())].into(),
            address: Some(self.network.config().dns_address),
            ports: DNS_PORTS.map(|(name, protocol, port)| (name.to_owned(), protocol, port)).into(),
            exempt: true,
        };
        // No pod has such a name.
        model.set_pod(&(DNS_NAMESPACE.to_owned(), format!("/{DNS_NAME}")), Some(dns));
        for namespace in self.namespaces.state() {
            model.set_namespace(&namespace.name_any(), Some(namespace.labels().clone()));
        }
        let mut settled = Vec::new();
        for pod in self.pods.state() {
            settled.extend(self.set_pod(model, &key_of(&*pod), Some(&pod)));
        }
        for policy in self.policies.state() {
            model.set_policy(&key_of(&*policy), Some(Policy::of(&policy)));
        }
        settled
    }

    fn reconcile(&self, subject: &Subject) -> Result<Option<Duration>, NetworkError> {
        let mut state = self.state();
        let State { model, filter } = &mut *state;
        let was_empty = model.is_empty();
        let settled = match subject {
            Subject::Policy(_) if was_empty && !self.policies.is_empty() => self.learn(model),
            Subject::Policy(key) => {
                let policy = self.policies.get(&ObjectRef::new(&key.1).within(&key.0));
                model.set_policy(key, policy.map(|policy| Policy::of(&policy)));
                Vec::new()
            }
            _ if was_empty => return Ok(None),
            Subject::Namespace(name) => {
                let namespace = self.namespaces.get(&ObjectRef::new(name));
                model.set_namespace(name, namespace.map(|namespace| namespace.labels().clone()));
                Vec::new()
            }
            Subject::Pod(key) => {
                let pod = self.pods.get(&ObjectRef::new(&key.1).within(&key.0));
                self.set_pod(model, key, pod.as_deref()).into_iter().collect()
            }
        };
        filter.tell(model)?;
        let guarded = !model.is_empty();
        if !guarded && !was_empty {
            *model = Model::default();
        }
        drop(state);
        if guarded != was_empty && settled.is_empty() {
            return Ok(None);
        }
        self.network.guard().begin(guarded, settled);
        Ok(None)
    }

    /// Tells the model of a pod; returns it with its address when it has one.
    fn set_pod(&self, model: &mut Model, key: &Key, pod: Option<&Pod>) -> Option<(String, Ipv4Addr)> {
        let Some(pod) = pod else {
            model.set_pod(key, None);
            return None;
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let facts = facts(pod, self.network.address_of(&uid));
        let address = facts.address;
        model.set_pod(key, Some(facts));
        Some((uid, address?))
    }
}

/// What policies need to know of a pod. A pod of this node has its address before its status says so.
fn facts(pod: &Pod, attached: Option<Ipv4Addr>) -> PodFacts {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let phase = status.and_then(|status| status.phase.as_deref());
    let alone = spec.is_none_or(|spec| spec.host_network != Some(true));
    let lives = !matches!(phase, Some("Succeeded" | "Failed"));
    let told = || status.and_then(|status| status.pod_ip.as_deref()?.parse().ok());
    let containers = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let mut ports: Vec<_> = containers.flat_map(named_ports).collect();
    ports.sort_unstable();
    ports.dedup();
    PodFacts {
        labels: pod.labels().clone(),
        address: attached.or_else(told).filter(|_| alone && lives),
        ports,
        exempt: false,
    }
}

fn named_ports(container: &Container) -> Vec<(String, u8, u16)> {
    let port = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.clone()?, protocol(port.protocol.as_deref())?, number))
    };
    container.ports.iter().flatten().filter_map(port).collect()
}
