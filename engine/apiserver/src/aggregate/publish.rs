//! What servers behind this one need to know to believe it: published where they look, `kube-system/
//! extension-apiserver-authentication`.

use http::Method;
use serde_json::{Value, json};

use super::FrontProxy;
use super::front_proxy::CLIENT;
use crate::ApiServer;
use crate::bootstrap::send;
use crate::error::ApiError;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Makes the ConfigMap, or corrects it; what others have put in stays.
pub(crate) async fn publish(server: &ApiServer) -> Result<(), ApiError> {
    let Some(front) = &server.aggregation().front else { return Ok(()) };
    let data = data(front);
    let folder = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let table = server.registry().find("", "v1", "configmaps").map(|resource| server.cache().table(&resource));
    server.cache().catch_up().await?;
    let Some(live) = table.and_then(|table| table.get(&format!("{NAMESPACE}/{NAME}"))) else {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data});
        return send(server, Method::POST, &folder, &object).await.map(drop);
    };
    let before = live.value();
    let mut object = before.clone();
    for (key, value) in data.as_object().into_iter().flatten() {
        object["data"][key] = value.clone();
    }
    if object != before {
        send(server, Method::PUT, &format!("{folder}/{NAME}"), &object).await?;
    }
    Ok(())
}

fn data(front: &FrontProxy) -> Value {
    let list = |name: &str| json!([name]).to_string();
    json!({
        "client-ca-file": front.client_authority,
        "requestheader-allowed-names": list(CLIENT),
        "requestheader-client-ca-file": front.authority,
        "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
        "requestheader-group-headers": list("X-Remote-Group"),
        "requestheader-uid-headers": list("X-Remote-Uid"),
        "requestheader-username-headers": list("X-Remote-User"),
    })
}
