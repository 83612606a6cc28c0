//! A container's environment variables: image, services, envFrom, env, in that order, the later one winning.
//!
//! Pure over the objects' contents at one moment; what is missing is named as the user would look for it.

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, Service};

use crate::amount::{Allocatable, resource_field};
use crate::downward;
use crate::expansion::expand;
use crate::pod;
use crate::references::Contents;
use crate::variable_file;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in the order they were first set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Variables(Vec<(String, String)>);

impl Variables {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(variable) => variable.1 = value,
            None => self.0.push((name, value)),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `$(NAME)` replaced by these variables.
    pub(crate) fn expand(&self, input: &str) -> String {
        expand(input, |name| self.get(name))
    }

    pub(crate) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }
}

/// All that the variables are made from.
pub(crate) struct Source<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) image_env: &'a [(String, String)],
    pub(crate) contents: &'a Contents,
    pub(crate) services: &'a [std::sync::Arc<Service>],
    pub(crate) hostname: &'a str,
    pub(crate) allocatable: &'a Allocatable,
}

impl Source<'_> {
    /// The container's variables, or what is missing.
    pub(crate) fn variables(&self) -> Result<Variables, String> {
        let mut variables = Variables::default();
        variables.set("PATH", DEFAULT_PATH);
        variables.set("HOSTNAME", self.hostname);
        for (name, value) in self.image_env {
            variables.set(name, value);
        }
        service_variables(&mut variables, self.pod, self.services);
        let mut own = Variables::default();
        self.add_from(&mut own)?;
        for variable in self.container.env.iter().flatten() {
            if let Some(value) = self.value(variable, &own, &variables)? {
                own.set(&variable.name, value);
            }
        }
        for (name, value) in own.0 {
            variables.set(name, value);
        }
        variables.set("METAPARTICLE_IN_CONTAINER", "true");
        Ok(variables)
    }

    fn add_from(&self, own: &mut Variables) -> Result<(), String> {
        for source in self.container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let (found, optional, what) = if let Some(map) = &source.config_map_ref {
                (self.contents.config_map(&map.name), map.optional, format!("configmap \"{}\" not found", map.name))
            } else if let Some(secret) = &source.secret_ref {
                (self.contents.secret(&secret.name), secret.optional, format!("secret \"{}\" not found", secret.name))
            } else {
                continue;
            };
            let Some(found) = found else {
                if optional == Some(true) {
                    continue;
                }
                return Err(what);
            };
            for (key, value) in found {
                own.set(format!("{prefix}{key}"), String::from_utf8_lossy(value));
            }
        }
        Ok(())
    }

    fn value(&self, variable: &EnvVar, own: &Variables, inherited: &Variables) -> Result<Option<String>, String> {
        if let Some(from) = &variable.value_from {
            return self.value_from(from);
        }
        let value = variable.value.as_deref().unwrap_or_default();
        Ok(Some(expand(value, |name| own.get(name).or_else(|| inherited.get(name)))))
    }

    fn value_from(&self, from: &EnvVarSource) -> Result<Option<String>, String> {
        if let Some(field) = &from.field_ref {
            return downward::field(self.pod, &field.field_path).map(Some);
        }
        if let Some(field) = &from.resource_field_ref {
            let named = field.container_name.as_deref().filter(|name| !name.is_empty());
            let of = named.map_or(Some(self.container), |name| pod::container(self.pod, name));
            let of = of.ok_or_else(|| format!("container {} not found", named.unwrap_or_default()))?;
            return resource_field(of, &field.resource, field.divisor.as_ref(), self.allocatable).map(Some);
        }
        if let Some(key) = &from.config_map_key_ref {
            let found = self.contents.config_map(&key.name);
            return key_value(found.as_ref(), "configmap", &key.name, &key.key, key.optional);
        }
        if let Some(key) = &from.secret_key_ref {
            let found = self.contents.secret(&key.name);
            return key_value(found.as_ref(), "secret", &key.name, &key.key, key.optional);
        }
        if let Some(file) = &from.file_key_ref {
            let text = self.contents.file(&file.volume_name, &file.path);
            let found = text.map(|text| variable_file::value(text, &file.key)).transpose();
            let found = found.map_err(|error| format!("file \"{}\": {error}", file.path))?.flatten();
            return match found {
                None if file.optional != Some(true) => {
                    Err(format!("environment variable key \"{}\" not found in file \"{}\"", file.key, file.path))
                }
                found => Ok(found),
            };
        }
        Err("a variable's valueFrom names no source that this node knows".to_owned())
    }
}

