//! Which rules are too much work for a definition to be taken.

use serde_json::json;

use super::*;

/// What is said of a rule over `l`, a list of texts with these bounds.
fn priced(items: Option<u64>, length: Option<u64>, rule: &str) -> Vec<String> {
    let mut list = json!({ "type": "array", "items": { "type": "string" } });
    if let Some(items) = items {
        list["maxItems"] = items.into();
    }
    if let Some(length) = length {
        list["items"]["maxLength"] = length.into();
    }
    refused(json!({ "l": list, "a": list, "s": { "type": "string", "maxLength": 100 } }), json!({ "rule": rule }))
}

#[test]
fn a_rule_that_could_be_too_much_work_refuses_the_definition() {
    let every_pair = "self.l.all(a, self.l.exists_one(b, a == b))";
    let found = priced(None, None, every_pair);
    let at = "s.properties[spec].x-kubernetes-validations[0].rule: Forbidden: ";
    assert!(
        found[0].starts_with(&format!("{at}estimated rule cost exceeds budget by factor of more than 100x (try ")),
        "{found:?}"
    );
    assert_eq!(
        found[1],
        format!("{at}contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema")
    );
    assert!(
        found[2].starts_with(
            "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        )
    );
    assert_eq!(priced(Some(100), Some(10), every_pair), Vec::<String>::new());
    // Without a bound on the texts each comparison could be of two long ones.
    assert!(!priced(Some(100), None, every_pair).is_empty());
    for (rule, unbounded, bounded) in [
        ("self.l.all(a, a.size() > 1)", true, true),
        ("self.l.all(a, self.a.all(b, a.size() > b.size()))", false, true),
        ("self.l.all(a, a.matches('^[a-z]+$'))", false, true),
        ("self.l.all(i, a, self.a.all(j, b, i != j))", false, true),
        ("self.l.all(a, a in self.a)", false, true),
        ("self.l.distinct().size() == 1", false, true),
        ("self.l.sortBy(a, a.size()).size() == 1", false, true),
        ("sets.contains(self.l, self.a)", false, true),
        ("self.l.map(a, a.lowerAscii()).filter(a, a.startsWith('x')).size() == 0", false, true),
        ("self.l.join(',').contains(self.s)", false, true),
        ("lists.range(self.l.size()).all(i, i < 5)", false, false),
        ("self.s.split(',').all(part, part.size() > 1)", true, true),
    ] {
        assert_eq!(priced(None, None, rule).is_empty(), unbounded, "{rule}: {:?}", priced(None, None, rule));
        assert_eq!(
            priced(Some(50), Some(20), rule).is_empty(),
            bounded,
            "{rule}: {:?}",
            priced(Some(50), Some(20), rule)
        );
    }
}

#[test]
fn a_place_that_occurs_often_multiplies_what_its_rules_cost() {
    let definition = |most: Value| {
        let item = json!({ "type": "string", "maxLength": 1000, "x-kubernetes-validations": [{ "rule": "self.matches('^[a-z]{3,5}$')" }] });
        json!({ "type": "object", "properties": { "l": { "type": "array", "maxItems": most, "items": item } } })
    };
    let found = |most: Value| check_definition(&testing::schema(&definition(most)), &Path::Root);
    assert!(found(json!(1000)).is_empty());
    assert!(found(json!(null))[0].message.contains("exceeds budget"));
    // Each is within its bound, all together are not.
    let many: serde_json::Map<String, Value> = (0..60).map(|n| (format!("f{n}"), definition(json!(1500)))).collect();
    let many = check_definition(&testing::schema(&json!({ "type": "object", "properties": many })), &Path::Root);
    assert!(many.iter().any(|error| error.message.contains("cost total for entire")), "{many:?}");
    assert!(!many.iter().any(|error| error.message.contains("estimated rule cost exceeds")), "{many:?}");
}
