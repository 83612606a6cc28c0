//! What every namespace has: the certificates to trust the API by, and the account that its pods run as.
//!
//! The certificates come first: admission lets pods in as soon as the account is there, and their token volumes show both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Config;
use shipway_driver::{Change, Queue, cached};
use tokio_util::sync::CancellationToken;

use crate::crew::is_terminating;
use crate::owned::is_stale;
use crate::world::World;

/// The account's name that admission fills in.
const ACCOUNT: &str = "default";
/// The config map that injected token volumes name, and its key.
const ROOT: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
/// Namespaces worked on at once.
const WORKERS: usize = 4;

/// Keeps both in every active namespace, until stopped; `root` is what there is to trust, in PEM form.
pub(crate) async fn run(world: World, root: Arc<str>, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let client = &world.client;
    let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
    let wake = queue.clone();
    let (namespaces, watch_namespaces) =
        cached::<Namespace>(Api::all(client.clone()), Config::default(), stop.clone(), move |change| {
            wake.add(change.object().metadata.name.clone().unwrap_or_default());
        });
    let wake = queue.clone();
    let (_, watch_accounts) =
        cached::<ServiceAccount>(Api::all(client.clone()), named(ACCOUNT), stop.clone(), move |change| {
            if let Change::Deleted(account) = change {
                wake.add(account.metadata.namespace.clone().unwrap_or_default());
            }
        });
    let wake = queue.clone();
    let (_, watch_maps) = cached::<ConfigMap>(Api::all(client.clone()), named(ROOT), stop.clone(), move |change| {
        wake.add(change.object().metadata.namespace.clone().unwrap_or_default());
    });
    let working = world.meter().drive(queue, WORKERS, stop, move |namespace: String| {
        let (client, namespaces, root) = (world.client.clone(), namespaces.clone(), root.clone());
        async move {
            let found = namespaces.get(&ObjectRef::new(&namespace));
            if found.is_some_and(|it| it.metadata.deletion_timestamp.is_none()) {
                publish(&client, &namespace, &root).await?;
                ensure_account(&client, &namespace).await?;
            }
            Ok::<Option<Duration>, kube::Error>(None)
        }
    });
    tokio::join!(watch_namespaces, watch_accounts, watch_maps, working);
}

/// Makes the config map, or corrects it.
async fn publish(client: &kube::Client, namespace: &str, root: &str) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let data = Some(BTreeMap::from([(KEY.to_owned(), root.to_owned())]));
    let written = match maps.get_opt(ROOT).await? {
        Some(found) if found.data == data => return Ok(()),
        Some(found) => maps.replace(ROOT, &PostParams::default(), &ConfigMap { data, ..found }).await,
        None => {
            maps.create(&PostParams::default(), &ConfigMap { metadata: named(ROOT), data, ..Default::default() }).await
        }
    };
    passing(written)
}

async fn ensure_account(client: &kube::Client, namespace: &str) -> Result<(), kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    if accounts.get_opt(ACCOUNT).await?.is_some() {
        return Ok(());
    }
    let account = ServiceAccount { metadata: named(ACCOUNT), ..ServiceAccount::default() };
    passing(accounts.create(&PostParams::default(), &account).await)
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// What lost against another change is told of by the watches again; a namespace that is going needs nothing any more.
fn passing<K>(written: Result<K, kube::Error>) -> Result<(), kube::Error> {
    match written {
        Err(error) if !is_stale(&error) && !is_terminating(&error) => Err(error),
        _ => Ok(()),
    }
}
