//! `shipway join`: this machine becomes a node of a cluster elsewhere. It first learns whom to trust, by the digest that came with
//! the token, then asks by the token for a certificate of its own; from then on the certificate is all it needs.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shipway_apiserver::pki::{KeyPairPem, key_digest, node_request};
use shipway_network::NetworkConfig;

use super::identity::{self, Credentials};
use super::process::{self, Facts};
use super::token::{ClusterNetwork, INFO, NETWORK};
use crate::cli::JoinArgs;
use crate::down::layout;
use crate::home::{Home, private_folder};
use crate::instance::claim_id;
use crate::listings::{is_ready, node_name};
use crate::output::{one_line, write_out};

/// How long the cluster may take to give the certificate, and then to see the node ready.
const PATIENCE: Duration = Duration::from_mins(1);
/// How soon a node that failed is begun anew.
const AGAIN: Duration = Duration::from_millis(200);

/// What a machine that joined remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Joined {
    name: String,
    api: SocketAddrV4,
    address: Ipv4Addr,
    network: ClusterNetwork,
}

impl Joined {
    /// What this home remembers, if it ever joined.
    pub(crate) fn load(home: &Home) -> Result<Option<Self>> {
        let path = home.path("joined.json");
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => {
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                Ok(Some(serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?))
            }
        }
    }

    fn save(&self, home: &Home) -> Result<()> {
        let (path, fresh) = (home.path("joined.json"), home.path("joined.json.new"));
        std::fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where the cluster's API answers.
    pub(crate) fn server(&self) -> String {
        format!("https://{}", self.api)
    }

    pub(crate) fn network(&self, home: &Home) -> NetworkConfig {
        self.network.on(home)
    }

    fn facts(&self, home: &Home) -> Facts {
        Facts {
            name: self.name.clone(),
            folder: home.root().to_owned(),
            images: (home.path("content"), home.path("layers")),
            collects: Some(home.nodes()),
            layout: layout(home),
            network: self.network(home),
            api: self.api,
            address: self.address.into(),
        }
    }
}

/// `shipway join`.
pub(crate) async fn join(home: &Home, args: &JoinArgs) -> Result<()> {
    if home.path("instance.json").exists() {
        bail!("{} is an engine's home; join with another --home", home.root().display());
    }
    if let Some(joined) = Joined::load(home)? {
        bail!("{} is the home of node {} already; `shipway up` starts it", home.root().display(), joined.name);
    }
    let api = place_of(&args.server)?;
    let (ca, network) = discover(&args.server, &args.ca_cert_hash).await?;
    let name = args.name.clone().unwrap_or_else(node_name);
    let pair = introduce(&args.server, &ca, &args.token, &name).await?;
    private_folder(&home.path("pki"))?;
    identity::write(&home.path("pki"), &ca, &pair)?;
    let joined = Joined { name, api, address: address_toward(api)?, network };
    joined.save(home)?;
    start(home, &joined).await
}

/// Starts the node of a home that has joined, unless it runs, and waits until the cluster sees it ready.
pub(crate) async fn start(home: &Home, joined: &Joined) -> Result<()> {
    if home.engine()?.is_none() {
        spawn(home)?;
    }
    let client = Credentials::read(&home.path("pki"))?.client(&joined.server()).await?;
    let ready = |node: Option<&Node>| node.is_some_and(is_ready);
    let waited = tokio::time::timeout(PATIENCE, await_condition(Api::all(client), &joined.name, ready)).await;
    waited
        .with_context(|| format!("the node is not ready after {PATIENCE:?}; see {}", home.path("logs").display()))??;
    write_out(&format!("node {} is ready in the cluster at {}\n", joined.name, joined.server()))
}

fn spawn(home: &Home) -> Result<()> {
    private_folder(&home.path("logs"))?;
    let path = home.path("logs").join("node.log");
    let log = File::options().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["node", "stay", "--home"]).arg(home.root()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("cannot start the node")?;
    Ok(())
}

