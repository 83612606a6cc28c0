//! The seeds of each target, and the words that mutation likes to put in.

use serde_json::{Value, json};

use super::mutate::{envelope, write_bytes};

/// Names that mean something somewhere.
pub const KEYS: &[&str] = &[
    "",
    ".",
    "a",
    "name",
    "key",
    "values",
    "operator",
    "spec",
    "status",
    "metadata",
    "template",
    "containers",
    "ports",
    "containerPort",
    "protocol",
    "image",
    "env",
    "args",
    "volumes",
    "finalizers",
    "labels",
    "annotations",
    "selector",
    "matchLabels",
    "matchExpressions",
    "strategy",
    "type",
    "rollingUpdate",
    "maxSurge",
    "replicas",
    "nodeSelector",
    "tolerations",
    "conditions",
    "ownerReferences",
    "uid",
    "managedFields",
    "manager",
    "operation",
    "apiVersion",
    "kind",
    "time",
    "fieldsType",
    "fieldsV1",
    "subresource",
    "resources",
    "limits",
    "cpu",
    "creationTimestamp",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$setElementOrder/finalizers",
    "$setElementOrder/ports",
    "$deleteFromPrimitiveList/finalizers",
    "f:spec",
    "f:metadata",
    "f:labels",
    "f:containers",
    "f:a",
    "f:",
    "v:1",
    "v:\"a\"",
    "v:{}",
    "k:{\"name\":\"a\"}",
    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}",
    "k:{}",
    "k:[",
    "i:0",
    "op",
    "path",
    "from",
    "value",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "default",
    "nullable",
    "format",
    "enum",
    "$ref",
    "allOf",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-patch-merge-key",
];

/// Values that mean something somewhere.
pub const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "web",
    "TCP",
    "UDP",
    "Apply",
    "Update",
    "FieldsV1",
    "me",
    "apps/v1",
    "before-first-apply",
    "delete",
    "replace",
    "merge",
    "retainKeys",
    "add",
    "remove",
    "move",
    "copy",
    "test",
    "/",
    "/a",
    "/a/0",
    "/a/-",
    "/spec",
    "/spec/replicas",
    "/metadata/finalizers/-",
    "/a~1b",
    "/~0",
    "/~",
    "/a/01",
    "/a/99999999999999999999",
    "object",
    "array",
    "string",
    "integer",
    "number",
    "boolean",
    "map",
    "set",
    "atomic",
    "granular",
    "int-or-string",
    "date-time",
    "byte",
    "quantity",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "Gt",
    "500m",
    "1.5Gi",
    "25%",
    "2026-01-01T00:00:00Z",
    "#/definitions/a",
    "\u{e9}",
    "\u{0}",
    "\u{1f980}",
    ".spec",
    ".spec.n",
    "self.l.all(a, a > 1)",
    "self.m.all(k, v, k != v)",
    "self.l.sortBy(a, -a)[0] > oldSelf.l.sum()",
    "has(self.s) && self.s.matches('^a.*')",
    "self.?s.optMap(s, s + s).orValue('') == oldSelf.?s.value()",
    "self.m.transformMap(k, v, v + k).size() < quantity('1').asInteger()",
    "self",
    "oldSelf == self",
];

/// Pieces of text that parsers look for.
pub const TOKENS: &[&str] = &[
    "=",
    "==",
    "!=",
    "!",
    ",",
    " in ",
    " notin ",
    "(",
    ")",
    ">",
    "<",
    "\\",
    "\\,",
    "\\=",
    "/",
    "a",
    "0",
    "9",
    "-",
    "+",
    ".",
    "e",
    "E",
    "e-",
    "e+99999",
    "n",
    "u",
    "m",
    "k",
    "Ki",
    "Ei",
    "Mi",
    "9999999999999999999",
    "000000000000",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    "\"a\":",
    "null",
    "1e400",
    "\\ud800",
    "\\u0000",
    "\u{e9}",
    "\u{feff}",
    "k8s\0",
    "\u{0}\u{0}",
    "\u{7f}",
    "metadata.name=",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":{\"a\":",
];

