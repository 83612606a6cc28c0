//! What can be said about a rule before any object is there: whether it speaks of fields that exist, and whether nested
//! loops over lists without bounds could make it run too long.
//!
//! Types are followed as far as the schema says them; what is not known passes and is found out when the rule runs.

use kube_cel::cel::common::ast::operators::{INDEX, OPT_INDEX};
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::compile::Compiled;
use super::convert::escaped;
use crate::tree::{Kind, Schema};

/// The most values that a request can hold: each takes at least two bytes of the largest body.
const VALUES: u64 = 3 * 1024 * 1024 / 2;
/// The most work that a rule may be estimated at. Upstream's estimate also weighs texts; this one only counts loops.
const LIMIT: u64 = 100_000_000;
/// How many items a list has of which nothing is known.
const UNKNOWN: u64 = 100;

/// How often what is in a list or map can occur in one object.
pub(super) fn within(schema: &Schema, times: u64) -> u64 {
    times.saturating_mul(most(schema)).min(VALUES)
}

fn most(schema: &Schema) -> u64 {
    let Some(checks) = schema.checks() else { return VALUES };
    let bound = if schema.kind() == Kind::List { checks.items.most } else { checks.properties.most };
    bound.unwrap_or(VALUES).min(VALUES)
}

/// Checks a rule of a place that can occur so many times.
pub(super) fn check(rule: &Compiled, schema: &Schema, times: u64) -> Result<(), String> {
    let optional = rule.text.optional_old;
    let mut names = Names(vec![("self".to_owned(), Some(schema.clone()))]);
    names.0.push(("oldSelf".to_owned(), (!optional).then(|| schema.clone())));
    for name in ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"] {
        names.0.push((name.to_owned(), None));
    }
    for expr in std::iter::once(&rule.rule).chain(&rule.message) {
        let (work, _) = names.follow(expr)?;
        let total = work.saturating_mul(times);
        if total > LIMIT {
            let factor = total / LIMIT;
            return Err(format!(
                "estimated rule cost exceeds budget by factor of more than {factor}x (try simplifying the rule, or adding \
                 maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
            ));
        }
    }
    Ok(())
}

/// What names stand for, the innermost last.
struct Names(Vec<(String, Option<Schema>)>);

/// The work of an expression and what it gives, where that is known.
type Followed = Result<(u64, Option<Schema>), String>;

impl Names {
    fn follow(&mut self, node: &IdedExpr) -> Followed {
        match &node.expr {
            Expr::Ident(name) => match self.0.iter().rev().find(|(own, _)| own == name) {
                Some((_, known)) => Ok((1, known.clone())),
                None => Err(format!("compilation failed: undeclared reference to '{name}' (in container '')")),
            },
            Expr::Select(select) => {
                let (work, operand) = self.follow(&select.operand)?;
                Ok((work + 1, member(operand.as_ref(), &select.field)?))
            }
            Expr::Call(call) => self.call(call.target.as_deref(), &call.func_name, &call.args),
            Expr::Comprehension(each) => {
                let (range, over) = self.follow(&each.iter_range)?;
                let items = match (&over, &each.iter_range.expr) {
                    (Some(over), _) => most(over),
                    (None, Expr::List(list)) => list.elements.len() as u64,
                    (None, _) => UNKNOWN,
                };
                let inner = over.filter(|over| over.kind() == Kind::List).and_then(|over| over.inner());
                let (init, start) = self.follow(&each.accu_init)?;
                self.0.push((each.iter_var.clone(), inner));
                self.0.push((each.accu_var.clone(), start));
                let step = self.follow(&each.loop_step);
                let condition = self.follow(&each.loop_cond);
                self.0.remove(self.0.len() - 2);
                let result = self.follow(&each.result);
                self.0.pop();
                let (result, given) = result?;
                let once = step?.0.saturating_add(condition?.0);
                Ok((range + init + result.saturating_add(once.saturating_mul(items)), given.filter(|_| items == 0)))
            }
            Expr::List(list) => self.sum(&list.elements),
            Expr::Map(map) => {
                let mut work = 1_u64;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        work = work
                            .saturating_add(self.follow(&entry.key)?.0)
                            .saturating_add(self.follow(&entry.value)?.0);
                    }
                }
                Ok((work, None))
            }
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => Ok((1, None)),
        }
    }

    fn sum(&mut self, nodes: &[IdedExpr]) -> Followed {
        let mut work = 1_u64;
        for node in nodes {
            work = work.saturating_add(self.follow(node)?.0);
        }
        Ok((work, None))
    }

    fn call(&mut self, target: Option<&IdedExpr>, name: &str, args: &[IdedExpr]) -> Followed {
        if let (INDEX | OPT_INDEX, [of, at]) = (name, args) {
            let ((work, operand), (more, _)) = (self.follow(of)?, self.follow(at)?);
            let inner = operand.filter(|_| name == INDEX).filter(|of| matches!(of.kind(), Kind::List | Kind::Map));
            return Ok((work + more + 1, inner.and_then(|of| of.inner())));
        }
        let (args, _) = self.sum(args)?;
        // The prefix of a library's function is no variable.
        let library = target.is_some_and(
            |target| matches!(&target.expr, Expr::Ident(name) if !self.0.iter().any(|(own, _)| own == name)),
        );
        match target.filter(|_| !library) {
            Some(target) => {
                let (work, _) = self.follow(target)?;
                Ok((work.saturating_add(args).saturating_add(1), None))
            }
            None => Ok((args.saturating_add(1), None)),
        }
    }
}

/// The schema of a field as expressions name it; fails where the schema is known to have none.
fn member(operand: Option<&Schema>, field: &str) -> Result<Option<Schema>, String> {
    let Some(schema) = operand else { return Ok(None) };
    match schema.kind() {
        Kind::Map => Ok(schema.inner()),
        Kind::Object => {
            let found = schema.properties().find(|(name, _)| escaped(name) == field).map(|(_, found)| found);
            match found {
                Some(found) => Ok(Some(found)),
                None => Err(format!("compilation failed: undefined field '{field}'")),
            }
        }
        Kind::Any | Kind::IntOrString => Ok(None),
        _ => Err(format!("compilation failed: type does not support field selection: '{field}'")),
    }
}
