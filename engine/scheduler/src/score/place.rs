//! What is good about a node by itself: preferences that it meets, taints that it does not have, images that it has.

use super::{BEST, by_highest};
use crate::fit::Question;
use crate::snapshot::{Slot, Snapshot};

/// An image smaller than this makes no difference.
const SMALL_IMAGE: i64 = 23 << 20;
/// And more than this for each container makes no more.
const LARGE_IMAGE: i64 = 1000 << 20;

/// The weights of the preferred terms of node affinity.
pub(super) fn liked(question: &Question<'_>, nodes: &[Slot]) -> Option<Vec<i64>> {
    by_highest(nodes.iter().map(|slot| question.standings.get(*slot).liked.into()).collect())
}

/// Fewer untolerated taints that ask to be avoided.
pub(super) fn soft_taints(question: &Question<'_>, nodes: &[Slot]) -> Option<Vec<i64>> {
    let raw = nodes.iter().map(|slot| question.standings.get(*slot).soft_taints.into()).collect();
    Some(by_highest(raw)?.into_iter().map(|score| BEST - score).collect())
}

/// Large images that are there already; one that few nodes have counts for less, so that not all pods go there.
pub(super) fn images(question: &Question<'_>, snapshot: &Snapshot, nodes: &[Slot]) -> Option<Vec<i64>> {
    let spec = question.wanted.spec()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let (mut many, mut known) = (0, Vec::new());
    for image in containers.filter_map(|container| container.image.as_deref()) {
        many += 1;
        known.extend(snapshot.image(image).or_else(|| snapshot.image(&named_in_full(image))));
    }
    if known.is_empty() {
        return None;
    }
    let all = i64::try_from(snapshot.many_nodes()).unwrap_or(i64::MAX).max(1);
    let size = |slot: &Slot| -> i64 {
        let sizes = known.iter().filter_map(|having| {
            let spread = i64::try_from(having.len()).unwrap_or(i64::MAX);
            having
                .get(slot)
                .map(|size| i64::try_from(i128::from(*size) * i128::from(spread) / i128::from(all)).unwrap_or(0))
        });
        sizes.fold(0, i64::saturating_add)
    };
    let most = LARGE_IMAGE * many;
    let score = |slot: &Slot| BEST * (size(slot).clamp(SMALL_IMAGE, most) - SMALL_IMAGE) / (most - SMALL_IMAGE).max(1);
    Some(nodes.iter().map(score).collect())
}

/// With the tag that is meant where none is given.
fn named_in_full(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}
