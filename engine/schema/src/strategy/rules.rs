//! Rules as data: most kinds are described by tables of them instead of by functions.
//!
//! A rule stands at a place, written as a dotted path in which `[]` means each item of a list and `{}` each value of a
//! map. Places whose surroundings are not there have nothing to break.

use std::collections::BTreeSet;

use serde_json::Value;

use super::metadata::{label_selector, text_rule};
use super::{IMMUTABLE, Strategy};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// A rule about the values at a place.
pub(super) struct Rule {
    at: &'static str,
    check: Check,
}

/// What is asked of a value.
enum Check {
    /// To be there and say something.
    Given(&'static str),
    /// To be one of these, where it is given.
    OneOf(&'static [&'static str]),
    /// To have this form, where it is given.
    Text(fn(&str) -> Result<(), String>),
    /// To lie in this range, where it is given.
    Range(i64, i64),
    /// Not to have this many items more.
    AtMost(usize),
    /// To have items that differ in these fields, or as a whole.
    Distinct(&'static [&'static str]),
    /// To be a label selector, where it is given.
    Selector,
    /// To stay as it was created.
    Fixed(Words),
    /// To stay as it is from when it says something.
    FixedOnceSet,
    /// Whatever the function says.
    With(Judge),
}

/// How a change that may not be is refused.
enum Words {
    Immutable,
    Forbidden(&'static str),
}

/// Says what is wrong with a value.
pub(super) type Judge = fn(&Value, &Path<'_>, &mut Vec<FieldError>);

const fn rule(at: &'static str, check: Check) -> Rule {
    Rule { at, check }
}

pub(super) const fn required(at: &'static str) -> Rule {
    rule(at, Check::Given(""))
}

/// Required, with a word why.
pub(super) const fn required_as(at: &'static str, detail: &'static str) -> Rule {
    rule(at, Check::Given(detail))
}

pub(super) const fn one_of(at: &'static str, known: &'static [&'static str]) -> Rule {
    rule(at, Check::OneOf(known))
}

pub(super) const fn text(at: &'static str, form: fn(&str) -> Result<(), String>) -> Rule {
    rule(at, Check::Text(form))
}

pub(super) const fn between(at: &'static str, least: i64, most: i64) -> Rule {
    rule(at, Check::Range(least, most))
}

pub(super) const fn not_negative(at: &'static str) -> Rule {
    rule(at, Check::Range(0, i64::MAX))
}

pub(super) const fn positive(at: &'static str) -> Rule {
    rule(at, Check::Range(1, i64::MAX))
}

pub(super) const fn at_most(at: &'static str, items: usize) -> Rule {
    rule(at, Check::AtMost(items))
}

pub(super) const fn distinct(at: &'static str, keys: &'static [&'static str]) -> Rule {
    rule(at, Check::Distinct(keys))
}

pub(super) const fn selector(at: &'static str) -> Rule {
    rule(at, Check::Selector)
}

pub(super) const fn fixed(at: &'static str) -> Rule {
    rule(at, Check::Fixed(Words::Immutable))
}

/// Fixed, refused in other words.
pub(super) const fn fixed_as(at: &'static str, detail: &'static str) -> Rule {
    rule(at, Check::Fixed(Words::Forbidden(detail)))
}

pub(super) const fn fixed_once_set(at: &'static str) -> Rule {
    rule(at, Check::FixedOnceSet)
}

pub(super) const fn with(at: &'static str, judge: Judge) -> Rule {
    rule(at, Check::With(judge))
}

/// Checks an object against rules; `old` is what it replaces.
pub(super) fn check(rules: &[Rule], object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    check_at(rules, object, old, &Path::Root, errors);
}

/// The same below a place.
pub(super) fn check_at(
    rules: &[Rule],
    object: &Value,
    old: Option<&Value>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    for rule in rules {
        each(object, rule.at, path, &mut |value, path| rule.check.judge(value, before(old, rule.at), path, errors));
    }
}

/// What stood at a place; `None` when the object is new.
fn before<'a>(old: Option<&'a Value>, at: &str) -> Option<&'a Value> {
    old.map(|old| lookup::at(old, at).unwrap_or(&Value::Null))
}

/// Calls `visit` with every value at a place; with null where only the last step leads nowhere.
fn each(value: &Value, at: &str, path: &Path<'_>, visit: &mut dyn FnMut(&Value, &Path<'_>)) {
    if at.is_empty() {
        return visit(value, path);
    }
    if !value.is_object() {
        return;
    }
    let (step, rest) = at.split_once('.').unwrap_or((at, ""));
    if let Some(name) = step.strip_suffix("[]") {
        let list = path.field(name);
        for (index, item) in lookup::list(value, name).iter().enumerate() {
            each(item, rest, &list.index(index), visit);
        }
    } else if let Some(name) = step.strip_suffix("{}") {
        let map = path.field(name);
        for (key, inner) in lookup::entries(value, name) {
            each(inner, rest, &map.key(key), visit);
        }
    } else {
        let inner = value.get(step).unwrap_or(&Value::Null);
        each(inner, rest, &path.field(step), visit);
    }
}

/// Whether a value says anything: a selector or a source may be an empty object, and a number may be nought.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

impl Check {
    fn judge(&self, value: &Value, before: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
        let given = says_something(value);
        match self {
            Self::Given(detail) if !given => errors.push(FieldError::required(path, detail)),
            Self::OneOf(known) if given && !known.contains(&value.as_str().unwrap_or("")) => {
                errors.push(FieldError::not_supported(path, value, known));
            }
            Self::Text(form) if given => text_rule(path, value.as_str().unwrap_or(""), form, errors),
            Self::Range(least, most) => range(value, *least, *most, path, errors),
            Self::AtMost(items) => {
                let count = value.as_array().map_or(0, Vec::len);
                if count > *items {
                    errors.push(FieldError::too_many(path, count, *items as u64));
                }
            }
            Self::Distinct(keys) => distinct_items(value, keys, path, errors),
            Self::Selector if given => label_selector(value, path, errors),
            Self::Fixed(words) if before.is_some_and(|before| before != value) => errors.push(match words {
                Words::Immutable => FieldError::invalid(path, value, IMMUTABLE),
                Words::Forbidden(detail) => FieldError::forbidden(path, detail),
            }),
            Self::FixedOnceSet if before.is_some_and(|before| says_something(before) && before != value) => {
                errors.push(FieldError::invalid(path, value, IMMUTABLE));
            }
            Self::With(judge) if given => judge(value, path, errors),
            _ => {}
        }
    }
}

fn range(value: &Value, least: i64, most: i64, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_i64().filter(|number| !(least..=most).contains(number)) else { return };
    let detail = match (least, most) {
        (0, i64::MAX) => "must be greater than or equal to 0".to_owned(),
        (1, i64::MAX) => "must be greater than 0".to_owned(),
        (least, i64::MAX) => format!("must be greater than or equal to {least}"),
        (least, most) => format!("must be between {least} and {most}, inclusive"),
    };
    errors.push(FieldError::invalid(path, &number.into(), &detail));
}

fn distinct_items(list: &Value, keys: &[&str], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        let item_path = path.index(index);
        let (told_apart, shown, path) = match keys {
            [] => (item.to_string(), item.clone(), item_path),
            [key] => (item[*key].to_string(), item[*key].clone(), item_path.field(key)),
            several => {
                let part: Vec<&Value> = several.iter().map(|key| &item[*key]).collect();
                (format!("{part:?}"), item.clone(), item_path)
            }
        };
        if !seen.insert(told_apart) {
            errors.push(FieldError::duplicate(&path, &shown));
        }
    }
}

