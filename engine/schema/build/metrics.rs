//! The shapes of `metrics.k8s.io`, which no crate that we use describes.

use serde_json::{Map, Value, json};

const PACKAGE: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

fn reference(name: &str, description: &str) -> Value {
    json!({ "description": description, "$ref": format!("#/components/schemas/{name}") })
}

fn usage() -> Value {
    let quantity = json!({ "$ref": format!("#/components/schemas/{QUANTITY}") });
    json!({ "description": "How much of each resource is used.", "type": "object", "additionalProperties": quantity })
}

/// A kind that says what something used, and over which time.
fn measured(about: &str, field: &str, what: &Value) -> Value {
    json!({
        "description": format!("What {about} uses."),
        "type": "object",
        "properties": {
            "apiVersion": { "description": "The version of this representation.", "type": "string" },
            "kind": { "description": "The kind of the object.", "type": "string" },
            "metadata": reference(META, "Whose usage it is."),
            "timestamp": { "description": "When it was measured.", "type": "string", "format": "date-time" },
            "window": { "description": "The time over which it was measured, up to then.", "type": "string" },
            field: what,
        },
        "required": ["timestamp", "window", field],
    })
}

/// Adds the definitions and gives the names of the kinds among them.
pub(crate) fn add(definitions: &mut Map<String, Value>) -> Vec<String> {
    let container = format!("{PACKAGE}.ContainerMetrics");
    let one = json!({
        "description": "What a container uses.",
        "type": "object",
        "properties": { "name": { "description": "The container's name.", "type": "string" }, "usage": usage() },
        "required": ["name", "usage"],
    });
    let all = json!({
        "description": "The running containers.",
        "type": "array",
        "items": { "$ref": format!("#/components/schemas/{container}") },
    });
    definitions.insert(container, one);
    let kinds =
        [("NodeMetrics", measured("a node", "usage", &usage())), ("PodMetrics", measured("a pod", "containers", &all))];
    kinds
        .map(|(kind, shape)| {
            let name = format!("{PACKAGE}.{kind}");
            definitions.insert(name.clone(), shape);
            name
        })
        .into()
}
