//! The paths of an OpenAPI document, as far as clients read them: which operations there are, on which kind, with
//! which parameters and bodies.

use serde_json::{Map, Value, json};

use super::{META, document_path, list_definition};
use crate::registry::Registry;
use crate::resource::{Gvk, Resource, Subresource, VirtualResource, api_version};

const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A kind as operations name it, with its definition.
struct Subject {
    kind: Value,
    definition: String,
    /// Whether it has no rules for strategic merging.
    custom: bool,
}

/// The paths of a stored resource.
pub(super) fn stored(registry: &Registry, resource: &Resource, root: &str, paths: &mut Map<String, Value>) {
    let subject = Subject {
        kind: json!({ "group": resource.group, "version": resource.version, "kind": resource.kind }),
        definition: resource.definition().to_owned(),
        custom: resource.is_custom(),
    };
    let all = format!("{root}/{}", resource.plural);
    let within =
        if resource.namespaced { format!("{root}/namespaces/{{namespace}}/{}", resource.plural) } else { all.clone() };
    if resource.namespaced {
        paths.insert(all, item(&[], [("get", list(&subject))]));
    }
    let mut around = Vec::new();
    if resource.namespaced {
        around.push(path_parameter("namespace"));
    }
    let status = format!("{META}.Status");
    let deleted = if resource.returns_deleted { &subject.definition } else { &status };
    let served = |operations: Vec<(&str, (&'static str, Value))>| {
        let fits = |(verb, operation)| resource.verbs.contains(&verb).then_some(operation);
        operations.into_iter().filter_map(fits).collect::<Vec<_>>()
    };
    let collection = served(vec![
        ("list", ("get", list(&subject))),
        ("create", ("post", write(&subject, "post", &subject.definition))),
        ("deletecollection", ("delete", delete(&subject, "deletecollection", &status))),
    ]);
    paths.insert(within.clone(), item(&around, collection));
    let one = format!("{within}/{{name}}");
    around.push(path_parameter("name"));
    let object = served(vec![
        ("get", ("get", operation(&subject, "get", &subject.definition, Vec::new()))),
        ("update", ("put", write(&subject, "put", &subject.definition))),
        ("patch", ("patch", patch(&subject))),
        ("delete", ("delete", delete(&subject, "delete", deleted))),
    ]);
    paths.insert(one.clone(), item(&around, object));
    for sub in &resource.subresources {
        paths.insert(format!("{one}/{}", sub.name), below(registry, sub, &subject, &around));
    }
}

/// The path of a resource that can only be created.
pub(super) fn created(resource: &VirtualResource, paths: &mut Map<String, Value>) {
    let subject = Subject {
        kind: json!({ "group": resource.group, "version": resource.version, "kind": resource.kind }),
        definition: resource.definition.to_owned(),
        custom: false,
    };
    let root = document_path(resource.group, resource.version);
    let (within, around) = if resource.namespaced {
        ("/namespaces/{namespace}", vec![path_parameter("namespace")])
    } else {
        ("", Vec::new())
    };
    let path = format!("/{root}{within}/{}", resource.plural);
    paths.insert(path, item(&around, [("post", write(&subject, "post", &subject.definition))]));
}

fn below(registry: &Registry, sub: &Subresource, owner: &Subject, around: &[Value]) -> Value {
    let own = sub.kind.and_then(|kind| {
        let definition = registry.definition_of(&api_version(kind.group, kind.version), kind.kind)?;
        Some(Subject {
            kind: json!({ "group": kind.group, "version": kind.version, "kind": kind.kind }),
            definition,
            custom: false,
        })
    });
    let subject = own.as_ref().unwrap_or(owner);
    if sub.name == "log" {
        return item(around, [("get", log(subject))]);
    }
    // A kind without a definition is not a body: it says how to connect.
    if let Some(options) = sub.kind.filter(|_| own.is_none()) {
        return item(around, sub.verbs.iter().map(|verb| (method(verb), connect(options))));
    }
    let operations = sub.verbs.iter().filter_map(|verb| match *verb {
        "create" => Some(("post", write(subject, "post", &subject.definition))),
        "get" => Some(("get", operation(subject, "get", &subject.definition, Vec::new()))),
        "update" => Some(("put", write(subject, "put", &subject.definition))),
        "patch" => Some(("patch", patch(subject))),
        _ => None,
    });
    item(around, operations)
}

fn method(verb: &str) -> &'static str {
    match verb {
        "create" => "post",
        "update" => "put",
        "patch" => "patch",
        "delete" => "delete",
        _ => "get",
    }
}

