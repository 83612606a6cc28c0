//! Definitions that are good and bad.

use super::super::testing;
use super::*;

fn problems(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut definition = testing::definition(
        &json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": { "n": { "type": "integer" } } } } }),
    );
    Definition.default(&mut definition);
    change(&mut definition);
    Definition.validate(&definition, None).iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_definition_passes_and_is_filled_in() {
    assert_eq!(problems(|_| {}), Vec::<String>::new());
    let mut definition =
        json!({ "spec": { "names": { "kind": "CronTab" }, "versions": [{ "name": "v1", "storage": true }] } });
    Definition.default(&mut definition);
    Definition.prepare_create(&mut definition);
    assert_eq!(
        definition["spec"]["names"],
        json!({ "kind": "CronTab", "singular": "crontab", "listKind": "CronTabList" })
    );
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn each_problem_names_its_field() {
    let version = "/spec/versions/0";
    let set =
        |at: &'static str, value: Value| move |definition: &mut Value| *definition.pointer_mut(at).expect(at) = value;
    let add = |key: &'static str, value: Value| {
        move |definition: &mut Value| definition.pointer_mut(version).expect("a version")[key] = value
    };
    for (found, field) in [
        (problems(set("/metadata/name", json!("x"))), "metadata.name"),
        (problems(set("/spec/scope", json!("Galaxy"))), "spec.scope"),
        (problems(set("/spec/names/plural", json!("Cron_Tabs"))), "spec.names.plural"),
        (problems(set("/spec/versions/0/storage", json!(false))), "spec.versions"),
        (problems(set("/spec/versions/0/schema", json!({}))), "spec.versions[0].schema.openAPIV3Schema"),
        (
            problems(add("additionalPrinterColumns", json!([{ "name": "a", "type": "string", "jsonPath": "spec" }]))),
            "spec.versions[0].additionalPrinterColumns[0].jsonPath",
        ),
        (
            problems(add(
                "subresources",
                json!({ "scale": { "specReplicasPath": ".status.n", "statusReplicasPath": ".status.n" } }),
            )),
            "spec.versions[0].subresources.scale.specReplicasPath",
        ),
        (
            problems(add("selectableFields", json!([{ "jsonPath": ".spec.other" }]))),
            "spec.versions[0].selectableFields[0].jsonPath",
        ),
        (
            problems(|definition| definition["spec"]["conversion"] = json!({ "strategy": "Webhook" })),
            "spec.conversion.webhook.clientConfig",
        ),
        (problems(|definition| definition["status"]["storedVersions"] = json!(["v0"])), "status.storedVersions[0]"),
    ] {
        assert!(found.iter().any(|error| error.starts_with(&format!("{field}: "))), "{field}: {found:?}");
    }
    let protected = problems(|definition| {
        definition["spec"]["group"] = "stable.k8s.io".into();
        definition["metadata"]["name"] = "crontabs.stable.k8s.io".into();
    });
    assert!(protected[0].contains("protected groups must have approval annotation"), "{protected:?}");
}

#[test]
fn what_is_settled_stays() {
    let mut old = testing::definition(&json!({ "type": "object" }));
    Definition.default(&mut old);
    old["status"]["conditions"] = json!([{ "type": "Established", "status": "True" }]);
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["names"]["kind"] = "Other".into();
    let found: Vec<String> = Definition.validate(&new, Some(&old)).into_iter().map(|error| error.field).collect();
    assert_eq!(found, ["spec.scope", "spec.names.kind"]);
}

#[test]
fn a_schema_that_was_taken_stays_taken_wherever_its_version_stands() {
    let pairs = json!([{ "rule": "self.l.all(a, self.l.all(b, a == b))" }]);
    let list = json!({ "type": "array", "items": { "type": "string" } });
    let mut old = testing::definition(
        &json!({ "type": "object", "properties": { "l": list }, "x-kubernetes-validations": pairs }),
    );
    Definition.default(&mut old);
    assert!(!Definition.validate(&old, None).is_empty());
    let mut new = old.clone();
    let other = json!({ "name": "v2", "served": true, "storage": false, "schema": { "openAPIV3Schema": { "type": "object" } } });
    new["spec"]["versions"].as_array_mut().expect("versions").insert(0, other);
    assert_eq!(Definition.validate(&new, Some(&old)), []);
    new["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["n"] = json!({ "type": "integer" });
    assert!(!Definition.validate(&new, Some(&old)).is_empty());
}

#[test]
fn how_a_conversion_is_reached_is_checked_as_for_any_webhook() {
    let convert = |config: Value| {
        let review = json!({ "clientConfig": config, "conversionReviewVersions": ["v1"] });
        problems(|definition| {
            definition["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": review });
        })
    };
    let at = "spec.conversion.webhook.clientConfig";
    let service =
        |path: &str, port: u32| json!({ "service": { "name": "s", "namespace": "n", "path": path, "port": port } });
    assert_eq!(convert(service("/convert", 443)), [""; 0]);
    for (config, field) in [
        (json!({}), ""),
        (json!({ "url": "https://x", "service": { "name": "s", "namespace": "n" } }), ""),
        (json!({ "url": "http://host" }), ".url"),
        (json!({ "url": "https://user@host/x" }), ".url"),
        (json!({ "url": "https://host/x?y=1#z" }), ".url"),
        (json!({ "url": "https:///x" }), ".url"),
        (service("convert", 443), ".service.path"),
        (service("/a//b", 443), ".service.path"),
        (service("/convert", 70_000), ".service.port"),
        (json!({ "service": { "name": "s" } }), ".service.namespace"),
    ] {
        let found = convert(config.clone());
        assert!(found.len() == 1 && found[0].starts_with(&format!("{at}{field}: ")), "{config}: {found:?}");
    }
}
