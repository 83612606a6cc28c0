//! The revisions of a pod template: the `ControllerRevision`s of stateful sets and daemon sets.
//!
//! A revision's data is a patch that puts its template back; `kubectl rollout undo` applies it as it stands. A template
//! that comes back takes up its old revision under a new number. What is done with the pods of a revision is not known here.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::{self, Store};
use kube::{Api, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shipway_driver::{Change, Queue, Shared};

use crate::Key;
use crate::crew::{Crew, is_terminating};
use crate::hash::hash;
use crate::owned::{Chooser, controller_reference, ignore_stale, is_controlled_by, is_orphan};
use crate::world::{controller_of, key};

/// The label that tells the pods of revisions apart.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";
/// What `kubectl apply` remembers: the whole manifest, which the revision holds anyway.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a history is kept of.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The template as it is now.
    pub(crate) template: &'a PodTemplateSpec,
    /// How often the name of a new revision was somebody else's.
    pub(crate) collisions: i32,
    /// The label of revisions that carries their hash.
    pub(crate) label: &'static str,
}

/// The revision of the template as it is now.
enum Current {
    Is(Arc<ControllerRevision>),
    /// Its name is somebody else's: to be tried again with one more collision counted.
    NameTaken,
    /// There is nobody any more to make it for.
    OwnerGone,
}

/// The revisions of an owner and that of its template. None when there is nothing to do: what was found in the way is written
/// down, and brings the next look.
pub(crate) async fn look<'a, K>(
    crew: &'a Crew<K>,
    client: kube::Client,
    known: &Store<ControllerRevision>,
    selector: &LabelSelector,
    subject: Subject<'_>,
) -> Result<Option<(History<'a, K>, Arc<ControllerRevision>)>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let collisions = subject.collisions;
    let history = History::claim(crew, client, known, selector).await?;
    match history.current(subject).await {
        Ok(Current::Is(revision)) => Ok(Some((history, revision))),
        Ok(Current::NameTaken) => {
            crew.write_status(&json!({ "collisionCount": collisions + 1 })).await?;
            Ok(None)
        }
        Ok(Current::OwnerGone) => Ok(None),
        Err(error) if is_terminating(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The revisions of one owner, by number.
pub(crate) struct History<'a, K> {
    crew: &'a Crew<K>,
    api: Api<ControllerRevision>,
    revisions: Vec<Arc<ControllerRevision>>,
}

impl<'a, K> History<'a, K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    /// The revisions that the owner controls; takes over orphans that the selector matches.
    async fn claim(
        crew: &'a Crew<K>,
        client: kube::Client,
        known: &Store<ControllerRevision>,
        selector: &LabelSelector,
    ) -> Result<Self, kube::Error> {
        let api = Api::namespaced(client, &crew.key.0);
        let uid = crew.owner.meta().uid.as_deref();
        let near = known.state().into_iter().filter(|one| one.metadata.namespace.as_ref() == Some(&crew.key.0));
        let (mut revisions, mut orphans): (Vec<_>, Vec<_>) =
            near.filter(|one| is_orphan(&**one) || is_controlled_by(&**one, uid)).partition(|one| !is_orphan(&**one));
        let chooser = Chooser::of(selector);
        orphans.retain(|one| one.metadata.deletion_timestamp.is_none() && chooser.takes(&**one));
        let mut history = Self { crew, api, revisions: Vec::new() };
        if !orphans.is_empty() && crew.is_still_there().await? {
            for orphan in orphans {
                history.adopt(&orphan).await?;
                revisions.push(orphan);
            }
        }
        revisions.sort_by_key(|one| (one.revision, one.metadata.creation_timestamp.clone().map(|time| time.0)));
        history.revisions = revisions;
        Ok(history)
    }

    async fn adopt(&self, orphan: &ControllerRevision) -> Result<(), kube::Error> {
        let reference = controller_reference(&*self.crew.owner);
        let patch = json!({ "metadata": { "uid": orphan.metadata.uid, "ownerReferences": [reference] } });
        let patch = Patch::Strategic(patch);
        ignore_stale(self.api.patch(&orphan.name_any(), &PatchParams::default(), &patch).await)
    }

    /// The revision of that name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<ControllerRevision>> {
        self.revisions.iter().find(|one| one.metadata.name.as_deref() == Some(name))
    }

    /// The revision of the template as it is now, made or given the highest number where it has to be.
    async fn current(&self, subject: Subject<'_>) -> Result<Current, kube::Error> {
        match step(&self.revisions, subject.template) {
            Step::Stay(revision) => Ok(Current::Is(revision)),
            Step::Renumber(revision, number) => {
                let patch = Patch::Merge(json!({ "revision": number }));
                let renumbered = self.api.patch(&revision.name_any(), &PatchParams::default(), &patch).await?;
                Ok(Current::Is(Arc::new(renumbered)))
            }
            Step::Begin(number) => self.begin(&new(&*self.crew.owner, subject, number), subject.template).await,
        }
    }

    async fn begin(&self, wanted: &ControllerRevision, template: &PodTemplateSpec) -> Result<Current, kube::Error> {
        if !self.crew.is_still_there().await? {
            return Ok(Current::OwnerGone);
        }
        let refused = match self.api.create(&PostParams::default(), wanted).await {
            Ok(made) => return Ok(Current::Is(Arc::new(made))),
            Err(kube::Error::Api(status)) if status.code == 409 => kube::Error::Api(status),
            Err(error) => return Err(error),
        };
        let Some(present) = self.api.get_opt(&wanted.name_any()).await? else { return Err(refused) };
        if !is_of(&present, template) {
            return Ok(Current::NameTaken);
        }
        if is_orphan(&present) {
            self.adopt(&present).await?;
        } else if !is_controlled_by(&present, self.crew.owner.meta().uid.as_deref()) {
            return Ok(Current::NameTaken);
        }
        Ok(Current::Is(Arc::new(present)))
    }

    /// Deletes what is beyond the limit, oldest first. Revisions that `is_live` names are neither counted nor deleted.
    pub(crate) async fn forget(
        &self,
        limit: i32,
        is_live: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), kube::Error> {
        for old in surplus(&self.revisions, limit, is_live) {
            let preconditions = Some(Preconditions { uid: old.metadata.uid.clone(), resource_version: None });
            let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
            ignore_stale(self.api.delete(&old.name_any(), &parameters).await)?;
        }
        Ok(())
    }
}

