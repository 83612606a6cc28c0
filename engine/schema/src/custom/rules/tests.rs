//! Rules against objects, and what hostile ones can do.

mod costs;
mod library;

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::testing;
use super::*;

fn problems(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = testing::schema(schema);
    let found = Rules::compile(&schema).map_or_else(|| vec![unknown()], |rules| rules.check(&schema, object, old));
    found.iter().map(ToString::to_string).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "made where it is passed")]
fn spec(properties: Value, rules: Value) -> Value {
    json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": properties, "x-kubernetes-validations": rules } } })
}

#[test]
fn a_rule_that_fails_says_what_it_was_told_to_say() {
    let numbers = json!({ "min": { "type": "integer" }, "max": { "type": "integer" } });
    let object = json!({ "spec": { "min": 3, "max": 2 } });
    for (rule, message) in [
        (
            json!({ "rule": "self.min <= self.max" }),
            "spec: Invalid value: \"object\": failed rule: self.min <= self.max",
        ),
        (
            json!({ "rule": "self.min <= self.max", "message": "min over max" }),
            "spec: Invalid value: \"object\": min over max",
        ),
        (
            json!({ "rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min) + ' is over max'", "reason": "FieldValueForbidden", "fieldPath": ".min" }),
            "spec.min: Forbidden: min 3 is over max",
        ),
        (
            json!({ "rule": "self.min <= self.max", "message": "given", "reason": "FieldValueRequired" }),
            "spec: Required value: given",
        ),
    ] {
        assert_eq!(problems(&spec(numbers.clone(), json!([rule])), &object, None), [message]);
    }
    assert_eq!(
        problems(
            &spec(numbers, json!([{ "rule": "self.min <= self.max" }])),
            &json!({ "spec": { "min": 1, "max": 2 } }),
            None
        ),
        Vec::<String>::new()
    );
}

#[test]
fn expressions_see_values_in_their_types_under_escaped_names() {
    let properties = json!({
        "at": { "type": "string", "format": "date-time" }, "for": { "type": "string", "format": "duration" },
        "a-b": { "type": "integer" }, "port": { "x-kubernetes-int-or-string": true }, "size": { "x-kubernetes-int-or-string": true },
        "tags": { "type": "object", "additionalProperties": { "type": "string" } },
        "list": { "type": "array", "items": { "type": "object", "properties": { "n": { "type": "integer" } } } },
    });
    let object = json!({ "spec": { "at": "2024-01-01T00:00:00Z", "for": "90s", "a-b": 1, "port": "http", "size": "1Gi",
        "tags": { "x.y/z": "1" }, "list": [{ "n": 1 }, { "n": 2 }] } });
    for rule in [
        "self.at < timestamp('2025-01-01T00:00:00Z')",
        "self.__for__ > duration('1m')",
        "self.a__dash__b == 1",
        "type(self.port) == string && self.port == 'http'",
        "quantity(self.size).isGreaterThan(quantity('1Mi'))",
        "self.tags.exists(key, key == 'x.y/z') && self.tags['x.y/z'] == '1'",
        "self.list.all(each, each.n > 0) && self.list.map(each, each.n).sum() == 3",
        "!has(self.missing) || true",
        "cel.bind(n, self.list.size(), n == 2)",
        "self.list.filter(each, each.n > 1).size() == 1",
        "'abc'.matches('^a.c$')",
    ] {
        let mut properties = properties.clone();
        properties["missing"] = json!({ "type": "string" });
        assert_eq!(
            problems(&spec(properties, json!([{ "rule": rule }])), &object, None),
            Vec::<String>::new(),
            "{rule}"
        );
    }
}

