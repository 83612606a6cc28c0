//! Secrets that hold a token of a service account, for programs from before tokens were asked for: filled as soon as they are
//! there, gone with their account.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use serde_json::json;
use shipway_driver::{Queue, cached};
use tokio_util::sync::CancellationToken;

use crate::Key;
use crate::owned::{ignore_stale, is_stale};
use crate::world::{World, find, key};

const TYPE: &str = "kubernetes.io/service-account-token";
/// Whose token it is.
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// As long as a token can be good for: it ends with its secret.
const FOR_EVER: i64 = 1 << 32;
const WORKERS: usize = 2;

/// Keeps them until stopped; `root` is what there is to trust, in PEM form.
pub(crate) async fn run(world: World, root: Arc<str>, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let wake = queue.clone();
    let of_type = Config::default().fields(&format!("type={TYPE}"));
    let (secrets, watching) = cached::<Secret>(Api::all(world.client.clone()), of_type, stop.clone(), move |change| {
        wake.add(key(&**change.object()));
    });
    let (wake, known) = (queue.clone(), secrets.clone());
    let accounts = world.cache::<ServiceAccount>();
    accounts.listen(move |change| {
        let account = change.object();
        let of_account = |secret: &Secret| {
            secret.metadata.namespace == account.metadata.namespace && account_of(secret) == Some(&account.name_any())
        };
        known.state().iter().filter(|secret| of_account(secret)).for_each(|secret| wake.add(key(&**secret)));
    });
    let working =
        world.reconcile(queue, WORKERS, stop, move |world, key| settle(world, secrets.clone(), root.clone(), key));
    tokio::join!(watching, working);
}

fn account_of(secret: &Secret) -> Option<&String> {
    secret.annotations().get(NAME).filter(|name| !name.is_empty())
}

async fn settle(
    world: World,
    secrets: Store<Secret>,
    root: Arc<str>,
    key: Key,
) -> Result<Option<Duration>, kube::Error> {
    let Some(secret) = find(&secrets, &key).filter(|it| it.metadata.deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    let Some(name) = account_of(&secret) else { return Ok(None) };
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &key.0);
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), &key.0);
    let account = accounts.get_opt(name).await?;
    let Some(account) = account.filter(|account| is_of(&secret, account)) else {
        let preconditions = Some(Preconditions { uid: secret.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        ignore_stale(secrets.delete(&key.1, &parameters).await)?;
        return Ok(None);
    };
    if is_filled(&secret, &root) {
        return Ok(None);
    }
    let token = match accounts.create_token_request(name, &PostParams::default(), &request(&secret)).await {
        Err(error) if is_stale(&error) => return Ok(None),
        issued => issued?.status.and_then(|status| status.token).unwrap_or_default(),
    };
    let data = json!({
        "token": ByteString(token.into_bytes()),
        "ca.crt": ByteString(root.as_bytes().to_vec()),
        "namespace": ByteString(key.0.clone().into_bytes()),
    });
    let metadata =
        json!({"resourceVersion": secret.metadata.resource_version, "annotations": {UID: account.metadata.uid}});
    let patch = Patch::Merge(json!({"metadata": metadata, "data": data}));
    ignore_stale(secrets.patch(&key.1, &PatchParams::default(), &patch).await)?;
    Ok(None)
}

/// Whether the secret means this account, and not an earlier one of the name.
fn is_of(secret: &Secret, account: &ServiceAccount) -> bool {
    let uid = secret.annotations().get(UID).filter(|uid| !uid.is_empty());
    uid.is_none_or(|uid| account.metadata.uid.as_ref() == Some(uid))
}

fn is_filled(secret: &Secret, root: &str) -> bool {
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    value("token").is_some_and(|token| !token.is_empty())
        && value("ca.crt") == Some(root.as_bytes())
        && value("namespace").is_some_and(|namespace| !namespace.is_empty())
}

fn request(secret: &Secret) -> TokenRequest {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        name: secret.metadata.name.clone(),
        uid: secret.metadata.uid.clone(),
    };
    let spec = TokenRequestSpec { audiences: None, bound_object_ref: Some(bound), expiration_seconds: Some(FOR_EVER) };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn secret(notes: &Value, data: &Value) -> Secret {
        let metadata = json!({"name": "s", "namespace": "n", "uid": "s-uid", "annotations": notes});
        serde_json::from_value(json!({"metadata": metadata, "type": TYPE, "data": data})).unwrap()
    }

    #[test]
    fn a_secret_is_its_accounts_and_no_later_ones() {
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "bot", "uid": "new"}})).unwrap();
        for (uid, expected) in [(Value::Null, true), ("new".into(), true), ("old".into(), false)] {
            let notes = if uid.is_null() { json!({NAME: "bot"}) } else { json!({NAME: "bot", UID: uid}) };
            assert_eq!(is_of(&secret(&notes, &json!({})), &account), expected, "{notes}");
        }
        assert_eq!(account_of(&secret(&json!({NAME: ""}), &json!({}))), None);
    }

    #[test]
    fn it_is_filled_when_all_three_are_there_and_trust_is_up_to_date() {
        let filled = |data: Value| is_filled(&secret(&json!({}), &data), "PEM");
        let encode = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        assert!(filled(json!({"token": encode("t"), "ca.crt": encode("PEM"), "namespace": encode("n")})));
        assert!(!filled(json!({"token": encode("t"), "ca.crt": encode("OLD"), "namespace": encode("n")})));
        assert!(!filled(json!({"ca.crt": encode("PEM"), "namespace": encode("n")})));
        assert!(!filled(json!({})));
    }

    #[test]
    fn the_token_ends_with_its_secret() {
        let bound = request(&secret(&json!({}), &json!({}))).spec.unwrap().bound_object_ref.unwrap();
        assert_eq!((bound.kind.as_deref(), bound.uid.as_deref()), (Some("Secret"), Some("s-uid")));
    }
}
