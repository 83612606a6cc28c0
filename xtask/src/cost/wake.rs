//! Times how a workload wakes that slept until somebody connected, and what its service adds to a connection once it is awake.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use shipway_tests::Instance;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Row, median, ms, pods, run};

/// How many connect at once to what sleeps.
const CALLERS: usize = 1000;
/// How often a connection to what is awake is timed, each way.
const SAMPLES: usize = 400;
/// How often it is woken.
const NIGHTS: usize = 3;
/// How long it may take to fall asleep, and to answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// A static program that greets everybody who connects.
const PROGRAM: &str = r#"
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
  int door = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  struct sockaddr_in all = {.sin_family = AF_INET, .sin_port = htons(8080)};
  setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(door, (struct sockaddr *)&all, sizeof all) || listen(door, 4096)) return 1;
  for (;;) {
    int caller = accept(door, 0, 0);
    if (caller < 0) continue;
    if (write(caller, "hello\n", 6) != 6) exit(2);
    close(caller);
  }
}
"#;

/// First connections to a workload that sleeps, all at once; then single ones while it is awake.
pub(crate) fn wake() -> Result<Vec<Row>> {
    let instance = Instance::up()?;
    let (source, program) = (instance.home().join("greeter.c"), instance.home().join("greeter"));
    std::fs::write(&source, PROGRAM)?;
    run("cc", &["-O2", "-static", "-o", &program.to_string_lossy(), &source.to_string_lossy()])?;
    let port = format!("{}:8080", shipway_tests::free_port()?);
    instance.ok(&["run", &program.to_string_lossy(), "--name", "greeter", "--port", &port, "--detach"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(pods::client(instance.home()))?;
    runtime.block_on(measure(&client))
}

async fn measure(client: &Client) -> Result<Vec<Row>> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let spec = services.get("greeter").await?.spec.context("a service without a specification")?;
    let port = spec.ports.iter().flatten().next().context("a service without a port")?.port;
    let address = spec.cluster_ip.context("a service without an address")?;
    let address = SocketAddr::new(address.parse()?, u16::try_from(port)?);
    let (through, straight) = warm(client, address).await?;
    annotate(client, json!("2s")).await?;
    let mut first = Vec::new();
    for _ in 0..NIGHTS {
        asleep(client).await?;
        let answers = join_all((0..CALLERS).map(|_| first_byte(address))).await;
        let mut times = answers.into_iter().collect::<Result<Vec<Duration>>>().context("somebody was refused")?;
        first.push(median(&mut times));
    }
    let added = through.saturating_sub(straight);
    println!("a connection until its first byte: {through:?} by service, {straight:?} by the pod's address");
    Ok(vec![
        ms("1,000 wake it at once -> first byte, p50", 250.0, median(&mut first)),
        ms("a service adds to a connection when awake, p50", 0.1, added),
    ])
}

/// The middle times until the first byte by the service's address and by the pod's, taken in turn.
async fn warm(client: &Client, service: SocketAddr) -> Result<(Duration, Duration)> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = pods.list(&ListParams::default()).await?.items.into_iter().next().context("there is no pod")?;
    let pod = pod.status.and_then(|status| status.pod_ip).context("a pod without an address")?;
    let pod = SocketAddr::new(pod.parse()?, 8080);
    let (mut through, mut straight) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        through.push(first_byte(service).await?);
        straight.push(first_byte(pod).await?);
    }
    Ok((median(&mut through), median(&mut straight)))
}

async fn first_byte(address: SocketAddr) -> Result<Duration> {
    let start = Instant::now();
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await
    };
    timeout(PATIENCE, asked).await.context("no answer")??;
    Ok(start.elapsed())
}

async fn annotate(client: &Client, value: serde_json::Value) -> Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let patch = json!({"metadata": {"annotations": {"shipway.io/sleep-after": value}}});
    deployments.patch("greeter", &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Waits until no pod is left.
async fn asleep(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let start = Instant::now();
    while !pods.list(&ListParams::default()).await?.items.is_empty() {
        ensure!(start.elapsed() < PATIENCE, "it does not sleep");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