#[test]
fn transitions_compare_with_what_was_there() {
    let schema = spec(
        json!({ "n": { "type": "integer", "x-kubernetes-validations": [{ "rule": "self >= oldSelf", "message": "only up" }] } }),
        json!([]),
    );
    let object = |n: i64| json!({ "spec": { "n": n } });
    assert!(problems(&schema, &object(1), None).is_empty());
    assert!(problems(&schema, &object(2), Some(&object(1))).is_empty());
    assert_eq!(problems(&schema, &object(0), Some(&object(1))), ["spec.n: Invalid value: \"integer\": only up"]);
    let schema = spec(
        json!({ "n": { "type": "integer", "x-kubernetes-validations": [
        { "rule": "oldSelf.hasValue() || self == 0", "message": "begins at zero", "optionalOldSelf": true },
    ] } }),
        json!([]),
    );
    assert_eq!(problems(&schema, &object(1), None), ["spec.n: Invalid value: \"integer\": begins at zero"]);
    assert!(problems(&schema, &object(1), Some(&object(7))).is_empty());
}

#[test]
fn what_is_unchanged_is_not_asked_again() {
    let schema = spec(
        json!({
            "a": { "type": "string", "x-kubernetes-validations": [{ "rule": "self.size() < 3" }] }, "b": { "type": "string" },
            "l": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": { "type": "object", "properties": { "k": { "type": "string" }, "v": { "type": "integer" } }, "x-kubernetes-validations": [{ "rule": "self.v > 0" }] } },
        }),
        json!([]),
    );
    let old = json!({ "spec": { "a": "long", "b": "1", "l": [{ "k": "x", "v": 0 }] } });
    let new = json!({ "spec": { "a": "long", "b": "2", "l": [{ "k": "y", "v": 1 }, { "k": "x", "v": 0 }] } });
    assert_eq!(problems(&schema, &new, Some(&old)), Vec::<String>::new());
    assert_eq!(problems(&schema, &new, None).len(), 2);
}

#[expect(clippy::needless_pass_by_value, reason = "made where it is passed")]
fn refused(properties: Value, rule: Value) -> Vec<String> {
    let schema = testing::schema(&spec(properties, json!([rule])));
    check_definition(&schema, &Path::Root.field("s")).iter().map(ToString::to_string).collect()
}

#[test]
fn a_rule_that_cannot_hold_refuses_the_definition() {
    let numbers = json!({ "n": { "type": "integer" }, "s": { "type": "string", "maxLength": 10 },
        "l": { "type": "array", "items": { "type": "array", "items": { "type": "string" } } } });
    for (rule, part) in [
        (json!({ "rule": "self.n >" }), "compilation failed: "),
        (json!({ "rule": "self.m > 1" }), "undefined field 'm'"),
        (json!({ "rule": "other > 1" }), "undeclared reference to 'other'"),
        (json!({ "rule": "self.n.frobnicate()" }), "undeclared reference to 'frobnicate'"),
        (json!({ "rule": "self.n > 1", "messageExpression": "1 +" }), "messageExpression"),
        (json!({ "rule": "self.n > 1", "reason": "Because" }), "Unsupported value: \"Because\""),
        (json!({ "rule": "self.n > 1", "fieldPath": ".m" }), "fieldPath must be a valid path"),
        (json!({ "rule": "" }), "rule is not specified"),
        (json!({ "rule": "self.n >\n 1" }), "message must be specified if rule contains line breaks"),
        (json!({ "rule": "self.n" }), "cel expression must evaluate to a bool"),
        (json!({ "rule": "self.n > 1", "messageExpression": "self.n" }), "messageExpression must evaluate to a string"),
        (json!({ "rule": "self.s.matches('(')" }), "invalid matches argument"),
        (json!({ "rule": "self.n.all(a, b, c, d)" }), "undeclared reference to 'all'"),
        (json!({ "rule": "self.l.all(a, a, true)" }), "must have different names"),
        (json!({ "rule": "_foo(self.n)" }), "undeclared reference to '_foo'"),
        (json!({ "rule": "authorizer.group('').resource('pods').check('get').allowed()" }), "undeclared reference to"),
        (json!({ "rule": "self.n > 1", "optionalOldSelf": true }), "may not be set if oldSelf is not used"),
    ] {
        let found = refused(numbers.clone(), rule.clone());
        assert!(found.len() == 1 && found[0].contains(part), "{rule}: {found:?}");
        assert!(found[0].starts_with("s.properties[spec].x-kubernetes-validations[0]."), "{found:?}");
    }
    let lost = json!({ "l": { "type": "array", "items": { "type": "string", "x-kubernetes-validations": [{ "rule": "self == oldSelf" }] } } });
    let schema = testing::schema(&spec(lost, json!([])));
    assert!(check_definition(&schema, &Path::Root)[0].message.contains("uncorrelatable"));
}