/// What stands at a place where nothing is given.
pub(super) enum Fill {
    Text(&'static str),
    Number(i64),
    Flag(bool),
    /// An object without fields.
    Object,
}

/// Fills in defaults, each at a place; an empty text counts as not given.
pub(super) fn fill(defaults: &[(&str, Fill)], object: &mut Value) {
    for (at, default) in defaults {
        fill_at(object, at, default);
    }
}

fn fill_at(value: &mut Value, at: &str, default: &Fill) {
    if !value.is_object() {
        return;
    }
    let Some((step, rest)) = at.split_once('.') else {
        match default {
            Fill::Text(text) => lookup::fill_zero(value, at, *text),
            Fill::Number(number) => lookup::fill(value, at, *number),
            Fill::Flag(flag) => lookup::fill(value, at, *flag),
            Fill::Object => lookup::fill(value, at, Value::Object(serde_json::Map::new())),
        }
        return;
    };
    match step.strip_suffix("[]") {
        Some(name) => lookup::list_mut(value, name).iter_mut().for_each(|item| fill_at(item, rest, default)),
        None => {
            if let Some(inner) = value.get_mut(step) {
                fill_at(inner, rest, default);
            }
        }
    }
}

/// A kind described by tables, and by functions for what no table says.
pub(crate) struct Declared {
    /// What its names look like.
    pub(super) name: fn(&str) -> Result<(), String>,
    /// The status that an object begins with; none for kinds without one.
    pub(super) status: Option<fn() -> Value>,
    /// The top-level fields that only a subresource changes, beside the status.
    pub(super) kept: &'static [&'static str],
    /// The top-level fields whose change makes a new generation.
    pub(super) generations: Generations,
    pub(super) defaults: &'static [(&'static str, Fill)],
    /// Fills in what depends on more than one field.
    pub(super) fill: fn(&mut Value),
    pub(super) rules: &'static [Rule],
    /// Checks what depends on more than one field.
    pub(super) more: fn(&Value, Option<&Value>, &mut Vec<FieldError>),
    /// Rules for a write of the status.
    pub(super) status_rules: &'static [Rule],
    /// What to warn of when dependents outlive an object because nobody said otherwise; nothing where they do not.
    pub(super) orphans: Option<&'static str>,
}

