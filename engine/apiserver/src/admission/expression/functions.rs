//! The functions that rewriting puts into expressions.

use std::sync::Arc;

use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};

use shipway_schema::expression::lent;

use super::Means;
use super::meter::weight;
use super::rewrite::{SMALL, TICK, VARIABLE, WEIGH};

/// The largest argument of a function that multiplies.
const ARGUMENT: usize = 16 * 1024;

/// Adds the functions to a context.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function(TICK, |context: &FunctionContext<'_, '_>, value: Value| charged(context, 1, value));
    context
        .add_function(WEIGH, |context: &FunctionContext<'_, '_>, value: Value| charged(context, weight(&value), value));
    context.add_function(SMALL, |context: &FunctionContext<'_, '_>, value: Value| {
        let size = weight(&value);
        if size > ARGUMENT {
            let text = format!("an argument is larger than {ARGUMENT} bytes");
            return Err(ExecutionError::function_error("size", text));
        }
        charged(context, size, value)
    });
    context.add_function(VARIABLE, |context: &FunctionContext<'_, '_>, name: Arc<String>| {
        lent::<Means>(context)?.variable(&name, context.ptx)
    });
}

fn charged(context: &FunctionContext<'_, '_>, cost: usize, value: Value) -> Result<Value, ExecutionError> {
    if lent::<Means>(context)?.meter.charge(cost) {
        Ok(value)
    } else {
        Err(ExecutionError::function_error("cost", "the limit is exceeded"))
    }
}
