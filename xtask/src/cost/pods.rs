//! Times the life of pods through the API, as a client sees it.

use std::collections::HashSet;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::runtime::Runtime;

use super::median;

/// A client for the instance in that home.
pub(crate) async fn client(home: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(home.join("kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A client that makes sleeping pods.
pub(crate) struct Pods<'a> {
    runtime: &'a Runtime,
    api: Api<Pod>,
}

/// Medians of a pod's life.
pub(crate) struct Life {
    pub(crate) running: Duration,
    pub(crate) gone: Duration,
}

impl<'a> Pods<'a> {
    pub(crate) fn new(runtime: &'a Runtime, client: &Client) -> Self {
        Self { runtime, api: Api::default_namespaced(client.clone()) }
    }

    /// Creates and deletes pods one after the other.
    pub(crate) fn one_at_a_time(&self, count: usize) -> Result<Life> {
        let (mut running, mut gone) = self.lives(count)?;
        Ok(Life { running: median(&mut running), gone: median(&mut gone) })
    }

    /// How long each of so many pods took until it ran, and until it was gone.
    pub(crate) fn lives(&self, count: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
        let (mut running, mut gone) = (Vec::new(), Vec::new());
        for number in 0..count {
            let name = format!("single-{number}");
            let start = Instant::now();
            self.runtime.block_on(self.create_all(std::slice::from_ref(&name)))?;
            running.push(start.elapsed());
            let start = Instant::now();
            self.delete(&[name])?;
            gone.push(start.elapsed());
        }
        Ok((running, gone))
    }

    /// Creates so many pods at once; gives the time until the last one runs.
    pub(crate) fn at_once(&self, count: usize) -> Result<Duration> {
        let start = Instant::now();
        let names = self.start(count)?;
        let taken = start.elapsed();
        self.delete(&names)?;
        Ok(taken)
    }

    /// Creates so many pods and waits until all run; gives their names.
    pub(crate) fn start(&self, count: usize) -> Result<Vec<String>> {
        let names: Vec<String> = (0..count).map(|number| format!("many-{number}")).collect();
        self.runtime.block_on(self.create_all(&names))?;
        Ok(names)
    }

    /// Deletes pods and waits until all are gone.
    pub(crate) fn delete(&self, names: &[String]) -> Result<()> {
        self.runtime.block_on(async {
            let from = self.revision().await?;
            let deletions = names
                .iter()
                .map(|name| async move { self.api.delete(name, &DeleteParams::default()).await.map(|_| ()) });
            futures::future::try_join_all(deletions).await?;
            self.wait(names, &from, |event| match event {
                WatchEvent::Deleted(pod) => Some(pod.name_any()),
                _ => None,
            })
            .await
        })
    }

    async fn create_all(&self, names: &[String]) -> Result<()> {
        let from = self.revision().await?;
        let creations = names
            .iter()
            .map(|name| async move { self.api.create(&PostParams::default(), &sleeper(name)).await.map(|_| ()) });
        futures::future::try_join_all(creations).await?;
        self.wait(names, &from, |event| match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => is_running(&pod).then(|| pod.name_any()),
            _ => None,
        })
        .await
    }

    async fn revision(&self) -> Result<String> {
        let list = self.api.list_metadata(&ListParams::default().limit(1)).await?;
        list.metadata.resource_version.context("a list has a revision")
    }

    async fn wait(&self, names: &[String], from: &str, done: impl Fn(WatchEvent<Pod>) -> Option<String>) -> Result<()> {
        let mut left: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut events = pin!(self.api.watch(&WatchParams::default(), from).await?.boxed());
        while !left.is_empty() {
            let event = tokio::time::timeout(Duration::from_mins(1), events.try_next()).await;
            let event = event.context("no change for a minute")??.context("the watch ended")?;
            if let Some(name) = done(event) {
                left.remove(name.as_str());
            }
        }
        Ok(())
    }
}

fn sleeper(name: &str) -> Pod {
    let container = json!({
        "name": "sleeper",
        "image": "shipway.local/sleeper:latest",
        "imagePullPolicy": "IfNotPresent",
    });
    let pod = json!({ "metadata": { "name": name }, "spec": { "containers": [container] } });
    serde_json::from_value(pod).expect("this is a pod")
}

fn is_running(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    let phase = status.and_then(|status| status.phase.as_deref());
    phase == Some("Running")
        && statuses.into_iter().flatten().all(|it| it.state.as_ref().is_some_and(|state| state.running.is_some()))
}
