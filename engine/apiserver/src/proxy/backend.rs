//! Which address a proxied request goes to: read from the object that the path names, and from nothing else.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::ApiServer;
use crate::commit::Place;
use crate::error::ApiError;

/// How requests are sent to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// A name as paths give it: `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Door {
    pub(super) scheme: Scheme,
    pub(super) name: String,
    /// A number or a name.
    pub(super) port: Option<String>,
}

impl Door {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let malformed = || ApiError::BadRequest(format!("invalid proxy request {text:?}: want [scheme:]name[:port]"));
        let (scheme, name, port) = match text.split(':').collect::<Vec<_>>()[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return Err(malformed()),
        };
        let scheme = match scheme {
            "" | "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(malformed()),
        };
        if name.is_empty() {
            return Err(malformed());
        }
        Ok(Self { scheme, name: name.to_owned(), port: (!port.is_empty()).then(|| port.to_owned()) })
    }
}

/// An address that belongs to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend(pub(super) SocketAddr);

impl Backend {
    /// A pod's own address; without a port, the first one that its containers name.
    pub(super) fn of_pod(pod: &Value, name: &str, port: Option<&str>) -> Result<Self, ApiError> {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let port = match port {
            Some(port) => match port.parse() {
                Ok(number) => number,
                Err(_) => number(ports.find(|each| each["name"] == port).map(|each| &each["containerPort"]))
                    .ok_or_else(|| ApiError::BadRequest(format!("pod {name:?} has no port {port:?}")))?,
            },
            None => ports.next().map_or(Some(80), |first| number(Some(&first["containerPort"]))).unwrap_or(80),
        };
        let address = pod["status"]["podIP"].as_str().unwrap_or_default().parse();
        let address = address.map_err(|_| ApiError::BadRequest(format!("pod {name:?} does not have a podIP")))?;
        reachable(address, port)
    }

    /// One of a service's ready endpoints, by the service's name or number for the port.
    pub(super) fn of_service(
        server: &ApiServer,
        service: &Value,
        place: &Place,
        port: Option<&str>,
    ) -> Result<Self, ApiError> {
        let name = port_name(service, &place.name, port)?;
        let slices = server.registry().find("discovery.k8s.io", "v1", "endpointslices").ok_or(ApiError::NoSuchPath)?;
        let table = server.cache().table(&slices);
        let all = server.cache().snapshot(&table, place.namespace.as_deref(), None).objects;
        let own: Vec<Value> = all.iter().map(|slice| slice.value()).filter(|slice| is_of(slice, &place.name)).collect();
        let backends: Vec<SocketAddr> = own.iter().flat_map(|slice| addresses(slice, &name)).collect();
        if backends.is_empty() {
            return Err(ApiError::Unavailable(format!("no endpoints available for service {:?}", place.name)));
        }
        let chosen = backends[fastrand::usize(..backends.len())];
        reachable(chosen.ip(), chosen.port())
    }

    /// A node's internal address.
    pub(super) fn of_node(node: &Value, name: &str, port: Option<&str>) -> Result<Self, ApiError> {
        let port = port.and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| ApiError::BadRequest(format!("node {name:?}: the port is not a number")))?;
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let mut internal = addresses.filter(|each| each["type"] == "InternalIP");
        let address = internal.find_map(|each| each["address"].as_str()?.parse().ok());
        let address = address.ok_or_else(|| ApiError::BadRequest(format!("node {name:?} has no internal address")))?;
        reachable(address, port)
    }
}

