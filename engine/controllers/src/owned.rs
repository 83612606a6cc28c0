//! What every controller that owns objects needs: whose an object is, and what it did that the watch has not shown yet.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::core::{Selector, SelectorExt};
use kube::runtime::reflector::Lookup;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use shipway_driver::{Change, Progress, Queue, Shared, revision};
use tokio::time::Instant;

use crate::Key;
use crate::world::key;

/// Changes of ours that the watch has not shown yet, by the uid of the object.
///
/// A controller that acted and looks again before its watch caught up would act twice; it waits while this has
/// entries of its own. It is woken when one of them is seen, or when the watch has come past it.
#[derive(Default)]
pub(crate) struct Unseen(Mutex<State>);

/// How long a change may stay unseen before it is given up. Much longer than a broken watch takes to come back, or what it did
/// not show yet would be done again.
pub(crate) const UNSEEN_LIMIT: Duration = Duration::from_mins(5);

#[derive(Default)]
struct State {
    entries: HashMap<String, Awaited>,
    /// How far the watch has come.
    shown: Progress,
}

struct Awaited {
    by: Key,
    expected: Expected,
    since: Instant,
}

/// What the watch will show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The object of this revision, in any state; or a later one of another, where it went before it could be shown.
    Created(u64),
    /// The object being deleted, or gone.
    Deleted,
}

impl Awaited {
    /// Whether the watch has come so far that it will not show it any more.
    fn is_past(&self, shown: Progress) -> bool {
        let created = match self.expected {
            Expected::Created(revision) => shown.revision >= revision,
            Expected::Deleted => false,
        };
        created || shown.listed.is_some_and(|listed| listed > self.since)
    }
}

impl Unseen {
    /// One that follows a cache, and puts into the queue whose change was seen.
    pub(crate) fn over<K>(cache: &Shared<K>, queue: &Arc<Queue<Key>>) -> Arc<Self>
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        let unseen = Arc::<Self>::default();
        let (noted, woken) = (unseen.clone(), queue.clone());
        cache.listen(move |change| {
            let meta = change.object().meta();
            let ending = meta.deletion_timestamp.is_some() || matches!(change, Change::Deleted(_));
            noted.saw(meta.uid.as_deref(), ending).into_iter().for_each(|owner| woken.add(owner));
        });
        let (noted, woken) = (unseen.clone(), queue.clone());
        cache.follow(move |progress| noted.came_to(progress).into_iter().for_each(|owner| woken.add(owner)));
        unseen
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `owner` made the object, which is told as it was answered.
    pub(crate) fn made<K: Resource>(&self, owner: &Key, object: &K) {
        self.expect(owner, object, Expected::Created(revision(object)), || false);
    }

    /// `owner` deleted the object; `already` says whether the watch shows it by now.
    pub(crate) fn deleted<K: Resource>(&self, owner: &Key, object: &K, already: impl Fn() -> bool) {
        self.expect(owner, object, Expected::Deleted, already);
    }

    fn expect<K: Resource>(&self, owner: &Key, object: &K, expected: Expected, already: impl Fn() -> bool) {
        let uid = object.meta().uid.clone().unwrap_or_default();
        let awaited = Awaited { by: owner.clone(), expected, since: Instant::now() };
        {
            let State { entries, shown } = &mut *self.state();
            if awaited.is_past(*shown) {
                return;
            }
            entries.insert(uid.clone(), awaited);
        }
        // Looked at after the entry is there: a change seen between the answer and the entry is not missed.
        if already() {
            self.state().entries.remove(&uid);
        }
    }

    /// The watch showed the object, perhaps as one that is going or gone. Who awaited that.
    fn saw(&self, uid: Option<&str>, ending: bool) -> Option<Key> {
        let entries = &mut self.state().entries;
        let awaited = entries.get(uid?)?;
        if !ending && awaited.expected == Expected::Deleted {
            return None;
        }
        entries.remove(uid?).map(|awaited| awaited.by)
    }

    /// The watch has shown everything until there. Who awaited any of it.
    fn came_to(&self, progress: Progress) -> Vec<Key> {
        let State { entries, shown } = &mut *self.state();
        *shown = progress;
        entries.extract_if(|_, awaited| awaited.is_past(progress)).map(|(_, awaited)| awaited.by).collect()
    }

    /// Whether something that `owner` did has not been seen yet.
    pub(crate) fn awaits(&self, owner: &Key) -> bool {
        let entries = &mut self.state().entries;
        entries.retain(|_, awaited| awaited.since.elapsed() < UNSEEN_LIMIT);
        entries.values().any(|awaited| awaited.by == *owner)
    }
}