/// Which changes of an object count as a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generations {
    /// The kind does not count.
    None,
    /// Changes of these top-level fields.
    Of(&'static [&'static str]),
    /// Changes of any other top-level field.
    AllBut(&'static [&'static str]),
}

impl Generations {
    /// Whether objects of the kind have a generation.
    pub fn counted(self) -> bool {
        self != Self::None
    }

    /// Whether `new` is another generation than `old`.
    pub fn differ(self, new: &Value, old: &Value) -> bool {
        let changed = |field: &str| new.get(field) != old.get(field);
        match self {
            Self::None => false,
            Self::Of(fields) => fields.iter().any(|field| changed(field)),
            Self::AllBut(fields) => {
                let names = |value: &Value| -> BTreeSet<String> {
                    let object = value.as_object().into_iter().flatten();
                    object.map(|(name, _)| name.clone()).filter(|name| !fields.contains(&name.as_str())).collect()
                };
                names(new).union(&names(old)).any(|field| changed(field))
            }
        }
    }
}

impl Declared {
    /// A kind of which nothing is asked but metadata.
    pub(super) const PLAIN: Self = Self {
        name: super::checks::dns_subdomain,
        status: None,
        kept: &[],
        generations: Generations::None,
        defaults: &[],
        fill: |_| {},
        rules: &[],
        more: |_, _, _| {},
        status_rules: &[],
        orphans: None,
    };

    /// A kind whose `spec` says what to do and whose `status` says how it goes.
    pub(super) const SPECIFIED: Self = Self {
        status: Some(|| Value::Object(serde_json::Map::new())),
        generations: Generations::Of(&["spec"]),
        ..Self::PLAIN
    };
}