/// Refuses addresses that would mean this machine itself, or that no object can have: whoever may write a status must not
/// reach by it what only the server can.
fn reachable(address: IpAddr, port: u16) -> Result<Backend, ApiError> {
    let plain = address.to_canonical();
    let own = match plain {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if own || plain.is_loopback() || plain.is_unspecified() || plain.is_multicast() || port == 0 {
        return Err(ApiError::BadRequest(format!("address {address} port {port} is not allowed")));
    }
    Ok(Backend(SocketAddr::new(plain, port)))
}

fn number(value: Option<&Value>) -> Option<u16> {
    u16::try_from(value?.as_u64()?).ok()
}

/// The name of the service's port that is meant: the only one, when none is said.
fn port_name(service: &Value, name: &str, port: Option<&str>) -> Result<String, ApiError> {
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_meant = |each: &&Value| match port {
        None => ports.len() == 1,
        Some(port) => each["name"] == port || each["port"].as_u64().is_some_and(|own| own.to_string() == port),
    };
    let found = ports.iter().find(is_meant).ok_or_else(|| {
        let port = port.unwrap_or_default();
        ApiError::Unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    Ok(found["name"].as_str().unwrap_or_default().to_owned())
}

fn is_of(slice: &Value, service: &str) -> bool {
    slice["metadata"]["labels"]["kubernetes.io/service-name"] == service
}

fn addresses(slice: &Value, port: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let mut named = ports.filter(|each| each["name"].as_str().unwrap_or_default() == port);
    let Some(port) = named.find_map(|each| number(Some(&each["port"]))) else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|each| each["conditions"]["ready"].as_bool().unwrap_or(true));
    let first = ready.filter_map(|each| each["addresses"].get(0)?.as_str()?.parse().ok());
    first.map(|address| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_may_carry_a_scheme_and_a_port() {
        let door = |scheme, name: &str, port: Option<&str>| Door {
            scheme,
            name: name.to_owned(),
            port: port.map(str::to_owned),
        };
        assert_eq!(Door::parse("a").unwrap(), door(Scheme::Http, "a", None));
        assert_eq!(Door::parse("a:80").unwrap(), door(Scheme::Http, "a", Some("80")));
        assert_eq!(Door::parse("https:a:web").unwrap(), door(Scheme::Https, "a", Some("web")));
        assert_eq!(Door::parse("https:a:").unwrap(), door(Scheme::Https, "a", None));
        for text in ["ftp:a:80", "http::80", "a:b:c:d", ":80"] {
            assert!(Door::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pod_is_asked_at_its_own_address() {
        let pod = json!({
            "spec": {"containers": [{"ports": [{"containerPort": 8080}, {"name": "web", "containerPort": 9000}]}]},
            "status": {"podIP": "10.1.0.5"},
        });
        let at = |port| Backend::of_pod(&pod, "p", port).map(|backend| backend.0.to_string());
        assert_eq!(at(None).unwrap(), "10.1.0.5:8080");
        assert_eq!(at(Some("81")).unwrap(), "10.1.0.5:81");
        assert_eq!(at(Some("web")).unwrap(), "10.1.0.5:9000");
        assert!(at(Some("other")).is_err() && at(Some("0")).is_err());
        assert!(Backend::of_pod(&json!({}), "p", None).unwrap_err().to_string().contains("podIP"));
    }

    #[test]
    fn an_address_that_means_the_server_itself_is_refused() {
        for address in ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1"] {
            let pod = json!({"status": {"podIP": address}});
            assert!(Backend::of_pod(&pod, "p", Some("80")).is_err(), "{address}");
        }
    }

    #[test]
    fn a_service_is_asked_at_its_ready_endpoints() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(port_name(&service, "s", Some("80")).unwrap(), "web");
        assert_eq!(port_name(&service, "s", Some("admin")).unwrap(), "admin");
        assert!(port_name(&service, "s", None).is_err() && port_name(&service, "s", Some("82")).is_err());
        let slice = json!({
            "ports": [{"name": "web", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.1.0.5"], "conditions": {"ready": true}},
                {"addresses": ["10.1.0.6"], "conditions": {"ready": false}},
            ],
        });
        assert_eq!(addresses(&slice, "web"), ["10.1.0.5:8080".parse().unwrap()]);
        assert_eq!(addresses(&slice, "admin"), []);
    }
}
