//! `x-kubernetes-validations`: rules in the Common Expression Language over parts of an object.
//!
//! Rules are compiled when the first object is written and run on a thread of their own with a deep stack, within bounds
//! that hold whatever the expression is: so much work a rule, so much an object, and so much time. A rule of a part that an
//! update leaves as it was is not asked again.

mod analysis;
mod compile;
mod convert;
mod run;

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::JsonPath;
use super::report::Report;
use super::values::key_of;
use crate::invalid::{FieldError, Reason};
use crate::path::Path;
use crate::tree::{Kind, ListType, RuleText, Schema};
use compile::{Compiled, compile};
use run::{Budget, Verdict};

/// The stack of the thread that parses and runs rules, in bytes: parsing and running recurse as deep as an expression is
/// nested, which is bounded.
const STACK: usize = 64 * 1024 * 1024;

/// The rules of a schema by their places.
#[derive(Default)]
pub(crate) struct Rules {
    places: HashMap<u32, Vec<Compiled>>,
    /// The places that have rules at or below them.
    ways: HashSet<u32>,
}

/// Runs work where it may recurse; a panic of the expression library becomes `None`.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("rules".into()).stack_size(STACK);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

impl Rules {
    /// Compiles the rules of a schema that was accepted.
    pub(crate) fn compile(schema: &Schema) -> Self {
        if schema.checked_places().all(|place| place.checks().is_none_or(|checks| checks.rules.is_empty())) {
            return Self::default();
        }
        let build = || {
            let mut rules = Self::default();
            rules.add(schema);
            rules
        };
        deep(build).unwrap_or_default()
    }

    fn add(&mut self, schema: &Schema) -> bool {
        let own: Vec<Compiled> = schema
            .checks()
            .into_iter()
            .flat_map(|checks| &checks.rules)
            .filter_map(|text| compile(text).ok())
            .collect();
        let mut any = !own.is_empty();
        if any {
            self.places.insert(schema.place(), own);
        }
        for (_, field) in schema.properties() {
            any |= self.add(&field);
        }
        if let Some(inner) = schema.inner() {
            any |= self.add(&inner);
        }
        if any {
            self.ways.insert(schema.place());
        }
        any
    }

    /// What the rules say about an object; `old` is what it replaces.
    pub(crate) fn check(&self, schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if self.places.is_empty() {
            return Vec::new();
        }
        let run = || {
            let mut run = Walk { rules: self, budget: Budget::new(), errors: Vec::new() };
            run.walk(schema, object, old, &Path::Root);
            run.errors
        };
        deep(run).unwrap_or_else(|| {
            vec![FieldError::invalid(&Path::Root, &Value::Null, "the validation rules could not be evaluated")]
        })
    }
}

/// One object on its way through the rules.
struct Walk<'a> {
    rules: &'a Rules,
    budget: Budget,
    errors: Vec<FieldError>,
}

impl Walk<'_> {
    fn walk(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        if !self.rules.ways.contains(&schema.place()) || self.budget.is_spent() {
            return;
        }
        if let Some(rules) = self.rules.places.get(&schema.place()) {
            self.ask(rules, schema, value, old, path);
        }
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    if let Some(field) = schema.field(name) {
                        self.walk(&field, value, old.and_then(|old| old.get(name)), &path.field(name));
                    }
                }
            }
            Value::Array(items) => self.items(schema, items, old, path),
            _ => {}
        }
    }

    fn items(&mut self, schema: &Schema, items: &[Value], old: Option<&Value>, path: &Path<'_>) {
        let Some(inner) = schema.inner() else { return };
        let before = old.and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let keyed: HashMap<String, &Value> = match schema.list_type() {
            ListType::Map(keys) => before.iter().map(|item| (key_of(item, keys), item)).collect(),
            _ => HashMap::new(),
        };
        for (index, item) in items.iter().enumerate() {
            let old = match schema.list_type() {
                ListType::Map(keys) => keyed.get(&key_of(item, keys)).copied(),
                _ => None,
            };
            self.walk(&inner, item, old, &path.index(index));
        }
    }

    fn ask(&mut self, rules: &[Compiled], schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        let unchanged = old == Some(value);
        let due = |rule: &&Compiled| {
            if rule.transition { old.is_some() || rule.text.optional_old } else { !unchanged }
        };
        let due: Vec<&Compiled> = rules.iter().filter(due).collect();
        if due.is_empty() {
            return;
        }
        let (own, before) = (convert::to_cel(schema, value), old.map(|old| convert::to_cel(schema, old)));
        let mut outcome = self.budget.run(&due, &own, before.as_ref());
        while let Some((at, verdict)) = outcome.pop_first() {
            self.judge(due[at], verdict, schema, value, path);
        }
    }

    fn judge(&mut self, rule: &Compiled, verdict: Verdict, schema: &Schema, value: &Value, path: &Path<'_>) {
        let kind = type_word(schema.kind());
        let detail = match verdict {
            Verdict::Holds => return,
            Verdict::Fails(message) => {
                let names = field_names(&rule.text.field_path);
                return under(path, &names, &mut |path| {
                    let shown = if rule.reason == Reason::Duplicate { value.clone() } else { kind.into() };
                    self.errors.push(FieldError::because(path, rule.reason, &shown, &message));
                });
            }
            Verdict::Broken(problem) => format!("{problem} evaluating rule: {}", rule.name()),
            Verdict::Exhausted => {
                format!(
                    "validation failed due to running out of cost budget, no further validation rules will be run: {}",
                    rule.name()
                )
            }
        };
        self.errors.push(FieldError::invalid(path, &kind.into(), &detail));
    }
}

