//! Times how fast the cluster acts: a controller on what it watches, the packet filter on a new service.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::median;

/// How many services there are besides.
pub(crate) const OTHERS: usize = 1000;
/// How often each thing is timed.
const SAMPLES: usize = 30;
/// How long one attempt to connect may take before the next: a first packet that nobody takes is not repeated for a second.
const ATTEMPT: Duration = Duration::from_millis(2);

/// From the answer to a new deployment until a watch shows its replica set, which is one look of the controller and one
/// write of its own.
pub(crate) async fn hop(client: &Client) -> Result<Duration> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let sets: Api<ReplicaSet> = Api::default_namespaced(client.clone());
    let mut times = Vec::new();
    for number in 0..SAMPLES {
        let name = format!("hop-{number}");
        let from = sets.list_metadata(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let mut events = pin!(sets.watch(&WatchParams::default(), &from).await?.boxed());
        deployments.create(&PostParams::default(), &deployment(&name)?).await?;
        let answered = Instant::now();
        while let Some(event) = events.try_next().await? {
            if matches!(&event, WatchEvent::Added(set) if set.name_any().starts_with(&name)) {
                break;
            }
        }
        times.push(answered.elapsed());
        deployments.delete(&name, &DeleteParams::background()).await?;
    }
    Ok(median(&mut times))
}

fn deployment(name: &str) -> Result<Deployment> {
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?)
}

/// From the answer to a new service until its address takes connections, with many others of the same pods beside it.
/// `like` names a service that has pods.
pub(crate) async fn new_service(client: &Client, like: &str) -> Result<Duration> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let spec = services.get(like).await?.spec.context("a service without a specification")?;
    let ports: Vec<Value> =
        spec.ports.iter().flatten().take(1).map(|port| json!({"port": 80, "targetPort": port.target_port})).collect();
    let spec = json!({"selector": spec.selector, "ports": ports});
    let made = |name: String| {
        let (services, spec) = (services.clone(), spec.clone());
        async move {
            let service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
            anyhow::Ok(services.create(&PostParams::default(), &service).await?)
        }
    };
    futures::stream::iter(0..OTHERS)
        .map(|number| made(format!("other-{number}")))
        .buffer_unordered(8)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let mut times = Vec::new();
    for number in 0..SAMPLES {
        let service = made(format!("timed-{number}")).await?;
        let answered = Instant::now();
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a service without an address")?;
        let address = SocketAddr::new(address.parse()?, 80);
        while !matches!(timeout(ATTEMPT, TcpStream::connect(address)).await, Ok(Ok(_))) {
            anyhow::ensure!(answered.elapsed() < Duration::from_secs(10), "{address} never answers");
        }
        times.push(answered.elapsed());
    }
    Ok(median(&mut times))
}
