//! kill -9 of the engine at random moments under a stream of creates: what was acknowledged is there afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use shipway_tests::Instance;

/// How often the engine is killed; `SHIPWAY_KILLS` asks for another number.
const KILLS: u32 = 50;

#[test]
fn every_acknowledged_object_survives_many_kills() -> Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let kills = std::env::var("SHIPWAY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let instance = Instance::up()?;
    let stop = Arc::new(AtomicBool::new(false));
    let (told, path) = (stop.clone(), instance.home().join("kubeconfig"));
    let writer = std::thread::spawn(move || create_until(&told, &path));
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..200)));
        instance.kill_engine().with_context(|| format!("kill {kill}"))?;
        instance.ok(&["up"]).with_context(|| format!("after kill {kill}"))?;
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(acknowledged.len() > kills as usize, "only {} creates were acknowledged", acknowledged.len());
    let present = runtime()?.block_on(names(&instance.home().join("kubeconfig")))?;
    let lost: Vec<_> = acknowledged.iter().filter(|name| !present.contains(*name)).collect();
    ensure!(lost.is_empty(), "{} of {} acknowledged objects are lost: {lost:?}", lost.len(), acknowledged.len());
    println!("{kills} kills, {} acknowledged creates, none lost", acknowledged.len());
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn client(kubeconfig: &std::path::Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Creates objects as fast as one client can; gives the names that were acknowledged.
fn create_until(stop: &AtomicBool, kubeconfig: &std::path::Path) -> Result<Vec<String>> {
    runtime()?.block_on(async {
        let mut acknowledged = Vec::new();
        let mut api: Api<ConfigMap> = Api::default_namespaced(client(kubeconfig).await?);
        for number in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let metadata = ObjectMeta { name: Some(format!("object-{number}")), ..ObjectMeta::default() };
            let created = api.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await;
            if let Ok(created) = created {
                acknowledged.push(created.name_any());
                continue;
            }
            // The engine is down: a new connection, a little later. The name is not used again.
            tokio::time::sleep(Duration::from_millis(5)).await;
            api = Api::default_namespaced(client(kubeconfig).await?);
        }
        Ok(acknowledged)
    })
}

async fn names(kubeconfig: &std::path::Path) -> Result<std::collections::HashSet<String>> {
    let api: Api<ConfigMap> = Api::default_namespaced(client(kubeconfig).await?);
    Ok(api.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect())
}
