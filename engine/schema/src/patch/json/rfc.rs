//! The examples of RFC 6902's appendix A, by their numbers, and the pointers of RFC 6901.

use serde_json::{Value, json};

use super::json_patch;

fn patched(target: &Value, operations: &Value) -> Result<Value, String> {
    let mut after = target.clone();
    json_patch(&mut after, operations).map_err(|refused| refused.to_string())?;
    Ok(after)
}

#[test]
fn the_examples_of_the_rfc_hold() {
    let forms = [
        (
            "A.1",
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux"}]),
            json!({"baz": "qux", "foo": "bar"}),
        ),
        (
            "A.2",
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
            json!({"foo": ["bar", "qux", "baz"]}),
        ),
        ("A.3", json!({"baz": "qux", "foo": "bar"}), json!([{"op": "remove", "path": "/baz"}]), json!({"foo": "bar"})),
        (
            "A.4",
            json!({"foo": ["bar", "qux", "baz"]}),
            json!([{"op": "remove", "path": "/foo/1"}]),
            json!({"foo": ["bar", "baz"]}),
        ),
        (
            "A.5",
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
            json!({"baz": "boo", "foo": "bar"}),
        ),
        (
            "A.6",
            json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
            json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
            json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
        ),
        (
            "A.7",
            json!({"foo": ["all", "grass", "cows", "eat"]}),
            json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
            json!({"foo": ["all", "cows", "eat", "grass"]}),
        ),
        (
            "A.8",
            json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
            json!({"baz": "qux", "foo": ["a", 2, "c"]}),
        ),
        (
            "A.10",
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
            json!({"foo": "bar", "child": {"grandchild": {}}}),
        ),
        (
            "A.11",
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
            json!({"foo": "bar", "baz": "qux"}),
        ),
        (
            "A.14",
            json!({"/": 9, "~1": 10}),
            json!([{"op": "test", "path": "/~01", "value": 10}]),
            json!({"/": 9, "~1": 10}),
        ),
        (
            "A.16",
            json!({"foo": ["bar"]}),
            json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
            json!({"foo": ["bar", ["abc", "def"]]}),
        ),
    ];
    for (number, target, operations, expected) in forms {
        assert_eq!(patched(&target, &operations), Ok(expected), "{number}");
    }
}

#[test]
fn the_examples_that_fail_say_why() {
    let failing = [
        (
            "A.9",
            json!({"baz": "qux"}),
            json!([{"op": "test", "path": "/baz", "value": "bar"}]),
            "is not the one tested for",
        ),
        (
            "A.12",
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz/bat", "value": "qux"}]),
            "there is nothing at \"/baz/bat\"",
        ),
        (
            "A.15",
            json!({"/": 9, "~1": 10}),
            json!([{"op": "test", "path": "/~01", "value": "10"}]),
            "is not the one tested for",
        ),
    ];
    for (number, target, operations, part) in failing {
        let refused = patched(&target, &operations).expect_err(number);
        assert!(refused.contains(part), "{number}: {refused}");
    }
}

#[test]
fn pointers_escape_the_tilde_and_the_slash_and_reach_the_whole() {
    let target = json!({"a/b": 1, "m~n": 2, "": 3, " ": 4, "e^f": {"g": [5]}});
    for (path, value) in [("/a~1b", 1), ("/m~0n", 2), ("/", 3), ("/ ", 4), ("/e^f/g/0", 5)] {
        let test = json!([{"op": "test", "path": path, "value": value}]);
        assert_eq!(patched(&target, &test), Ok(target.clone()), "{path}");
    }
    let whole = json!([{"op": "test", "path": "", "value": target}, {"op": "replace", "path": "", "value": [1]}]);
    assert_eq!(patched(&target, &whole), Ok(json!([1])));
}

#[test]
fn indexes_are_plain_numbers_within_the_list() {
    let target = json!({"a": [1, 2]});
    for path in ["/a/2", "/a/-", "/a/01", "/a/-1", "/a/1e0", "/a/99999999999999999999", "/a/x", "/a/0/b"] {
        for operation in ["remove", "replace", "test"] {
            let operations = json!([{"op": operation, "path": path, "value": 0}]);
            patched(&target, &operations).expect_err(path);
        }
    }
    let beyond = json!([{"op": "add", "path": "/a/3", "value": 0}]);
    patched(&target, &beyond).expect_err("a gap");
    let end = json!([{"op": "add", "path": "/a/2", "value": 3}]);
    assert_eq!(patched(&target, &end), Ok(json!({"a": [1, 2, 3]})));
}

#[test]
fn numbers_are_tested_by_value_and_objects_without_their_order() {
    let target = json!({"a": 1.0, "b": {"x": 1, "y": [2]}});
    let same = json!([{"op": "test", "path": "/b", "value": {"y": [2], "x": 1}}]);
    assert_eq!(patched(&target, &same), Ok(target.clone()));
    patched(&target, &json!([{"op": "test", "path": "/b", "value": {"x": 1}}])).expect_err("a field is missing");
}

#[test]
fn moving_and_copying_see_what_went_before() {
    let operations = json!([
        {"op": "copy", "from": "/a", "path": "/b"},
        {"op": "add", "path": "/b/-", "value": 3},
        {"op": "move", "from": "/a", "path": "/a"},
        {"op": "move", "from": "/b/0", "path": "/b/2"},
        {"op": "test", "path": "/b", "value": [2, 3, 1]},
    ]);
    assert_eq!(patched(&json!({"a": [1, 2]}), &operations), Ok(json!({"a": [1, 2], "b": [2, 3, 1]})));
}
