//! What the cluster's names stand for: services, their ports and endpoints, and addresses back to names.
//!
//! Names come in as lower-case labels and go out as facts; messages are the business of `answer`.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::config::{NetworkConfig, Subnet, contains};
use crate::rules::Protocol;

/// The version of the rules for names that we keep to: <https://github.com/kubernetes/dns/blob/master/docs/specification.md>
const VERSION: &str = "1.1.0";

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRecord {
    /// The port's name; unnamed ports have no SRV record.
    pub name: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// One endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRecord {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its own name below the service's; without one the address, with dashes, is its name.
    pub hostname: Option<String>,
    /// Its ports.
    pub ports: Vec<PortRecord>,
}

impl EndpointRecord {
    /// The label below the service's name.
    pub(super) fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| self.address.to_string().replace('.', "-"))
    }
}

/// What DNS says about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRecords {
    /// The service address; none for headless and external-name services.
    pub cluster_address: Option<Ipv4Addr>,
    /// The name outside of the cluster that this service is an alias of.
    pub external_name: Option<String>,
    /// The service's own ports.
    pub ports: Vec<PortRecord>,
    /// The ready endpoints of a headless service.
    pub endpoints: Vec<EndpointRecord>,
}

/// A target of an SRV record: priority and weight are the same for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Labels before the cluster domain, without it.
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) address: Ipv4Addr,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Addresses; the name exists even without any.
    Addresses(Vec<Ipv4Addr>),
    /// Ports at targets.
    Targets(Vec<Target>),
    /// Another name.
    Alias(String),
    /// An address's names, without the cluster domain.
    Names(Vec<String>),
    /// A text.
    Text(&'static str),
    /// The name exists and has no records.
    Nothing,
    /// There is no such name.
    Missing,
    /// Not ours to say.
    Elsewhere,
}

/// The names of one cluster.
#[derive(Debug)]
pub struct Zone {
    domain: Vec<String>,
    subnets: [Subnet; 2],
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By namespace, then name.
    services: BTreeMap<String, HashMap<String, ServiceRecords>>,
    /// The names of service addresses and of endpoints of headless services.
    names: HashMap<Ipv4Addr, Vec<String>>,
}

impl Zone {
    /// No service yet.
    pub fn new(config: &NetworkConfig) -> Self {
        let domain = config.cluster_domain.trim_end_matches('.').to_ascii_lowercase();
        Self {
            domain: domain.split('.').map(str::to_owned).collect(),
            subnets: [config.pod_subnet, config.service_subnet],
            table: RwLock::default(),
        }
    }

    /// The cluster domain, without a dot at its end.
    pub fn domain(&self) -> String {
        self.domain.join(".")
    }

    /// Says what the names of a service stand for.
    pub fn set(&self, namespace: &str, name: &str, records: ServiceRecords) {
        let mut table = self.write();
        table.forget(namespace, name);
        for (address, full) in names_of(namespace, name, &records) {
            table.names.entry(address).or_default().push(full);
        }
        table.services.entry(namespace.to_owned()).or_default().insert(name.to_owned(), records);
    }

    /// Forgets a service.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.write().forget(namespace, name);
    }

    /// Forgets every service for which `keep(namespace, name)` is false.
    pub fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        let mut table = self.write();
        let stale: Vec<(String, String)> = table
            .services
            .iter()
            .flat_map(|(namespace, services)| services.keys().map(move |name| (namespace.clone(), name.clone())))
            .filter(|(namespace, name)| !keep(namespace, name))
            .collect();
        for (namespace, name) in stale {
            table.forget(&namespace, &name);
        }
    }

    /// What the name with these labels, the host's label first, stands for.
    pub(super) fn meaning(&self, labels: &[&str]) -> Meaning {
        if let [rest @ .., "in-addr", "arpa"] = labels {
            return self.meaning_of_address(rest);
        }
        let Some(at) = labels.len().checked_sub(self.domain.len()) else { return Meaning::Elsewhere };
        let (ours, domain) = labels.split_at(at);
        if domain.iter().ne(self.domain.iter()) {
            return Meaning::Elsewhere;
        }
        match ours {
            ["dns-version"] => Meaning::Text(VERSION),
            [] | ["svc" | "pod"] | [_, "pod"] => Meaning::Nothing,
            [.., "svc"] => self.read().meaning_below_services(&ours[..ours.len() - 1]),
            [address, _, "pod"] => {
                dashed(address).map_or(Meaning::Missing, |address| Meaning::Addresses(vec![address]))
            }
            _ => Meaning::Missing,
        }
    }

    fn meaning_of_address(&self, labels: &[&str]) -> Meaning {
        let mut octets: Vec<&str> = labels.to_vec();
        octets.reverse();
        let Ok(address) = octets.join(".").parse::<Ipv4Addr>() else { return Meaning::Elsewhere };
        if !self.subnets.iter().any(|subnet| contains(*subnet, address)) {
            return Meaning::Elsewhere;
        }
        self.read().names.get(&address).map_or(Meaning::Missing, |names| Meaning::Names(names.clone()))
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn forget(&mut self, namespace: &str, name: &str) {
        let Some(services) = self.services.get_mut(namespace) else { return };
        let Some(records) = services.remove(name) else { return };
        if services.is_empty() {
            self.services.remove(namespace);
        }
        for (address, full) in names_of(namespace, name, &records) {
            if let Some(names) = self.names.get_mut(&address) {
                names.retain(|known| *known != full);
                if names.is_empty() {
                    self.names.remove(&address);
                }
            }
        }
    }

    /// `labels` end with the namespace.
    fn meaning_below_services(&self, labels: &[&str]) -> Meaning {
        let (Some((namespace, rest)), missing) = (labels.split_last(), Meaning::Missing) else {
            return Meaning::Nothing;
        };
        let Some(services) = self.services.get(*namespace) else { return missing };
        let Some((service, rest)) = rest.split_last() else { return Meaning::Nothing };
        let Some(records) = services.get(*service) else { return missing };
        let base = format!("{service}.{namespace}.svc");
        match rest {
            [] => records.own_meaning(),
            [protocol] if records.has_protocol(protocol) => Meaning::Nothing,
            [port, protocol] if protocol.starts_with('_') => records.targets(port, protocol, &base),
            [label] => records.endpoint_meaning(label),
            _ => missing,
        }
    }
}

