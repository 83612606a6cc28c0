//! A watch of any kind that leaves its objects as text: one compiled watch for all kinds, instead of one a kind.
//!
//! Only what a watch itself has to know of an object is read here; who keeps objects decodes them once.

use std::borrow::Cow;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object as it came.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) metadata: ObjectMeta,
    pub(crate) json: Box<RawValue>,
}

/// Where objects of a kind are listed: the path that an [`Api`] asks.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: String,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Names,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Names {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Names { name, namespace, uid, resource_version } =
            serde_json::from_str::<Head>(json.get()).map_err(D::Error::custom)?.metadata;
        Ok(Self { metadata: ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() }, json })
    }
}

impl Resource for Text {
    type DynamicType = Place;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(_: &Place) -> Cow<'_, str> {
        "Object".into()
    }

    fn group(_: &Place) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &Place) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &Place) -> Cow<'_, str> {
        "objects".into()
    }

    fn url_path(place: &Place, _: Option<&str>) -> String {
        place.path.clone()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Watches what an [`Api`] of this path lists; a broken watch is taken up again with back-off.
pub(crate) fn watch(
    client: Client,
    path: String,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<watcher::Event<Text>>> {
    let api: Api<Text> = Api::all_with(client, &Place { path });
    watcher(api, config).default_backoff().boxed()
}

#[cfg(test)]
mod tests {
    use kube::api::{ObjectList, WatchEvent};

    use super::*;

    #[test]
    fn objects_stay_as_they_came_in_lists_and_in_events() {
        let one = r#"{"metadata":{"name":"a","resourceVersion":"7","labels":{"x":"y"}},"spec":{"n":1.50}}"#;
        let list: ObjectList<Text> =
            serde_json::from_str(&format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{}},"items":[{one}]}}"#))
                .unwrap();
        assert_eq!((list.items[0].json.get(), list.items[0].metadata.name.as_deref()), (one, Some("a")));
        let event: WatchEvent<Text> = serde_json::from_str(&format!(r#"{{"type":"ADDED","object":{one}}}"#)).unwrap();
        let WatchEvent::Added(object) = event else { panic!("{event:?}") };
        assert_eq!((object.json.get(), object.metadata.resource_version.as_deref()), (one, Some("7")));
    }
}
