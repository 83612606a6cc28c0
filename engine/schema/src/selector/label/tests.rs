//! Each operator and each refusal by table; printing and parsing by property.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
    let selector = LabelSelector::parse(selector).unwrap_or_else(|wrong| panic!("{wrong}"));
    selector.matches(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
}

#[test]
fn each_operator_judges_present_and_absent_labels() {
    let labels = [("a", "b"), ("n", "5"), ("empty", "")];
    let good = [
        "",
        " ",
        "a",
        "a=b",
        "a==b",
        "a = b",
        "a!=c",
        "z!=c",
        "!z",
        "a in (b,c)",
        "a in ( x , b )",
        "a notin (c)",
        "z notin (c)",
        "n>4",
        "n<6",
        "n > 4",
        "a=b,n=5",
        "a=b , !z",
        "empty=",
        "empty in (,x)",
        "empty",
        "in!=a",
    ];
    for selector in good {
        assert!(selects(selector, &labels), "{selector:?} should select");
    }
    for selector in ["z", "a=c", "a!=b", "!a", "a in (c)", "z in (b)", "a notin (b)", "n>5", "a>1", "z<1", "a=b,z"] {
        assert!(!selects(selector, &labels), "{selector:?} should not select");
    }
}

#[test]
fn what_is_wrong_with_a_selector_is_named() {
    let table = [
        ("a,", "found the end, expected a label key"),
        (",a", "found \",a\", expected a label key"),
        ("a in", "expected '('"),
        ("a in (b", "expected ',' or ')'"),
        ("a in (b) c", "found \"c\""),
        ("a b", "found \"b\""),
        ("a=b=c", "found \"=c\""),
        ("=b", "expected a label key"),
        ("!", "a label key"),
        ("-a=b", "selector key \"-a\""),
        ("a=-b", "selector value \"-b\" of key \"a\""),
        ("a in ()", "at least one"),
        ("a>x", "whole number"),
        ("a/b/c", "more than one '/'"),
        ("a(b)", "found \"(b)\""),
    ];
    for (selector, part) in table {
        let wrong = LabelSelector::parse(selector).expect_err(selector).to_string();
        assert!(wrong.contains(part), "{selector:?} gave {wrong:?}, which lacks {part:?}");
    }
}

#[test]
fn selectors_of_objects_are_read_with_both_their_parts() {
    let selector = LabelSelector::from_value(&json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]},
            {"key": "x", "operator": "DoesNotExist"},
            {"key": "y", "operator": "Exists", "values": []},
            {"key": "z", "operator": "NotIn", "values": ["q"]},
        ],
    }));
    assert_eq!(selector.unwrap().to_string(), "app=web,tier in (a,b),!x,y,z!=q");
    assert!(LabelSelector::from_value(&json!({})).unwrap().is_everything());
    assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches(|_| Some("a")));
}

#[test]
fn selectors_of_objects_name_the_field_that_is_wrong() {
    let table = [
        (json!([]), "field ."),
        (json!({"matchLabels": []}), "matchLabels"),
        (json!({"matchLabels": {"a": 1}}), "matchLabels[a]"),
        (json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}), "matchExpressions[0].operator"),
        (json!({"matchExpressions": [{"operator": "In"}]}), "matchExpressions[0].key"),
        (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]}), "matchExpressions[0].values"),
        (json!({"matchExpressions": [{"key": "a", "operator": "In"}]}), "at least one value"),
        (json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}), "takes no values"),
    ];
    for (selector, part) in table {
        let wrong = LabelSelector::from_value(&selector).expect_err("refused").to_string();
        assert!(wrong.contains(part), "{selector} gave {wrong:?}");
    }
}

fn requirement() -> impl Strategy<Value = String> {
    let key = "[a-z]{1,3}";
    let value = "[a-z0-9]{0,3}";
    prop_oneof![
        key.prop_map(|key| key),
        key.prop_map(|key| format!("!{key}")),
        (key, value).prop_map(|(key, value)| format!("{key}={value}")),
        (key, value).prop_map(|(key, value)| format!("{key}!={value}")),
        (key, value, value).prop_map(|(key, a, b)| format!("{key} in ({a},{b})")),
        (key, value, value).prop_map(|(key, a, b)| format!("{key} notin ({a},{b})")),
        (key, any::<i64>()).prop_map(|(key, than)| format!("{key}>{than}")),
    ]
}

proptest! {
    #[test]
    fn printing_and_parsing_again_gives_the_same_selector(parts in prop::collection::vec(requirement(), 0..4)) {
        let selector = LabelSelector::parse(&parts.join(",")).unwrap();
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ab!=<>(), in]{0,20}|\\PC{0,20}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }
    }
}
