//! CEL expressions over a request, which must not cost more than they are worth.
//!
//! An expression is compiled once and then rewritten so that it can be metered: every step of a loop and every value that
//! an operation makes is charged to a budget, and when that or the time is used up, all that follows fails at once. So an
//! expression can neither hang the server nor fill its memory. Nesting and length are bounded before anything is parsed.

mod authorizer;
mod document;
mod functions;
mod meter;
mod rewrite;
mod types;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use kube_cel::KubeCelExt;
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{self, Context, ExecutionError};
use serde_json::{Value, json};

use super::Request;
use super::request::user_info;
use authorizer::Asker;
use document::{to_cel, to_json};
use meter::Meter;
pub(super) use rewrite::Scope;
pub(super) use types::{Checker, Parsed};

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
    /// Compiles an expression.
    pub(super) fn compile(text: &str, scope: Scope<'_>) -> Result<Self, String> {
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
        rewrite::metered(parsed, scope).map(|(expression, depth)| Self { expression, depth })
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
    asker: Option<Asker>,
}

impl Environment {
    /// `object`, `oldObject`, `request` and `authorizer`.
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
        let asker = Some(Asker::of(request));
        Self { values, variables: Arc::default(), memo: Memo::default(), meter: Arc::default(), asker }
    }

    /// The same with other policy variables, and these values beside.
    pub(super) fn with(
        &self,
        variables: Arc<HashMap<String, Arc<Program>>>,
        beside: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Self {
        let beside = beside.into_iter().map(|(name, value)| (name, to_cel(&value)));
        let values = self.values.iter().cloned().chain(beside).collect();
        Self { values, variables, memo: Memo::default(), meter: self.meter.clone(), asker: self.asker.clone() }
    }

    /// The same after the object has changed; what was worked out of it is forgotten.
    pub(super) fn seeing(&self, object: &Value) -> Self {
        let mut next = self.with(self.variables.clone(), []);
        if let Some((_, shown)) = next.values.iter_mut().find(|(name, _)| *name == "object") {
            *shown = to_cel(object);
        }
        next
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

    /// The JSON that an expression makes.
    pub(super) fn json(&self, program: &Program) -> Result<Value, String> {
        to_json(&self.evaluate(program)?)?.ok_or_else(|| "must evaluate to a value".into())
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
        shipway_schema::expression::register(&mut context);
        functions::register(&mut context, &self.meter, &self.variables, &self.memo);
        if let Some(asker) = &self.asker {
            asker.register(&mut context);
        }
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

/// What went wrong, without the values it went wrong with, which may be large.
fn message(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}'"),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => format!("no such overload: {operator}"),
        ExecutionError::NoSuchOverload => "no such overload".into(),
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
