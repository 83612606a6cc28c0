//! Strategic merge patches of the built-in kinds as data: see `cases.yaml`.

use serde_json::Value;

use super::*;
use crate::registry::shared;

static CASES: &str = include_str!("cases.yaml");

#[test]
fn every_case_ends_as_it_should() {
    let cases: Vec<Value> = serde_saphyr::from_str(CASES).expect("the cases are well-formed");
    assert!(cases.len() >= 30, "only {} cases are left", cases.len());
    for case in &cases {
        let text = |name: &str| case.get(name).and_then(Value::as_str);
        let kind = match text("schema") {
            Some("deployment") => ("apps/v1", "Deployment"),
            Some("service") => ("v1", "Service"),
            Some("configmap") => ("v1", "ConfigMap"),
            _ => ("v1", "Pod"),
        };
        let resource = shared().of_kind(kind.0, kind.1).expect("the kind is built in");
        let mut target = case["live"].clone();
        let done = strategic(resource.schema(), &mut target, &case["patch"]).map_err(|refused| refused.to_string());
        let expected = text("refused").map_or(Ok(()), |refused| Err(refused.to_owned()));
        let name = text("name").expect("a case has a name");
        assert_eq!(done, expected, "{name}");
        let after = if expected.is_ok() { &case["object"] } else { &case["live"] };
        assert_eq!(target.to_string(), after.to_string(), "{name}: also the order of fields");
    }
}
