//! Bodies written by hand, as a Go client writes them, and bodies that nobody should write.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::registry::shared;

/// Writes protobuf by hand: fields of number and bytes.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push((number & 0x7f) as u8);
    }

    fn number(mut self, tag: u64, number: u64) -> Self {
        self.varint(tag << 3);
        self.varint(number);
        self
    }

    fn bytes(mut self, tag: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.varint(tag << 3 | 2);
        self.varint(bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    fn message(self, tag: u64, inner: Self) -> Self {
        self.bytes(tag, inner.0)
    }
}

fn new() -> Writer {
    Writer::default()
}

fn envelope(api_version: &str, kind: &str, message: Writer) -> Vec<u8> {
    let head = new().bytes(1, api_version).bytes(2, kind);
    let mut body = MARK.to_vec();
    body.extend(new().message(1, head).message(2, message).0);
    body
}

fn decode(api_version: &str, kind: &str, message: Writer) -> Value {
    decode_protobuf(shared(), &envelope(api_version, kind, message)).expect("well-formed")
}

#[test]
fn zero_values_are_dropped_where_they_mean_nothing() {
    // What a Go client writes for `kubectl create deployment`: every plain field is there.
    let metadata =
        new().bytes(1, "web").bytes(2, "").bytes(3, "").bytes(4, "").bytes(5, "").number(7, 0).message(8, new());
    let container = new()
        .bytes(1, "c")
        .bytes(2, "busybox")
        .bytes(5, "")
        .message(8, new())
        .bytes(13, "")
        .bytes(14, "")
        .number(16, 0);
    let template = new().message(1, new().bytes(1, "")).message(2, new().message(2, container).bytes(3, ""));
    let spec = new().number(1, 0).message(2, new()).message(3, template).message(4, new().bytes(1, "")).number(5, 0);
    let status = new().number(1, 0).number(2, 0);
    let value = decode("apps/v1", "Deployment", new().message(1, metadata).message(2, spec).message(3, status));
    assert_eq!(
        value,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": { "replicas": 0, "selector": {}, "template": { "spec": { "containers": [{ "name": "c", "image": "busybox" }] } } },
        })
    );
}

