//! `shipway token create`: a bootstrap token, with which another machine may ask to become a node, and what that machine has to
//! know before it can: where the cluster's addresses are, and whom to trust.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_apiserver::pki::{Authority, key_digest};
use shipway_network::{NetworkConfig, Subnet};

use crate::cli::TokenCommand;
use crate::client::connect;
use crate::home::Home;
use crate::instance::Instance;
use crate::output::write_out;

/// Where whoever wants to join finds what it has to know; the name that `kubeadm` uses.
pub(crate) const INFO: (&str, &str) = ("kube-public", "cluster-info");
/// What of it is about the network.
pub(crate) const NETWORK: &str = "network.json";
const MANAGER: &str = "shipway-token";

/// The network of a cluster as all of its nodes have to see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterNetwork {
    pods: Subnet,
    services: Subnet,
    dns: Ipv4Addr,
    api: Ipv4Addr,
    domain: String,
    overlay: u32,
}

impl ClusterNetwork {
    fn of(config: &NetworkConfig) -> Self {
        Self {
            pods: config.cluster_subnet,
            services: config.service_subnet,
            dns: config.dns_address,
            api: config.api_address,
            domain: config.cluster_domain.clone(),
            overlay: config.overlay,
        }
    }

    /// The same as a machine with that home has it. What its own pods get is not known yet.
    pub(crate) fn on(&self, home: &Home) -> NetworkConfig {
        NetworkConfig {
            instance: home.id().to_owned(),
            pod_subnet: self.pods,
            cluster_subnet: self.pods,
            underlay: None,
            overlay: self.overlay,
            api_endpoint: None,
            service_subnet: self.services,
            dns_address: self.dns,
            api_address: self.api,
            cluster_domain: self.domain.clone(),
        }
    }
}

/// `shipway token ...`.
pub(crate) async fn token(home: &Home, command: &TokenCommand) -> Result<()> {
    let TokenCommand::Create { ttl } = command;
    let client = connect(home).await?;
    let instance = Instance::load(home)?;
    let ca = Authority::open(&home.path("pki")).context("cannot open the certificate authority")?.ca_pem().to_owned();
    let listen = instance.listen.context(
        "the API listens on this machine only; `shipway down`, then `shipway up --listen ADDRESS` with one that others reach",
    )?;
    let server = format!("https://{listen}:{}", instance.api_port);
    publish(&client, &server, &ca, &ClusterNetwork::of(&instance.network(home))).await?;
    let (id, secret) = (random(6)?, random(16)?);
    let expiration = Timestamp::now().checked_add(SignedDuration::from_secs(ttl.as_secs().try_into()?));
    let expiration = expiration.context("the token would live too long")?;
    let token = json!({
        "metadata": {"name": format!("bootstrap-token-{id}")},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": format!("{expiration:.0}"),
            "usage-bootstrap-authentication": "true",
            "description": "made by shipway token create",
        },
    });
    let secrets: Api<Secret> = Api::namespaced(client, "kube-system");
    secrets.create(&PostParams::default(), &serde_json::from_value(token)?).await.context("cannot keep the token")?;
    write_out(&format!("shipway join {server} --token {id}.{secret} --ca-cert-hash {}\n", key_digest(&ca)?))
}

/// Letters and digits that nobody can guess.
fn random(count: usize) -> Result<String> {
    const SIGNS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = vec![0; count];
    let source = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    source.context("the system gives no random numbers")?;
    Ok(bytes.iter().map(|byte| char::from(SIGNS[usize::from(byte % 32)])).collect())
}

/// Writes down for everybody who asks what a machine has to know to join: none of it is secret.
async fn publish(client: &Client, server: &str, ca: &str, network: &ClusterNetwork) -> Result<()> {
    let (namespace, name) = INFO;
    let encoded = base64::engine::general_purpose::STANDARD.encode(ca);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "contexts": [], "users": [], "current-context": "",
        "clusters": [{"name": "", "cluster": {"server": server, "certificate-authority-data": encoded}}],
    });
    let data = json!({"kubeconfig": kubeconfig.to_string(), NETWORK: serde_json::to_string(network)?});
    let group = "rbac.authorization.k8s.io";
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get"]});
    let anybody = json!({"apiGroup": group, "kind": "Group", "name": "system:unauthenticated"});
    let known = json!({"apiGroup": group, "kind": "Group", "name": "system:authenticated"});
    let reference = json!({"apiGroup": group, "kind": "Role", "name": "shipway:cluster-info"});
    apply::<ConfigMap>(
        client,
        namespace,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data,
        }),
    )
    .await?;
    apply::<Role>(client, namespace, json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "shipway:cluster-info"}, "rules": [rule],
    }))
    .await?;
    apply::<RoleBinding>(
        client,
        namespace,
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "shipway:cluster-info"},
            "roleRef": reference, "subjects": [anybody, known],
        }),
    )
    .await
}

async fn apply<K>(client: &Client, namespace: &str, object: Value) -> Result<()>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
    applied.map(drop).with_context(|| format!("cannot write {namespace}/{name}"))
}
