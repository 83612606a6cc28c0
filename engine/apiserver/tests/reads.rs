//! Lists and watches through the public door: consistent, without gaps, in every form.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, Events, PODS, brief, config_map, deployment, pod, request};
use serde_json::{Value, json};
use shipway_apiserver::Identity;
use shipway_store::{Log, Options, Range, Ranged, Revision, Store, StoreError, Txn, TxnResult, Watcher};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

async fn get_as(cluster: &Cluster, path: &str, accept: &str) -> Value {
    let mut request = request("GET", path, "", "");
    request.headers_mut().insert("accept", accept.parse().unwrap());
    cluster.send(Identity::admin(), request).await.ok()
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn pages_of_one_list_show_one_moment() {
    let cluster = Cluster::new().await;
    for i in 0..25 {
        cluster.post(CONFIG_MAPS, &config_map(&format!("c{i:02}"), &json!({}), "old")).await.ok();
    }
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=10")).await.ok();
    assert_eq!((&first["kind"], &first["metadata"]["remainingItemCount"]), (&json!("ConfigMapList"), &json!(15)));
    for i in 0..25 {
        let patch = json!({"data": {"k": "new"}});
        cluster.patch(&format!("{CONFIG_MAPS}/c{i:02}"), "merge", &patch).await.ok();
    }
    cluster.delete(&format!("{CONFIG_MAPS}/c15")).await.ok();
    cluster.post(CONFIG_MAPS, &config_map("c15a", &json!({}), "new")).await.ok();
    let mut items = first["items"].as_array().unwrap().clone();
    let mut page = first.clone();
    let mut pages = 1;
    while let Some(next) = page["metadata"]["continue"].as_str() {
        page = cluster.get(&format!("{CONFIG_MAPS}?limit=10&continue={next}")).await.ok();
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        items.extend(page["items"].as_array().unwrap().clone());
        pages += 1;
    }
    assert_eq!((pages, items.len()), (3, 25));
    assert!(items.iter().all(|item| item["data"]["k"] == "old"));
    let exact = format!("{CONFIG_MAPS}?resourceVersionMatch=Exact&resourceVersion={}", revision(&first));
    assert_eq!(cluster.get(&exact).await.ok()["items"], json!(items));
    let newest = cluster.get(CONFIG_MAPS).await.ok();
    assert!(names(&newest).contains(&"c15a".to_owned()) && revision(&newest) > revision(&first));
}

#[tokio::test]
async fn selectors_pick_by_label_and_by_field() {
    let cluster = Cluster::new().await;
    for (name, tier) in [("a", "web"), ("b", "db"), ("c", "web")] {
        cluster.post(PODS, &pod(name, &json!({"tier": tier}))).await.ok();
    }
    let list = async |query: &str| names(&cluster.get(&format!("{PODS}?{query}")).await.ok());
    assert_eq!(list("labelSelector=tier%3Dweb").await, ["a", "c"]);
    assert_eq!(list("labelSelector=tier+notin+(web)").await, ["b"]);
    assert_eq!(list("fieldSelector=metadata.name%3Db").await, ["b"]);
    assert_eq!(list("fieldSelector=metadata.name%3Db&labelSelector=tier%3Dweb").await, Vec::<String>::new());
    assert_eq!(list("fieldSelector=status.phase%3DPending").await, ["a", "b", "c"]);
    assert_eq!(list("fieldSelector=spec.nodeName%21%3D").await, Vec::<String>::new());
    assert_eq!(list("labelSelector=tier%3Dweb&limit=1").await, ["a"]);
    for query in ["fieldSelector=spec.image%3Dx", "labelSelector=a%3D%3D%3Db"] {
        assert_eq!(cluster.get(&format!("{PODS}?{query}")).await.failure().0, 400, "{query}");
    }
}

#[tokio::test]
async fn revisions_that_cannot_be_served_are_refused() {
    let cluster = Cluster::new().await;
    let (code, message) = cluster.get(&format!("{PODS}?resourceVersion=999999")).await.failure();
    assert_eq!(code, 504);
    assert!(message.starts_with("Too large resource version: 999999"), "{message}");
    for query in ["resourceVersion=x", "resourceVersionMatch=Exact", "limit=-1", "continue=nonsense"] {
        let code = cluster.get(&format!("{PODS}?{query}")).await.failure().0;
        assert!(matches!(code, 400 | 422), "{query}: {code}");
    }
}

#[tokio::test]
async fn tables_and_metadata_are_served_when_asked_for() {
    let cluster = Cluster::new().await;
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let table = get_as(&cluster, DEPLOYMENTS, TABLE).await;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "web");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["resourceVersion"].is_string());
    let one = get_as(&cluster, &format!("{DEPLOYMENTS}/web?includeObject=Object"), TABLE).await;
    assert_eq!(one["rows"][0]["object"]["kind"], "Deployment");
    let metadata = get_as(&cluster, &format!("{DEPLOYMENTS}/web"), METADATA).await;
    assert_eq!((&metadata["kind"], &metadata["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("web")));
    assert!(metadata.get("spec").is_none());
    let list = get_as(&cluster, DEPLOYMENTS, METADATA_LIST).await;
    assert_eq!((&list["kind"], names(&list)), (&json!("PartialObjectMetadataList"), vec!["web".to_owned()]));
    let mut refused = request("GET", DEPLOYMENTS, "", "");
    refused.headers_mut().insert("accept", "application/vnd.kubernetes.protobuf".parse().unwrap());
    assert_eq!(cluster.send(Identity::admin(), refused).await.failure().0, 406);
}

#[tokio::test]
async fn large_lists_are_compressed_when_asked_for() {
    use std::io::Read;
    let cluster = Cluster::new().await;
    for i in 0..20 {
        cluster.post(CONFIG_MAPS, &config_map(&format!("c{i:02}"), &json!({}), &"x".repeat(20_000))).await.ok();
    }
    let plain = cluster.get(CONFIG_MAPS).await;
    assert!(plain.headers.get("content-encoding").is_none());
    let mut request = request("GET", CONFIG_MAPS, "", "");
    request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let gzip = cluster.send(Identity::admin(), request).await;
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    assert!(gzip.bytes.len() < plain.bytes.len() / 10);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&gzip.bytes[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.bytes);
}

#[tokio::test]
async fn a_watch_begins_where_it_is_told_to() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let list = cluster.get(CONFIG_MAPS).await.ok();
    let mut after = cluster.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", revision(&list))).await;
    let mut initial = cluster.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    let announced = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut announced = cluster.watch(&format!("{CONFIG_MAPS}?{announced}")).await;
    assert_eq!(initial.brief().await, brief("ADDED", "a"));
    assert_eq!(announced.brief().await, brief("ADDED", "a"));
    let bookmark = announced.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(revision(&bookmark["object"]), revision(&list));
    cluster.post(CONFIG_MAPS, &config_map("b", &json!({}), "1")).await.ok();
    cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", &json!({"data": {"k": "2"}})).await.ok();
    cluster.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    for events in [&mut after, &mut initial, &mut announced] {
        for expected in [brief("ADDED", "b"), brief("MODIFIED", "a")] {
            assert_eq!(events.brief().await, expected);
        }
        let deleted = events.next().await.unwrap();
        assert_eq!((&deleted["type"], &deleted["object"]["data"]["k"]), (&json!("DELETED"), &json!("2")));
        assert!(revision(&deleted["object"]) > revision(&list));
    }
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let cluster = Cluster::new().await;
    let mut by_label = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=on%3Dyes")).await;
    let mut by_name = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({"on": "no"}), "1")).await.ok();
    cluster.post(CONFIG_MAPS, &config_map("b", &json!({}), "1")).await.ok();
    let label = |value: &str| json!({"metadata": {"labels": {"on": value}}});
    let path = format!("{CONFIG_MAPS}/a");
    cluster.patch(&path, "merge", &label("yes")).await.ok();
    cluster.patch(&path, "merge", &json!({"data": {"k": "2"}})).await.ok();
    let last = cluster.patch(&path, "merge", &label("no")).await.ok();
    cluster.delete(&path).await.ok();
    cluster.post(CONFIG_MAPS, &config_map("c", &json!({"on": "yes"}), "1")).await.ok();
    assert_eq!(by_label.brief().await, brief("ADDED", "a"));
    assert_eq!(by_label.brief().await, brief("MODIFIED", "a"));
    let left = by_label.next().await.unwrap();
    assert_eq!((&left["type"], &left["object"]["metadata"]["labels"]["on"]), (&json!("DELETED"), &json!("yes")));
    assert_eq!(revision(&left["object"]), revision(&last));
    assert_eq!(by_label.brief().await, brief("ADDED", "c"));
    for kind in ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(by_name.brief().await, brief(kind, "a"));
    }
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let cluster = Cluster::new().await;
    let mut events = cluster.watch(&format!("{PODS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1")).await;
    let newest = cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    let bookmark = events.next().await.unwrap();
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("Pod")));
    assert!(revision(&bookmark["object"]) <= revision(&newest));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_in_table_form_describes_its_columns_once() {
    let cluster = Cluster::new().await;
    let mut events = cluster.watch_as(&format!("{CONFIG_MAPS}?watch=1"), TABLE).await;
    for name in ["a", "b"] {
        cluster.post(CONFIG_MAPS, &config_map(name, &json!({}), "1")).await.ok();
    }
    let first = events.next().await.unwrap();
    let second = events.next().await.unwrap();
    assert_eq!((&first["object"]["kind"], &first["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    assert!(second["object"]["columnDefinitions"].as_array().is_none_or(Vec::is_empty));
}

/// Replays events over a list; fails when an event does not fit what came before.
async fn follow(mut events: Events, mut objects: BTreeMap<String, u64>, until: &str) -> BTreeMap<String, u64> {
    let mut last = objects.values().copied().max().unwrap_or(0);
    loop {
        let event = events.next().await.expect("the watch goes on");
        let object = &event["object"];
        let (name, at) = (object["metadata"]["name"].as_str().unwrap().to_owned(), revision(object));
        assert!(at > last, "{at} after {last}");
        last = at;
        match event["type"].as_str().unwrap() {
            "ADDED" => assert_eq!(objects.insert(name.clone(), at), None, "{name} twice"),
            "MODIFIED" => assert!(objects.insert(name.clone(), at).is_some(), "{name} changed before it was there"),
            "DELETED" => assert!(objects.remove(&name).is_some(), "{name} went before it was there"),
            other => panic!("{other}"),
        }
        if name == until {
            return objects;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_resume_anywhere_without_a_gap_under_many_writers() {
    let cluster = Cluster::new().await;
    let cluster = &cluster;
    let mut starts = vec![cluster.get(CONFIG_MAPS).await.ok()];
    for round in 0..4 {
        let writer = |i: usize| async move {
            for step in 0..40 {
                let name = format!("w{i}-{}", step % 5);
                let path = format!("{CONFIG_MAPS}/{name}");
                let value = format!("{round}-{step}");
                match step % 3 {
                    0 => drop(cluster.post(CONFIG_MAPS, &config_map(&name, &json!({}), &value)).await),
                    1 => drop(cluster.patch(&path, "merge", &json!({"data": {"k": value}})).await),
                    _ => drop(cluster.delete(&path).await),
                }
            }
        };
        let list = async { cluster.get(CONFIG_MAPS).await.ok() };
        let (_, list) = futures::join!(futures::future::join_all((0..8).map(writer)), list);
        starts.push(list);
    }
    cluster.post(CONFIG_MAPS, &config_map("end", &json!({}), "1")).await.ok();
    let newest = cluster.get(CONFIG_MAPS).await.ok();
    let state = |list: &Value| -> BTreeMap<String, u64> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), revision(item))).collect()
    };
    for list in &starts {
        let events = cluster.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(list))).await;
        assert_eq!(follow(events, state(list), "end").await, state(&newest));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_overtaken_or_older_than_the_server_reads_history() {
    let cluster = Cluster::new().await;
    let start = cluster.get(CONFIG_MAPS).await.ok();
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&start));
    let slow = cluster.watch(&path).await;
    let large = "x".repeat(200_000);
    for i in 0..40 {
        cluster.post(CONFIG_MAPS, &config_map(&format!("c{i:02}"), &json!({}), &format!("{i}{large}"))).await.ok();
    }
    let follow_from_start = |events| async {
        let map = start["items"].as_array().unwrap().iter();
        let map = map.map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), revision(item))).collect();
        follow(events, map, "c39").await
    };
    let seen = follow_from_start(slow).await;
    assert_eq!(seen.len(), 40 + start["items"].as_array().unwrap().len());
    let again = Cluster::at(cluster.close().await).await;
    let mut resumed = again.watch(&path).await;
    for i in 0..40 {
        assert_eq!(resumed.brief().await, brief("ADDED", &format!("c{i:02}")));
    }
    again.post(CONFIG_MAPS, &config_map("live", &json!({}), "1")).await.ok();
    assert_eq!(resumed.brief().await, brief("ADDED", "live"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_never_goes_behind_an_acknowledged_write() {
    let cluster = Cluster::new().await;
    let cluster = &cluster;
    let task = |i: usize| async move {
        for step in 0..30 {
            let name = format!("c{i}-{step}");
            let written = cluster.post(CONFIG_MAPS, &config_map(&name, &json!({}), "1")).await.ok();
            assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/{name}")).await.ok(), written);
            let listed = cluster.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3D{name}")).await.ok();
            assert_eq!(listed["items"][0], written);
            cluster.delete(&format!("{CONFIG_MAPS}/{name}")).await.ok();
            assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/{name}")).await.code, 404);
        }
    };
    futures::future::join_all((0..8).map(task)).await;
}

/// A store that has forgotten what was before a revision.
struct Forgetful {
    inner: Arc<dyn Store>,
    floor: Revision,
}

#[async_trait::async_trait]
impl Store for Forgetful {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn range(&self, range: Range) -> Result<Ranged, StoreError> {
        match range.revision {
            Some(revision) if revision < self.floor => Err(self.forgotten(revision)),
            _ => self.inner.range(range).await,
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        self.inner.txn(txn).await
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<Box<dyn Watcher>, StoreError> {
        if from < self.floor {
            return Err(self.forgotten(from));
        }
        self.inner.watch(range, from).await
    }
}

impl Forgetful {
    fn forgotten(&self, requested: Revision) -> StoreError {
        StoreError::Compacted { requested, compacted: self.floor }
    }
}

#[tokio::test]
async fn what_has_been_compacted_is_gone() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.post(CONFIG_MAPS, &config_map(name, &json!({}), "1")).await.ok();
    }
    let page = cluster.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    cluster.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    cluster.post(CONFIG_MAPS, &config_map("d", &json!({}), "1")).await.ok();
    let dir = cluster.close().await;
    let inner: Arc<dyn Store> = Log::open(dir.path(), Options::default()).unwrap();
    let floor = inner.revision();
    let cluster = Cluster::over(Arc::new(Forgetful { inner, floor }), dir).await;

    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&page));
    let mut events = cluster.watch(&path).await;
    let event = events.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(events.next().await, None);

    let next = page["metadata"]["continue"].as_str().unwrap();
    let expired = cluster.get(&format!("{CONFIG_MAPS}?limit=1&continue={next}")).await;
    assert_eq!(expired.failure().0, 410);
    let resume = expired.value()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = cluster.get(&format!("{CONFIG_MAPS}?continue={resume}")).await.ok();
    assert_eq!(names(&rest), ["c", "d"], "the rest as it is now");
}

