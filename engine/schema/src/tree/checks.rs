//! The constraints of a custom resource's schema, as compact as they can be: most places have none.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

/// The largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 2 * 1024 * 1024;

/// What a value must satisfy beside being of its type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Checks {
    /// `enum`
    pub(crate) allowed: Vec<Value>,
    pub(crate) pattern: Option<Pattern>,
    /// The smallest value, and whether it is itself excluded.
    pub(crate) minimum: Option<(Number, bool)>,
    /// The largest value, and whether it is itself excluded.
    pub(crate) maximum: Option<(Number, bool)>,
    pub(crate) multiple_of: Option<Number>,
    pub(crate) lengths: Bounds,
    pub(crate) items: Bounds,
    pub(crate) properties: Bounds,
    pub(crate) all_of: Vec<u32>,
    pub(crate) any_of: Vec<u32>,
    pub(crate) one_of: Vec<u32>,
    pub(crate) not: Option<u32>,
    /// `x-kubernetes-validations`
    pub(crate) rules: Vec<RuleText>,
}

/// A smallest and a largest count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) least: Option<u64>,
    pub(crate) most: Option<u64>,
}

/// One of `x-kubernetes-validations`, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleText {
    pub(crate) rule: Box<str>,
    pub(crate) message: Box<str>,
    pub(crate) message_expression: Box<str>,
    pub(crate) reason: Box<str>,
    pub(crate) field_path: Box<str>,
    pub(crate) optional_old: bool,
}

/// A regular expression, compiled when it is first needed.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) text: Box<str>,
    regex: OnceLock<Option<Regex>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Compiles a pattern within bounds. Matching takes time linear in the text, whatever the pattern is.
pub(crate) fn compile_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE).build()
}

impl Pattern {
    /// Whether the text matches; a pattern that cannot be compiled matches nothing.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.regex.get_or_init(|| compile_pattern(&self.text).ok()).as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

impl Checks {
    /// Reads what a schema says without following it to other schemas.
    pub(super) fn of(schema: &Value) -> Self {
        let number = |key: &str| match schema.get(key) {
            Some(Value::Number(number)) => Some(number.clone()),
            _ => None,
        };
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let bounds = |least: &str, most: &str| Bounds { least: count(least), most: count(most) };
        let list = |key: &str| schema.get(key).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let pattern = schema.get("pattern").and_then(Value::as_str).filter(|text| !text.is_empty());
        Self {
            allowed: list("enum").to_vec(),
            pattern: pattern.map(|text| Pattern { text: text.into(), regex: OnceLock::new() }),
            minimum: number("minimum").map(|number| (number, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|number| (number, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            lengths: bounds("minLength", "maxLength"),
            items: bounds("minItems", "maxItems"),
            properties: bounds("minProperties", "maxProperties"),
            rules: list("x-kubernetes-validations").iter().map(RuleText::of).collect(),
            ..Self::default()
        }
    }
}

impl RuleText {
    /// Reads one rule.
    pub(crate) fn of(rule: &Value) -> Self {
        let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or("").into();
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
        }
    }
}
