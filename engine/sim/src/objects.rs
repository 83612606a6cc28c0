//! What a test does with objects: apply, read, change, delete. An answer that is none fails the test.

use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Cluster;
use crate::kinds::{folder, path, split, uri};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

impl Cluster {
    /// Sends a request as the administrator and returns the document that answers it.
    pub async fn call(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value, kube::Error> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(uri(path, "")).header("content-type", kind).body(body);
        self.client().request(request.expect("a request of checked parts")).await
    }

    /// Makes the object be as described, by server-side apply; in the namespace `default` where it names none.
    #[track_caller]
    pub fn apply(&self, object: Value) -> impl Future<Output = Value> + use<> {
        let (cluster, place) = (self.clone(), std::panic::Location::caller());
        async move {
            let path = path(cluster.registry(), &object) + "?fieldManager=test&force=true";
            let applied = cluster.call(Method::PATCH, &path, APPLY, &object).await;
            applied.unwrap_or_else(|error| panic!("{place}: {path}: {error}\n{object:#}"))
        }
    }

    /// Creates the object, or says why the API server does not.
    pub async fn create(&self, object: Value) -> Result<Value, kube::Error> {
        let path = path(self.registry(), &object);
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.call(Method::POST, folder, JSON, &object).await
    }

    /// The object called `name` (in `default`) or `namespace/name`; none when it is not there.
    pub async fn get<K>(&self, key: &str) -> Option<K>
    where
        K: Resource<DynamicType = (), Scope: 'static> + DeserializeOwned,
    {
        let (namespace, name) = split(key);
        let path = format!("{}/{name}", folder::<K>(namespace));
        let request = Request::get(uri(&path, "")).body(Vec::new()).expect("a request of checked parts");
        match self.client().request(request).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// The objects of a namespace, or of all when it is empty, that a label selector selects, in the order of their names.
    pub async fn list<K>(&self, namespace: &str, selector: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope: 'static> + DeserializeOwned + Clone,
    {
        let selector = selector.replace('=', "%3D").replace(' ', "%20").replace('!', "%21").replace(',', "%2C");
        let query = if selector.is_empty() { selector } else { format!("labelSelector={selector}") };
        let path = folder::<K>(namespace);
        let request = Request::get(uri(&path, &query)).body(Vec::new()).expect("a request of checked parts");
        let listed: Result<kube::api::ObjectList<K>, _> = self.client().request(request).await;
        listed.unwrap_or_else(|error| panic!("{path}: {error}")).items
    }

    /// The pods of `default` that a label selector selects.
    pub async fn pods(&self, selector: &str) -> Vec<Pod> {
        self.list("default", selector).await
    }

    /// Changes an object by a merge patch.
    pub async fn patch<K>(&self, key: &str, patch: Value) -> Value
    where
        K: Resource<DynamicType = (), Scope: 'static>,
    {
        self.patch_part::<K>(key, "", patch).await
    }

    /// Changes a subresource, such as `status` or `scale`, by a merge patch.
    pub async fn patch_part<K>(&self, key: &str, subresource: &str, patch: Value) -> Value
    where
        K: Resource<DynamicType = (), Scope: 'static>,
    {
        let (namespace, name) = split(key);
        let place = format!("{}/{name}/{subresource}", folder::<K>(namespace));
        let place = place.trim_end_matches('/');
        let patched = self.call(Method::PATCH, place, MERGE, &patch).await;
        patched.unwrap_or_else(|error| panic!("{place}: {error}\n{patch:#}"))
    }

    /// Sets `spec.replicas`.
    pub async fn scale<K>(&self, key: &str, replicas: i32)
    where
        K: Resource<DynamicType = (), Scope: 'static>,
    {
        self.patch::<K>(key, json!({"spec": {"replicas": replicas}})).await;
    }

    /// Deletes an object, its dependents in the background.
    pub async fn delete<K>(&self, key: &str)
    where
        K: Resource<DynamicType = (), Scope: 'static>,
    {
        self.delete_with::<K>(key, json!({})).await;
    }

    /// Deletes an object with options such as `{"propagationPolicy": "Foreground"}`.
    pub async fn delete_with<K>(&self, key: &str, options: Value)
    where
        K: Resource<DynamicType = (), Scope: 'static>,
    {
        let (namespace, name) = split(key);
        let path = format!("{}/{name}", folder::<K>(namespace));
        let deleted = self.call(Method::DELETE, &path, JSON, &options).await;
        deleted.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
