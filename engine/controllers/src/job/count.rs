//! Each pod of a job is counted once. A finalizer keeps it; its uid is written into the status before the finalizer goes,
//! and becomes part of a number when it is gone. Whoever dies between two of these steps finds out where it was.
//!
//! Completed indexes need no such book: the set of them is the count.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::Indexes;
use super::look::{Indexed, Look};
use super::pods::{has_succeeded, index, is_tracked};
use super::verdict::Verdict;

/// How many pods may stand in the status as not counted.
const MOST: usize = 500;

/// What is to be written, and what may be done when it is.
pub(super) struct Counted {
    pub(super) status: JobStatus,
    /// The pods whose finalizers go once the status is written.
    pub(super) release: Vec<Arc<Pod>>,
    /// Whether there are pods that found no room.
    pub(super) is_partial: bool,
}

/// Takes what ended into the status.
pub(super) fn count(look: &Look<'_>, verdict: Option<&Verdict>) -> Counted {
    let tracked: HashSet<&str> =
        look.pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.as_deref()).collect();
    let mut status = look.status.clone();
    settle(&mut status, |uid| !tracked.contains(uid));
    let mut book = Book::open(look, status.uncounted_terminated_pods.take().unwrap_or_default());
    let mut release = Vec::new();
    for pod in in_order(look).into_iter().filter(|pod| may_go(look, verdict, pod)) {
        if book.len() >= MOST {
            book.is_partial = true;
            break;
        }
        release.push(pod.clone());
        book.enter(look, verdict, pod);
    }
    let is_partial = book.is_partial;
    book.close(look, &mut status);
    Counted { status, release, is_partial }
}

/// Makes numbers of the pods that were written down and whose finalizers are gone.
pub(super) fn settle(status: &mut JobStatus, is_gone: impl Fn(&str) -> bool) {
    let book = status.uncounted_terminated_pods.take().unwrap_or_default();
    let part = |all: Option<Vec<String>>| -> (usize, Option<Vec<String>>) {
        let before = all.unwrap_or_default();
        let (gone, left): (Vec<_>, Vec<_>) = before.into_iter().partition(|uid| is_gone(uid));
        (gone.len(), (!left.is_empty()).then_some(left))
    };
    let ((succeeded, succeeded_left), (failed, failed_left)) = (part(book.succeeded), part(book.failed));
    status.succeeded = plus(status.succeeded, succeeded);
    status.failed = plus(status.failed, failed);
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods { succeeded: succeeded_left, failed: failed_left });
}

/// Whether pods are written down and not yet part of a number.
pub(super) fn is_settled(status: &JobStatus) -> bool {
    let book = status.uncounted_terminated_pods.as_ref();
    book.is_none_or(|book| book.succeeded.is_none() && book.failed.is_none())
}

fn plus(number: Option<i32>, more: usize) -> Option<i32> {
    self::number(usize::try_from(number.unwrap_or(0)).unwrap_or(0) + more)
}

/// A count as the status has it, where nought is left out.
pub(super) fn number(count: usize) -> Option<i32> {
    (count > 0).then(|| i32::try_from(count).unwrap_or(i32::MAX))
}

/// The pods that are still held, by index where there is one.
fn in_order<'a>(look: &Look<'a>) -> Vec<&'a Arc<Pod>> {
    let mut pods: Vec<_> = look.pods.iter().filter(|pod| is_tracked(pod)).collect();
    if look.indexed.is_some() {
        pods.sort_by_key(|pod| index(pod));
    }
    pods
}

/// Whether nothing more is expected of the pod: it ended, or its job did.
fn may_go(look: &Look<'_>, verdict: Option<&Verdict>, pod: &Pod) -> bool {
    if look.is_going() || verdict.is_some() || has_succeeded(pod) {
        return true;
    }
    // The last failed pod of an index holds how often that failed, until another one does.
    let holds_a_count = || {
        let kept = look.indexed.as_ref().and_then(|indexed| indexed.kept.get(&index(pod)?).copied());
        kept.is_some_and(|kept| kept.metadata.uid == pod.metadata.uid)
    };
    look.has_failed(pod) && !holds_a_count()
}

/// What is written down of pods that are not counted yet.
struct Book {
    succeeded: Vec<String>,
    failed: Vec<String>,
    indexes: Vec<u32>,
    is_partial: bool,
}

impl Book {
    fn open(look: &Look<'_>, before: UncountedTerminatedPods) -> Self {
        // An index is its own count.
        let succeeded = before.succeeded.filter(|_| look.indexed.is_none()).unwrap_or_default();
        Self { succeeded, failed: before.failed.unwrap_or_default(), indexes: Vec::new(), is_partial: false }
    }

    fn len(&self) -> usize {
        self.succeeded.len() + self.failed.len() + self.indexes.len()
    }

    fn enter(&mut self, look: &Look<'_>, verdict: Option<&Verdict>, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let known = |list: &[String]| list.iter().any(|known| known == uid);
        if !look.is_valid(pod) || known(&self.failed) || known(&self.succeeded) {
            return;
        }
        // When a job has failed, so has everything that it had begun.
        let lost = || look.has_failed(pod) || verdict.is_some_and(|verdict| !verdict.is_success);
        match &look.indexed {
            Some(indexed) if has_succeeded(pod) => {
                self.indexes.extend(index(pod).filter(|index| !indexed.counted.contains(*index)));
            }
            None if has_succeeded(pod) => self.succeeded.push(uid.to_owned()),
            _ if lost() && look.ruling(pod).counts() => self.failed.push(uid.to_owned()),
            _ => {}
        }
    }

    fn close(self, look: &Look<'_>, status: &mut JobStatus) {
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: some(self.succeeded), failed: some(self.failed) });
        let Some(Indexed { counted, failed, .. }) = &look.indexed else { return };
        let succeeded = counted.union(&Indexes::of(self.indexes));
        status.succeeded = number(succeeded.total());
        status.completed_indexes = Some(succeeded.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = failed.as_ref().map(Indexes::to_string);
    }
}
