//! The account that a pod runs as: named where the pod names none, and there before the pod. The pod gets what the account
//! lends: its pull secrets, and a volume with a token of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Request, token_volume};
use crate::error::ApiError;
use crate::object::Object;

/// The account of pods that name none.
const DEFAULT: &str = "default";
/// How long a pod waits for the default account of a namespace that was made just before it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Marks the image of a pod that a node runs on its own; it has no account.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The account that a pod asks for.
fn asked(pod: &Value) -> &str {
    let spec = &pod["spec"];
    let named = |field: &str| spec[field].as_str().filter(|name| !name.is_empty());
    named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or(DEFAULT)
}

/// Waits a moment for the default account, which a controller makes soon after the namespace.
pub(super) async fn await_default(request: &Request<'_>, pod: &Value) {
    if asked(pod) != DEFAULT || find(request, DEFAULT).is_some() {
        return;
    }
    let mut changes = request.call.server.admission().tables.accounts.changes();
    let appears = async { while find(request, DEFAULT).is_none() && changes.changed().await.is_ok() {} };
    // Whether it came up is seen by whoever looks for it next.
    tokio::time::timeout(PATIENCE, appears).await.ok();
}

fn find(request: &Request<'_>, name: &str) -> Option<Arc<Object>> {
    let namespace = request.namespace()?;
    request.call.server.admission().tables.accounts.get(&format!("{namespace}/{name}"))
}

/// Names the account, makes sure of it, and hands out what it lends.
pub(super) fn default(request: &Request<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !pod["spec"].is_object() || !pod["metadata"]["annotations"][MIRROR].is_null() {
        return Ok(());
    }
    let name = asked(pod).to_owned();
    pod["spec"]["serviceAccountName"] = name.as_str().into();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let Some(account) = find(request, &name) else {
        let namespace = request.namespace().unwrap_or_default();
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(request.forbidden(why));
    };
    let account = account.value();
    if token_volume::is_wanted(pod, &account) {
        token_volume::inject(pod);
    }
    lend_pull_secrets(&mut pod["spec"], &account);
    Ok(())
}

fn lend_pull_secrets(spec: &mut Value, account: &Value) {
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty())
    {
        spec["imagePullSecrets"] = secrets.clone().into();
    }
}