/// What the history needs for the template as it is now.
enum Step {
    Stay(Arc<ControllerRevision>),
    Renumber(Arc<ControllerRevision>, i64),
    /// A new revision of this number.
    Begin(i64),
}

/// The newest revision of the template is the current one, and has a higher number than any other.
fn step(revisions: &[Arc<ControllerRevision>], template: &PodTemplateSpec) -> Step {
    let highest = |but: Option<&Arc<ControllerRevision>>| {
        let others = revisions.iter().filter(|one| but.is_none_or(|but| !Arc::ptr_eq(one, but)));
        others.map(|one| one.revision).max().unwrap_or(0)
    };
    match revisions.iter().rev().find(|one| is_of(one, template)) {
        None => Step::Begin(highest(None) + 1),
        Some(found) if found.revision > highest(Some(found)) => Step::Stay(found.clone()),
        Some(found) => Step::Renumber(found.clone(), highest(Some(found)) + 1),
    }
}

fn surplus(
    revisions: &[Arc<ControllerRevision>],
    limit: i32,
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<&Arc<ControllerRevision>> {
    let mut old: Vec<_> =
        revisions.iter().filter(|one| one.metadata.deletion_timestamp.is_none() && !is_live(one)).collect();
    old.truncate(old.len().saturating_sub(usize::try_from(limit).unwrap_or(0)));
    old
}

fn new<K: Resource<DynamicType = ()>>(owner: &K, subject: Subject<'_>, number: i64) -> ControllerRevision {
    let hash = hash(&plain(subject.template), subject.collisions);
    let mut labels =
        subject.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(subject.label.to_owned(), hash.clone());
    let mut annotations = owner.annotations().clone();
    annotations.remove(LAST_APPLIED);
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", owner.name_any())),
        namespace: owner.namespace(),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: controller_reference(owner).map(|reference| vec![reference]),
        ..ObjectMeta::default()
    };
    ControllerRevision { metadata, data: Some(RawExtension(data(subject.template))), revision: number }
}

/// The patch that puts a template back. kubectl compares it with its own byte by byte, so the fields are in order.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(plain(template)).expect("a template is plain data");
    template["$patch"] = json!("replace");
    let mut patch = json!({ "spec": { "template": template } });
    patch.sort_all_objects();
    patch
}

/// The template of a revision.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let data = &revision.data.as_ref()?.0;
    PodTemplateSpec::deserialize(&data["spec"]["template"]).ok()
}

/// Whether the revision is of that template.
pub(crate) fn is_of(revision: &ControllerRevision, wanted: &PodTemplateSpec) -> bool {
    template(revision).is_some_and(|template| plain(&template) == plain(wanted))
}

/// One form for what says the same: metadata and each container's resources are there, if empty, as clients in Go write them.
fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.take().unwrap_or_default();
    let (labels, annotations) = (metadata.labels, metadata.annotations);
    template.metadata = Some(ObjectMeta {
        labels: labels.filter(|labels| !labels.is_empty()),
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        finalizers: metadata.finalizers.filter(|finalizers| !finalizers.is_empty()),
        name: metadata.name,
        namespace: metadata.namespace,
        ..ObjectMeta::default()
    });
    if let Some(spec) = &mut template.spec {
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        for container in containers {
            container.resources.get_or_insert_default();
        }
    }
    template
}

