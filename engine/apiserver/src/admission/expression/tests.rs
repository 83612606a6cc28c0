//! Programs, their costs and what they see of a request.

use super::*;
use std::time::{Duration, Instant};

fn environment(object: &Value) -> Environment {
    let values = vec![("object", to_cel(object)), ("oldObject", cel::Value::Null)];
    Environment::new(values, Arc::default(), Arc::default(), None)
}

fn scope(variables: &[(String, usize)]) -> Scope<'_> {
    Scope { variables, makes: false }
}

fn test(text: &str, object: &Value) -> Result<bool, String> {
    environment(object).test(&Program::compile(text, Scope::default())?)
}

#[test]
fn expressions_read_objects() {
    let object = json!({"metadata": {"name": "web", "namespace": "n", "labels": {"example.com/tier": "front"}},
        "spec": {"replicas": 3, "containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}});
    let holding = [
        "object.spec.replicas <= 5",
        "oldObject == null",
        "has(object.spec.replicas) && !has(object.spec.paused)",
        "object.spec.containers.all(c, c.image.contains(':'))",
        "object.spec.containers.exists(c, c.name == 'b')",
        "object.spec.containers.map(c, c.name).join(',') == 'a,b'",
        "object.spec.containers.filter(c, c.name != 'a').size() == 1",
        "object.metadata.labels['example.com/tier'] == 'front'",
        "object.metadata.namespace == 'n' && object.metadata.__namespace__ == 'n'",
        "object.metadata.name.matches('^[a-z]+$')",
        "'a' in ['a', 'b'] && !('c' in {'a': 1})",
        "quantity('1Gi').isGreaterThan(quantity('500Mi'))",
        "object.?spec.?missing.orValue(7) == 7",
        "object.?spec.missing.orValue(7) == 7",
        "sets.contains(['a', 'b'], ['a'])",
        "object.spec.replicas > 2 ? true : false",
        "'%s-%d'.format([object.metadata.name, object.spec.replicas]) == 'web-3'",
        "object.spec.containers.sortBy(c, c.image).map(c, c.name) == ['a', 'b']",
        "object.spec.containers.all(at, c, at < 2 && c.name != '')",
        "object.metadata.labels.all(key, value, key.endsWith('tier') && value == 'front')",
        "object.spec.containers.transformMap(at, c, c.name)[1] == 'b'",
        "object.?spec.replicas.optMap(n, n + 1).orValue(0) == 4",
        "cel.bind(n, object.spec.replicas, n * n == 9)",
    ];
    for text in holding {
        assert_eq!(test(text, &object), Ok(true), "{text}");
    }
    assert_eq!(test("object.spec.missing > 1", &object), Err("no such key: missing".into()));
    for text in ["oldObject.spec.replicas != object.spec.replicas", "object.metadata.name.first == false"] {
        assert_eq!(test(text, &object), Err("no such overload".into()), "{text}");
    }
    assert_eq!(test("object.spec.replicas", &object), Err("must evaluate to bool".into()));
    assert_eq!(test("nobody.spec", &object), Err("undeclared reference to 'nobody'".into()));
}

#[test]
fn what_makes_no_sense_is_refused_when_it_is_compiled() {
    for text in ["", "a +", "object.", "(((", "Object{a: 1}", "@tick(true)", "variables.x"] {
        assert!(Program::compile(text, Scope::default()).is_err(), "{text}");
    }
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(Program::compile(&deep, Scope::default()).is_err());
    assert!(Program::compile(&"!".repeat(16_000), Scope::default()).is_err());
    assert!(Program::compile(&format!("{}true", "true ? ".repeat(2_000)), Scope::default()).is_err());
}

#[test]
fn the_deepest_that_is_compiled_can_be_evaluated() {
    let mut compiled = 0;
    for depth in 1..100 {
        let text = format!("{}true{}", "[".repeat(depth), "][0]".repeat(depth));
        if let Ok(program) = Program::compile(&text, Scope::default()) {
            assert_eq!(environment(&json!({})).test(&program), Ok(true), "{depth}");
            compiled = depth;
        }
    }
    assert!(compiled >= 15, "{compiled}");
}

#[test]
fn an_expression_cannot_hang_or_fill_memory() {
    let list: Vec<u32> = (0..2_000).collect();
    let object = json!({"list": list, "text": "x".repeat(100_000)});
    let hostile = [
        "object.list.all(a, object.list.all(b, object.list.all(c, a + b + c >= 0)))",
        "object.list.map(a, object.list.map(b, [a, b])).size() > 0 || true",
        "object.list.all(a, object.list.exists(b, object.text.contains('y')) || true)",
        "object.text.replace('x', object.text).size() > 0",
        "object.list.map(a, object.text).size() > 0",
    ];
    let growing = format!("[object.text]{}.size() > 0", ".map(a, a + a)".repeat(30));
    let nested = format!("[object.list]{}.size() > 0", ".map(a, [a, a, a])".repeat(30));
    for text in hostile.into_iter().chain([growing.as_str(), nested.as_str()]) {
        let start = Instant::now();
        let result = test(text, &object);
        assert!(result.is_err(), "{text}");
        assert!(start.elapsed() < Duration::from_secs(8), "{text} took {:?}", start.elapsed());
    }
    assert_eq!(test("'x'.split('').map(a, a + a).join('') == 'xx'", &object), Ok(true));
}

#[test]
fn variables_are_worked_out_when_asked_for_and_once() {
    let mut names = Vec::new();
    let mut variables = HashMap::new();
    let table = [("small", "object.n < 5"), ("broken", "object.missing"), ("twice", "variables.small ? 2 : 0")];
    for (name, text) in table {
        let program = Program::compile(text, scope(&names)).unwrap();
        names.push((name.to_owned(), program.depth));
        variables.insert(name.to_owned(), Arc::new(program));
    }
    let environment = environment(&json!({"n": 3})).with(Arc::new(variables), []);
    let test = |text: &str| environment.test(&Program::compile(text, scope(&names)).unwrap());
    assert_eq!(test("variables.small || variables.broken"), Ok(true));
    assert_eq!(test("variables.twice == 2 && [1, 2].all(object, variables.twice > 1)"), Ok(true));
    assert_eq!(test("variables.broken"), Err("no such key: missing".into()));
    assert_eq!(test("has(variables.small)"), Ok(true));
}

#[test]
fn variables_of_variables_are_deep() {
    let mut names = vec![("v0".to_owned(), Program::compile("1 + 1", Scope::default()).unwrap().depth)];
    let refused = (1..200).find(|at| {
        let program = Program::compile(&format!("variables.v{} + 1", at - 1), scope(&names));
        names.extend(program.as_ref().ok().map(|program| (format!("v{at}"), program.depth)));
        program.is_err()
    });
    assert!(refused.is_some_and(|at| at > 10), "{refused:?}");
}

fn made(text: &str, object: &Value) -> Result<Value, String> {
    environment(object).json(&Program::compile(text, Scope { makes: true, ..Scope::default() })?)
}

#[test]
fn objects_and_patches_are_made() {
    let object = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "list": [1, 2]}});
    let table = [
        ("Object{}", json!({})),
        (
            "Object{spec: Object.spec{replicas: object.spec.replicas + 1, __namespace__: 'n'}}",
            json!({"spec": {"namespace": "n", "replicas": 4}}),
        ),
        (
            "Object{spec: Object.spec{items: [Object.spec.items{name: object.metadata.name}]}}",
            json!({"spec": {"items": [{"name": "web"}]}}),
        ),
        (
            "Object{?spec: object.?missing, metadata: Object.metadata{?name: object.metadata.?name}}",
            json!({"metadata": {"name": "web"}}),
        ),
        (
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: {'x': [1.5, true, null]}}]",
            json!([{"op": "add", "path": "/metadata/labels/a~1b", "value": {"x": [1.5, true, null]}}]),
        ),
        (
            "object.spec.list.map(n, JSONPatch{op: 'remove', path: '/a/' + string(n)})",
            json!([{"op": "remove", "path": "/a/1"}, {"op": "remove", "path": "/a/2"}]),
        ),
        (
            "object.spec.replicas > 2 ? [JSONPatch{op: 'test', path: '/x', value: b'hi'}] : []",
            json!([{"op": "test", "path": "/x", "value": "aGk="}]),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(made(text, &object), Ok(expected), "{text}");
    }
    let refused = [
        ("Thing{a: 1}", "undeclared reference to 'Thing'"),
        ("JSONPatch{operation: 'add'}", "undefined field 'operation'"),
        (
            "Object{spec: Object.other{a: 1}}",
            "type mismatch: unexpected type name \"Object.other\", expected \"Object.spec\"",
        ),
        ("Object{spec: [Object{}]}", "type mismatch: unexpected type name \"Object\", expected \"Object.spec\""),
        ("{1: 2}", "the keys of an object are strings"),
        ("duration('1s')", "duration is no JSON"),
    ];
    for (text, why) in refused {
        assert_eq!(made(text, &object), Err(why.to_owned()), "{text}");
    }
}
