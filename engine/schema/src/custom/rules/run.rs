//! Running rules within bounds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kube_cel::KubeCelExt;
use kube_cel::cel::objects::OptionalValue;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value as Cel};

use super::compile::{Compiled, PAY};
use crate::expression::{lend, lent};

/// The most work of one rule, in steps of the evaluator within loops: upstream's limit of a call.
const RULE: i64 = 1_000_000;
/// The most work of all rules of one object.
const OBJECT: i64 = 10_000_000;
/// The most time of all rules of one object: work that is dearer than its steps say ends here.
const TIME: Duration = Duration::from_secs(2);
/// The longest text of a message that an expression makes, in bytes.
const MESSAGE: usize = 5 * 1024;
/// The types that `type(x)` can be compared with.
pub(super) const TYPES: [&str; 9] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// What a rule says.
pub(super) enum Verdict {
    Holds,
    /// With what is to be said about it.
    Fails(String),
    /// It could not be evaluated.
    Broken(String),
    /// It was too much work.
    Exhausted,
}

/// What each rule says, by its place in the list that was run.
pub(super) type Outcome = BTreeMap<usize, Verdict>;

/// What the loops of one rule pay from.
struct Purse {
    left: AtomicI64,
    deadline: Instant,
}

impl Purse {
    fn pay(&self, price: i64) -> Result<bool, ExecutionError> {
        let left = self.left.fetch_sub(price, Ordering::Relaxed) - price;
        if left > 0 && Instant::now() < self.deadline {
            return Ok(true);
        }
        self.left.store(0, Ordering::Relaxed);
        Err(ExecutionError::function_error("loop", "cost limit exceeded"))
    }
}

/// What is left of an object's bounds.
pub(super) struct Budget {
    left: i64,
    purse: Arc<Purse>,
}

impl Budget {
    pub(super) fn new() -> Self {
        let purse = Purse { left: AtomicI64::new(0), deadline: Instant::now() + TIME };
        Self { left: OBJECT, purse: Arc::new(purse) }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left <= 0
    }

    /// Runs rules over one value.
    pub(super) fn run(&mut self, rules: &[&Compiled], own: &Cel, old: Option<&Cel>) -> Outcome {
        let mut outcome = Outcome::new();
        for (at, rule) in rules.iter().enumerate() {
            if self.is_spent() {
                break;
            }
            let mut scope = FUNCTIONS.new_inner_scope();
            lend(&mut scope, self.purse.clone());
            scope.add_variable_from_value("self", own.clone());
            match (rule.text.optional_old, old) {
                (true, old) => {
                    let wrapped = old.map_or_else(OptionalValue::none, |old| OptionalValue::of(old.clone()));
                    scope.add_variable_from_value("oldSelf", Cel::Opaque(Arc::new(wrapped)));
                }
                (false, Some(old)) => scope.add_variable_from_value("oldSelf", old.clone()),
                (false, None) => {}
            }
            let granted = RULE.min(self.left);
            self.purse.left.store(granted, Ordering::Relaxed);
            let verdict = judge(rule, &scope, &self.purse);
            self.left -= granted - self.purse.left.load(Ordering::Relaxed).max(0);
            if Instant::now() >= self.purse.deadline || matches!(verdict, Verdict::Exhausted) {
                self.left = 0;
            }
            outcome.insert(at, verdict);
        }
        outcome
    }
}

fn judge(rule: &Compiled, scope: &Context<'_>, purse: &Purse) -> Verdict {
    let result = Cel::resolve(&rule.rule, scope);
    if purse.left.load(Ordering::Relaxed) <= 0 {
        return Verdict::Exhausted;
    }
    match result {
        Ok(Cel::Bool(true)) => Verdict::Holds,
        Ok(Cel::Bool(false)) => Verdict::Fails(message(rule, scope)),
        Ok(_) => Verdict::Broken("the rule is neither true nor false".into()),
        Err(error) => Verdict::Broken(worded(&error)),
    }
}

fn worded(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload => "no such overload".into(),
        // Other errors carry whole values.
        other => other.to_string().chars().take(256).collect(),
    }
}

/// What is said when a rule fails: what its expression makes, else its text, else the rule.
fn message(rule: &Compiled, scope: &Context<'_>) -> String {
    let made = rule.message.as_ref().and_then(|message| Cel::resolve(message, scope).ok());
    match made {
        Some(Cel::String(text)) if !text.trim().is_empty() && !text.contains('\n') && text.len() <= MESSAGE => {
            text.trim().to_owned()
        }
        _ if rule.text.message.is_empty() => format!("failed rule: {}", rule.text.rule.trim()),
        _ => rule.text.message.to_string(),
    }
}

/// The functions and constants, and the function by which loops pay. Made once: there are many.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(functions);

fn functions() -> Context<'static> {
    let mut context = Context::default().with_all();
    crate::expression::register(&mut context);
    context.add_function(PAY, |context: &FunctionContext<'_, '_>, price: i64| lent::<Purse>(context)?.pay(price));
    context.add_function("dyn", |value: Cel| -> Result<Cel, ExecutionError> { Ok(value) });
    context.add_function("bool", |value: Cel| -> Result<bool, ExecutionError> {
        match &value {
            Cel::Bool(flag) => Ok(*flag),
            Cel::String(text) => match text.as_str() {
                "1" | "t" | "true" | "True" | "TRUE" => Ok(true),
                "0" | "f" | "false" | "False" | "FALSE" => Ok(false),
                _ => Err(ExecutionError::function_error("bool", "type conversion error")),
            },
            _ => Err(ExecutionError::NoSuchOverload),
        }
    });
    context.add_function("type", |value: Cel| -> Result<Arc<String>, ExecutionError> {
        let name = match value {
            Cel::Bool(_) => "bool",
            Cel::Bytes(_) => "bytes",
            Cel::Float(_) => "double",
            Cel::Int(_) => "int",
            Cel::List(_) => "list",
            Cel::Map(_) => "map",
            Cel::Null => "null_type",
            Cel::String(_) => "string",
            Cel::UInt(_) => "uint",
            _ => "dyn",
        };
        Ok(Arc::new(format!("type {name}")))
    });
    for name in TYPES {
        context.add_variable_from_value(name, Cel::String(Arc::new(format!("type {name}"))));
    }
    context
}
