//! The functions that rewriting puts into expressions.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};

use super::meter::{Meter, weight};
use super::rewrite::{SMALL, TICK, VARIABLE, WEIGH};
use super::{Memo, Program, variable};

/// The largest argument of a function that multiplies.
const ARGUMENT: usize = 16 * 1024;

/// Adds the functions to a context.
pub(super) fn register(
    context: &mut Context<'_>,
    meter: &Arc<Meter>,
    variables: &Arc<HashMap<String, Arc<Program>>>,
    memo: &Memo,
) {
    let own = meter.clone();
    context.add_function(TICK, move |value: Value| charged(&own, 1, value));
    let own = meter.clone();
    context.add_function(WEIGH, move |value: Value| charged(&own, weight(&value), value));
    let own = meter.clone();
    context.add_function(SMALL, move |value: Value| {
        let size = weight(&value);
        if size > ARGUMENT {
            let text = format!("an argument is larger than {ARGUMENT} bytes");
            return Err(ExecutionError::function_error("size", text));
        }
        charged(&own, size, value)
    });
    let (variables, memo) = (variables.clone(), memo.clone());
    context.add_function(VARIABLE, move |context: &FunctionContext, name: Arc<String>| {
        variable(&name, context.ptx, &variables, &memo)
    });
}

fn charged(meter: &Meter, cost: usize, value: Value) -> Result<Value, ExecutionError> {
    if meter.charge(cost) { Ok(value) } else { Err(ExecutionError::function_error("cost", "the limit is exceeded")) }
}
