//! A client that remembers what was acknowledged to it: none of it may be lost, and no read may show less.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use shipway_apiserver::Identity;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Cluster;

const NAMES: u32 = 8;
const NAMESPACE: &str = "kube-public";

/// The writer; it ends with this.
pub(crate) struct Writes {
    books: Arc<Mutex<Books>>,
    tasks: JoinSet<()>,
}

/// By name: the newest number that was acknowledged. Numbers only grow; whether the newest asked for took effect is open.
#[derive(Default)]
struct Books {
    acknowledged: BTreeMap<String, u64>,
    violations: Vec<String>,
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts writing, as an administrator whose calls may be lost.
pub(crate) fn start(cluster: &Cluster, seed: u64) -> Writes {
    let client = cluster.client_of(Identity::new("writer", &["system:masters"]));
    let books = Arc::<Mutex<Books>>::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(write(client, books.clone(), Rng::with_seed(seed)));
    Writes { books, tasks }
}

async fn write(client: Client, books: Arc<Mutex<Books>>, mut rng: Rng) {
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    for number in 1.. {
        sleep(Duration::from_millis(rng.u64(..20_000))).await;
        let name = format!("m{}", rng.u32(..NAMES));
        if rng.u32(..4) == 0 {
            read(&maps, &name, &books).await;
        } else if put(&maps, &name, number).await.is_ok() {
            lock(&books).acknowledged.insert(name, number);
        }
    }
}

async fn put(maps: &Api<ConfigMap>, name: &str, number: u64) -> Result<(), kube::Error> {
    let data = json!({"data": {"number": number.to_string()}});
    let patched = maps.patch(name, &PatchParams::default(), &Patch::Merge(&data)).await;
    match patched {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let mut map: Value = data;
            map["metadata"] = json!({"name": name});
            let map: ConfigMap = serde_json::from_value(map).expect("it is a config map");
            maps.create(&PostParams::default(), &map).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn number(map: Option<ConfigMap>) -> u64 {
    map.and_then(|map| map.data?.get("number")?.parse().ok()).unwrap_or(0)
}

/// A read shows nothing older than what was acknowledged before it began.
async fn read(maps: &Api<ConfigMap>, name: &str, books: &Mutex<Books>) {
    let acknowledged = lock(books).acknowledged.get(name).copied().unwrap_or(0);
    if let Ok(found) = maps.get_opt(name).await {
        books_check(books, name, acknowledged, number(found));
    }
}

fn books_check(books: &Mutex<Books>, name: &str, acknowledged: u64, found: u64) {
    if found < acknowledged {
        lock(books).violations.push(format!("config map {name}: {acknowledged} was acknowledged, {found} is there"));
    }
}

impl Writes {
    /// Stops writing and compares.
    pub(crate) async fn check(mut self, cluster: &Cluster) -> Vec<String> {
        self.tasks.shutdown().await;
        let acknowledged = lock(&self.books).acknowledged.clone();
        for (name, acknowledged) in acknowledged {
            let found = cluster.get::<ConfigMap>(&format!("{NAMESPACE}/{name}")).await;
            books_check(&self.books, &name, acknowledged, number(found));
        }
        std::mem::take(&mut lock(&self.books).violations)
    }
}