/// Asks the API itself whether the owner is there and stays, since its watch may be behind that of what it owns: one that was
/// deleted must neither take objects back nor make new ones, which would be collected as fast as they are made.
pub(crate) async fn is_still_there<K>(client: &Client, owner: &K) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (namespace, name) = key(owner);
    let found = Api::<K>::namespaced(client.clone(), &namespace).get_metadata_opt(&name).await?;
    Ok(found.is_some_and(|it| it.metadata.uid == owner.meta().uid && it.metadata.deletion_timestamp.is_none()))
}

/// Whether `owner` controls `object`.
pub(crate) fn is_controlled_by<K: Resource>(object: &K, owner: Option<&str>) -> bool {
    let controller = object.meta().owner_references.iter().flatten().find(|it| it.controller == Some(true));
    controller.is_some_and(|controller| Some(controller.uid.as_str()) == owner)
}

/// Whether nobody controls `object`.
pub(crate) fn is_orphan<K: Resource>(object: &K) -> bool {
    !object.meta().owner_references.iter().flatten().any(|owner| owner.controller == Some(true))
}

/// The reference that makes `owner` the controller; who deletes it in the foreground waits for what it is put on.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    let reference = owner.controller_owner_ref(&())?;
    Some(OwnerReference { block_owner_deletion: Some(true), ..reference })
}

/// A selector, read once for many objects. An empty one takes none, nor does one that cannot be read.
pub(crate) struct Chooser(Option<Selector>);

impl Chooser {
    pub(crate) fn of(selector: &LabelSelector) -> Self {
        Self(Selector::try_from(selector.clone()).ok().filter(|selector| !selector.selects_all()))
    }

    /// Whether it takes the object's labels.
    pub(crate) fn takes<K: Resource>(&self, object: &K) -> bool {
        let none = std::collections::BTreeMap::new();
        let labels = object.meta().labels.as_ref().unwrap_or(&none);
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// Takes what is stale for done: the watch brings the newer state, and with it the next look.
pub(crate) fn ignore_stale<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the API says that the object is gone or changed under us, which the next look sorts out.
pub(crate) fn is_stale(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn owner() -> Key {
        ("n".to_owned(), "o".to_owned())
    }

    fn pod(uid: &str, revision: u64) -> Pod {
        let object = json!({"metadata": {"name": "a", "uid": uid, "resourceVersion": revision.to_string()}});
        serde_json::from_value(object).unwrap()
    }

    fn shown(revision: u64) -> Progress {
        Progress { revision, listed: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_made_is_awaited_until_it_is_seen_or_the_watch_has_come_past_it() {
        let unseen = Unseen::default();
        unseen.made(&owner(), &pod("x", 5));
        assert!(unseen.awaits(&owner()) && !unseen.awaits(&("n".to_owned(), "other".to_owned())));
        assert_eq!(unseen.saw(Some("y"), false), None);
        assert_eq!(unseen.saw(Some("x"), false), Some(owner()));
        assert!(!unseen.awaits(&owner()));
        unseen.made(&owner(), &pod("z", 8));
        assert_eq!(unseen.came_to(shown(7)), [] as [Key; 0]);
        assert!(unseen.awaits(&owner()));
        assert_eq!(unseen.came_to(shown(9)), [owner()], "it came and went unseen");
        assert!(!unseen.awaits(&owner()));
        unseen.made(&owner(), &pod("late", 9));
        assert!(!unseen.awaits(&owner()), "noted after the watch had shown it");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_awaited_until_it_is_seen() {
        let unseen = Unseen::default();
        unseen.deleted(&owner(), &pod("x", 5), || false);
        assert_eq!(unseen.saw(Some("x"), false), None);
        assert_eq!(unseen.came_to(shown(100)), [] as [Key; 0], "a revision says nothing about an end");
        assert_eq!(unseen.saw(Some("x"), true), Some(owner()));
        unseen.deleted(&owner(), &pod("x", 5), || true);
        assert!(!unseen.awaits(&owner()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_was_asked_for_later_shows_all_there_is() {
        let unseen = Unseen::default();
        let before = Some(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        unseen.made(&owner(), &pod("x", 5));
        unseen.deleted(&owner(), &pod("y", 5), || false);
        assert_eq!(unseen.came_to(Progress { revision: 4, listed: before }), [] as [Key; 0]);
        tokio::time::advance(Duration::from_secs(1)).await;
        let settled = unseen.came_to(Progress { revision: 4, listed: Some(Instant::now()) });
        assert_eq!(settled, [owner(), owner()]);
        assert!(!unseen.awaits(&owner()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_shown_is_given_up() {
        let unseen = Unseen::default();
        unseen.made(&owner(), &pod("x", 5));
        tokio::time::advance(UNSEEN_LIMIT).await;
        assert!(!unseen.awaits(&owner()));
    }
}
