//! `metrics.k8s.io`: what nodes and pods use. Kinds that are not stored but measured: whoever asks makes the nodes look, and
//! nobody else does.
//!
//! A measured kind has the plural of the kind that it is about, and the names and labels of its objects. Rates are the
//! nodes' to work out; one that does not answer in time is left out, and so is what did not run long enough to be measured.

mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use http::{Response, StatusCode};
use shipway_schema::Resource;

use crate::ApiServer;
use crate::body::Body;
use crate::call::Call;
use crate::error::{About, ApiError};
use crate::list::Page;
use crate::object::Object;
use crate::path::ResourcePath;
use crate::select::Selection;
use crate::service::NodeService;
use crate::view::View;
use summary::Summary;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether it is a kind that this module answers for.
pub(crate) fn is_measured(resource: &Resource) -> bool {
    resource.group == "metrics.k8s.io"
}

/// One measurement, or all that are selected.
pub(crate) async fn answer(
    call: &Call,
    resource: &Arc<Resource>,
    target: &ResourcePath,
) -> Result<Response<Body>, ApiError> {
    if target.subresource.is_some() {
        return Err(ApiError::NoSuchPath);
    }
    let view = View::of(call, resource.clone())?;
    let server = &call.server;
    server.cache().catch_up().await?;
    let about = server.registry().find("", "v1", &resource.plural).ok_or(ApiError::NoSuchPath)?;
    let table = server.cache().table(&about);
    let namespace = target.namespace.as_deref();
    if let Some(name) = &target.name {
        let key = namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
        let objects: Vec<Arc<Object>> = table.get(&key).into_iter().collect();
        let measured = measure(server, resource, &about, objects).await;
        let missing =
            || About { group: resource.group.to_string(), resource: resource.singular.to_string(), name: key.clone() };
        let first = measured.into_iter().next().ok_or_else(|| ApiError::NotFound(missing()))?;
        return Ok(view.object(StatusCode::OK, &first));
    }
    let selection = Selection::parse(resource, namespace, &call.query)?;
    let snapshot = server.cache().snapshot(&table, namespace, None);
    let chosen = |object: &Arc<Object>| selection.matches(resource, object);
    let objects: Vec<Arc<Object>> = snapshot.objects.into_iter().filter(chosen).collect();
    let objects = measure(server, resource, &about, objects).await;
    Ok(view.list(Page { objects, revision: snapshot.revision, next: None, remaining: None }))
}

/// The measurements of those of some objects that could be measured. Boxed where the types are known, so that callers need
/// not work out that it can be sent.
fn measure(
    server: &ApiServer,
    resource: &Arc<Resource>,
    about: &Resource,
    objects: Vec<Arc<Object>>,
) -> BoxFuture<'static, Vec<Arc<Object>>> {
    let namespaced = about.namespaced;
    let node_of = |object: &Object| {
        let name = if namespaced { object.field(about, "spec.nodeName") } else { Some(object.name().to_owned()) };
        name.filter(|name| !name.is_empty())
    };
    let placed: Vec<(Arc<Object>, String)> =
        objects.into_iter().filter_map(|object| node_of(&object).map(|node| (object, node))).collect();
    let nodes: BTreeSet<&String> = placed.iter().map(|(_, node)| node).collect();
    let asked: Vec<_> = nodes.into_iter().filter_map(|node| Some(ask(node.clone(), server.node(node)?))).collect();
    let resource = resource.clone();
    let measured = async move {
        let summaries: BTreeMap<String, Summary> = join_all(asked).await.into_iter().flatten().collect();
        let measured = placed.into_iter().filter_map(|(object, node)| {
            let summary = summaries.get(&node)?;
            let document = if namespaced { summary.pod(&object.uid) } else { summary.node() }?;
            Some(Arc::new(Object::draft(&object.key, &document.about(&resource, &object))))
        });
        measured.collect()
    };
    measured.boxed()
}

/// What a node says of itself and its pods; none when it does not.
fn ask(node: String, service: NodeService) -> BoxFuture<'static, Option<(String, Summary)>> {
    let answered = async move {
        match tokio::time::timeout(PATIENCE, Summary::of(service)).await {
            Ok(Ok(summary)) => Some((node, summary)),
            Ok(Err(error)) => {
                tracing::warn!(node, error, "a node does not say what is used on it");
                None
            }
            Err(_) => {
                tracing::warn!(node, "a node takes too long to say what is used on it");
                None
            }
        }
    };
    answered.boxed()
}
