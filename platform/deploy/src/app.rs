//! An app as data, and the objects it becomes.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::DeployError;

/// The field manager of everything this crate applies.
pub const MANAGER: &str = "shipway";
/// The label that tells an app's pods, as Metaparticle sets it.
pub(crate) const APP_LABEL: &str = "app";
/// The label of the objects that this crate made.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Asks the node to find out which ports the pod listens on, and to call it ready once it does.
pub(crate) const PORTS_ANNOTATION: &str = "shipway.dev/ports";
/// Where the node says which ports it found: `"8080,9090"`.
pub(crate) const LISTENING_ANNOTATION: &str = "shipway.dev/listening";

/// A port that an app is reached on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port of the service, outside.
    pub published: u16,
    /// The port that the program listens on.
    pub target: u16,
}

impl std::str::FromStr for Port {
    type Err = String;

    /// Reads `8080` or `80:8080` (published:target).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |part: &str| match part.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("{part:?} is not a port; write 8080, or 80:8080 for published:target")),
        };
        let (published, target) = text.split_once(':').unwrap_or((text, text));
        Ok(Self { published: port(published)?, target: port(target)? })
    }
}

/// The ports of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ports {
    /// Those that the program is seen to listen on.
    Discover,
    /// These.
    Fixed(Vec<Port>),
}

/// How a program wants to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Name of the app, and of its Deployment and Service; a DNS label.
    pub name: String,
    /// Namespace of its objects.
    pub namespace: String,
    /// Image reference, best with a digest.
    pub image: String,
    /// Environment variables beside the image's own.
    pub env: Vec<(String, String)>,
    /// How it is reached.
    pub ports: Ports,
    /// How many copies run.
    pub replicas: u32,
    /// Processor limit a replica, as a Kubernetes quantity (`500m`).
    pub cpu: Option<String>,
    /// Memory limit a replica, as a Kubernetes quantity (`128Mi`).
    pub memory: Option<String>,
}

impl App {
    /// The Deployment as it is applied.
    pub(crate) fn deployment(&self) -> Value {
        let mut container = json!({
            "name": self.name,
            "image": self.image,
            "env": self.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
        });
        if let Some(limits) = self.limits() {
            container["resources"] = json!({ "limits": limits });
        }
        let mut annotations = json!({});
        match &self.ports {
            Ports::Discover => annotations[PORTS_ANNOTATION] = json!("discover"),
            Ports::Fixed(ports) => {
                container["ports"] = ports.iter().map(|port| json!({"containerPort": port.target})).collect();
                if let Some(first) = ports.first() {
                    container["readinessProbe"] = json!({"tcpSocket": {"port": first.target}, "periodSeconds": 2});
                }
            }
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": self.labels() },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": { APP_LABEL: self.name } },
                // An answering replica goes only when another answers in its place.
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
                "template": {
                    "metadata": { "labels": self.labels(), "annotations": annotations },
                    "spec": { "containers": [container] },
                },
            },
        })
    }

    /// The Service over `ports` as it is applied; none without a port.
    pub(crate) fn service(&self, ports: &[Port]) -> Option<Value> {
        if ports.is_empty() {
            return None;
        }
        let ports: Vec<Value> = ports
            .iter()
            .map(|port| {
                json!({
                    "name": format!("port-{}", port.published),
                    "port": port.published,
                    "targetPort": port.target,
                    "protocol": "TCP",
                })
            })
            .collect();
        Some(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": self.labels() },
            "spec": { "type": "LoadBalancer", "selector": { APP_LABEL: self.name }, "ports": ports },
        }))
    }

    fn labels(&self) -> Value {
        json!({ APP_LABEL: self.name, "app.kubernetes.io/name": self.name, MANAGED_BY: MANAGER })
    }

    fn limits(&self) -> Option<Value> {
        let mut limits = serde_json::Map::new();
        for (resource, quantity) in [("cpu", &self.cpu), ("memory", &self.memory)] {
            if let Some(quantity) = quantity {
                limits.insert(resource.to_owned(), json!(quantity));
            }
        }
        (!limits.is_empty()).then_some(Value::Object(limits))
    }
}

/// Applies the Deployment of `app`.
pub(crate) async fn apply_deployment(client: &kube::Client, app: &App) -> Result<Deployment, DeployError> {
    apply(client, app, &app.deployment()).await
}

/// Applies the Service of `app` over `ports`, where there are any.
pub(crate) async fn apply_service(
    client: &kube::Client,
    app: &App,
    ports: &[Port],
) -> Result<Option<Service>, DeployError> {
    match app.service(ports) {
        Some(service) => apply(client, app, &service).await.map(Some),
        None => Ok(None),
    }
}

async fn apply<K>(client: &kube::Client, app: &App, object: &Value) -> Result<K, DeployError>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: kube::Api<K> = kube::Api::namespaced(client.clone(), &app.namespace);
    let parameters = kube::api::PatchParams::apply(MANAGER).force();
    let what = K::kind(&());
    api.patch(&app.name, &parameters, &kube::api::Patch::Apply(object))
        .await
        .map_err(|source| DeployError::api(&format!("apply {what} {}", app.name), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> App {
        App {
            name: "web".into(),
            namespace: "default".into(),
            image: "shipway.local/web:latest".into(),
            env: vec![("A".into(), "1".into())],
            ports: Ports::Discover,
            replicas: 3,
            cpu: None,
            memory: Some("64Mi".into()),
        }
    }

    #[test]
    fn a_port_is_read_alone_or_as_published_and_target() {
        assert_eq!("8080".parse(), Ok(Port { published: 8080, target: 8080 }));
        assert_eq!("80:8080".parse(), Ok(Port { published: 80, target: 8080 }));
        for bad in ["", "0", "x", "80:", "70000", "80:80:80"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_replica_never_goes_before_another_answers() {
        let strategy = &app().deployment()["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(strategy["maxUnavailable"], 0);
        assert_eq!(strategy["maxSurge"], 1);
    }

    #[test]
    fn unknown_ports_are_asked_for_and_known_ones_are_probed() {
        let mut app = app();
        let template = &app.deployment()["spec"]["template"];
        assert_eq!(template["metadata"]["annotations"][PORTS_ANNOTATION], "discover");
        assert!(template["spec"]["containers"][0].get("readinessProbe").is_none());
        app.ports = Ports::Fixed(vec![Port { published: 80, target: 8080 }]);
        let template = &app.deployment()["spec"]["template"];
        assert!(template["metadata"]["annotations"].get(PORTS_ANNOTATION).is_none());
        assert_eq!(template["spec"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"], 8080);
    }

    #[test]
    fn only_the_limits_that_were_given_are_set() {
        let limits = app().deployment()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].clone();
        assert_eq!(limits, json!({ "memory": "64Mi" }));
    }

    #[test]
    fn an_app_without_ports_has_no_service() {
        assert!(app().service(&[]).is_none());
        let service = app().service(&[Port { published: 80, target: 8080 }]).unwrap();
        assert_eq!(service["spec"]["ports"][0]["targetPort"], 8080);
    }
}
