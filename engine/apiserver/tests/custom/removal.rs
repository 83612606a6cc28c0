//! The end of a definition: watches end with it, and nothing that is created at the last moment is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use shipway_store::{Log, Op, Options, Range, Ranged, Revision, Store, StoreError, Txn, TxnResult, Watcher};
use tokio::sync::Semaphore;

use crate::common::{Cluster, brief};
use crate::{CRONTABS, DEFINITIONS, crontab, define, definition, gone, version};

const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";

#[tokio::test]
async fn a_watch_tells_of_the_last_object_and_ends_with_the_definition() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    cluster.post(CRONTABS, &crontab("a", &json!({}))).await.ok();
    let mut idle = cluster.watch(&format!("{CRONTABS}?watch=1&fieldSelector=metadata.name=none")).await;
    let mut watch = cluster.watch(&format!("{CRONTABS}?watch=1")).await;
    assert_eq!(watch.brief().await, brief("ADDED", "a"));
    cluster.delete(DEFINITION).await.ok();
    assert_eq!(watch.brief().await, brief("DELETED", "a"));
    assert_eq!(watch.next().await, None);
    assert_eq!(idle.next().await, None);
    gone(&cluster, DEFINITION).await;
}

#[tokio::test]
async fn a_watch_ends_when_its_kind_becomes_another_and_goes_on_where_it_was() {
    let cluster = Cluster::new().await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    let mut watch = cluster.watch(&format!("{CRONTABS}?watch=1")).await;
    let first = cluster.post(CRONTABS, &crontab("a", &json!({}))).await.ok();
    assert_eq!(watch.brief().await, brief("ADDED", "a"));
    // What is said about a definition beside its spec changes no kind.
    let mut defined = cluster.patch(DEFINITION, "merge", &json!({ "metadata": { "labels": { "a": "b" } } })).await.ok();
    cluster.post(CRONTABS, &crontab("b", &json!({}))).await.ok();
    assert_eq!(watch.brief().await, brief("ADDED", "b"));
    defined["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["more"] =
        json!({ "type": "string", "default": "x" });
    cluster.put(DEFINITION, &defined).await.ok();
    assert_eq!(watch.next().await, None);
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = cluster.watch(&format!("{CRONTABS}?watch=1&resourceVersion={revision}")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["object"]["metadata"]["name"], &event["object"]["spec"]["more"]), (&json!("b"), &json!("x")));
}

/// A store that holds back the write of one object.
struct Slow {
    inner: Arc<dyn Store>,
    reached: Semaphore,
    go_on: Semaphore,
    done: AtomicBool,
}

#[async_trait::async_trait]
impl Store for Slow {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn range(&self, range: Range) -> Result<Ranged, StoreError> {
        self.inner.range(range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        let late = |op: &Op| matches!(op, Op::Put { key, .. } if key.ends_with(b"/crontabs/default/late"));
        if txn.then.iter().any(late) && !self.done.swap(true, Ordering::SeqCst) {
            self.reached.add_permits(1);
            self.go_on.acquire().await.unwrap().forget();
        }
        self.inner.txn(txn).await
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<Box<dyn Watcher>, StoreError> {
        self.inner.watch(range, from).await
    }
}

#[tokio::test]
async fn an_object_that_comes_too_late_is_not_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Store> = Log::open(dir.path(), Options::default()).unwrap();
    let slow =
        Arc::new(Slow { inner, reached: Semaphore::new(0), go_on: Semaphore::new(0), done: AtomicBool::new(false) });
    let cluster = Cluster::over(slow.clone(), dir).await;
    define(&cluster, &definition(&[version("v1", true)])).await;
    let late = crontab("late", &json!({}));
    let create = cluster.post(CRONTABS, &late);
    let remove = async {
        slow.reached.acquire().await.unwrap().forget();
        cluster.delete(DEFINITION).await.ok();
        gone(&cluster, DEFINITION).await;
        slow.go_on.add_permits(1);
    };
    let (created, ()) = tokio::join!(create, remove);
    assert_eq!(created.code, 404, "{}", String::from_utf8_lossy(&created.bytes));
    let left = cluster.store.range(Range::prefix("/registry/stable.example.com/crontabs/")).await.unwrap();
    assert!(left.items.is_empty());
    define(&cluster, &definition(&[version("v1", true)])).await;
    assert!(cluster.get(CRONTABS).await.ok()["items"].as_array().unwrap().is_empty());
    // The same write is fine while only something else about the definition changes.
    slow.done.store(false, Ordering::SeqCst);
    let create = cluster.post(CRONTABS, &late);
    let change = async {
        slow.reached.acquire().await.unwrap().forget();
        cluster.patch(DEFINITION, "merge", &json!({ "metadata": { "labels": { "a": "b" } } })).await.ok();
        slow.go_on.add_permits(1);
    };
    let (created, ()) = tokio::join!(create, change);
    created.ok();
    assert_eq!(cluster.get(DEFINITIONS).await.ok()["items"].as_array().unwrap().len(), 1);
}
