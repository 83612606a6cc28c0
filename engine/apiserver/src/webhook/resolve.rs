//! From a service to addresses: the ready endpoints behind it, which need no proxy to be reached, then its own address.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use crate::cache::{Cache, Table};

/// A service that something to be asked is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceReference {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// Finds services.
pub(crate) trait Resolve: Send + Sync {
    /// Where to connect to, the best place first: `address:port` or `name:port`. Fails with what is missing.
    fn resolve(&self, service: &ServiceReference) -> Result<Vec<String>, String>;
}

/// The services and endpoint slices that the server itself holds.
pub(crate) struct Services {
    cache: Arc<Cache>,
    known: Arc<Table>,
    slices: Arc<Table>,
}

impl Services {
    pub(crate) fn new(cache: Arc<Cache>, services: Arc<Table>, slices: Arc<Table>) -> Self {
        Self { cache, known: services, slices }
    }

    /// Wake when any service, or any endpoint of one, changes.
    pub(crate) fn changes(&self) -> [watch::Receiver<u64>; 2] {
        [self.known.changes(), self.slices.changes()]
    }

    /// The addresses of ready endpoints for a port of the service by its name.
    fn endpoints(&self, service: &ServiceReference, port: &str) -> Vec<String> {
        let slices = self.cache.snapshot(&self.slices, Some(&service.namespace), None).objects;
        let own = slices.iter().filter(|slice| slice.label("kubernetes.io/service-name") == Some(&service.name));
        own.flat_map(|slice| ready(&slice.value(), port)).collect()
    }

    /// What keeps a service from being asked, as reason and message; none when there is a place to ask.
    pub(crate) fn obstacle(&self, reference: &ServiceReference) -> Option<(&'static str, String)> {
        let ServiceReference { namespace, name, port } = reference;
        let Some(found) = self.known.get(&format!("{namespace}/{name}")) else {
            return Some(("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
        };
        let spec = &found.value()["spec"];
        if spec["type"] == "ExternalName" {
            return None;
        }
        let own = spec["ports"].as_array().into_iter().flatten().find(|each| each["port"] == *port);
        let Some(own) = own else {
            let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Some(("ServicePortError", message));
        };
        let named = own["name"].as_str().unwrap_or_default();
        if self.endpoints(reference, named).is_empty() {
            let message =
                format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {named:?}");
            return Some(("MissingEndpoints", message));
        }
        None
    }
}

impl Resolve for Services {
    fn resolve(&self, reference: &ServiceReference) -> Result<Vec<String>, String> {
        let ServiceReference { namespace, name, port } = reference;
        let found = self.known.get(&format!("{namespace}/{name}"));
        let service = found.ok_or_else(|| format!("service {name:?} not found"))?.value();
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            return Ok(vec![format!("{}:{port}", spec["externalName"].as_str().unwrap_or_default())]);
        }
        let own = spec["ports"].as_array().into_iter().flatten().find(|each| each["port"] == *port);
        let own = own.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let mut places = self.endpoints(reference, own["name"].as_str().unwrap_or_default());
        if places.len() > 1 {
            let first = fastrand::usize(..places.len());
            places.rotate_left(first);
        }
        if let Some(address) = spec["clusterIP"].as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
            places.push(std::net::SocketAddr::new(address, *port).to_string());
        }
        if places.is_empty() { Err(format!("no endpoints available for service {name:?}")) } else { Ok(places) }
    }
}

fn ready(slice: &Value, port: &str) -> Vec<String> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let number = ports
        .filter(|each| each["name"].as_str().unwrap_or_default() == port)
        .find_map(|each| each["port"].as_u64().and_then(|number| u16::try_from(number).ok()));
    let Some(number) = number else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|each| each["conditions"]["ready"] != false);
    let addresses = ready.filter_map(|each| each["addresses"][0].as_str()?.parse::<IpAddr>().ok());
    addresses.map(|address| std::net::SocketAddr::new(address, number).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_of_the_named_port_are_places() {
        let slice = json!({
            "ports": [{"name": "metrics", "port": 8080}, {"name": "https", "port": 9443}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["fd00::3"]},
                {"addresses": ["not an address"]},
            ],
        });
        assert_eq!(ready(&slice, "https"), ["10.0.0.1:9443", "[fd00::3]:9443"]);
        assert!(ready(&slice, "other").is_empty());
    }
}
