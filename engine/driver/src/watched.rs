//! A watch of any kind that leaves its objects as text: one compiled watch for all kinds, instead of one a kind.
//!
//! Only what a watch itself has to know of an object is read here; who keeps objects decodes them once. The books of who
//! owns which field are cut out before that: they are often larger than the object, and nobody behind a watch reads them.

use std::borrow::Cow;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object as it came, but for its books.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) metadata: ObjectMeta,
    pub(crate) json: String,
}

/// A quotation mark inside a string is escaped: only a field can look like this.
const BOOKS: &str = r#","managedFields":["#;

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
        let json = without_books(Box::<RawValue>::deserialize(deserializer)?.get());
        let Names { name, namespace, uid, resource_version } =
            serde_json::from_str::<Head>(&json).map_err(D::Error::custom)?.metadata;
        Ok(Self { metadata: ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() }, json })
    }
}

/// The text without its first list of managed fields; unchanged where it has none.
fn without_books(json: &str) -> String {
    let cut = json.find(BOOKS).and_then(|at| {
        let list = at + BOOKS.len() - 1;
        let mut values = serde_json::Deserializer::from_str(&json[list..]).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        Some([&json[..at], &json[list + values.byte_offset()..]].concat())
    });
    cut.unwrap_or_else(|| json.to_owned())
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
        assert_eq!((list.items[0].json.as_str(), list.items[0].metadata.name.as_deref()), (one, Some("a")));
        let event: WatchEvent<Text> = serde_json::from_str(&format!(r#"{{"type":"ADDED","object":{one}}}"#)).unwrap();
        let WatchEvent::Added(object) = event else { panic!("{event:?}") };
        assert_eq!((object.json.as_str(), object.metadata.resource_version.as_deref()), (one, Some("7")));
    }

    #[test]
    fn the_books_are_cut_out_and_nothing_else() {
        let cases = [
            (
                r#"{"metadata":{"name":"a","managedFields":[{"fieldsV1":{"f:x":{}}},{"manager":"]"}],"uid":"1"},"spec":[2]}"#,
                r#"{"metadata":{"name":"a","uid":"1"},"spec":[2]}"#,
            ),
            (r#"{"metadata":{"name":"a","managedFields":[]}}"#, r#"{"metadata":{"name":"a"}}"#),
            (r#"{"data":{"a":"x,\"managedFields\":[1]"}}"#, r#"{"data":{"a":"x,\"managedFields\":[1]"}}"#),
            (r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"name":"a"}}"#),
        ];
        for (text, wanted) in cases {
            assert_eq!(without_books(text), wanted);
        }
    }
}
