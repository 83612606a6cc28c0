//! LIST: pages of shared bytes, each page of one list at the same revision.
//!
//! The newest state comes from the watch cache. A page whose revision the cache has left behind comes from the store
//! at that revision, so a list is consistent however many writes happen between its pages.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shipway_schema::{FieldError, Reason};
use shipway_store::{Range, Revision, StoreError};

use crate::cache::{Cache, read};
use crate::commit::Place;
use crate::error::{About, ApiError};
use crate::object::Object;
use crate::query::Query;
use crate::select::Selection;

/// How many keys are read from the store at once when a page has to be searched for.
const STEP: usize = 500;
/// A token that says to go on at whatever revision is newest.
const NEWEST: Revision = 0;

/// What revision a list may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Nothing older than every acknowledged write.
    Latest,
    /// Whatever is at hand.
    Any,
    /// That revision or a newer one.
    NotOlderThan(Revision),
    /// That revision.
    Exactly(Revision),
}

/// One page of a list.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: Revision,
    /// Where the next page begins; none on the last.
    pub(crate) next: Option<String>,
    /// How many objects follow, where that is known.
    pub(crate) remaining: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "rv")]
    revision: Revision,
    /// The last key of the page before.
    #[serde(rename = "after")]
    after: String,
}

impl Token {
    fn write(revision: Revision, after: &str) -> String {
        let token = Self { version: "shipway/1".into(), revision, after: after.into() };
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("a token can be encoded"))
    }

    fn read(text: &str) -> Result<Self, ApiError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let token: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token
            .filter(|token| token.version == "shipway/1")
            .ok_or_else(|| ApiError::BadRequest("continue key is not valid: encoded by another server".into()))
    }
}

/// The paging parameters of a request.
pub(crate) struct Paging {
    at: At,
    /// 0 means everything.
    limit: usize,
    /// Go on behind this key.
    after: Option<String>,
}

impl Paging {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX);
        let Some(token) = query.get("continue") else {
            return Ok(Self { at: at(query, limit > 0)?, limit, after: None });
        };
        if !matches!(query.get("resourceVersion"), None | Some("0")) {
            let text = "specifying resource version is not allowed when using continue";
            return Err(ApiError::BadRequest(text.into()));
        }
        let token = Token::read(token)?;
        let at = if token.revision == NEWEST { At::Latest } else { At::Exactly(token.revision) };
        Ok(Self { at, limit, after: Some(token.after) })
    }

    /// Whether it is neither at an exact revision nor a later page.
    pub(crate) fn is_simple(&self) -> bool {
        self.after.is_none() && !matches!(self.at, At::Exactly(_))
    }

    pub(crate) fn at(&self) -> At {
        self.at
    }

    /// Everything as of now.
    pub(crate) fn everything() -> Self {
        Self { at: At::Latest, limit: 0, after: None }
    }
}