/// What a target that takes JSON starts from.
pub fn json(target: &str) -> Vec<Value> {
    match target {
        "json_patch" => json_patches(),
        "merge_patch" => vec![
            json!([{"a": "b", "c": {"d": [1, 2]}}, {"a": null, "c": {"d": [3], "e": {}}}]),
            json!([deployment(), {"spec": {"replicas": 3, "template": null}, "metadata": {"labels": {"a": null}}}]),
        ],
        "strategic" => strategic(),
        "apply" => applied(),
        "field_set" => field_sets(),
        "definition" => definitions(),
        _ => custom_schemas(),
    }
}

/// What a target that takes bytes starts from.
pub fn bytes(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "decode_json" => vec![
            deployment().to_string().into_bytes(),
            br#"{"a":1,"a":2,"b":[{"c":null,"c":true}],"d":-1.5e3,"e":"\u00e9\n\"","f":18446744073709551615}"#.to_vec(),
        ],
        "decode_protobuf" => messages(),
        "label_selector" => texts(&[
            "a=b,c!=d,e in (x,y),f notin (z),g,!h",
            "example.com/app==web, tier in ( , a ),n>4,m<-9",
            r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"In","values":["x"]},
                {"key":"l","operator":"DoesNotExist"}]}"#,
        ]),
        "field_selector" => texts(&["metadata.name=web,status.phase!=Running", r"a=b\,c\=d\\e,f==,,g!=\\"]),
        _ => {
            texts(&["500m", "1.5Gi", "2e3", "-0.000000001", "170141183460469231731687303715n", "+12E", "1e-9", ".5Ei"])
        }
    }
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "uid": "u", "labels": {"app": "web"}, "finalizers": ["a", "b"],
            "ownerReferences": [{"uid": "o", "name": "n"}]},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"nodeSelector": {"a": "b"},
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "web", "image": "nginx", "args": ["x"], "env": [{"name": "A", "value": "1"}],
                    "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]}]}}},
        "status": {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]},
    })
}

fn containers(containers: &Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

fn json_patches() -> Vec<Value> {
    let all = json!([
        {"op": "add", "path": "/a/-", "value": {"b": [1]}}, {"op": "copy", "from": "/a", "path": "/c"},
        {"op": "move", "from": "/a/0", "path": "/d"}, {"op": "test", "path": "/d", "value": 1},
        {"op": "replace", "path": "/a/0", "value": null}, {"op": "remove", "path": "/c"},
    ]);
    let escaped = json!([{"op": "add", "path": "/a~1b", "value": 1}, {"op": "copy", "from": "", "path": "/m~0n"}]);
    let limit = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "x"}]);
    vec![json!([{"a": [1, 2]}, all]), json!([{"a": 1}, escaped]), json!([deployment(), limit])]
}

fn strategic() -> Vec<Value> {
    let directives = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
            "$setElementOrder/finalizers": ["b", "c"]},
        "spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "side"}, {"name": "web"}],
            "containers": [{"name": "side", "image": "x"}, {"name": "web", "ports": [
                {"$patch": "delete", "containerPort": 80}, {"containerPort": 81}]}]}}}});
    let small = |spec: Value| json!({"spec": spec});
    let finalizers = json!({"metadata": {"$setElementOrder/finalizers": ["b", "a"], "finalizers": ["b"]}});
    vec![
        json!([deployment(), directives]),
        json!([small(json!({"replicas": 1, "paused": true})), small(json!({"$patch": "merge", "paused": null}))]),
        json!([
            small(json!({"strategy": {"type": "a", "rollingUpdate": {}}})),
            small(json!({"strategy": {"$retainKeys": ["type"], "type": "b"}}))
        ]),
        json!([{"metadata": {"finalizers": ["a", "c"]}}, finalizers]),
        json!([
            containers(&json!([{"name": "a"}, {"name": "b"}])),
            containers(&json!([{"name": "b", "image": "x"}, {"name": "a", "$patch": "delete"}]))
        ]),
        json!([deployment(), containers(&json!([{"$patch": "replace"}, {"name": "only"}]))]),
        json!([deployment(), {"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}]),
    ]
}

fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn web_fields() -> Value {
    let port = json!({".": {}, "f:containerPort": {}});
    let web = json!({".": {}, "f:name": {}, "f:image": {},
        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": port}});
    json!({"f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"a\"": {}}},
        "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": web}}}}})
}

