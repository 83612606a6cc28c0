//! What the `APIService` objects say: which group versions are served behind this server and where, and in which order
//! groups and versions are looked through.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;

use crate::derived::Fold;
use crate::object::Object;
use crate::webhook::ServiceReference;

/// A group version that another server serves.
pub(crate) struct Route {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) service: ServiceReference,
    /// The certificates to trust in PEM form; none means what this machine trusts.
    pub(super) bundle: Option<Bytes>,
    /// Whether any certificate will do.
    pub(super) blind: bool,
    /// Whether the last check was passed, as the object says it.
    pub(super) available: bool,
    /// The object, for its status.
    pub(super) object: Arc<str>,
    /// TLS for the connections, made once.
    pub(super) tls: OnceLock<Result<Arc<rustls::ClientConfig>, String>>,
}

/// The order of one `APIService`: the group's priority and the version's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) group: u64,
    pub(super) version: u64,
}

/// What follows from all `APIService` objects.
#[derive(Default)]
pub(super) struct Routes {
    /// By the objects' names.
    remote: HashMap<Box<str>, Arc<Route>>,
    orders: HashMap<Box<str>, Order>,
}

/// The name of the object that a group version has.
pub(super) fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

impl Route {
    fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let service = &spec["service"];
        let port = service["port"].as_u64().unwrap_or(443);
        let reference = ServiceReference {
            namespace: text(&service["namespace"])?,
            name: text(&service["name"])?,
            port: u16::try_from(port).ok()?,
        };
        let bundle = text(&spec["caBundle"]).and_then(|text| BASE64_STANDARD.decode(text).ok()).map(Bytes::from);
        Some(Self {
            group: text(&spec["group"])?,
            version: text(&spec["version"])?,
            service: reference,
            bundle,
            blind: spec["insecureSkipTLSVerify"] == true,
            available: condition(object).is_some_and(|own| own["status"] == "True"),
            object: text(&object["metadata"]["name"])?.into(),
            tls: OnceLock::new(),
        })
    }

    /// The name that the other server's certificate is for.
    pub(super) fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service.name, self.service.namespace)
    }

    /// Its own root: `/apis/<group>/<version>`.
    pub(super) fn root(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

/// The condition that says whether what the object stands for can be asked.
pub(super) fn condition(object: &Value) -> Option<&Value> {
    object["status"]["conditions"].as_array()?.iter().find(|own| own["type"] == "Available")
}

impl Fold for Routes {
    fn put(&mut self, _: usize, object: &Object) {
        let value = object.value();
        let number = |field: &str| value["spec"][field].as_u64().unwrap_or_default();
        let order = Order { group: number("groupPriorityMinimum"), version: number("versionPriority") };
        self.orders.insert(object.name().into(), order);
        match Route::read(&value) {
            Some(route) => self.remote.insert(object.name().into(), Arc::new(route)),
            None => self.remote.remove(object.name()),
        };
    }

    fn remove(&mut self, _: usize, key: &str) {
        self.orders.remove(key);
        self.remote.remove(key);
    }
}

impl Routes {
    /// The route of a group version.
    pub(super) fn of(&self, group: &str, version: &str) -> Option<Arc<Route>> {
        self.remote.get(name(group, version).as_str()).cloned()
    }

    /// All routes, in the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Route>> {
        let mut all: Vec<_> = self.remote.values().cloned().collect();
        all.sort_unstable_by(|one, other| one.object.cmp(&other.object));
        all
    }

    /// The orders of all group versions by the objects' names.
    pub(super) fn orders(&self) -> HashMap<Box<str>, Order> {
        self.orders.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_names_a_service_is_served_elsewhere() {
        let mut object = json!({
            "metadata": {"name": "v1.metrics.k8s.io"},
            "spec": {"group": "metrics.k8s.io", "version": "v1", "service": {"name": "m", "namespace": "n", "port": 8443},
                "caBundle": BASE64_STANDARD.encode("pem")},
        });
        let route = Route::read(&object).expect("it names a service");
        assert_eq!((route.server_name().as_str(), route.service.port), ("m.n.svc", 8443));
        assert_eq!(route.bundle.as_deref(), Some(b"pem".as_slice()));
        assert!(!route.available && !route.blind);
        object["status"] = json!({"conditions": [{"type": "Available", "status": "True"}]});
        assert!(Route::read(&object).expect("it still does").available);
        object["spec"]["service"] = Value::Null;
        assert!(Route::read(&object).is_none());
    }
}