impl Strategy for Declared {
    fn orphans(&self) -> Option<&'static str> {
        self.orphans
    }

    fn default(&self, object: &mut Value) {
        fill(self.defaults, object);
        (self.fill)(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if let Some(status) = self.status {
            lookup::set(object, "status", status());
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        if self.status.is_some() {
            super::keep(object, old, "status");
        }
        for field in self.kept {
            super::keep(object, old, field);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        super::metadata::validate(object, old, self.name, &mut errors);
        check(self.rules, object, old, &mut errors);
        (self.more)(object, old, &mut errors);
        errors
    }

    fn validate_below(&self, _subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = super::status::conditions(object);
        check(self.status_rules, object, Some(old), &mut errors);
        errors
    }

    fn generations(&self) -> Generations {
        self.generations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(rules: &[Rule], object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut errors = Vec::new();
        check(rules, object, old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_rule_holds_for_each_value_at_its_place() {
        let rules = [required("spec.list[].name"), one_of("spec.map{}.kind", &["A"]), positive("spec.count")];
        let object = json!({ "spec": {
            "list": [{ "name": "x" }, {}, { "name": "" }], "map": { "k": { "kind": "B" }, "l": {} }, "count": 0,
        } });
        assert_eq!(
            found(&rules, &object, None),
            [
                "spec.list[1].name: Required value",
                "spec.list[2].name: Required value",
                r#"spec.map[k].kind: Unsupported value: "B": supported values: "A""#,
                "spec.count: Invalid value: 0: must be greater than 0",
            ]
        );
        assert_eq!(found(&rules, &json!({}), None), Vec::<String>::new());
        assert_eq!(found(&rules, &json!({ "spec": { "list": 1, "map": [] } }), None), Vec::<String>::new());
    }

    #[test]
    fn what_is_fixed_stays() {
        let rules = [fixed("a"), fixed_as("b", "not b"), fixed_once_set("c")];
        let old = json!({ "a": 1, "b": 1 });
        assert_eq!(found(&rules, &json!({ "a": 2 }), None), Vec::<String>::new());
        assert_eq!(found(&rules, &json!({ "a": 1, "b": 1, "c": 1 }), Some(&old)), Vec::<String>::new());
        assert_eq!(
            found(&rules, &json!({ "b": 2 }), Some(&json!({ "a": 1, "b": 1, "c": "x" }))),
            [
                "a: Invalid value: null: field is immutable",
                "b: Forbidden: not b",
                "c: Invalid value: null: field is immutable",
            ]
        );
    }

    #[test]
    fn lists_are_bounded_and_distinct() {
        let rules = [at_most("a", 2), distinct("a", &[]), distinct("b", &["n"]), distinct("c", &["n", "m"])];
        let object =
            json!({ "a": ["x", "y", "x"], "b": [{ "n": 1 }, { "n": 1 }], "c": [{ "n": 1, "m": 1 }, { "n": 1 }] });
        assert_eq!(
            found(&rules, &object, None),
            [
                "a: Too many: 3: must have at most 2 items",
                r#"a[2]: Duplicate value: "x""#,
                "b[1].n: Duplicate value: 1"
            ]
        );
    }

    #[test]
    fn defaults_fill_only_what_is_missing() {
        let mut object = json!({ "spec": { "list": [{ "kind": "" }, { "kind": "B", "n": 0 }], "none": null } });
        fill(
            &[
                ("spec.list[].kind", Fill::Text("A")),
                ("spec.list[].n", Fill::Number(3)),
                ("spec.none.flag", Fill::Flag(true)),
                ("spec.object", Fill::Object),
                ("gone.flag", Fill::Flag(true)),
            ],
            &mut object,
        );
        assert_eq!(
            object,
            json!({ "spec": { "list": [{ "kind": "A", "n": 3 }, { "kind": "B", "n": 0 }], "none": null, "object": {} } })
        );
    }

    #[test]
    fn generations_follow_the_fields_they_count() {
        let (old, new) = (json!({ "spec": 1, "status": 1 }), json!({ "spec": 1, "status": 2, "more": 1 }));
        assert!(!Generations::Of(&["spec"]).differ(&new, &old));
        assert!(Generations::AllBut(&["status"]).differ(&new, &old));
        assert!(!Generations::AllBut(&["status", "more"]).differ(&new, &old));
        assert!(!Generations::None.differ(&new, &old) && !Generations::None.counted());
    }
}