fn key_value(
    found: Option<&std::collections::BTreeMap<&str, &[u8]>>,
    kind: &str,
    name: &str,
    key: &str,
    optional: Option<bool>,
) -> Result<Option<String>, String> {
    match found.map(|keys| keys.get(key)) {
        Some(Some(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        _ if optional == Some(true) => Ok(None),
        Some(None) => Err(format!("couldn't find key {key} in {kind} \"{name}\"")),
        None => Err(format!("{kind} \"{name}\" not found")),
    }
}

/// `NAME_SERVICE_HOST` and its relatives: always for the API itself, for the namespace's services if the pod has not declined.
fn service_variables(variables: &mut Variables, pod: &Pod, services: &[std::sync::Arc<Service>]) {
    let links = pod.spec.as_ref().is_none_or(|spec| spec.enable_service_links != Some(false));
    let mut relevant: Vec<&Service> = services
        .iter()
        .map(std::convert::AsRef::as_ref)
        .filter(|service| {
            is_api(service) || (links && service.metadata.namespace.as_deref() == Some(pod::namespace(pod)))
        })
        .collect();
    // The cluster's own service comes first so that a service of the same name in the namespace wins.
    relevant.sort_by_key(|service| (!is_api(service), service.metadata.name.clone()));
    for service in relevant {
        one_service(variables, service);
    }
}

fn is_api(service: &Service) -> bool {
    service.metadata.name.as_deref() == Some("kubernetes") && service.metadata.namespace.as_deref() == Some("default")
}

fn one_service(variables: &mut Variables, service: &Service) {
    let spec = service.spec.as_ref();
    let Some(address) = spec.and_then(|spec| spec.cluster_ip.as_deref()).filter(|ip| !ip.is_empty() && *ip != "None")
    else {
        return;
    };
    let name = shout(service.metadata.name.as_deref().unwrap_or_default());
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let protocol = |word: Option<&str>| word.unwrap_or("TCP").to_lowercase();
    variables.set(format!("{name}_SERVICE_HOST"), address);
    variables.set(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports.iter().filter(|port| port.name.is_some()) {
        let port_name = shout(port.name.as_deref().unwrap_or_default());
        variables.set(format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string());
    }
    let url = |port: i32, protocol: &str| format!("{protocol}://{address}:{port}");
    variables.set(format!("{name}_PORT"), url(first.port, &protocol(first.protocol.as_deref())));
    for port in ports {
        let protocol = protocol(port.protocol.as_deref());
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.set(prefix.clone(), url(port.port, &protocol));
        variables.set(format!("{prefix}_PROTO"), protocol);
        variables.set(format!("{prefix}_PORT"), port.port.to_string());
        variables.set(format!("{prefix}_ADDR"), address);
    }
}

fn shout(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn source<'a>(
        pod: &'a Pod,
        contents: &'a Contents,
        services: &'a [Arc<Service>],
        here: &'a Allocatable,
    ) -> Source<'a> {
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        Source { pod, container, image_env: &[], contents, services, hostname: "web-0", allocatable: here }
    }

    fn pod(container: Value) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop"}, "spec": {"containers": []}
        }))
        .expect("a pod");
        let container = serde_json::from_value(container).expect("a container");
        pod.spec.as_mut().expect("a spec").containers.push(container);
        pod
    }

    const HERE: Allocatable = Allocatable { cpu_milli: 2000, memory: 1 << 30, storage: 1 << 30 };

    fn contents() -> Contents {
        let mut contents = Contents::default();
        contents.insert_config_map(
            serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"colour": "blue", "size": "3"}}))
                .expect("a config map"),
        );
        contents.insert_secret(
            serde_json::from_value(json!({"metadata": {"name": "keys"}, "data": {"token": "c2VjcmV0"}}))
                .expect("a secret"),
        );
        contents
    }

    #[test]
    fn later_sources_win_and_variables_refer_to_earlier_ones() {
        let pod = pod(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "S_"}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(S_colour)-$(NOT)-$$(A)"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "x", "optional": true}}}
        ]}));
        let contents = contents();
        let variables = source(&pod, &contents, &[], &HERE).variables().expect("variables");
        let get = |name| variables.get(name);
        assert_eq!(get("B"), Some("1-blue-$(NOT)-$(A)"));
        assert_eq!(get("TOKEN"), Some("secret"));
        assert_eq!(get("WHERE"), Some("shop"));
        assert_eq!(get("CPUS"), Some("2"));
        assert_eq!(get("GONE"), None);
        assert_eq!(get("HOSTNAME"), Some("web-0"));
        assert_eq!(get("METAPARTICLE_IN_CONTAINER"), Some("true"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |env: Value| {
            let pod = pod(json!({"name": "c", "env": [{"name": "X", "valueFrom": env}]}));
            source(&pod, &contents(), &[], &HERE).variables().expect_err("something is missing")
        };
        assert_eq!(missing(json!({"secretKeyRef": {"name": "no", "key": "k"}})), "secret \"no\" not found");
        assert_eq!(
            missing(json!({"configMapKeyRef": {"name": "settings", "key": "k"}})),
            "couldn't find key k in configmap \"settings\""
        );
    }

    #[test]
    fn services_of_the_namespace_and_the_api_are_told() {
        let service = |namespace: &str, name: &str, ip: &str| -> Arc<Service> {
            let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
            let service =
                json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": ports}});
            Arc::new(serde_json::from_value(service).expect("a service"))
        };
        let services = [
            service("default", "kubernetes", "10.0.0.1"),
            service("shop", "the-cart", "10.0.0.2"),
            service("shop", "headless", "None"),
            service("other", "else", "10.0.0.3"),
        ];
        let pod = pod(json!({"name": "c"}));
        let variables = source(&pod, &Contents::default(), &services, &HERE).variables().expect("variables");
        assert_eq!(variables.get("KUBERNETES_SERVICE_HOST"), Some("10.0.0.1"));
        assert_eq!(variables.get("THE_CART_SERVICE_PORT_HTTP"), Some("80"));
        assert_eq!(variables.get("THE_CART_PORT_80_TCP_ADDR"), Some("10.0.0.2"));
        assert_eq!(variables.get("HEADLESS_SERVICE_HOST"), None);
        assert_eq!(variables.get("ELSE_SERVICE_HOST"), None);
    }
}
