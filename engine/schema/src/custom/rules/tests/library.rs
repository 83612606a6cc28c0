//! What Kubernetes documents that rules can say.

use serde_json::json;

use super::*;

#[test]
fn documented_functions_and_macros_work() {
    let text = json!({ "type": "string" });
    let properties = json!({
        "l": { "type": "array", "items": { "type": "integer" } }, "m": { "type": "object", "additionalProperties": text },
        "o": { "type": "array", "items": { "type": "object", "properties": { "n": { "type": "integer" }, "s": text } } },
        "s": text, "gone": text, "in": { "type": "object", "properties": { "a": text, "b": text } },
    });
    let object = json!({ "spec": { "l": [3, 1, 2], "m": { "a": "1", "b": "2" }, "s": "Hello", "in": { "a": "x" },
        "o": [{ "n": 2, "s": "b" }, { "n": 1, "s": "a" }] } });
    for rule in [
        "self.o.sortBy(each, each.n).map(each, each.s) == ['a', 'b']",
        "self.l.sortBy(each, -each) == [3, 2, 1] && self.l.sort() == [1, 2, 3] && [2, 2].distinct() == [2]",
        "self.l.all(i, each, i < 3 && each > 0) && self.l.exists(i, each, i == 0 && each == 3)",
        "self.m.all(key, value, key != value) && self.m.existsOne(key, value, value == '2')",
        "self.l.transformList(i, each, i + each) == [3, 2, 4]",
        "self.l.transformList(i, each, each > 1, each * 2) == [6, 4]",
        "self.m.transformMap(key, value, value + key) == {'a': '1a', 'b': '2b'}",
        "self.m.transformMap(key, value, key == 'a', value) == {'a': '1'}",
        "self.m.transformMapEntry(key, value, {value: key}) == {'1': 'a', '2': 'b'}",
        "self.?gone.orValue('none') == 'none' && self.?s.hasValue() && !self.?gone.hasValue()",
        "self.?__in__.?a.orValue('') == 'x' && self.?__in__.?b.orValue('y') == 'y'",
        "self.m[?'c'].orValue('3') == '3' && self.l[?0].value() == 3",
        "self.?s.optMap(text, text.size()).orValue(0) == 5 && self.?gone.optMap(text, text.size()).orValue(7) == 7",
        "self.?__in__.optFlatMap(inner, inner.?a).orValue('none') == 'x'",
        "optional.of(1).optMap(one, one + 1).optMap(two, two * 2).value() == 4 && !optional.none().hasValue()",
        "optional.ofNonZeroValue('').or(optional.of('x')).value() == 'x'",
        "self.s.lowerAscii() == 'hello' && self.s.indexOf('l') == 2 && self.s.substring(1, 3) == 'el'",
        "'a,b'.split(',').join('-') == 'a-b' && ' a '.trim() == 'a' && 'aa'.replace('a', 'b') == 'bb'",
        "'%s is %d'.format(['n', 3]) == 'n is 3' && strings.quote('a') == '\"a\"' && 'abc'.charAt(1) == 'b'",
        "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "url('https://a.b:80/c?d=e').getHost() == 'a.b:80' && url('https://a.b/c').getScheme() == 'https' && isURL('/x')",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && cidr('10.0.0.0/8').containsIP('10.1.1.1') && ip.isCanonical('::1')",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.0.0.0/8').prefixLength() == 8",
        "quantity('1Gi').compareTo(quantity('1024Mi')) == 0 && isQuantity('500m') && quantity('2').asInteger() == 2",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('1.0.0') && semver('1.2.3').major() == 1",
        "!format.dns1123Label().validate('my-name').hasValue() && format.named('uuid').value().validate('x').hasValue()",
        "sets.contains(self.l, [1]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], self.l)",
        "self.l.isSorted() == false && self.l.sum() == 6 && self.l.min() == 1 && self.l.max() == 3 && self.l.indexOf(1) == 1",
        "lists.range(3) == [0, 1, 2] && [[1], [2]].flatten() == [1, 2] && self.l.slice(1, 3) == [1, 2] && self.l.reverse() == [2, 1, 3]",
        "self.l.first().value() == 3 && self.l.last().value() == 2",
    ] {
        let schema = spec(properties.clone(), json!([{ "rule": rule }]));
        assert_eq!(problems(&schema, &object, None), Vec::<String>::new(), "{rule}");
        let taken = check_definition(&testing::schema(&schema), &Path::Root);
        let compiled = taken
            .iter()
            .all(|error| !error.message.contains("compilation failed") && !error.message.contains("must evaluate"));
        assert!(compiled, "{rule}: {taken:?}");
    }
    let twice =
        spec(properties, json!([{ "rule": "self.m.transformMapEntry(key, value, {'same': key}).size() == 1" }]));
    assert!(problems(&twice, &object, None)[0].contains("key 'same' already exists"));
}
