//! What every controller that owns objects needs: whose an object is, and what it did that the watch has not shown yet.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::Resource;
use kube::core::{Selector, SelectorExt};
use tokio::time::Instant;

use crate::Key;

/// Changes of ours that the watch has not shown yet, by the uid of the object.
///
/// A controller that acted and looks again before its watch caught up would act twice; it waits while this has
/// entries of its own. The watch wakes it when the last of them is seen.
#[derive(Default)]
pub(crate) struct Unseen(Mutex<HashMap<String, Awaited>>);

/// How long a change may stay unseen before it is given up: it came and went before it was noted. Much longer than a broken
/// watch takes to come back, or what it did not show yet would be done again.
pub(crate) const UNSEEN_LIMIT: Duration = Duration::from_mins(5);

struct Awaited {
    by: Key,
    expected: Expected,
    since: Instant,
}

/// What the watch will show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The object, in any state.
    Created,
    /// The object being deleted, or gone.
    Deleted,
}

impl Unseen {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `owner` did something to the object `uid`; `already` says whether the watch shows it by now.
    pub(crate) fn expect(&self, owner: &Key, uid: &str, expected: Expected, already: impl Fn() -> bool) {
        self.entries().insert(uid.to_owned(), Awaited { by: owner.clone(), expected, since: Instant::now() });
        // Looked at after the entry is there: a change seen between the answer and the entry is not missed.
        if already() {
            self.entries().remove(uid);
        }
    }

    /// The watch showed the object.
    pub(crate) fn saw(&self, uid: Option<&str>) {
        self.saw_change(uid, false);
    }

    /// The watch showed the object, perhaps as one that is going or gone.
    pub(crate) fn saw_change(&self, uid: Option<&str>, deleting: bool) {
        let Some(uid) = uid else { return };
        let mut entries = self.entries();
        if entries.get(uid).is_some_and(|awaited| deleting || awaited.expected == Expected::Created) {
            entries.remove(uid);
        }
    }

    /// Whether something that `owner` did has not been seen yet.
    pub(crate) fn awaits(&self, owner: &Key) -> bool {
        let mut entries = self.entries();
        entries.retain(|_, awaited| awaited.since.elapsed() < UNSEEN_LIMIT);
        entries.values().any(|awaited| awaited.by == *owner)
    }
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

/// Whether the selector, which must not be empty, takes these labels.
pub(crate) fn selector_matches<K: Resource>(selector: &LabelSelector, object: &K) -> bool {
    let Ok(selector) = Selector::try_from(selector.clone()) else { return false };
    let none = std::collections::BTreeMap::new();
    !selector.selects_all() && selector.matches(object.meta().labels.as_ref().unwrap_or(&none))
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