fn connect(options: Gvk) -> Value {
    json!({
        "responses": { "200": { "description": "OK", "content": { "*/*": { "schema": { "type": "string" } } } } },
        "x-kubernetes-action": "connect",
        "x-kubernetes-group-version-kind": { "group": options.group, "version": options.version, "kind": options.kind },
    })
}

fn item<'a>(parameters: &[Value], operations: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let mut item = Map::new();
    for (method, operation) in operations {
        item.insert(method.to_owned(), operation);
    }
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), parameters.into());
    }
    Value::Object(item)
}

fn reference(definition: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{definition}") })
}

fn operation(subject: &Subject, action: &str, answer: &str, parameters: Vec<Value>) -> Value {
    let mut operation = json!({
        "responses": {
            "200": { "description": "OK", "content": { "application/json": { "schema": reference(answer) } } },
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": subject.kind,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

fn list(subject: &Subject) -> Value {
    let parameters = vec![
        query("allowWatchBookmarks", "boolean"),
        query("continue", "string"),
        query("fieldSelector", "string"),
        query("labelSelector", "string"),
        query("limit", "integer"),
        query("resourceVersion", "string"),
        query("resourceVersionMatch", "string"),
        query("sendInitialEvents", "boolean"),
        query("timeoutSeconds", "integer"),
        query("watch", "boolean"),
    ];
    operation(subject, "list", &list_definition(&subject.definition), parameters)
}

fn write(subject: &Subject, action: &str, body: &str) -> Value {
    let parameters =
        vec![query("dryRun", "string"), query("fieldManager", "string"), query("fieldValidation", "string")];
    let mut operation = operation(subject, action, &subject.definition, parameters);
    operation["requestBody"] = json!({ "content": { "*/*": { "schema": reference(body) } }, "required": true });
    operation
}

fn patch(subject: &Subject) -> Value {
    let parameters = vec![
        query("dryRun", "string"),
        query("fieldManager", "string"),
        query("fieldValidation", "string"),
        query("force", "boolean"),
    ];
    let mut operation = operation(subject, "patch", &subject.definition, parameters);
    let body = json!({ "schema": reference(&format!("{META}.Patch")) });
    let fits = |name: &&&str| !(subject.custom && name.contains("strategic"));
    let content: Map<String, Value> =
        PATCHES.iter().filter(fits).map(|name| ((*name).to_owned(), body.clone())).collect();
    operation["requestBody"] = json!({ "content": content, "required": true });
    operation
}

fn delete(subject: &Subject, action: &str, answer: &str) -> Value {
    let parameters = vec![
        query("dryRun", "string"),
        query("gracePeriodSeconds", "integer"),
        query("orphanDependents", "boolean"),
        query("propagationPolicy", "string"),
    ];
    let mut operation = operation(subject, action, answer, parameters);
    operation["requestBody"] =
        json!({ "content": { "*/*": { "schema": reference(&format!("{META}.DeleteOptions")) } } });
    operation
}

fn log(subject: &Subject) -> Value {
    let parameters = vec![
        query("container", "string"),
        query("follow", "boolean"),
        query("limitBytes", "integer"),
        query("previous", "boolean"),
        query("sinceSeconds", "integer"),
        query("tailLines", "integer"),
        query("timestamps", "boolean"),
    ];
    json!({
        "parameters": parameters,
        "responses": { "200": { "description": "OK", "content": { "text/plain": { "schema": { "type": "string" } } } } },
        "x-kubernetes-action": "get",
        "x-kubernetes-group-version-kind": subject.kind,
    })
}

fn query(name: &str, kind: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } })
}
