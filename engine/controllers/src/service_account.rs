//! Every namespace has the service account that its pods run as when they name none.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use shipway_driver::{Queue, cached, drive};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::owned::is_stale;
use crate::world::World;

/// The name that admission fills in.
const DEFAULT: &str = "default";

/// Keeps the account in every active namespace, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let wake = queue.clone();
    let all = kube::runtime::watcher::Config::default;
    let (namespaces, watch_namespaces) =
        cached::<Namespace>(Api::all(world.client.clone()), all(), stop.clone(), move |change| {
            wake.add(change.object().metadata.name.clone().unwrap_or_default());
        });
    let wake = queue.clone();
    let (_, watch_accounts) =
        cached::<ServiceAccount>(Api::all(world.client.clone()), all(), stop.clone(), move |change| {
            if let shipway_driver::Change::Deleted(account) = change {
                wake.add(account.metadata.namespace.clone().unwrap_or_default());
            }
        });
    let working = drive(queue, 1, stop, move |namespace: String| {
        let (client, namespaces) = (world.client.clone(), namespaces.clone());
        async move {
            let found = namespaces.find(|it| it.metadata.name.as_deref() == Some(namespace.as_str()));
            match found.filter(|it| it.metadata.deletion_timestamp.is_none()) {
                Some(_) => ensure(client, &namespace).await,
                None => Ok(None),
            }
        }
    });
    tokio::join!(watch_namespaces, watch_accounts, working);
}

async fn ensure(client: kube::Client, namespace: &str) -> Result<Option<Duration>, kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    if accounts.get_opt(DEFAULT).await?.is_some() {
        return Ok(None);
    }
    let metadata = ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() };
    match accounts.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() }).await {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(None),
    }
}