impl ServiceRecords {
    fn own_meaning(&self) -> Meaning {
        if let Some(alias) = &self.external_name {
            return Meaning::Alias(alias.clone());
        }
        match self.cluster_address {
            Some(address) => Meaning::Addresses(vec![address]),
            None => Meaning::Addresses(distinct(self.endpoints.iter().map(|endpoint| endpoint.address))),
        }
    }

    fn endpoint_meaning(&self, label: &str) -> Meaning {
        let named = self.endpoints.iter().filter(|endpoint| endpoint.label() == label);
        let addresses = distinct(named.map(|endpoint| endpoint.address));
        if addresses.is_empty() { Meaning::Missing } else { Meaning::Addresses(addresses) }
    }

    fn has_protocol(&self, label: &str) -> bool {
        let every = self.ports.iter().chain(self.endpoints.iter().flat_map(|endpoint| &endpoint.ports));
        label.strip_prefix('_').is_some_and(|name| every.into_iter().any(|port| port.protocol.name() == name))
    }

    fn targets(&self, port: &str, protocol: &str, base: &str) -> Meaning {
        let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
            return Meaning::Missing;
        };
        let asked = |known: &&PortRecord| known.name == port && known.protocol.name() == protocol && !port.is_empty();
        let mut targets = Vec::new();
        if let Some(address) = self.cluster_address {
            let own = self.ports.iter().filter(asked);
            targets.extend(own.map(|port| Target { name: base.to_owned(), port: port.port, address }));
        }
        for endpoint in &self.endpoints {
            let name = format!("{}.{base}", endpoint.label());
            let own = endpoint.ports.iter().filter(asked);
            targets.extend(own.map(|port| Target { name: name.clone(), port: port.port, address: endpoint.address }));
        }
        if targets.is_empty() { Meaning::Missing } else { Meaning::Targets(targets) }
    }
}

fn names_of(namespace: &str, name: &str, records: &ServiceRecords) -> Vec<(Ipv4Addr, String)> {
    let base = format!("{name}.{namespace}.svc");
    let own = records.cluster_address.map(|address| (address, base.clone()));
    let peers = records.endpoints.iter().map(|endpoint| (endpoint.address, format!("{}.{base}", endpoint.label())));
    own.into_iter().chain(peers).collect()
}

