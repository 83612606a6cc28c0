//! What the functions of a context work with in one evaluation.
//!
//! A context with all functions is dear to make and the same for every evaluation; what differs is put into an inner scope
//! under a name that no expression can say, and found there by the functions.

use std::fmt;
use std::sync::Arc;

use kube_cel::cel::objects::Opaque;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};

/// The name of what is lent. A resolver of variables has to pass it over.
pub const LENT: &str = "@lent";

struct Lent<T>(Arc<T>);

impl<T> fmt::Debug for Lent<T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(LENT)
    }
}

impl<T> PartialEq for Lent<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Lent<T> {}

impl<T: Send + Sync + 'static> Opaque for Lent<T> {
    fn runtime_type_name(&self) -> &'static str {
        LENT
    }
}

/// Lends something to the functions that are called in a scope.
pub fn lend<T: Send + Sync + 'static>(scope: &mut Context<'_>, thing: Arc<T>) {
    scope.add_variable_from_value(LENT, Value::Opaque(Arc::new(Lent(thing))));
}

/// What was lent to the scope that a function is called in.
pub fn lent<T: Send + Sync + 'static>(context: &FunctionContext<'_, '_>) -> Result<Arc<T>, ExecutionError> {
    let found = context.ptx.get_variable(LENT).and_then(|found| Value::try_from(&*found).ok());
    let lent = match &found {
        Some(Value::Opaque(opaque)) => opaque.downcast_ref::<Lent<T>>(),
        _ => None,
    };
    lent.map(|lent| lent.0.clone())
        .ok_or_else(|| ExecutionError::function_error(context.name, "has nothing to work with"))
}
