//! Acting for others: `Impersonate-User` and what goes with it. Each name taken on needs the right to.

use std::sync::Arc;

use http::HeaderMap;

use crate::ApiServer;
use crate::authorize::{self, Attributes};
use crate::error::ApiError;
use crate::identity::{ANONYMOUS, Identity, UNAUTHENTICATED};
use crate::query::decode;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const OWN: &str = "authentication.k8s.io";

/// Whoever the caller acts for, if it says so and may; none when it acts for itself.
pub(crate) async fn impersonated(
    server: &ApiServer,
    caller: &Identity,
    headers: &HeaderMap,
) -> Result<Option<Arc<Identity>>, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let mut wanted = wanted(headers)?;
    check(server, caller, &wanted).await?;
    if let Some((namespace, name)) = Identity::as_account(&wanted.user)
        && wanted.groups.is_empty()
    {
        wanted.groups = Identity::account(namespace, name).groups;
    }
    if wanted.user == ANONYMOUS && wanted.groups.is_empty() {
        wanted.groups.push(UNAUTHENTICATED.to_owned());
    }
    Ok(Some(Arc::new(wanted.known())))
}

/// The identity that the headers describe.
fn wanted(headers: &HeaderMap) -> Result<Identity, ApiError> {
    let text = |value: &http::HeaderValue| {
        let text = value.to_str().map(str::to_owned);
        text.map_err(|_| ApiError::BadRequest("an Impersonate header is not plain text".into()))
    };
    let one = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let mut wanted = Identity { user: one(USER)?, uid: one(UID)?, ..Identity::default() };
    for value in headers.get_all(GROUP) {
        wanted.groups.push(text(value)?);
    }
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            wanted.extra.entry(decode(key, false)?.to_lowercase()).or_default().push(text(value)?);
        }
    }
    if wanted.user.is_empty() {
        return Err(ApiError::BadRequest("requested impersonation without impersonating a user".into()));
    }
    Ok(wanted)
}

/// Asks for the right to each part of the identity.
async fn check(server: &ApiServer, caller: &Identity, wanted: &Identity) -> Result<(), ApiError> {
    let base = Attributes { verb: "impersonate", ..Attributes::default() };
    let mut asked = vec![match Identity::as_account(&wanted.user) {
        Some((namespace, name)) => Attributes { resource: "serviceaccounts", namespace, name, ..base },
        None => Attributes { resource: "users", name: &wanted.user, ..base },
    }];
    asked.extend(wanted.groups.iter().map(|name| Attributes { resource: "groups", name, ..base }));
    if !wanted.uid.is_empty() {
        asked.push(Attributes { group: OWN, resource: "uids", name: &wanted.uid, ..base });
    }
    for (key, values) in &wanted.extra {
        let extra = Attributes { group: OWN, resource: "userextras", subresource: key, ..base };
        asked.extend(values.iter().map(|name| Attributes { name, ..extra }));
    }
    for one in &asked {
        authorize::check(server, caller, one).await?;
    }
    Ok(())
}
