//! Makes an app reachable: finds out its ports where they were not given, applies the Service and waits for its
//! outside address.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::time::timeout;

use crate::app::{APP_LABEL, App, LISTENING_ANNOTATION, Port, Ports, apply_service};
use crate::error::DeployError;

/// How long the outside address may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How an app is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The ports, first the one that is shown.
    pub ports: Vec<Port>,
    /// The outside address that the cluster gave the Service; none without a port.
    pub address: Option<String>,
}

/// Applies the Service of an app that is rolled out, and waits for its address.
pub async fn expose(client: &kube::Client, app: &App) -> Result<Exposed, DeployError> {
    let ports = match &app.ports {
        Ports::Fixed(ports) => ports.clone(),
        Ports::Discover => discovered(client, app).await?,
    };
    let Some(service) = apply_service(client, app, &ports).await? else {
        return Ok(Exposed { ports, address: None });
    };
    let waited = timeout(PATIENCE, address(client, app, &service, &ports)).await;
    let address = waited.unwrap_or(Ok(None))?;
    Ok(Exposed { ports, address })
}

/// The ports that the node saw the app's pods listen on.
async fn discovered(client: &kube::Client, app: &App) -> Result<Vec<Port>, DeployError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &app.namespace);
    let of_app = ListParams::default().labels(&format!("{APP_LABEL}={}", app.name));
    let pods = pods.list(&of_app).await.map_err(|source| DeployError::api("list the pods", source))?;
    let ports: BTreeSet<u16> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| pod.annotations().get(LISTENING_ANNOTATION))
        .flat_map(|list| list.split(','))
        .filter_map(|port| port.trim().parse().ok())
        .collect();
    Ok(ports.into_iter().map(|port| Port { published: port, target: port }).collect())
}

async fn address(
    client: &kube::Client,
    app: &App,
    service: &Service,
    ports: &[Port],
) -> Result<Option<String>, DeployError> {
    let services: Api<Service> = Api::namespaced(client.clone(), &app.namespace);
    let events: Api<Event> = Api::namespaced(client.clone(), &app.namespace);
    let this = watcher::Config::default().fields(&format!("metadata.name={}", app.name));
    let (uid, since) = (service.uid().unwrap_or_default(), last_change(service));
    let about = watcher::Config::default().fields(&format!("involvedObject.uid={uid}"));
    let services =
        watcher(services, this).default_backoff().applied_objects().map(|service| service.map(Seen::Service));
    let events = watcher(events, about).default_backoff().applied_objects().map(|event| event.map(Seen::Event));
    let mut seen = pin!(futures::stream::select(services, events));
    while let Some(seen) = seen.next().await {
        match seen {
            Ok(Seen::Service(service)) => {
                if let Some(address) = ingress(&service) {
                    return Ok(Some(address));
                }
            }
            Ok(Seen::Event(event)) if event.reason.as_deref() == Some("PortInUse") && is_newer(&event, since) => {
                return Err(taken(&event, ports));
            }
            Ok(Seen::Event(_)) | Err(_) => {}
        }
    }
    Ok(None)
}

/// When the Service's specification last changed, as its field managers say.
fn last_change(service: &Service) -> Option<Timestamp> {
    let managers = service.metadata.managed_fields.iter().flatten();
    let of_spec = managers.filter(|manager| manager.subresource.is_none());
    of_spec.filter_map(|manager| manager.time.as_ref()).map(|time| time.0).max()
}

/// Whether the event is about the Service as it is now, not about an earlier try.
fn is_newer(event: &Event, since: Option<Timestamp>) -> bool {
    match (event.last_timestamp.as_ref(), since) {
        // Both are whole seconds.
        (Some(last), Some(since)) => last.0.as_second() >= since.as_second(),
        _ => true,
    }
}

enum Seen {
    Service(Service),
    Event(Event),
}

fn ingress(service: &Service) -> Option<String> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    ingress.ip.clone().or_else(|| ingress.hostname.clone())
}

/// The port that the event names, else the first one.
fn taken(event: &Event, ports: &[Port]) -> DeployError {
    let message = event.message.as_deref().unwrap_or("");
    let named =
        |port: &&Port| message.split(|c: char| !c.is_ascii_digit()).any(|word| word == port.published.to_string());
    let port = ports.iter().find(named).or(ports.first()).copied().unwrap_or(Port { published: 0, target: 0 });
    DeployError::PortTaken { port: port.published, target: port.target }
}