/// The hash of a revision, where its label is the one that pods carry.
pub(crate) fn hash_of(revision: &ControllerRevision) -> &str {
    revision.labels().get(REVISION_HASH).map_or("", String::as_str)
}

/// Wakes the owner of that kind when a revision of it is changed or deleted; one without a controller wakes all owners of its
/// namespace, one of whom may take it over.
pub(crate) fn wake_owners<K>(
    revisions: &Shared<ControllerRevision>,
    kind: &'static str,
    queue: &Arc<Queue<Key>>,
    owners: Store<K>,
) where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let queue = queue.clone();
    revisions.listen(move |change| {
        let revision = change.object();
        if let Some(owner) = controller_of(&**revision, kind) {
            queue.add(owner);
        } else if is_orphan(&**revision) && !matches!(change, Change::Deleted(_)) {
            let namespace = &revision.metadata.namespace;
            let near = owners.state().into_iter().filter(|owner| owner.meta().namespace == *namespace);
            near.for_each(|owner| queue.add(key(&*owner)));
        }
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        let spec = json!({"containers": [{"name": "c", "image": image}]});
        serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}}, "spec": spec})).unwrap()
    }

    fn set() -> StatefulSet {
        serde_json::from_value(json!({"metadata": {
            "name": "web", "namespace": "n", "uid": "u",
            "annotations": {"kubernetes.io/change-cause": "because", LAST_APPLIED: "{}"},
        }}))
        .unwrap()
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let template = template(image);
        let subject = Subject { template: &template, collisions: 0, label: REVISION_HASH };
        Arc::new(new(&set(), subject, number))
    }

    #[test]
    fn a_revision_is_the_patch_that_puts_its_template_back() {
        let made = revision("one", 3);
        let written = serde_json::to_string(&made.data.as_ref().unwrap().0).unwrap();
        let expected = r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"#.to_owned()
            + r#""spec":{"containers":[{"image":"one","name":"c","resources":{}}]}}}}"#;
        assert_eq!(written, expected);
        assert!(is_of(&made, &template("one")) && !is_of(&made, &template("two")));
        assert_eq!(super::template(&made).unwrap().metadata, template("one").metadata);
        let labels = made.labels();
        assert_eq!((labels["app"].as_str(), made.name_any()), ("web", format!("web-{}", labels[REVISION_HASH])));
        assert_eq!(made.annotations().keys().collect::<Vec<_>>(), ["kubernetes.io/change-cause"]);
        assert_eq!((made.owner_references()[0].uid.as_str(), made.revision), ("u", 3));
    }

    #[test]
    fn empty_and_missing_fields_make_no_revision() {
        let mut other = template("one");
        other.metadata.as_mut().unwrap().annotations = Some([].into());
        other.spec.as_mut().unwrap().containers[0].resources =
            Some(k8s_openapi::api::core::v1::ResourceRequirements::default());
        assert!(is_of(&revision("one", 1), &other));
    }

    #[test]
    fn another_collision_gives_another_name() {
        let template = template("one");
        let subject = Subject { template: &template, collisions: 1, label: REVISION_HASH };
        assert_ne!(new(&set(), subject, 1).name_any(), revision("one", 1).name_any());
    }

    #[test]
    fn a_template_that_comes_back_gets_the_highest_number() {
        let told = |revisions: &[Arc<ControllerRevision>], image: &str| match step(revisions, &template(image)) {
            Step::Stay(revision) => format!("stay {}", revision.revision),
            Step::Renumber(revision, number) => format!("{} -> {number}", revision.revision),
            Step::Begin(number) => format!("begin {number}"),
        };
        let two = [revision("one", 1), revision("two", 2)];
        let table = [
            (&[][..], "one", "begin 1"),
            (&two, "two", "stay 2"),
            (&two, "one", "1 -> 3"),
            (&two, "three", "begin 3"),
            // Two that were numbered before either had seen the other.
            (&[revision("one", 4), revision("two", 4)], "one", "4 -> 5"),
            // The same template twice: the newer one counts.
            (&[revision("one", 1), revision("one", 2)], "one", "stay 2"),
        ];
        for (revisions, image, expected) in table {
            assert_eq!(told(revisions, image), expected, "{image}");
        }
    }

    #[test]
    fn the_oldest_that_nobody_runs_are_forgotten() {
        let known = ["a", "b", "c", "d"].map(|image| revision(image, 1));
        let first = known[0].name_any();
        let rest = |limit: i32| surplus(&known, limit, |one| one.name_any() == first).len();
        assert_eq!([rest(10), rest(3), rest(1), rest(0)], [0, 0, 2, 3]);
        let gone = surplus(&known, 2, |one| one.name_any() == first);
        assert_eq!(gone[0].name_any(), known[1].name_any(), "the one that runs is kept");
    }
}
