//! What each operator costs, and what it gives: the figures of the model that upstream counts by.

use kube_cel::cel::common::ast::operators::{
    ADD, CONDITIONAL, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT,
    LOGICAL_OR, NOT_EQUALS, NOT_STRICTLY_FALSE, OPT_INDEX,
};
use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::analysis::Found;
use super::functions::{self, Given};
use super::known::{Known, Size};
use crate::tree::compile_pattern;

/// Going through a text, by its characters.
pub(super) const TEXT: f64 = 0.1;

type Priced = Result<Found, String>;

/// What a part of a size costs, rounded up.
pub(super) fn part(size: u64, factor: f64) -> u64 {
    if size == u64::MAX {
        return u64::MAX;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive estimate; what is too large saturates"
    )]
    {
        (size as f64 * factor).ceil() as u64
    }
}

fn literal_text(node: Option<&IdedExpr>) -> Option<&str> {
    match node.map(|node| &node.expr) {
        Some(Expr::Literal(LiteralValue::String(text))) => Some(text.inner()),
        _ => None,
    }
}

/// A call of a function with what was found out about its target and arguments.
pub(super) fn call(call: &CallExpr, target: Option<&Found>, args: &[Found]) -> Priced {
    let before = args.iter().chain(target).fold(0_u64, |sum, each| sum.saturating_add(each.cost));
    let mut found = if let Some(found) = operator(call, args)? {
        found
    } else {
        literals(call)?;
        functions::priced(&Given { call, target, args })
    };
    if call.func_name != CONDITIONAL {
        found.cost = found.cost.saturating_add(before);
    }
    Ok(found)
}

/// Operators; nothing for what is none. The cost is without that of the arguments, but for the one with branches.
fn operator(call: &CallExpr, args: &[Found]) -> Result<Option<Found>, String> {
    let known = |cost, known| Some(Found::of(cost, known));
    Ok(match (call.func_name.as_str(), args) {
        (LOGICAL_AND | LOGICAL_OR, [_, _]) => known(0, Known::Bool),
        (LOGICAL_NOT | NOT_STRICTLY_FALSE, [_]) => known(1, Known::Bool),
        (CONDITIONAL, [condition, yes, no]) => Some(Found {
            cost: condition.cost.saturating_add(yes.cost.max(no.cost)),
            known: yes.known.clone().or(no.known.clone()),
            size: Some(yes.size().or(no.size())),
            entry: yes.entry.zip(no.entry).map(|(yes, no)| yes.or(no)).or(yes.entry).or(no.entry),
        }),
        (EQUALS | NOT_EQUALS, [a, b]) => known(compared(a, b), Known::Bool),
        (LESS | LESS_EQUALS | GREATER | GREATER_EQUALS, [a, b]) => {
            let texts = a.known.is_text() || b.known.is_text();
            known(if texts { compared(a, b) } else { 1 }, Known::Bool)
        }
        (IN, [_, within]) => known(if within.known.is_list() { within.size().most } else { 1 }, Known::Bool),
        (ADD, [a, b]) => Some(added(a, b)),
        (INDEX, [of, _]) => Some(indexed(of, &call.args[1])),
        (OPT_INDEX, [of, _]) => {
            let inner = match literal_text(call.args.get(1)) {
                Some(field) if !of.known.is_list() => of.known.member(field)?,
                _ => of.known.inner(),
            };
            known(1, Known::Optional(Box::new(inner)))
        }
        (name, _) if name.starts_with('_') || name.starts_with('-') => known(1, Known::Scalar),
        _ => None,
    })
}

fn compared(a: &Found, b: &Found) -> u64 {
    part(a.size().most.min(b.size().most), TEXT)
}

fn added(a: &Found, b: &Found) -> Found {
    let size = a.size().plus(b.size());
    if a.known.is_list() || b.known.is_list() {
        let entry = a.entry.zip(b.entry).map(|(a, b)| a.or(b)).or(a.entry).or(b.entry);
        return Found { cost: 1, known: a.known.clone().or(b.known.clone()), size: Some(size), entry };
    }
    if a.known.is_text() || b.known.is_text() {
        return Found::sized(part(size.most, TEXT), Known::Text, size);
    }
    Found::of(1, a.known.clone().or(b.known.clone()))
}

fn indexed(of: &Found, at: &IdedExpr) -> Found {
    if let Known::Pair(range) = &of.known {
        let key = matches!(&at.expr, Expr::Literal(LiteralValue::Int(at)) if *at.inner() == 0);
        return match (key, range.is_map()) {
            (true, true) => Found::sized(1, Known::Text, Size::up_to(0)),
            (true, false) => Found::of(1, Known::Scalar),
            (false, _) => Found { size: of.entry, ..Found::of(1, range.inner()) },
        };
    }
    let known = of.known.inner();
    let size = if matches!(known, Known::Place(_)) { None } else { of.entry };
    Found { size, ..Found::of(1, known) }
}

/// What is wrong with a literal that can be judged before it is used.
fn literals(call: &CallExpr) -> Result<(), String> {
    match (call.func_name.as_str(), literal_text(call.args.last())) {
        ("matches", Some(pattern)) => {
            let wrong = |error: regex::Error| format!("invalid matches argument: {error}");
            compile_pattern(pattern).map(drop).map_err(wrong)
        }
        ("timestamp", Some(text)) if chrono::DateTime::parse_from_rfc3339(text).is_err() => {
            Err(format!("invalid timestamp argument: {text:?}"))
        }
        _ => Ok(()),
    }
}
