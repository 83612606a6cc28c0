//! `x-kubernetes-validations`: rules in the Common Expression Language over parts of an object.
//!
//! Rules are compiled when the first object is written and run on a thread of their own with a deep stack, within bounds
//! that hold whatever the expression is: so much work a rule, so much an object, and so much time. A rule of a part that an
//! update leaves as it was is not asked again.

mod analysis;
mod compile;
mod convert;
mod definition;
mod functions;
mod known;
mod price;
mod run;

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::JsonPath;
use super::values::key_of;
use crate::invalid::{FieldError, Reason};
use crate::path::Path;
use crate::tree::{Kind, ListType, RuleText, Schema};
use compile::{Compiled, compile};
pub(super) use definition::check_definition;
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
    /// Why one of them cannot be run: what it asks for is then not known of any object.
    broken: Option<String>,
}

/// The rules of a place: its own, and those of what it must satisfy beside.
fn texts(schema: &Schema) -> Vec<RuleText> {
    let Some(checks) = schema.checks() else { return Vec::new() };
    checks.rules.iter().cloned().chain(schema.branches(&checks.all_of).flat_map(|branch| texts(&branch))).collect()
}

/// The name of threads with such a stack.
const DEEP: &str = "rules";

/// Runs work where it may recurse; a panic of the expression library becomes `None`.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    if std::thread::current().name() == Some(DEEP) {
        return std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(DEEP.into()).stack_size(STACK);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

impl Rules {
    /// Compiles the rules of a schema that was accepted; none when there was no room to, which may pass.
    pub(crate) fn compile(schema: &Schema) -> Option<Self> {
        if schema.checked_places().all(|place| place.checks().is_none_or(|checks| checks.rules.is_empty())) {
            return Some(Self::default());
        }
        let build = || {
            let mut rules = Self::default();
            rules.add(schema);
            rules
        };
        deep(build)
    }

    fn add(&mut self, schema: &Schema) -> bool {
        let mut own = Vec::new();
        for text in texts(schema) {
            match compile(&text) {
                Ok(compiled) => own.push(compiled),
                Err(problem) => {
                    self.broken.get_or_insert_with(|| format!("rule compile error: {}", problem.detail));
                }
            }
        }
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
        if let Some(problem) = &self.broken {
            return vec![FieldError::invalid(&Path::Root, &Value::Null, problem)];
        }
        if self.places.is_empty() {
            return Vec::new();
        }
        let run = || {
            let mut run = Walk { rules: self, budget: Budget::new(), errors: Vec::new() };
            run.walk(schema, object, old, &Path::Root);
            run.errors
        };
        deep(run).unwrap_or_else(|| vec![unknown()])
    }
}

/// What is said of an object when its rules could not be asked.
pub(super) fn unknown() -> FieldError {
    FieldError::invalid(&Path::Root, &Value::Null, "the validation rules could not be evaluated")
}

/// One object on its way through the rules.
struct Walk<'a> {
    rules: &'a Rules,
    budget: Budget,
    errors: Vec<FieldError>,
}

impl Walk<'_> {
    fn walk(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        // Rules speak of values that are there; that one is `null` is for the rules around it to say.
        if value.is_null() || !self.rules.ways.contains(&schema.place()) || self.budget.is_spent() {
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

#[cfg(test)]
mod tests;
