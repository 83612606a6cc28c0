//! What an instance chose once and keeps: its subnets and its port.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use shipway_network::NetworkConfig;

use crate::home::{Home, lock_machine, private_folder};

/// The port of the API where nothing else is said and it is free.
const USUAL_PORT: u16 = 6443;
/// Where each home of this machine is written down, by id; a home that was removed is passed over.
const HOMES: &str = "/run/shipway/homes";
/// The port of the API on the network of this machine's nodes, where nobody else is.
const NODES_PORT: u16 = 443;
/// The domain of the cluster's names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// A network and the length of its prefix.
pub(crate) type Subnet = (Ipv4Addr, u8);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Instance {
    /// Where the addresses of all nodes' pods come from.
    pub(crate) pod_subnet: Subnet,
    pub(crate) service_subnet: Subnet,
    pub(crate) api_port: u16,
    /// The part of the pods' addresses that the engine's own node gives out; the rest is for further nodes. None in homes
    /// that were made before there were any: their node gives out all.
    #[serde(default)]
    pub(crate) node_subnet: Option<Subnet>,
    /// Where the API answers other machines too.
    #[serde(default)]
    pub(crate) listen: Option<Ipv4Addr>,
}

impl Instance {
    /// What an earlier engine chose.
    pub(crate) fn load(home: &Home) -> Result<Self> {
        let path = home.path("instance.json");
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Takes what was chosen before, else chooses; binds the port of the API, on loopback and where others are listened to.
    pub(crate) async fn open(
        home: &Home,
        api_port: Option<u16>,
        listen: Option<Ipv4Addr>,
    ) -> Result<(Self, Vec<TcpListener>)> {
        let before = if home.path("instance.json").exists() { Some(Self::load(home)?) } else { None };
        let _machine = lock_machine()?;
        let listener = bind(api_port, before.as_ref().map(|before| before.api_port))?;
        let port = listener.local_addr()?.port();
        let (pod_subnet, service_subnet, node_subnet) = match &before {
            Some(before) if others(home).contains(&before.service_subnet) => bail!(
                "another instance took {}/{} while this one was not known on this machine; remove one of them",
                before.service_subnet.0,
                before.service_subnet.1
            ),
            Some(before) => (before.pod_subnet, before.service_subnet, before.node_subnet),
            None => {
                let free = shipway_network::free_subnets(&others(home)).await;
                let (pods, services) = free.context("cannot choose the subnets")?;
                (pods, services, Some((pods.0, pods.1 + 1)))
            }
        };
        let listen = listen.or(before.and_then(|before| before.listen)).filter(|address| !address.is_loopback());
        let outside = listen.map(|address| bind_outside(address, port)).transpose()?;
        let instance = Self { pod_subnet, service_subnet, api_port: port, node_subnet, listen };
        claim_id(home)?;
        write(home, &instance)?;
        Ok((instance, std::iter::once(listener).chain(outside).collect()))
    }

    /// Address of the service `kubernetes`: the first of the service subnet.
    pub(crate) fn api_address(&self) -> Ipv4Addr {
        self.service_address(1)
    }

    /// Address of the name server.
    pub(crate) fn dns_address(&self) -> Ipv4Addr {
        self.service_address(10)
    }

    fn service_address(&self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.service_subnet.0.to_bits() + host)
    }

    /// What the engine's own node gives its pods.
    pub(crate) fn own_subnet(&self) -> Subnet {
        self.node_subnet.unwrap_or(self.pod_subnet)
    }

    /// Where the nodes of this machine have their own addresses: the last 256 of the pods' range, which no pod gets.
    fn underlay(&self) -> Option<Subnet> {
        self.node_subnet?;
        let last = self.pod_subnet.0.to_bits() | (u32::MAX >> self.pod_subnet.1);
        Some((Ipv4Addr::from_bits(last & !0xff), 24))
    }

    /// The network of the engine's own node.
    pub(crate) fn network(&self, home: &Home) -> NetworkConfig {
        NetworkConfig {
            instance: home.id().to_owned(),
            pod_subnet: self.own_subnet(),
            cluster_subnet: self.pod_subnet,
            underlay: self.underlay(),
            overlay: u32::from_str_radix(home.id(), 16).expect("an id is six hexadecimal digits"),
            api_endpoint: None,
            service_subnet: self.service_subnet,
            dns_address: self.dns_address(),
            api_address: self.api_address(),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
        }
    }

    /// Where the API is reached by the further nodes of this machine.
    pub(crate) fn api_for_nodes(&self, home: &Home) -> Option<SocketAddrV4> {
        Some(SocketAddrV4::new(self.network(home).node_address(1)?, NODES_PORT))
    }
}

/// The subnets of the other homes on this machine, running or not: what is down has its addresses in its store.
fn others(home: &Home) -> Vec<Subnet> {
    let pointers = std::fs::read_dir(HOMES).into_iter().flatten().filter_map(Result::ok);
    let homes = pointers.filter_map(|pointer| std::fs::read_to_string(pointer.path()).ok());
    let texts = homes
        .filter(|other| Path::new(other) != home.root())
        .filter_map(|other| std::fs::read(Path::new(&other).join("instance.json")).ok());
    let instances = texts.filter_map(|text| serde_json::from_slice::<Instance>(&text).ok());
    instances.flat_map(|other| [other.pod_subnet, other.service_subnet]).collect()
}

/// Takes the runtime folder, unless another home happens to have the same id, and leaves word of this home for others.
pub(crate) fn claim_id(home: &Home) -> Result<()> {
    private_folder(&home.run())?;
    private_folder(Path::new(HOMES))?;
    let (path, own) = (Path::new(HOMES).join(home.id()), home.root().display().to_string());
    match std::fs::read_to_string(&path) {
        Ok(other) if other != own && Path::new(&other).join("instance.json").exists() => {
            bail!("{own} has the same id ({}) as {other}; choose another folder with --home", home.id())
        }
        _ => std::fs::write(&path, own).with_context(|| format!("cannot write {}", path.display())),
    }
}

fn write(home: &Home, instance: &Instance) -> Result<()> {
    let (path, fresh) = (home.path("instance.json"), home.path("instance.json.new"));
    std::fs::write(&fresh, serde_json::to_vec_pretty(instance)?)?;
    std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
}

fn bind_outside(address: Ipv4Addr, port: u16) -> Result<TcpListener> {
    if address.is_unspecified() {
        bail!("--listen takes one address of this machine, by which others know it");
    }
    let listener = TcpListener::bind((address, port));
    let listener = listener.with_context(|| format!("cannot listen on {address}:{port}; is it this machine's?"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A port that was asked for must be free; the usual one or that of before may give way to a free one.
fn bind(asked: Option<u16>, before: Option<u16>) -> Result<TcpListener> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match asked {
        Some(port) => bind(port).with_context(|| format!("port {port} is already taken; try --api-port 0"))?,
        None => bind(before.unwrap_or(USUAL_PORT)).or_else(|_| bind(0)).context("no port is free on 127.0.0.1")?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}