#[test]
fn special_messages_take_their_json_form() {
    let owner = new().bytes(5, "Pod").bytes(3, "p").bytes(4, "u").number(6, 0).number(7, 1);
    let managed = new().bytes(1, "kubectl").bytes(6, "FieldsV1").message(7, new().bytes(1, br#"{"f:data":{}}"#));
    let metadata =
        new().bytes(1, "p").message(8, new().number(1, 1_700_000_000)).message(13, owner).message(17, managed);
    let limits = new().bytes(1, "cpu").message(2, new().bytes(1, "500m"));
    // A probe's handler is embedded: the fields are the probe's own.
    let get = new().message(2, new().number(1, 0).number(2, 8080).bytes(3, ""));
    let probe = new().message(1, new().message(2, get)).number(2, 0);
    let container = new().bytes(1, "c").message(8, new().message(1, limits)).message(10, probe);
    let volume = new().bytes(1, "v").message(2, new().message(2, new().bytes(1, "")));
    let spec = new().message(1, volume).message(2, container).number(4, 0);
    let value = decode("v1", "Pod", new().message(1, metadata).message(2, spec));
    assert_eq!(value["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(value["metadata"]["ownerReferences"][0]["controller"], false);
    assert_eq!(value["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], true);
    assert_eq!(value["metadata"]["managedFields"][0]["fieldsV1"], json!({ "f:data": {} }));
    assert_eq!(value["spec"]["containers"][0]["resources"], json!({ "limits": { "cpu": "500m" } }));
    assert_eq!(value["spec"]["containers"][0]["livenessProbe"], json!({ "httpGet": { "port": 8080 } }));
    assert_eq!(value["spec"]["volumes"], json!([{ "name": "v", "emptyDir": {} }]));
    assert_eq!(value["spec"]["terminationGracePeriodSeconds"], 0);
}

#[test]
fn bytes_micro_times_and_maps_are_read() {
    let secret = new().message(2, new().bytes(1, "k").bytes(2, b"hi")).bytes(3, "Opaque");
    let value = decode("v1", "Secret", secret);
    assert_eq!((&value["data"], &value["type"]), (&json!({ "k": "aGk=" }), &json!("Opaque")));
    let lease = new().message(2, new().number(2, 40).message(4, new().number(1, 1_700_000_000).number(2, 5000)));
    let value = decode("coordination.k8s.io/v1", "Lease", lease);
    assert_eq!(value["spec"], json!({ "leaseDurationSeconds": 40, "renewTime": "2023-11-14T22:13:20.000005Z" }));
    let labels = new().bytes(1, "a").bytes(2, "b");
    let value = decode("v1", "ConfigMap", new().message(1, new().message(11, labels)));
    assert_eq!(value["metadata"]["labels"], json!({ "a": "b" }));
}

#[test]
fn delete_options_and_reviews_are_read() {
    let value = decode("apps/v1", "DeleteOptions", new().number(1, 0).bytes(4, "Background"));
    assert_eq!(
        value,
        json!({ "apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background" })
    );
    let attributes = new().bytes(1, "default").bytes(2, "get").bytes(5, "pods").bytes(7, "");
    let review = new().message(1, new()).message(2, new().message(1, attributes)).message(3, new().number(1, 0));
    let value = decode("authorization.k8s.io/v1", "SelfSubjectAccessReview", review);
    assert_eq!(
        value["spec"]["resourceAttributes"],
        json!({ "namespace": "default", "verb": "get", "resource": "pods" })
    );
}

#[test]
fn raw_json_counts_towards_the_depth_of_the_whole() {
    let with = |levels: usize| {
        let raw = format!("{}1{}", "{\"f:a\":".repeat(levels), "}".repeat(levels));
        let entry = new().message(7, new().bytes(1, raw));
        envelope("v1", "Pod", new().message(1, new().message(17, entry)))
    };
    // The object, its metadata, the list of entries and the entry are around it.
    assert!(decode_protobuf(shared(), &with(MAX_DEPTH - 4)).is_ok());
    for levels in [MAX_DEPTH - 3, 100, 10_000] {
        let error = decode_protobuf(shared(), &with(levels)).expect_err("too deep");
        assert!(error.to_string().contains("metadata.managedFields[0].fieldsV1"), "{error}");
    }
}

#[test]
fn what_is_no_envelope_or_no_kind_is_named() {
    let registry = shared();
    assert!(matches!(decode_protobuf(registry, b"{}"), Err(DecodeError::NoEnvelope)));
    let body = envelope("v1", "Nothing", new());
    assert!(matches!(decode_protobuf(registry, &body), Err(DecodeError::UnknownKind { .. })));
    let body = envelope("v1", "Pod", new().message(2, new().number(2, 1)));
    let error = decode_protobuf(registry, &body).expect_err("containers are messages");
    assert_eq!(error.to_string(), "protobuf: spec.containers[0]: another wire type than the field's");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        raw in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(vec![("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Event"), ("v1", "Secret")]),
    ) {
        let registry = shared();
        drop(decode_protobuf(registry, &raw));
        drop(decode_protobuf(registry, &envelope(kind.0, kind.1, Writer(raw))));
    }

    #[test]
    fn no_change_of_a_good_body_makes_it_panic(at in 0_usize..400, to in any::<u8>()) {
        let container = new().bytes(1, "c").bytes(2, "busybox").message(8, new().message(1, new().bytes(1, "cpu").message(2, new().bytes(1, "1"))));
        let spec = new().message(2, container).message(1, new().bytes(1, "v"));
        let mut body = envelope("v1", "Pod", new().message(1, new().bytes(1, "p").message(8, new().number(1, 1))).message(2, spec));
        let at = at % body.len();
        body[at] = to;
        drop(decode_protobuf(shared(), &body));
    }
}
