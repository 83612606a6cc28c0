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
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use kube_cel::KubeCelExt;
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{self, Context, ExecutionError};
use serde_json::{Value, json};
use shipway_schema::Resource;
use shipway_schema::expression::lend;

use super::{Request, rules};
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

/// Asks expressions, which takes time of its own, while the other requests of this thread go on.
pub(super) fn aside<T>(work: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
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
    means: Arc<Means>,
    /// The values as the evaluator wants them, made when the first expression asks: it copies them.
    scope: OnceLock<Context<'static>>,
}

/// What the functions work with.
struct Means {
    variables: Arc<HashMap<String, Arc<Program>>>,
    memo: Memo,
    meter: Arc<Meter>,
    asker: Option<Asker>,
}

/// All functions. Made once: there are many.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| {
    let mut context = Context::default().with_all();
    shipway_schema::expression::register(&mut context);
    functions::register(&mut context);
    authorizer::register(&mut context);
    context
});

impl Environment {
    /// `object`, `oldObject`, `request` and `authorizer`, in another version of the resource where one is given.
    pub(super) fn of(request: &Request<'_>, object: Option<&Value>, version: Option<&Resource>) -> Self {
        let shown = |object: &Value| to_cel(&rules::shown(request, object, version));
        let values = vec![
            ("object", object.map_or(cel::Value::Null, shown)),
            ("oldObject", request.old.map_or(cel::Value::Null, shown)),
            ("request", to_cel(&described(request, version))),
        ];
        Self::new(values, Arc::default(), Arc::default(), Some(Asker::of(request)))
    }

    fn new(
        values: Vec<(&'static str, cel::Value)>,
        variables: Arc<HashMap<String, Arc<Program>>>,
        meter: Arc<Meter>,
        asker: Option<Asker>,
    ) -> Self {
        let means = Means { variables, memo: Memo::default(), meter, asker };
        Self { values, means: Arc::new(means), scope: OnceLock::new() }
    }

    /// The same with other policy variables, and these values beside.
    pub(super) fn with(
        &self,
        variables: Arc<HashMap<String, Arc<Program>>>,
        beside: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Self {
        let beside = beside.into_iter().map(|(name, value)| (name, to_cel(&value)));
        let values = self.values.iter().cloned().chain(beside).collect();
        Self::new(values, variables, self.means.meter.clone(), self.means.asker.clone())
    }

    /// The same with another object; what was worked out of the one before is forgotten.
    pub(super) fn seeing(&self, object: &Value) -> Self {
        let mut next = self.with(self.means.variables.clone(), []);
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
        let meter = &*self.means.meter;
        meter.begin();
        let work = || {
            let mut scope = self.scope().new_inner_scope();
            scope.set_variable_resolver(meter);
            scope.resolve(&program.expression)
        };
        let evaluated = if program.depth > SHALLOW {
            on_deep_stack(work)
        } else {
            let caught = std::panic::catch_unwind(AssertUnwindSafe(work));
            caught.map_err(|_| "the expression uses what is not supported".into())
        };
        if meter.is_exhausted() {
            return Err("operation cancelled: actual cost limit exceeded".into());
        }
        evaluated?.map_err(|error| message(&error))
    }

    fn scope(&self) -> &Context<'static> {
        self.scope.get_or_init(|| {
            let mut scope = FUNCTIONS.new_inner_scope();
            lend(&mut scope, self.means.clone());
            for (name, value) in &self.values {
                scope.add_variable_from_value(*name, value.clone());
            }
            scope
        })
    }
}

/// A request as expressions see it, in each version that is asked for.
#[derive(Default)]
pub(super) struct Seen(Vec<(String, Environment)>);

impl Seen {
    /// Made when it is first asked for.
    pub(super) fn environment(
        &mut self,
        request: &Request<'_>,
        object: Option<&Value>,
        version: Option<&Resource>,
    ) -> &Environment {
        let name = version.map(Resource::api_version).unwrap_or_default();
        let at = self.0.iter().position(|(own, _)| *own == name).unwrap_or_else(|| {
            self.0.push((name, Environment::of(request, object, version)));
            self.0.len() - 1
        });
        &self.0[at].1
    }
}

/// `request`, as expressions see it.
fn described(request: &Request<'_>, version: Option<&Resource>) -> Value {
    let own = request.place.resource();
    let shown = version.unwrap_or(own);
    let kind = |[group, version, kind]: [String; 3]| json!({"group": group, "version": version, "kind": kind});
    let resource = |one: &Resource| json!({"group": one.group, "version": one.version, "resource": one.plural});
    json!({
        "kind": kind(request.kind_in(shown)),
        "resource": resource(shown),
        "subResource": request.subresource,
        "requestKind": kind(request.kind()),
        "requestResource": resource(own),
        "requestSubResource": request.subresource,
        "name": request.place.name,
        "namespace": request.namespace().unwrap_or_default(),
        "operation": request.operation.text(),
        "userInfo": request.identity().info(),
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

impl Means {
    /// Works out a policy's variable, once.
    fn variable(&self, name: &str, scope: &Context<'_>) -> Result<cel::Value, ExecutionError> {
        let memo = || self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = memo().get(name).cloned() {
            return known;
        }
        let program = self.variables.get(name).ok_or_else(|| ExecutionError::no_such_key(name))?;
        let value = outermost(scope).resolve(&program.expression);
        memo().insert(name.to_owned(), value.clone());
        value
    }
}

/// The scope in which an expression began: a variable does not see those of the loop that asks for it. Around it are only
/// the values and the functions.
fn outermost<'a>(mut scope: &'a Context<'a>) -> &'a Context<'a> {
    while let Context::Child { parent: parent @ Context::Child { parent: Context::Child { .. }, .. }, .. } = scope {
        scope = parent;
    }
    scope
}

#[cfg(test)]
mod tests;
