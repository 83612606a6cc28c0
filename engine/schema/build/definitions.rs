//! The OpenAPI definitions of the served kinds and of everything they refer to.

use std::fmt::Write;

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling, autoscaling::v2 as autoscaling_v2,
    batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol, networking::v1 as networking,
    node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::metrics;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const REFERENCE: &str = "#/components/schemas/";

/// Registers a type; gives its OpenAPI name.
type Root = fn(&mut SchemaGenerator) -> String;

/// Kinds that are stored: each gets a list kind as well.
const STORED: &[Root] = &[
    root::<core::ComponentStatus>,
    root::<core::ConfigMap>,
    root::<core::Endpoints>,
    root::<core::Event>,
    root::<core::LimitRange>,
    root::<core::Namespace>,
    root::<core::Node>,
    root::<core::PersistentVolume>,
    root::<core::PersistentVolumeClaim>,
    root::<core::Pod>,
    root::<core::PodTemplate>,
    root::<core::ReplicationController>,
    root::<core::ResourceQuota>,
    root::<core::Secret>,
    root::<core::Service>,
    root::<core::ServiceAccount>,
    root::<admission::MutatingAdmissionPolicy>,
    root::<admission::MutatingAdmissionPolicyBinding>,
    root::<admission::MutatingWebhookConfiguration>,
    root::<admission::ValidatingAdmissionPolicy>,
    root::<admission::ValidatingAdmissionPolicyBinding>,
    root::<admission::ValidatingWebhookConfiguration>,
    root::<apiextensions::CustomResourceDefinition>,
    root::<apiregistration::APIService>,
    root::<apps::ControllerRevision>,
    root::<apps::DaemonSet>,
    root::<apps::Deployment>,
    root::<apps::ReplicaSet>,
    root::<apps::StatefulSet>,
    root::<autoscaling_v2::HorizontalPodAutoscaler>,
    root::<autoscaling::HorizontalPodAutoscaler>,
    root::<batch::CronJob>,
    root::<batch::Job>,
    root::<certificates::CertificateSigningRequest>,
    root::<coordination::Lease>,
    root::<discovery::EndpointSlice>,
    root::<events::Event>,
    root::<flowcontrol::FlowSchema>,
    root::<flowcontrol::PriorityLevelConfiguration>,
    root::<networking::IPAddress>,
    root::<networking::Ingress>,
    root::<networking::IngressClass>,
    root::<networking::NetworkPolicy>,
    root::<networking::ServiceCIDR>,
    root::<node::RuntimeClass>,
    root::<policy::PodDisruptionBudget>,
    root::<rbac::ClusterRole>,
    root::<rbac::ClusterRoleBinding>,
    root::<rbac::Role>,
    root::<rbac::RoleBinding>,
    root::<resource::DeviceClass>,
    root::<resource::ResourceClaim>,
    root::<resource::ResourceClaimTemplate>,
    root::<resource::ResourceSlice>,
    root::<scheduling::PriorityClass>,
    root::<storage::CSIDriver>,
    root::<storage::CSINode>,
    root::<storage::CSIStorageCapacity>,
    root::<storage::StorageClass>,
    root::<storage::VolumeAttachment>,
    root::<storage::VolumeAttributesClass>,
];

/// Kinds that only travel in requests and replies.
const TRANSIENT: &[Root] = &[
    root::<autoscaling::Scale>,
    root::<policy::Eviction>,
    root::<core::Binding>,
    root::<authentication::SelfSubjectReview>,
    root::<authentication::TokenRequest>,
    root::<authentication::TokenReview>,
    root::<authorization::LocalSubjectAccessReview>,
    root::<authorization::SelfSubjectAccessReview>,
    root::<authorization::SelfSubjectRulesReview>,
    root::<authorization::SubjectAccessReview>,
    root::<meta::DeleteOptions>,
];

/// What documents refer to beside the kinds.
const PARTS: &[Root] =
    &[root::<meta::ListMeta>, root::<meta::Patch>, root::<meta::Status>, root::<meta::LabelSelector>];

/// The kinds a protobuf body may hold.
pub(crate) fn message_roots() -> Vec<String> {
    let mut generator = generator();
    STORED.iter().chain(TRANSIENT).map(|root| root(&mut generator)).collect()
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
    for root in TRANSIENT.iter().chain(PARTS) {
        root(&mut generator);
    }
    let mut definitions = generator.take_definitions(false);
    let derived = metrics::add(&mut definitions);
    for name in stored.iter().chain(&derived) {
        definitions.insert(format!("{name}List"), list_of(name));
    }
    definitions.sort_keys();
    for (name, definition) in &mut definitions {
        match name.as_str() {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => one_of(definition, &["string", "number"], "quantity"),
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => {
                one_of(definition, &["integer", "string"], "int-or-string");
            }
            _ if is_any(name) => retain_prose(definition),
            _ => wrap_references(definition),
        }
    }
    definitions
}

/// Types that hold any JSON, or one of several things that no plain type describes.
fn is_any(name: &str) -> bool {
    let any = ["JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"];
    name.rsplit_once('.').is_some_and(|(package, name)| package.ends_with("apiextensions.v1") && any.contains(&name))
}

/// Such a type is described in words alone.
fn retain_prose(definition: &mut Value) {
    let object = definition.as_object_mut().expect("a definition is an object");
    object.retain(|key, _| key == "description");
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
