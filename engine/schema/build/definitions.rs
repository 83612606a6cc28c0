//! The OpenAPI definitions of the served kinds and of everything they refer to.

use std::fmt::Write;

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling, coordination::v1 as coordination,
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking, policy::v1 as policy,
    scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const REFERENCE: &str = "#/components/schemas/";

/// Kinds that are stored: each gets a list kind as well.
const STORED: [fn(&mut SchemaGenerator) -> String; 22] = [
    root::<core::Namespace>,
    root::<core::Node>,
    root::<core::Pod>,
    root::<core::Service>,
    root::<core::ConfigMap>,
    root::<core::Secret>,
    root::<core::ServiceAccount>,
    root::<core::Event>,
    root::<core::Endpoints>,
    root::<apps::Deployment>,
    root::<apps::ReplicaSet>,
    root::<discovery::EndpointSlice>,
    root::<coordination::Lease>,
    root::<core::LimitRange>,
    root::<core::ResourceQuota>,
    root::<admissionregistration::MutatingWebhookConfiguration>,
    root::<admissionregistration::ValidatingWebhookConfiguration>,
    root::<admissionregistration::ValidatingAdmissionPolicy>,
    root::<admissionregistration::ValidatingAdmissionPolicyBinding>,
    root::<networking::IngressClass>,
    root::<scheduling::PriorityClass>,
    root::<storage::StorageClass>,
];

/// Kinds that only travel in requests and replies.
const TRANSIENT: [fn(&mut SchemaGenerator) -> String; 11] = [
    root::<autoscaling::Scale>,
    root::<policy::Eviction>,
    root::<core::Binding>,
    root::<authorization::SelfSubjectAccessReview>,
    root::<authorization::SelfSubjectRulesReview>,
    root::<authentication::SelfSubjectReview>,
    root::<meta::DeleteOptions>,
    root::<meta::ListMeta>,
    root::<meta::Patch>,
    root::<meta::Status>,
    root::<meta::LabelSelector>,
];

/// The kinds a protobuf body may hold.
pub(crate) fn message_roots() -> Vec<String> {
    let mut generator = generator();
    STORED.iter().chain(&TRANSIENT[..7]).map(|root| root(&mut generator)).collect()
}

fn root<T: JsonSchema>(generator: &mut SchemaGenerator) -> String {
    generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator()
}

/// Every definition by its OpenAPI name.
pub(crate) fn generate() -> Map<String, Value> {
    let mut generator = generator();
    let stored: Vec<String> = STORED.iter().map(|root| root(&mut generator)).collect();
    for root in TRANSIENT {
        root(&mut generator);
    }
    let mut definitions = generator.take_definitions(false);
    for name in &stored {
        definitions.insert(format!("{name}List"), list_of(name));
    }
    definitions.sort_keys();
    for (name, definition) in &mut definitions {
        match name.as_str() {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => one_of(definition, &["string", "number"], "quantity"),
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => {
                one_of(definition, &["integer", "string"], "int-or-string");
            }
            _ => wrap_references(definition),
        }
    }
    definitions
}

fn list_of(name: &str) -> Value {
    let kind = name.rsplit('.').next().expect("split yields a part");
    json!({
        "description": format!("A list of {kind} objects."),
        "type": "object",
        "properties": {
            "apiVersion": { "description": "The version of this representation.", "type": "string" },
            "items": { "description": "The objects.", "type": "array", "items": { "$ref": format!("{REFERENCE}{name}") } },
            "kind": { "description": "The kind of the list.", "type": "string" },
            "metadata": { "description": "What holds for the whole list.", "$ref": format!("{REFERENCE}{META}.ListMeta") },
        },
        "required": ["items"],
    })
}

/// `x-kubernetes-int-or-string` is for custom resources; the built-in documents say it with `oneOf`.
fn one_of(definition: &mut Value, types: &[&str], format: &str) {
    let object = definition.as_object_mut().expect("a definition is an object");
    object.shift_remove("x-kubernetes-int-or-string");
    object.insert("oneOf".into(), types.iter().map(|name| json!({ "type": name })).collect());
    object.insert("format".into(), format.into());
}

/// OpenAPI 3.0 ignores what stands beside a `$ref`, so a reference with siblings becomes an `allOf` of one.
fn wrap_references(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for inner in object.values_mut() {
                wrap_references(inner);
            }
            if object.len() > 1
                && let Some(reference) = object.get("$ref").filter(|reference| reference.is_string()).cloned()
            {
                object.shift_remove("$ref");
                object.insert("allOf".into(), json!([{ "$ref": reference }]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(wrap_references),
        _ => {}
    }
}

/// The definitions as lines `name TAB reference,reference TAB json`, from which a document is put together as text.
pub(crate) fn document(definitions: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, definition) in definitions {
        let mut references = Vec::new();
        collect_references(definition, &mut references);
        references.sort_unstable();
        references.dedup();
        writeln!(text, "{name}\t{}\t{definition}", references.join(",")).expect("a String takes any text");
    }
    text
}

fn collect_references<'a>(schema: &'a Value, into: &mut Vec<&'a str>) {
    match schema {
        Value::Object(object) => {
            for (key, inner) in object {
                match inner {
                    Value::String(target) if key == "$ref" => into.extend(target.strip_prefix(REFERENCE)),
                    inner => collect_references(inner, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// The definitions without prose, for the type tree.
pub(crate) fn shapes(definitions: &Map<String, Value>) -> String {
    let mut shapes = definitions.clone();
    for (name, shape) in &mut shapes {
        match name.as_str() {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => {
                *shape = json!({ "x-kubernetes-int-or-string": true, "format": "quantity" });
            }
            _ => strip(shape, false),
        }
    }
    Value::Object(shapes).to_string()
}

/// Drops `description`, but not a property of that name.
fn strip(schema: &mut Value, names: bool) {
    match schema {
        Value::Object(object) => {
            if !names {
                object.shift_remove("description");
            }
            for (key, inner) in object {
                strip(inner, key == "properties" && !names);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strip(item, false)),
        _ => {}
    }
}

/// FNV-1a in hexadecimal: tells one build's definitions from another's.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016X}")
}