/// Reads `resourceVersion` and `resourceVersionMatch`.
pub(crate) fn at(query: &Query, limited: bool) -> Result<At, ApiError> {
    let revision = query.number("resourceVersion")?;
    match (query.get("resourceVersionMatch"), revision) {
        (None, None) => Ok(At::Latest),
        (None | Some("NotOlderThan"), Some(0)) => Ok(At::Any),
        // Upstream's legacy: a limit turns an exact revision on.
        (None, Some(revision)) if limited => Ok(At::Exactly(revision)),
        (None | Some("NotOlderThan"), Some(revision)) => Ok(At::NotOlderThan(revision)),
        (Some("Exact"), Some(0)) => {
            Err(refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
        }
        (Some("Exact"), Some(revision)) => Ok(At::Exactly(revision)),
        (Some(_), None) => Err(refuse("resourceVersionMatch is forbidden unless resourceVersion is provided")),
        (Some(other), _) => Err(refuse(&format!("{other:?} is none of Exact, NotOlderThan"))),
    }
}

/// The refusal of a list option.
pub(crate) fn refuse(text: &str) -> ApiError {
    let about = About { group: "meta.k8s.io".into(), resource: "ListOptions".into(), name: String::new() };
    let error = FieldError {
        field: "resourceVersionMatch".into(),
        reason: Reason::Forbidden,
        message: format!("Forbidden: {text}"),
    };
    ApiError::Invalid(about, vec![error])
}

/// Waits until the cache may answer for a revision other than an exact one.
pub(crate) async fn settle(cache: &Cache, at: At) -> Result<(), ApiError> {
    match at {
        At::Latest => cache.catch_up().await,
        At::Any => Ok(()),
        At::NotOlderThan(revision) | At::Exactly(revision) => cache.reach(revision).await,
    }
}

/// Collects one page.
pub(crate) async fn list(
    cache: &Cache,
    place: &Place,
    selection: &Selection,
    paging: &Paging,
) -> Result<Page, ApiError> {
    let table = &place.table;
    settle(cache, paging.at).await?;
    if let At::Exactly(revision) = paging.at {
        if !table.unchanged_since(revision) {
            return from_store(cache, place, selection, paging, revision).await;
        }
        let mut page = from_cache(cache, place, selection, paging, Some(revision));
        if table.unchanged_since(revision) {
            page.revision = revision;
            return Ok(page);
        }
        return from_store(cache, place, selection, paging, revision).await;
    }
    Ok(from_cache(cache, place, selection, paging, None))
}

fn from_cache(cache: &Cache, place: &Place, selection: &Selection, paging: &Paging, exactly: Option<Revision>) -> Page {
    let snapshot = cache.snapshot(&place.table, selection.namespace.as_deref(), paging.after.as_deref());
    let revision = exactly.unwrap_or(snapshot.revision);
    let mut objects = snapshot.objects;
    if !selection.is_plain() {
        objects.retain(|object| selection.matches(&place.resource, object));
    }
    let remaining = objects.len().saturating_sub(paging.limit);
    if paging.limit == 0 || remaining == 0 {
        return Page { objects, revision, next: None, remaining: None };
    }
    objects.truncate(paging.limit);
    let next = objects.last().map(|last| Token::write(revision, &last.key));
    Page { objects, revision, next, remaining: selection.is_plain().then_some(remaining) }
}

/// Reads a page at a revision that the cache no longer shows, in steps, until it is full.
async fn from_store(
    cache: &Cache,
    place: &Place,
    selection: &Selection,
    paging: &Paging,
    revision: Revision,
) -> Result<Page, ApiError> {
    let table = &place.table;
    let within = match &selection.namespace {
        Some(namespace) => format!("{}{namespace}/", table.prefix),
        None => table.prefix.to_string(),
    };
    let wanted = if paging.limit == 0 { usize::MAX } else { paging.limit };
    let mut range = Range::prefix(Bytes::from(within)).at(revision).limit(STEP);
    if let Some(after) = &paging.after {
        range.start = range.start.max(format!("{}{after}\0", table.prefix).into());
    }
    let mut objects = Vec::new();
    loop {
        let ranged = cache.store().range(range.clone()).await.map_err(|error| expired(error, paging))?;
        let behind = ranged.count.saturating_sub(ranged.items.len());
        let mut items = ranged.items.iter();
        for kv in items.by_ref() {
            let key = std::str::from_utf8(&kv.key[table.prefix.len()..]).unwrap_or_default();
            let object = read(key, kv)?;
            if selection.matches(&place.resource, &object) {
                objects.push(Arc::new(object));
            }
            if objects.len() == wanted {
                break;
            }
        }
        let remaining = items.len() + behind;
        if objects.len() == wanted && remaining > 0 {
            let next = objects.last().map(|last| Token::write(revision, &last.key));
            return Ok(Page { objects, revision, next, remaining: selection.is_plain().then_some(remaining) });
        }
        match ranged.items.last() {
            Some(last) if ranged.more => range.start = [&last.key[..], b"\0"].concat().into(),
            _ => return Ok(Page { objects, revision, next: None, remaining: None }),
        }
    }
}

/// A compacted revision becomes 410 with a token that goes on without consistency.
fn expired(error: StoreError, paging: &Paging) -> ApiError {
    match error {
        StoreError::Compacted { .. } => ApiError::Expired {
            message: "The provided continue parameter is too old to display a consistent list result. Start the list \
                      anew, or go on with the continue token of this reply to see the rest as it is now."
                .into(),
            resume: paging.after.as_deref().map(|after| Token::write(NEWEST, after)),
        },
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_at(query: &str, limited: bool) -> Option<At> {
        at(&Query::parse(query).unwrap(), limited).ok()
    }

    #[test]
    fn revision_rules_follow_the_published_table() {
        assert_eq!(read_at("", false), Some(At::Latest));
        assert_eq!(read_at("resourceVersion=0", true), Some(At::Any));
        assert_eq!(read_at("resourceVersion=7", false), Some(At::NotOlderThan(7)));
        assert_eq!(read_at("resourceVersion=7", true), Some(At::Exactly(7)));
        assert_eq!(read_at("resourceVersion=7&resourceVersionMatch=NotOlderThan", true), Some(At::NotOlderThan(7)));
        assert_eq!(read_at("resourceVersion=7&resourceVersionMatch=Exact", false), Some(At::Exactly(7)));
        assert_eq!(read_at("resourceVersion=0&resourceVersionMatch=Exact", false), None);
        assert_eq!(read_at("resourceVersionMatch=Exact", false), None);
        assert_eq!(read_at("resourceVersion=7&resourceVersionMatch=Often", false), None);
        assert_eq!(read_at("resourceVersion=x", false), None);
    }

    #[test]
    fn a_token_that_is_not_ours_is_refused() {
        for token in ["", "e30", "not base64!"] {
            assert!(matches!(Token::read(token), Err(ApiError::BadRequest(_))), "{token}");
        }
        let token = Token::read(&Token::write(7, "ns/a")).unwrap();
        assert_eq!((token.revision, token.after.as_str()), (7, "ns/a"));
    }
}