#[test]
fn null_is_for_the_rules_around_it_and_those_of_all_of_count() {
    let maybe = json!({ "n": { "type": "string", "nullable": true, "x-kubernetes-validations": [{ "rule": "self.size() > 3" }],
        "allOf": [{ "x-kubernetes-validations": [{ "rule": "self != 'four'", "message": "not that" }] }] } });
    let schema = spec(maybe, json!([]));
    assert_eq!(problems(&schema, &json!({ "spec": { "n": null } }), None), Vec::<String>::new());
    assert_eq!(problems(&schema, &json!({ "spec": { "n": "a" } }), None).len(), 1);
    assert!(problems(&schema, &json!({ "spec": { "n": "four" } }), None)[0].ends_with("not that"));
}

#[test]
fn hostile_expressions_end() {
    let list = json!({ "l": { "type": "array", "items": { "type": "integer" } }, "s": { "type": "string" } });
    let object = json!({ "spec": { "l": vec![1; 3000], "s": "a".repeat(100_000) } });
    for (rule, ends_by_itself) in [
        ("self.l.all(a, self.l.all(b, self.l.all(c, a == b)))", false),
        ("self.l.map(a, self.l.map(b, self.l)).size() > 0", false),
        ("self.l.exists(a, self.l.exists(b, a != b)) || true", false),
        ("self.l.all(a, self.s.matches('(a|a)*(a|aa)*$'))", true),
    ] {
        let begun = Instant::now();
        let found = problems(&spec(list.clone(), json!([{ "rule": rule }])), &object, None);
        assert!(begun.elapsed() < Duration::from_secs(30), "{rule}: {:?}", begun.elapsed());
        assert!(ends_by_itself || found.len() == 1 && found[0].contains("cost budget"), "{rule}: {found:?}");
    }
}

#[test]
fn hostile_texts_are_refused_in_time() {
    for text in [
        "(".repeat(5000),
        "!".repeat(5000),
        "[".repeat(8000),
        format!("self{}", ".a".repeat(7000)),
        format!("1{}", "+1".repeat(7000)),
        "a?".repeat(5000),
        "\u{0}'\"\\".into(),
    ] {
        let rule = RuleText { rule: text.as_str().into(), ..RuleText::default() };
        let begun = Instant::now();
        let refused = deep(|| compile(&rule).is_err());
        assert_ne!(refused, Some(false), "{}", &text[..4]);
        // Were it in a definition all the same, no object would pass it unasked.
        let found = problems(&spec(json!({}), json!([{ "rule": text }])), &json!({ "spec": {} }), None);
        assert_eq!(found.len(), 1, "{}: {found:?}", &text[..4]);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?} {}", begun.elapsed(), &text[..4]);
    }
}

#[test]
fn what_one_object_has_to_pay_from_is_not_anothers() {
    let schema = spec(
        json!({ "list": { "type": "array", "items": { "type": "integer" } } }),
        json!([{ "rule": "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))" }]),
    );
    let list = |length: usize| json!({ "spec": { "list": vec![1; length] } });
    std::thread::scope(|scope| {
        let dear = scope.spawn(|| problems(&schema, &list(2000), None));
        let cheap = scope.spawn(|| problems(&schema, &list(3), None));
        assert_eq!(cheap.join().unwrap(), [""; 0]);
        let found = dear.join().unwrap();
        assert!(found.len() == 1 && found[0].contains("cost budget"), "{found:?}");
    });
}