/// `shipway node stay`: the process of a node that joined. A part that fails, or a certificate that was renewed, makes it begin
/// anew.
pub(crate) async fn stay(home: &Home) -> Result<()> {
    let _lock = home.lock()?;
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "already a session of its own");
    }
    claim_id(home)?;
    let joined = Joined::load(home)?.context("this home has joined no cluster")?;
    process::prepare();
    while let Err(error) = process::run(joined.facts(home)).await {
        tracing::warn!(error = one_line(&error), "the node begins anew");
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// The address behind a URL.
fn place_of(server: &str) -> Result<SocketAddrV4> {
    let rest = server.strip_prefix("https://").with_context(|| format!("{server:?} is not https://HOST:PORT"))?;
    let places = rest.trim_end_matches('/').to_socket_addrs();
    let mut places = places.with_context(|| format!("cannot find {server:?}; write https://HOST:PORT"))?;
    let found = places.find_map(|place| match place {
        SocketAddr::V4(place) => Some(place),
        SocketAddr::V6(_) => None,
    });
    found.with_context(|| format!("{server:?} has no IPv4 address"))
}

/// The address from which this machine reaches the API, and under which nodes reach it.
fn address_toward(api: SocketAddrV4) -> Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(api).with_context(|| format!("there is no way to {api}"))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Ok(address),
        other => bail!("{other} is not an address at which other nodes reach this machine"),
    }
}

/// Learns the cluster's authority and network. Nobody is trusted and nothing is told before the authority's key is the one that
/// was named.
async fn discover(server: &str, digest: &str) -> Result<(String, ClusterNetwork)> {
    let mut config = Config::new(server.parse().with_context(|| format!("{server:?} is no URL"))?);
    config.accept_invalid_certs = true;
    let (namespace, name) = INFO;
    let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(config)?, namespace);
    let asked = tokio::time::timeout(PATIENCE, maps.get(name)).await.context("the cluster does not answer")?;
    let map =
        asked.with_context(|| format!("cannot ask {server} about its cluster; `shipway token create` tells it"))?;
    let data = map.data.unwrap_or_default();
    let told = |key: &str| data.get(key).with_context(|| format!("the cluster does not tell its {key}"));
    let kubeconfig: Kubeconfig = serde_json::from_str(told("kubeconfig")?).context("the cluster's kubeconfig")?;
    let cluster = kubeconfig.clusters.into_iter().next().and_then(|named| named.cluster);
    let encoded =
        cluster.and_then(|cluster| cluster.certificate_authority_data).context("the cluster names no authority")?;
    let ca = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded)?)?;
    let found = key_digest(&ca)?;
    ensure!(found == digest, "the cluster's authority is {found}, not {digest}: somebody else answers at {server}");
    // What it tells of its network is believed only from the one that was named.
    let network = ask_again(server, &ca).await?;
    Ok((ca, network))
}

async fn ask_again(server: &str, ca: &str) -> Result<ClusterNetwork> {
    let (namespace, name) = INFO;
    let maps: Api<ConfigMap> = Api::namespaced(Client::try_from(trusting(server, ca)?)?, namespace);
    let data = maps.get(name).await.context("cannot ask the cluster about its network")?.data.unwrap_or_default();
    let text = data.get(NETWORK).context("the cluster does not tell its network")?;
    serde_json::from_str(text).context("the cluster's network")
}

fn trusting(server: &str, ca: &str) -> Result<Config> {
    let mut config = Config::new(server.parse()?);
    config.root_cert = Some(identity::certificates(ca)?);
    Ok(config)
}

/// Asks by the token for the certificate of a new node.
async fn introduce(server: &str, ca: &str, token: &str, name: &str) -> Result<KeyPairPem> {
    let mut config = trusting(server, ca)?;
    config.auth_info.token = Some(token.to_owned().into());
    let client = Client::try_from(config)?;
    request(&client, name).await.context("the cluster gives this machine no certificate; is the token still good?")
}

/// Asks for a client certificate of the node of that name, and waits for it.
pub(crate) async fn request(client: &Client, name: &str) -> Result<KeyPairPem> {
    let (key, request) = node_request(name)?;
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let asked = json!({
        "metadata": {"generateName": "node-csr-"},
        "spec": {
            "request": base64::engine::general_purpose::STANDARD.encode(request),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    });
    let made = requests.create(&PostParams::default(), &serde_json::from_value(asked)?).await?;
    let id = made.metadata.name.context("the request has no name")?;
    let settled = |request: Option<&CertificateSigningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        let refused = |kind: &str| matches!(kind, "Denied" | "Failed");
        status.is_some_and(|status| {
            let conditions = status.conditions.iter().flatten();
            status.certificate.is_some() || conditions.into_iter().any(|condition| refused(&condition.type_))
        })
    };
    let waited = tokio::time::timeout(PATIENCE, await_condition(requests, &id, settled)).await;
    let answered = waited.with_context(|| format!("nobody has signed the request {id} after {PATIENCE:?}"))??;
    let certificate = answered.and_then(|request| request.status?.certificate);
    let certificate = certificate.with_context(|| format!("the request {id} was refused"))?;
    Ok(KeyPairPem { certificate: String::from_utf8(certificate.0)?, key })
}
