//! The files a pod gets from the node: /etc/hosts, /etc/hostname, /etc/resolv.conf.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod;

/// More than this many name servers or so long a search list no resolver reads.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;

/// What the files say beyond the pod itself.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) node: String,
    pub(crate) cluster_domain: String,
    pub(crate) dns_address: Ipv4Addr,
}

/// Writes the three files into `folder`; returns each with its place in the container.
pub(crate) fn write(
    folder: &Path,
    pod: &Pod,
    address: Option<Ipv4Addr>,
    names: &Names,
) -> std::io::Result<Vec<(PathBuf, &'static str)>> {
    std::fs::create_dir_all(folder)?;
    let host_resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let host_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let hostname = pod::kernel_hostname(pod, &names.node, &names.cluster_domain);
    let files = [
        ("hosts", hosts(pod, address, names, &host_hosts), "/etc/hosts"),
        ("hostname", format!("{}\n", hostname.map_err(std::io::Error::other)?), "/etc/hostname"),
        ("resolv.conf", resolv_conf(pod, names, &host_resolv), "/etc/resolv.conf"),
    ];
    let mut places = Vec::new();
    for (name, text, place) in files {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        places.push((path, place));
    }
    Ok(places)
}

fn hosts(pod: &Pod, address: Option<Ipv4Addr>, names: &Names, host: &str) -> String {
    let mut text = if pod::host_network(pod) { host.to_owned() } else { own_hosts(pod, address, names) };
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    for (number, alias) in aliases.enumerate() {
        if number == 0 {
            text.push_str("\n# The pod's hostAliases.\n");
        }
        let hostnames = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        writeln!(text, "{}\t{hostnames}", alias.ip).expect("a string takes all that is written");
    }
    text
}

fn own_hosts(pod: &Pod, address: Option<Ipv4Addr>, names: &Names) -> String {
    let mut text = "# Written by Shipway for this pod.\n127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        .to_owned();
    if let Some(address) = address {
        let hostname = pod::hostname(pod, &names.node);
        let full = pod::fully_qualified(pod, &names.node, &names.cluster_domain);
        let full = full.map(|name| format!("{name}\t")).unwrap_or_default();
        writeln!(text, "{address}\t{full}{hostname}").expect("a string takes all that is written");
    }
    text
}

/// A resolver's configuration, in the parts that pods may change.
#[derive(Clone, Debug, Default, PartialEq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => resolver.searches = words.map(str::to_owned).collect(),
                Some("options") => resolver.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolver
    }

    fn adjust(&mut self, config: &PodDNSConfig) {
        self.servers.extend(config.nameservers.iter().flatten().cloned());
        self.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            self.options.retain(|known| known.split(':').next() != Some(name));
            self.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let distinct = |list: &[String], most: usize| {
            let mut seen: Vec<String> = Vec::new();
            for each in list {
                if !seen.contains(each) && seen.len() < most {
                    seen.push(each.clone());
                }
            }
            seen
        };
        let searches = distinct(&self.searches, MOST_SEARCHES);
        if !searches.is_empty() {
            writeln!(text, "search {}", searches.join(" ")).expect("a string takes all that is written");
        }
        for server in distinct(&self.servers, MOST_SERVERS) {
            writeln!(text, "nameserver {server}").expect("a string takes all that is written");
        }
        if !self.options.is_empty() {
            writeln!(text, "options {}", self.options.join(" ")).expect("a string takes all that is written");
        }
        text
    }
}

fn resolv_conf(pod: &Pod, names: &Names, host: &str) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host = Resolver::parse(host);
    let mut resolver = match policy {
        "None" => Resolver::default(),
        "ClusterFirst" if pod::host_network(pod) => host,
        "Default" => host,
        _ => {
            let domain = &names.cluster_domain;
            let own = [format!("{}.svc.{domain}", pod::namespace(pod)), format!("svc.{domain}"), domain.clone()];
            Resolver {
                servers: vec![names.dns_address.to_string()],
                searches: own.into_iter().chain(host.searches).collect(),
                options: vec!["ndots:5".to_owned()],
            }
        }
    };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        resolver.adjust(config);
    }
    resolver.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn names() -> Names {
        Names {
            node: "here".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            dns_address: Ipv4Addr::new(10, 0, 0, 10),
        }
    }

    fn pod(spec: &Value) -> Pod {
        let mut whole = json!({"containers": []});
        whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": whole})).expect("a pod")
    }

    const HOST: &str = "# mine\nnameserver 1.1.1.1\nsearch example.org\noptions edns0\n";

    #[test]
    fn cluster_first_asks_the_cluster_and_searches_its_domains() {
        assert_eq!(
            resolv_conf(&pod(&json!({})), &names(), HOST),
            "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.0.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn other_policies_take_the_host_or_nothing() {
        let default = "search example.org\nnameserver 1.1.1.1\noptions edns0\n";
        assert_eq!(resolv_conf(&pod(&json!({"dnsPolicy": "Default"})), &names(), HOST), default);
        assert_eq!(resolv_conf(&pod(&json!({"hostNetwork": true})), &names(), HOST), default);
        let config = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["a.b"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}});
        let own = "search a.b\nnameserver 9.9.9.9\noptions ndots:2 rotate\n";
        assert_eq!(resolv_conf(&pod(&config), &names(), HOST), own);
    }

    #[test]
    fn hosts_knows_the_pod_and_its_aliases() {
        let spec = json!({"subdomain": "db", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let text = hosts(&pod(&spec), Some(Ipv4Addr::new(10, 0, 0, 7)), &names(), "");
        assert!(text.contains("10.0.0.7\tweb.db.shop.svc.cluster.local\tweb\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\ta\tb\n"), "{text}");
    }
}
