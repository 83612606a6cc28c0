//! CEL expressions over a request, which must not cost more than they are worth.
//!
//! An expression is compiled once and then rewritten so that it can be metered: every step of a loop and every value that
//! an operation makes is charged to a budget, and when that or the time is used up, all that follows fails at once. So an
//! expression can neither hang the server nor fill its memory. Nesting and length are bounded before anything is parsed.

mod functions;
mod meter;
mod rewrite;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use kube_cel::KubeCelExt;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{self, Context, ExecutionError};
use serde_json::{Value, json};

use super::Request;
use super::request::user_info;
use meter::Meter;

/// The longest expression, in bytes.
const LENGTH: usize = 16 * 1024;
/// How deep brackets and conditionals may nest.
const NESTING: usize = 40;
/// The most characters of a message.
const MESSAGE: usize = 1024;
/// What the parser and deep expressions may need of the stack for what is within the bounds, in bytes.
const STACK: usize = 64 * 1024 * 1024;
/// Expressions that are deeper than this are evaluated on a stack of their own.
const SHALLOW: usize = 8;

/// A compiled expression.
pub(super) struct Program {
    expression: Expression,
    /// How deep it is, its variables included.
    pub(super) depth: usize,
}

impl Program {
    /// Compiles an expression that may use these variables of its policy, given by name and depth.
    pub(super) fn compile(text: &str, variables: &[(String, usize)]) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("the expression is empty".into());
        }
        if text.len() > LENGTH {
            return Err(format!("the expression is longer than {LENGTH} bytes"));
        }
        let nested = text.bytes().fold((0_usize, 0_usize), |(depth, deepest), byte| match byte {
            b'(' | b'[' | b'{' | b'?' => (depth + 1, deepest.max(depth + 1)),
            b')' | b']' | b'}' => (depth.saturating_sub(1), deepest),
            _ => (depth, deepest),
        });
        if nested.1 > NESTING {
            return Err(format!("the expression nests deeper than {NESTING} levels"));
        }
        let parsed = parse(text)?;
        rewrite::metered(parsed, variables).map(|(expression, depth)| Self { expression, depth })
    }
}

/// Does work on a stack of its own; none when it panics.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel".into()).stack_size(STACK).spawn_scoped(scope, work);
        let done = thread.map_err(|error| format!("no thread to work in: {error}"))?.join();
        done.map_err(|_| "the expression uses what is not supported".into())
    })
}

/// Parses on a deep stack; the generated parser recurses for every level of nesting.
fn parse(text: &str) -> Result<Expression, String> {
    let parsed = on_deep_stack(|| Parser::default().enable_optional_syntax(true).parse(text))?;
    parsed.map_err(|error| shorten(&error.to_string()))
}

/// The variables of a policy, worked out when they are first asked for.
type Memo = Arc<Mutex<HashMap<String, Result<cel::Value, ExecutionError>>>>;

/// What expressions see of one request.
pub(super) struct Environment {
    values: Vec<(&'static str, cel::Value)>,
    variables: Arc<HashMap<String, Arc<Program>>>,
    memo: Memo,
    meter: Arc<Meter>,
}

impl Environment {
    /// `object`, `oldObject` and `request`.
    pub(super) fn of(request: &Request<'_>, object: Option<&Value>) -> Self {
        let shown = |object: Option<&Value>| match object {
            Some(object) if request.subresource == "scale" => {
                to_cel(&crate::scale::view(&request.place.resource().scale, object))
            }
            Some(object) => to_cel(object),
            None => cel::Value::Null,
        };
        let values = vec![
            ("object", shown(object)),
            ("oldObject", shown(request.old)),
            ("request", to_cel(&described(request))),
        ];
        Self { values, variables: Arc::default(), memo: Memo::default(), meter: Arc::default() }
    }