/// The names of a rule's `fieldPath`.
fn field_names(path: &str) -> Vec<String> {
    let parsed = JsonPath::parse(path).ok();
    let names = parsed.as_ref().and_then(JsonPath::fields).unwrap_or_default();
    names.into_iter().map(str::to_owned).collect()
}

/// Goes down a path; what is borrowed from the way lives only as long as the way.
fn under(path: &Path<'_>, names: &[String], found: &mut dyn FnMut(&Path<'_>)) {
    match names {
        [] => found(path),
        [name, rest @ ..] => under(&path.field(name), rest, found),
    }
}

fn type_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Any | Kind::IntOrString => "",
        Kind::Boolean => "boolean",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::String => "string",
        Kind::Object | Kind::Map => "object",
        Kind::List => "array",
    }
}

/// What is wrong with the rules of a schema, at the paths of the definition.
pub(super) fn check_definition(schema: &Schema, path: &Path<'_>) -> Vec<FieldError> {
    let check = || {
        let mut report = Report::new();
        definition(schema, path, true, 1, &mut report);
        report.finish(path)
    };
    deep(check)
        .unwrap_or_else(|| vec![FieldError::invalid(path, &Value::Null, "its validation rules could not be compiled")])
}

/// Checks the rules of a place and of all below. `times` is how often the place can occur in one object.
fn definition(schema: &Schema, path: &Path<'_>, correlatable: bool, times: u64, errors: &mut Report) {
    if errors.is_full() {
        return;
    }
    let list = path.field("x-kubernetes-validations");
    for (index, rule) in schema.checks().into_iter().flat_map(|checks| &checks.rules).enumerate() {
        text(schema, rule, &list.index(index), correlatable, times, errors);
    }
    for (name, field) in schema.properties().filter(|(_, field)| field.definition().is_none()) {
        definition(&field, &path.field("properties").key(name), correlatable, times, errors);
    }
    let Some(inner) = schema.inner() else { return };
    let times = analysis::within(schema, times);
    match schema.kind() {
        Kind::List => {
            let keyed = matches!(schema.list_type(), ListType::Map(_));
            definition(&inner, &path.field("items"), correlatable && keyed, times, errors);
        }
        _ => definition(&inner, &path.field("additionalProperties"), correlatable, times, errors),
    }
}

/// Checks one rule.
fn text(schema: &Schema, rule: &RuleText, path: &Path<'_>, correlatable: bool, times: u64, errors: &mut Report) {
    if errors.is_full() {
        return;
    }
    let invalid =
        |field: &str, value: &str, detail: &str| FieldError::invalid(&path.field(field), &value.into(), detail);
    if rule.rule.trim().is_empty() {
        return errors.push(FieldError::required(&path.field("rule"), "rule is not specified"));
    }
    if rule.rule.trim().contains('\n') && rule.message.is_empty() && rule.message_expression.is_empty() {
        errors.push(FieldError::required(
            &path.field("message"),
            "message must be specified if rule contains line breaks",
        ));
    }
    if rule.message.contains('\n') {
        errors.push(invalid("message", &rule.message, "message must not contain line breaks"));
    }
    if compile::reason(&rule.reason).is_none() {
        let known = ["FieldValueRequired", "FieldValueInvalid", "FieldValueForbidden", "FieldValueDuplicate"];
        errors.push(FieldError::not_supported(&path.field("reason"), &(&*rule.reason).into(), &known));
    }
    let names = field_names(&rule.field_path);
    let known = names.iter().try_fold(schema.clone(), |schema, name| schema.field(name)).is_some();
    if !rule.field_path.is_empty() && (names.is_empty() || !known) {
        errors.push(invalid("fieldPath", &rule.field_path, "fieldPath must be a valid path"));
    }
    match compile(rule) {
        Err(problem) => errors.push(invalid(problem.field, problem.text(rule), &problem.detail)),
        Ok(compiled) => {
            if compiled.transition && !correlatable {
                let detail = "oldSelf cannot be used on the uncorrelatable portion of the schema";
                errors.push(invalid("rule", &rule.rule, detail));
            }
            if rule.optional_old && !compiled.transition {
                let detail = "may not be set if oldSelf is not used in rule";
                errors.push(FieldError::invalid(&path.field("optionalOldSelf"), &true.into(), detail));
            }
            if let Err(detail) = analysis::check(&compiled, schema, times) {
                errors.push(invalid("rule", &rule.rule, &detail));
            }
        }
    }
}

#[cfg(test)]
mod tests;
