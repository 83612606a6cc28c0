//! Subresources that are a conversation rather than a document: commands, attachments and forwarded ports go to the pod's
//! node, together with the client's connection; `proxy` goes to the object's own addresses.
//!
//! Nothing is copied here for a node: it takes the connection out of the request and its `101` goes back unchanged.

use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use http::{Method, Request, Response, Uri};
use shipway_schema::Subresource;
use tokio_util::sync::CancellationToken;

use crate::ApiServer;
use crate::admission;
use crate::audit::Notes;
use crate::authorize::{self, Attributes};
use crate::body::Body;
use crate::call::Call;
use crate::commit::Place;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::object::Object;
use crate::path::ResourcePath;
use crate::pod;
use crate::proxy;
use crate::query::{self, Query};
use crate::reply;

/// A request of this kind, its body not read.
pub(crate) struct Conversation {
    pub(crate) server: ApiServer,
    pub(crate) identity: Arc<Identity>,
    pub(crate) target: ResourcePath,
    pub(crate) query: Query,
    pub(crate) head: Parts,
    pub(crate) body: Body,
    /// Ends what goes on beside the reply when the server stops.
    pub(crate) stop: CancellationToken,
}

/// Whether a path asks for a conversation.
pub(crate) fn is_wanted(target: &ResourcePath) -> bool {
    let kinds: &[&str] = match target.subresource.as_deref() {
        Some("attach" | "exec" | "portforward") => &["pods"],
        Some("proxy") => &["pods", "services", "nodes"],
        _ => &[],
    };
    target.group.is_empty() && target.name.is_some() && kinds.contains(&target.plural.as_str())
}

/// What the method means for authorization: `proxy` takes methods that other paths do not.
pub(crate) fn verb(method: &Method) -> Result<&'static str, ApiError> {
    match *method {
        Method::GET | Method::HEAD => Ok("get"),
        Method::POST => Ok("create"),
        Method::PUT => Ok("update"),
        Method::PATCH => Ok("patch"),
        Method::DELETE => Ok("delete"),
        // Only who may do everything may do what has no name.
        Method::OPTIONS => Ok(""),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// Answers it; the caller may do what its verb says.
pub(crate) async fn answer(mut call: Conversation) -> Result<Response<Body>, ApiError> {
    let name = call.target.subresource.clone().unwrap_or_default();
    let place = place(&call)?;
    let subresource = place.resource().subresource(&name).ok_or(ApiError::NoSuchPath)?;
    check_method(&call.head.method, subresource)?;
    if name != "proxy" {
        check_create(&call.server, &call.identity, &call.target, &name).await?;
    }
    let warnings = admit(&mut call, &place, &name).await?;
    let mut response =
        if name == "proxy" { proxy::answer(call, place).await } else { converse(call, &place, &name).await }?;
    reply::add_warnings(&mut response, warnings);
    Ok(response)
}

/// Lets webhooks and policies refuse it, or change what is asked for. Gives their warnings.
async fn admit(conversation: &mut Conversation, place: &Place, name: &str) -> Result<Vec<String>, ApiError> {
    let Conversation { server, identity, query, head, stop, .. } = &*conversation;
    let call = Call {
        server: server.clone(),
        identity: identity.clone(),
        method: head.method.clone(),
        query: query.clone(),
        headers: head.headers.clone(),
        body: bytes::Bytes::new(),
        stop: stop.clone(),
        warnings: Mutex::default(),
        notes: Notes::of(&head.extensions),
    };
    let (prefix, beyond) = proxy::split(head.uri.path());
    if let Some(options) = admission::connect(&call, place, name, beyond).await? {
        let path = options["path"].as_str().filter(|_| beyond.is_some());
        let (uri, query) = match path {
            Some(path) => (format!("{prefix}/{path}"), head.uri.query().map(str::to_owned)),
            None => (head.uri.path().to_owned(), Some(query::encode(&admission::parameters(&options)))),
        };
        let uri = with_query(&uri, query.as_deref())?;
        conversation.query = Query::parse(uri.query().unwrap_or_default())?;
        conversation.head.uri = uri;
    }
    Ok(call.warnings.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Hands a stream with a container on to the pod's node.
async fn converse(mut call: Conversation, place: &Place, name: &str) -> Result<Response<Body>, ApiError> {
    let server = call.server.clone();
    let pod = found(&server, place).await?.value();
    let namespace = place.namespace.as_deref().unwrap_or_default();
    let path = if name == "portforward" {
        format!("/portForward/{namespace}/{}", place.name)
    } else {
        let container = pod::container(&pod, &place.name, call.query.get("container"))?;
        format!("/{name}/{namespace}/{}/{container}", place.name)
    };
    let service = pod::node(&server, &pod, &place.name)?;
    call.head.uri = with_query(&path, call.head.uri.query())?;
    Ok(pod::ask(service, Request::from_parts(call.head, call.body)).await)
}

/// Where the object lies that the path names.
fn place(call: &Conversation) -> Result<Place, ApiError> {
    let ResourcePath { group, version, plural, namespace, name, .. } = &call.target;
    let resource = call.server.registry().find(group, version, plural).ok_or(ApiError::NoSuchPath)?;
    if resource.namespaced != namespace.is_some() {
        return Err(ApiError::NoSuchPath);
    }
    let table = call.server.cache().table(&resource);
    Ok(Place { resource, table, namespace: namespace.clone(), name: name.clone().unwrap_or_default() })
}

fn check_method(method: &Method, subresource: &Subresource) -> Result<(), ApiError> {
    let verb = match verb(method)? {
        "" => "get",
        verb => verb,
    };
    if subresource.verbs.contains(&verb) { Ok(()) } else { Err(ApiError::MethodNotAllowed) }
}

/// A WebSocket can only be asked for with GET; what it does is not reading.
async fn check_create(
    server: &ApiServer,
    identity: &Identity,
    target: &ResourcePath,
    subresource: &str,
) -> Result<(), ApiError> {
    let ResourcePath { group, plural, namespace, name, .. } = target;
    let asked = Attributes {
        verb: "create",
        group,
        resource: plural,
        subresource,
        namespace: namespace.as_deref().unwrap_or_default(),
        name: name.as_deref().unwrap_or_default(),
        ..Attributes::default()
    };
    authorize::check(server, identity, &asked).await
}

/// The object as it is now.
pub(crate) async fn found(server: &ApiServer, place: &Place) -> Result<Arc<Object>, ApiError> {
    server.cache().catch_up().await?;
    place.table.get(&place.key()).ok_or_else(|| ApiError::NotFound(place.about()))
}

/// A path and the query of another one.
pub(crate) fn with_query(path: &str, query: Option<&str>) -> Result<Uri, ApiError> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    text.parse().map_err(|_| ApiError::BadRequest(format!("the path {path:?} cannot be asked for")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_told_from_documents() {
        let wanted = |path: &str| is_wanted(&crate::path::parse(path).unwrap().unwrap());
        for path in ["pods/a/exec", "pods/a/attach", "pods/a/portforward", "pods/a/proxy", "services/a/proxy"] {
            assert!(wanted(&format!("/api/v1/namespaces/n/{path}")), "{path}");
        }
        assert!(wanted("/api/v1/nodes/n/proxy"));
        for path in ["/api/v1/namespaces/n/pods/a/log", "/api/v1/namespaces/n/pods/exec", "/apis/apps/v1/nodes/a/proxy"]
        {
            assert!(!wanted(path), "{path}");
        }
    }
}