    /// The same with other policy variables, and these values beside.
    pub(super) fn with(
        &self,
        variables: Arc<HashMap<String, Arc<Program>>>,
        beside: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Self {
        let beside = beside.into_iter().map(|(name, value)| (name, to_cel(&value)));
        let values = self.values.iter().cloned().chain(beside).collect();
        Self { values, variables, memo: Memo::default(), meter: self.meter.clone() }
    }

    /// Whether an expression holds.
    pub(super) fn test(&self, program: &Program) -> Result<bool, String> {
        match self.evaluate(program)? {
            cel::Value::Bool(holds) => Ok(holds),
            _ => Err("must evaluate to bool".into()),
        }
    }

    /// The text that an expression makes; none where it makes null.
    pub(super) fn text(&self, program: &Program) -> Result<Option<String>, String> {
        match self.evaluate(program)? {
            cel::Value::String(text) => Ok(Some(text.to_string())),
            cel::Value::Null => Ok(None),
            _ => Err("must evaluate to string".into()),
        }
    }

    fn evaluate(&self, program: &Program) -> Result<cel::Value, String> {
        self.meter.begin();
        let work = || self.context().resolve(&program.expression);
        let evaluated = if program.depth > SHALLOW {
            on_deep_stack(work)
        } else {
            let caught = std::panic::catch_unwind(AssertUnwindSafe(work));
            caught.map_err(|_| "the expression uses what is not supported".into())
        };
        if self.meter.is_exhausted() {
            return Err("operation cancelled: actual cost limit exceeded".into());
        }
        evaluated?.map_err(|error| message(&error))
    }

    fn context(&self) -> Context<'_> {
        let mut context = Context::default().with_all();
        functions::register(&mut context, &self.meter, &self.variables, &self.memo);
        for (name, value) in &self.values {
            context.add_variable_from_value(*name, value.clone());
        }
        context.set_variable_resolver(&*self.meter);
        context
    }
}

/// `request`, as expressions see it.
fn described(request: &Request<'_>) -> Value {
    let [group, version, kind] = request.kind();
    let own = request.place.resource();
    let kind = json!({"group": group, "version": version, "kind": kind});
    let resource = json!({"group": own.group, "version": own.version, "resource": own.plural});
    json!({
        "kind": kind,
        "resource": resource,
        "subResource": request.subresource,
        "requestKind": kind,
        "requestResource": resource,
        "requestSubResource": request.subresource,
        "name": request.place.name,
        "namespace": request.namespace().unwrap_or_default(),
        "operation": request.operation.text(),
        "userInfo": user_info(request.identity()),
        "dryRun": request.dry_run,
        "options": request.options(),
    })
}

fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => cel::Value::Int(number),
            (None, Some(number)) => cel::Value::UInt(number),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let entries = fields.iter().map(|(key, value)| (Key::String(Arc::new(key.clone())), to_cel(value)));
            cel::Value::Map(Map { map: Arc::new(entries.collect()) })
        }
    }
}

/// What went wrong, without the values it went wrong with, which may be large.
fn message(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}'"),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => format!("no such overload: {operator}"),
        ExecutionError::FunctionError { function, message } => shorten(&format!("{function}: {message}")),
        other => shorten(&other.to_string()),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(MESSAGE).collect()
}

/// Works out a policy's variable, once.
fn variable(
    name: &str,
    context: &Context<'_>,
    variables: &HashMap<String, Arc<Program>>,
    memo: &Memo,
) -> Result<cel::Value, ExecutionError> {
    let known = |memo: &Memo| memo.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
    if let Some(known) = known(memo) {
        return known;
    }
    let program = variables.get(name).ok_or_else(|| ExecutionError::no_such_key(name))?;
    // A variable does not see those of the loop that asks for it.
    let mut root = context;
    while let Context::Child { parent, .. } = root {
        root = parent;
    }
    let value = root.resolve(&program.expression);
    memo.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.clone());
    value
}

#[cfg(test)]
mod tests;