fn distinct(addresses: impl Iterator<Item = Ipv4Addr>) -> Vec<Ipv4Addr> {
    let mut all: Vec<Ipv4Addr> = addresses.collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Reads `10-1-2-3`.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok().filter(|_| !label.contains('.'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::dns) fn zone() -> Zone {
        let zone = Zone::new(&NetworkConfig {
            instance: "0a1b2c".to_owned(),
            pod_subnet: (Ipv4Addr::new(10, 73, 0, 0), 17),
            cluster_subnet: (Ipv4Addr::new(10, 73, 0, 0), 17),
            underlay: None,
            overlay: 0x000a_1b2c,
            api_endpoint: None,
            service_subnet: (Ipv4Addr::new(10, 73, 128, 0), 17),
            dns_address: Ipv4Addr::new(10, 73, 128, 10),
            api_address: Ipv4Addr::new(10, 73, 128, 1),
            cluster_domain: "Cluster.local.".to_owned(),
        });
        let http = |port| PortRecord { name: "http".to_owned(), protocol: Protocol::Tcp, port };
        let web = ServiceRecords {
            cluster_address: Some(Ipv4Addr::new(10, 73, 128, 20)),
            ports: vec![http(80)],
            ..ServiceRecords::default()
        };
        let endpoint = |last, hostname: Option<&str>| EndpointRecord {
            address: Ipv4Addr::new(10, 73, 0, last),
            hostname: hostname.map(str::to_owned),
            ports: vec![http(8080)],
        };
        let peers = vec![endpoint(2, Some("db-0")), endpoint(3, None)];
        zone.set("default", "web", web);
        zone.set("default", "db", ServiceRecords { endpoints: peers, ..ServiceRecords::default() });
        let outside = Some("www.example.com".to_owned());
        zone.set("default", "outside", ServiceRecords { external_name: outside, ..ServiceRecords::default() });
        let inside = Some("web.default.svc.cluster.local".to_owned());
        zone.set("default", "inside", ServiceRecords { external_name: inside, ..ServiceRecords::default() });
        zone
    }

    fn meaning(zone: &Zone, name: &str) -> Meaning {
        zone.meaning(&name.split('.').collect::<Vec<_>>())
    }

    #[test]
    fn names_mean_what_kubernetes_says() {
        let zone = zone();
        let address = |last| Ipv4Addr::new(10, 73, 0, last);
        let of = |name: &str| meaning(&zone, &format!("{name}.cluster.local"));
        assert_eq!(of("web.default.svc"), Meaning::Addresses(vec![Ipv4Addr::new(10, 73, 128, 20)]));
        assert_eq!(of("db.default.svc"), Meaning::Addresses(vec![address(2), address(3)]));
        assert_eq!(of("db-0.db.default.svc"), Meaning::Addresses(vec![address(2)]));
        assert_eq!(of("10-73-0-3.db.default.svc"), Meaning::Addresses(vec![address(3)]));
        assert_eq!(of("outside.default.svc"), Meaning::Alias("www.example.com".to_owned()));
        assert_eq!(of("10-1-2-3.default.pod"), Meaning::Addresses(vec![Ipv4Addr::new(10, 1, 2, 3)]));
        for nothing in ["svc", "default.svc", "pod", "default.pod", "_tcp.web.default.svc"] {
            assert_eq!(of(nothing), Meaning::Nothing, "{nothing}");
        }
        for missing in ["x.default.svc", "web.x.svc", "a.b.web.default.svc", "x", "a.web.default.svc", "a.b.pod"] {
            assert_eq!(of(missing), Meaning::Missing, "{missing}");
        }
        assert_eq!(of("dns-version"), Meaning::Text("1.1.0"));
        assert_eq!(meaning(&zone, "cluster.local"), Meaning::Nothing);
        assert_eq!(meaning(&zone, "example.com"), Meaning::Elsewhere);
        assert_eq!(meaning(&zone, "local"), Meaning::Elsewhere);
    }

    #[test]
    fn ports_are_found_at_services_and_at_endpoints() {
        let zone = zone();
        let Meaning::Targets(one) = meaning(&zone, "_http._tcp.web.default.svc.cluster.local") else { panic!() };
        assert_eq!((one.len(), one[0].port), (1, 80));
        let Meaning::Targets(two) = meaning(&zone, "_http._tcp.db.default.svc.cluster.local") else { panic!() };
        assert_eq!(
            two.iter().map(|target| target.name.as_str()).collect::<Vec<_>>(),
            ["db-0.db.default.svc", "10-73-0-3.db.default.svc"]
        );
        assert_eq!(meaning(&zone, "_x._tcp.web.default.svc.cluster.local"), Meaning::Missing);
    }

    #[test]
    fn addresses_lead_back_to_names_until_the_service_is_gone() {
        let zone = zone();
        let back = |name: &str| meaning(&zone, &format!("{name}.in-addr.arpa"));
        assert_eq!(back("20.128.73.10"), Meaning::Names(vec!["web.default.svc".to_owned()]));
        assert_eq!(back("2.0.73.10"), Meaning::Names(vec!["db-0.db.default.svc".to_owned()]));
        assert_eq!(back("3.0.73.10"), Meaning::Names(vec!["10-73-0-3.db.default.svc".to_owned()]));
        assert_eq!(back("9.0.73.10"), Meaning::Missing);
        assert_eq!(back("1.1.1.1"), Meaning::Elsewhere);
        zone.remove("default", "web");
        assert_eq!(back("20.128.73.10"), Meaning::Missing);
        zone.retain(|_, _| false);
        assert_eq!(meaning(&zone, "db.default.svc.cluster.local"), Meaning::Missing);
    }
}
