//! What every cluster has from its first moment: the system namespaces, the system's priority classes, and the service
//! that the API is reached by from inside.
//!
//! Written through the same door as everything else, and safe to repeat.

use std::net::{IpAddr, Ipv4Addr};

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::aggregate;
use crate::body::full;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::rbac;
use crate::{ApiServer, Config};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// What comes before everything that users run.
const PRIORITIES: [(&str, i64, &str); 2] = [
    ("system-cluster-critical", 2_000_000_000, "For pods that the cluster cannot do without."),
    ("system-node-critical", 2_000_001_000, "For pods that their node cannot do without."),
];
const MANAGER: &str = "shipway-apiserver";

/// Creates what is missing and corrects what this server decides.
pub(crate) async fn run(server: &ApiServer, config: &Config) -> Result<(), ApiError> {
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(server, "/api/v1/namespaces", &namespace).await?;
    }
    for name in NAMESPACES {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        create(server, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
    }
    for (name, value, description) in PRIORITIES {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        });
        create(server, "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await?;
    }
    rbac::bootstrap(server).await?;
    aggregate::publish(server).await?;
    let services = "/api/v1/namespaces/default/services";
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let objects = [(services, service(config)), (endpoints, endpoint_list(config)), (slices, endpoint_slice(config))];
    for (path, object) in objects {
        if !create(server, path, &object).await? {
            send(server, Method::PUT, &format!("{path}/kubernetes"), &object).await?;
        }
    }
    Ok(())
}

/// The first address of the service subnet.
fn first_address(config: &Config) -> Ipv4Addr {
    let (network, bits) = config.service_subnet;
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
    Ipv4Addr::from((u32::from(network) & mask) + 1)
}

fn service(config: &Config) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": first_address(config).to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.api_address.port()}],
        },
    })
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn endpoint_list(config: &Config) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": config.api_address.ip().to_string()}],
            "ports": [{"name": "https", "port": config.api_address.port(), "protocol": "TCP"}],
        }],
    })
}

fn endpoint_slice(config: &Config) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family(config.api_address.ip()),
        "endpoints": [{"addresses": [config.api_address.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": config.api_address.port(), "protocol": "TCP"}],
    })
}

/// Creates an object; false when it is there already.
async fn create(server: &ApiServer, path: &str, object: &Value) -> Result<bool, ApiError> {
    Ok(send(server, Method::POST, path, object).await? != StatusCode::CONFLICT)
}

pub(crate) async fn send(
    server: &ApiServer,
    method: Method,
    path: &str,
    object: &Value,
) -> Result<StatusCode, ApiError> {
    let body = serde_json::to_vec(object).expect("a JSON value can be encoded");
    let uri = format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict");
    let request = Request::builder().method(method).uri(uri).body(full(body)).expect("the path is a valid URI");
    let response = match server.in_process(Identity::admin()).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let code = response.status();
    if code.is_success() || code == StatusCode::CONFLICT {
        return Ok(code);
    }
    let reply = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Err(ApiError::Internal(format!("creating {path}: {}", String::from_utf8_lossy(&reply))))
}