fn applied() -> Vec<Value> {
    let owned = |fields: &Value, mut object: Value| {
        object["metadata"]["managedFields"] = json!([
            entry("me", "Apply", fields),
            entry("other", "Update", &json!({"f:spec": {"f:replicas": {}, "f:strategy": {"f:type": {}}}})),
        ]);
        object
    };
    let mut config = deployment();
    config["spec"]["replicas"] = json!(2);
    let live = containers(&json!([{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]));
    let web = containers(&json!([{"name": "web", "image": "x", "ports": [{"containerPort": 81}]}, {"name": "new"}]));
    let finalizers = |names: &[&str]| json!({"metadata": {"finalizers": names}});
    vec![
        json!([null, deployment(), false]),
        json!([owned(&web_fields(), deployment()), config, true]),
        json!([owned(&web_fields(), live), web, false]),
        json!([owned(&web_fields(), finalizers(&["a", "b"])), finalizers(&["b", "c"]), true]),
        json!([{"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, false]),
        json!([owned(&json!({"f:spec": {"f:replicas": {}}}), json!({"spec": {"replicas": 1}})), {"spec": {}}, false]),
        json!([{"metadata": {"labels": {"app": "web"}}}, {"metadata": {"labels": {"app": null}}, "spec": null}, true]),
        json!([null, {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}, false]),
    ]
}

fn field_sets() -> Vec<Value> {
    let odd = json!({"f:spec": {".": {}, "f:replicas": {}, "f:selector": {}},
        "f:metadata": {"f:finalizers": {".": {}, "v:\"b\"": {}, "v:1.5": {}, "v:null": {}}, "i:0": {}}});
    let old = json!({"metadata": {"labels": {"app": "web"}, "finalizers": ["a", "b"]}, "spec": {"replicas": 1}});
    let new = json!({"metadata": {"finalizers": ["b", "c"]}, "spec": {"replicas": 5}});
    let small = json!({"f:spec": {"f:replicas": {}}});
    vec![
        json!([web_fields(), odd, deployment(), new]),
        json!([odd, web_fields(), old, new]),
        json!([small, odd, old, new]),
        json!([small, {}, new, old]),
    ]
}

fn custom_schemas() -> Vec<Value> {
    let item = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
        "port": {"type": "integer", "format": "int32", "default": 80}}});
    let list = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name", "port"], "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-patch-merge-key": "name"});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "default": {}, "properties": {
            "list": list, "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
            "size": {"x-kubernetes-int-or-string": true}, "at": {"type": "string", "format": "date-time"},
            "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "number"}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "maybe": {"type": ["string", "null"], "nullable": true}}}}});
    let document = json!({"metadata": {"name": "a"}, "spec": {"list": [{"name": "a"}, {"name": "a", "port": 81}],
        "set": ["x", "y"], "map": {"k": ["v"]}, "size": "25%", "at": "2026-01-01T00:00:00Z", "atomic": {"a": 1.5},
        "free": {"b": [{"c": null}]}, "maybe": null, "unknown": 1}});
    let object = |name: &str, inner: &Value| json!({"type": "object", "properties": {(name): inner}});
    let text = json!({"type": "string", "default": "a"});
    vec![
        json!([schema, document]),
        json!([object("spec", &object("name", &text)), {"spec": {"name": 1, "x": null}}]),
        json!([object("list", &list), {"list": [{"name": "a"}, {"name": "b", "port": 1}]}]),
        json!([object("free", &json!({"x-kubernetes-preserve-unknown-fields": true})), {"free": {"a": [1]}, "b": 2}]),
    ]
}

fn definitions() -> Vec<Value> {
    let definition = |fields: Value, rules: Value, more: Value| {
        let spec = json!({"type": "object", "properties": fields, "x-kubernetes-validations": rules});
        let mut version = json!({"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            version[key] = value.clone();
        }
        json!({"metadata": {"name": "as.b.c"}, "spec": {"group": "b.c", "scope": "Namespaced",
            "names": {"plural": "as", "kind": "A"}, "versions": [version]}})
    };
    let object = |spec: Value| json!({"metadata": {"name": "a"}, "spec": spec});
    let text = json!({"type": "string", "maxLength": 10});
    let counted = json!({"type": "integer", "default": 1, "minimum": 0, "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]});
    let shown = json!({"subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
        "selectableFields": [{"jsonPath": ".spec.s"}],
        "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.l[?(@.n > 1)]"}]});
    let lists = json!({"l": {"type": "array", "maxItems": 10, "items": {"type": "integer"}, "x-kubernetes-list-type": "set"},
        "m": {"type": "object", "maxProperties": 10, "additionalProperties": text}});
    let open = json!({"p": {"x-kubernetes-int-or-string": true},
        "e": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}});
    let either = json!({"s": {"type": "string", "nullable": true, "pattern": "^[a-z]*$", "enum": ["a", "b"]},
        "o": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": text, "b": text}}});
    let quiet =
        json!({"rule": "!has(self.s) || self.s.startsWith('a')", "fieldPath": ".s", "reason": "FieldValueForbidden"});
    let told =
        json!({"rule": "self.l.all(a, self.m.exists(k, self.m[k].size() > a))", "messageExpression": "string(self.l)"});
    vec![
        json!([
            definition(json!({"n": counted, "s": text}), json!([]), shown),
            object(json!({"n": 2})),
            object(json!({"n": 1}))
        ]),
        json!([definition(lists, json!([told]), Value::Null), object(json!({"l": [1, 2], "m": {"a": "b"}})), null]),
        json!([
            definition(open, json!([]), Value::Null),
            object(json!({"e": {"apiVersion": "v1", "kind": "X", "x": 1}, "p": "50%", "unknown": 1})),
            null
        ]),
        json!([
            definition(either, json!([quiet]), Value::Null),
            object(json!({"s": "a", "o": {"a": "x"}})),
            object(json!({"s": null}))
        ]),
    ]
}

fn messages() -> Vec<Vec<u8>> {
    let fields = |fields: &[(u64, &[u8])]| {
        let mut message = Vec::new();
        for (tag, bytes) in fields {
            write_bytes(&mut message, *tag, bytes);
        }
        message
    };
    let quantity = fields(&[(1, b"500m")]);
    let limits = fields(&[(1, &fields(&[(1, b"cpu"), (2, &quantity)]))]);
    let container = fields(&[(1, b"web"), (2, b"nginx"), (6, &[0x10, 80, 0x18, 0x50]), (8, &limits)]);
    let metadata = fields(&[
        (1, b"web"),
        (8, &[0x08, 0x80, 0xa2, 0xc8, 0xaa, 0x06]),
        (11, &fields(&[(1, b"app"), (2, b"web")])),
        (17, &fields(&[(1, b"me"), (7, &fields(&[(1, br#"{"f:a":{}}"#)]))])),
    ]);
    let pod = fields(&[(1, &metadata), (2, &fields(&[(2, &container), (14, &[0x12, 2, 1, 2])]))]);
    let template = fields(&[(1, &metadata), (2, &fields(&[(2, &container)]))]);
    let spec = fields(&[(2, &fields(&[(1, &fields(&[(1, b"app"), (2, b"web")]))])), (3, &template)]);
    let secret = fields(&[(1, &metadata), (2, &fields(&[(1, b"k"), (2, b"\0\xff")])), (3, b"Opaque")]);
    vec![
        envelope("v1", "Pod", &pod),
        envelope("apps/v1", "Deployment", &fields(&[(1, &metadata), (2, &spec)])),
        envelope("v1", "Secret", &secret),
        envelope("v1", "DeleteOptions", &fields(&[(4, b"Background")])),
    ]
}