#[tokio::test]
async fn requests_and_objects_are_counted() {
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/missing")).await.code, 404);
    assert_eq!(cluster.get("/apis/nobody/v1/asked").await.code, 404);
    let text = String::from_utf8(cluster.get("/metrics").await.bytes.to_vec()).unwrap();
    let line = |start: &str, end: &str| text.lines().any(|line| line.starts_with(start) && line.ends_with(end));
    let request = |verb: &str, code: &str| {
        format!(
            "apiserver_request_total{{verb=\"{verb}\",group=\"\",version=\"v1\",resource=\"configmaps\",subresource=\"\",code=\"{code}\"}}"
        )
    };
    assert!(line(&request("create", "201"), " 1"), "{text}");
    assert!(line(&request("get", "404"), " 1"), "{text}");
    assert!(line("apiserver_resource_objects{group=\"\",resource=\"configmaps\"}", " 1"), "{text}");
    assert!(!text.contains("nobody"), "labels come from what is served only");
    let somebody = Identity { user: "somebody".into(), ..Identity::default() };
    assert_eq!(cluster.send(somebody, request_for_metrics()).await.code, 403);
}

fn request_for_metrics() -> http::Request<http_body_util::Full<bytes::Bytes>> {
    request("GET", "/metrics", "", "")
}
