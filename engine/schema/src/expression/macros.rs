//! Macros: `optMap`, `optFlatMap`, `sortBy`, `cel.bind`, and loops over keys and values at once.
//!
//! Names that begin with `@` cannot be written by users, so what is made here never meets what they wrote.

use kube_cel::cel::common::ast::operators::{
    ADD, CONDITIONAL, EQUALS, INDEX, LOGICAL_AND, LOGICAL_NOT, LOGICAL_OR, NOT_STRICTLY_FALSE,
};
use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr};

use super::functions::{INNER, INSERT, MERGE, ONLY, PAIRS, PRESENT, SORT};

const RESULT: &str = "@result";
const PAIR: &str = "@pair";
const LIST: &str = "@list";

/// Replaces a call of a macro by what it stands for; anything else stays. What is inside is not looked at.
///
/// # Errors
///
/// A macro that is used wrongly.
pub fn expand(node: &mut IdedExpr) -> Result<(), String> {
    let Expr::Call(call) = &mut node.expr else { return Ok(()) };
    let Some(target) = &mut call.target else { return Ok(()) };
    let name = call.func_name.as_str();
    let on_cel = matches!(&target.expr, Expr::Ident(prefix) if prefix == "cel");
    let args = &mut call.args;
    node.expr = match (name, args.len()) {
        ("bind", 3) if on_cel => {
            let bound = taken(&mut args[0], name)?;
            bind(&bound, std::mem::take(&mut args[1]), std::mem::take(&mut args[2])).expr
        }
        ("optMap" | "optFlatMap", 2) => {
            let flat = name == "optFlatMap";
            let bound = taken(&mut args[0], name)?;
            optional(std::mem::take(&mut **target), &bound, std::mem::take(&mut args[1]), flat)
        }
        ("sortBy", 2) => {
            let bound = taken(&mut args[0], name)?;
            sorted(std::mem::take(&mut **target), &bound, std::mem::take(&mut args[1]))
        }
        ("all" | "exists" | "exists_one" | "existsOne", 3)
        | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => {
            let names = [taken(&mut args[0], name)?, taken(&mut args[1], name)?];
            if names[0] == names[1] {
                return Err(format!("the two variables of {name} must have different names"));
            }
            let filter = (args.len() == 4).then(|| std::mem::take(&mut args[2]));
            let body = args.pop().unwrap_or_default();
            Pairs { range: std::mem::take(&mut **target), names, filter }.each(name, body)
        }
        _ => return Ok(()),
    };
    Ok(())
}

/// The name that a macro binds.
fn taken(argument: &mut IdedExpr, name: &str) -> Result<String, String> {
    match std::mem::take(&mut argument.expr) {
        Expr::Ident(bound) => Ok(bound),
        _ => Err(format!("the variable of {name} must be a simple name")),
    }
}

fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn ident(name: &str) -> IdedExpr {
    node(Expr::Ident(name.to_owned()))
}

fn call(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    node(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

fn flag(flag: bool) -> IdedExpr {
    node(Expr::Literal(LiteralValue::Boolean(flag.into())))
}

fn number(number: i64) -> IdedExpr {
    node(Expr::Literal(LiteralValue::Int(number.into())))
}

fn list(elements: Vec<IdedExpr>) -> IdedExpr {
    node(Expr::List(ListExpr::new(elements)))
}

/// A loop that never runs and whose accumulator is the name.
fn bind(name: &str, value: IdedExpr, body: IdedExpr) -> IdedExpr {
    node(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: list(Vec::new()),
        iter_var: "@unused".to_owned(),
        iter_var2: None,
        accu_var: name.to_owned(),
        accu_init: value,
        loop_cond: flag(false),
        loop_step: ident(name),
        result: body,
    })))
}

/// A loop that gathers in `@result` and gives it, or what follows from it.
fn gather(range: IdedExpr, each: &str, init: IdedExpr, [condition, step, result]: [IdedExpr; 3]) -> Expr {
    Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: range,
        iter_var: each.to_owned(),
        iter_var2: None,
        accu_var: RESULT.to_owned(),
        accu_init: init,
        loop_cond: condition,
        loop_step: step,
        result,
    }))
}

/// `range.map(each, body)`
fn map(range: IdedExpr, each: &str, body: IdedExpr) -> IdedExpr {
    let step = call(ADD, vec![ident(RESULT), list(vec![body])]);
    node(gather(range, each, list(Vec::new()), [flag(true), step, ident(RESULT)]))
}

/// An optional is a list of at most one; a loop over that needs no copy of the optional.
fn optional(target: IdedExpr, bound: &str, body: IdedExpr, flat: bool) -> Expr {
    let (body, wrap) = if flat { (call(PRESENT, vec![body]), INNER) } else { (body, ONLY) };
    let present = call(PRESENT, vec![target]);
    call(wrap, vec![map(present, bound, body)]).expr
}

fn sorted(target: IdedExpr, bound: &str, key: IdedExpr) -> Expr {
    let keys = map(ident(LIST), bound, key);
    bind(LIST, target, call(SORT, vec![ident(LIST), keys])).expr
}

/// A loop over a list's places and items, or a map's keys and values.
struct Pairs {
    range: IdedExpr,
    names: [String; 2],
    filter: Option<IdedExpr>,
}

impl Pairs {
    fn each(mut self, name: &str, body: IdedExpr) -> Expr {
        let result = || ident(RESULT);
        let (init, condition, step, given) = match name {
            "all" => (
                flag(true),
                call(NOT_STRICTLY_FALSE, vec![result()]),
                call(LOGICAL_AND, vec![result(), self.within(body)]),
                result(),
            ),
            "exists" => (
                flag(false),
                call(NOT_STRICTLY_FALSE, vec![call(LOGICAL_NOT, vec![result()])]),
                call(LOGICAL_OR, vec![result(), self.within(body)]),
                result(),
            ),
            "exists_one" | "existsOne" => {
                let more = call(ADD, vec![result(), number(1)]);
                let step = call(CONDITIONAL, vec![self.within(body), more, result()]);
                (number(0), flag(true), step, call(EQUALS, vec![result(), number(1)]))
            }
            _ => {
                let (init, made) = match name {
                    "transformList" => (list(Vec::new()), call(ADD, vec![result(), list(vec![body])])),
                    "transformMap" => {
                        (node(Expr::Map(MapExpr::default())), call(INSERT, vec![result(), ident(&self.names[0]), body]))
                    }
                    _ => (node(Expr::Map(MapExpr::default())), call(MERGE, vec![result(), body])),
                };
                let step = match self.filter.take() {
                    Some(filter) => call(CONDITIONAL, vec![filter, made, result()]),
                    None => made,
                };
                (init, flag(true), self.within(step), result())
            }
        };
        gather(call(PAIRS, vec![self.range]), PAIR, init, [condition, step, given])
    }

    /// The body with both names bound.
    fn within(&self, body: IdedExpr) -> IdedExpr {
        let half = |at: i64| call(INDEX, vec![ident(PAIR), number(at)]);
        bind(&self.names[0], half(0), bind(&self.names[1], half(1), body))
    }
}
