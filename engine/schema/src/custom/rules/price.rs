//! What each function costs, and what it gives: the figures of the model that upstream counts by.

use kube_cel::cel::common::ast::operators::{
    ADD, CONDITIONAL, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT,
    LOGICAL_OR, NOT_EQUALS, NOT_STRICTLY_FALSE, OPT_INDEX,
};
use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::analysis::Found;
use super::known::{Known, Size};
use crate::tree::compile_pattern;

/// Going through a text, by its characters.
const TEXT: f64 = 0.1;
/// Going through a regular expression, by its characters.
const PATTERN: f64 = 0.25;
/// The longest expression of a named format.
const FORMAT: u64 = 128;
/// The call of a function that makes a list.
const MADE: u64 = 11;

type Priced = Result<Found, String>;

/// What a part of a size costs, rounded up.
fn part(size: u64, factor: f64) -> u64 {
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
    let mut found = match operator(call, args)? {
        Some(found) => found,
        None => {
            literals(call)?;
            function(call, target, args)
        }
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

fn function(call: &CallExpr, target: Option<&Found>, args: &[Found]) -> Found {
    let name = call.func_name.as_str();
    let subject = target.or(args.first());
    let size = |found: Option<&Found>| found.map_or(Size::exactly(1), Found::size);
    let (own, first) = (size(target), size(args.first()));
    let whole = |found: Option<&Found>| part(size(found).most, TEXT);
    let item = subject.map_or(Known::Any, |list| list.known.inner());
    match name {
        "contains" | "intersects" | "equivalent" if target.is_none() => {
            Found::of(first.most.saturating_mul(size(args.get(1)).most), Known::Bool)
        }
        "contains" => Found::of(part(own.most, TEXT).saturating_mul(part(first.most, TEXT)), Known::Bool),
        "startsWith" | "endsWith" => Found::of(part(first.most, TEXT), Known::Bool),
        "matches" | "find" | "findAll" => {
            let (text, pattern) = if target.is_some() { (own, first) } else { (first, size(args.get(1))) };
            let cost = part(text.most.saturating_add(1), TEXT).saturating_mul(part(pattern.most, PATTERN));
            match name {
                "matches" => Found::of(cost, Known::Bool),
                "find" => Found::sized(cost, Known::Text, Size::up_to(text.most)),
                _ => Found::sized(cost, Known::list(Known::Text), Size::up_to(text.most)),
            }
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => Found::sized(whole(target), Known::Text, own),
        "replace" => Found::sized(part(own.most, 2.0 * TEXT), Known::Text, replaced(own, first, size(args.get(1)))),
        "split" => Found::sized(part(own.most, 2.0 * TEXT), Known::list(Known::Text), Size::up_to(own.most)),
        "join" => {
            let each = target.map_or(Size::exactly(1), |list| list.entry.unwrap_or_else(|| item.size()));
            let between = Size { least: own.least.saturating_sub(1), most: own.most.saturating_sub(1) };
            let gap = if args.is_empty() { Size::exactly(0) } else { first };
            let joined = own.times(each).plus(gap.times(between));
            Found::sized(part(joined.most, TEXT), Known::Text, joined)
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => looked_through(name, target, &item),
        "url" | "isURL" | "quantity" | "isQuantity" | "semver" | "isSemver" | "cidr" | "isIP" | "isCIDR" | "ip"
        | "isCanonical" | "validate" => parsed(name, first),
        "distinct" | "sort" | "@sortBy" => squared(subject),
        "reverse" | "slice" | "flatten" => {
            let known = target.map_or(Known::Any, |list| list.known.clone());
            let known = if name == "flatten" { Known::list(item.inner()) } else { known };
            let size = if name == "flatten" { own.times(item.size()) } else { own };
            Found {
                size: Some(size),
                entry: subject.and_then(|list| list.entry),
                ..Found::of(MADE.saturating_add(own.most), known)
            }
        }
        "range" if target.is_none() => {
            let count = match call.args.first().map(|count| &count.expr) {
                Some(Expr::Literal(LiteralValue::Int(count))) => {
                    Size::exactly(u64::try_from(*count.inner()).unwrap_or(0))
                }
                _ => Size::UNKNOWN,
            };
            Found::sized(MADE.saturating_add(count.most), Known::list(Known::Scalar), count)
        }
        _ => plain(name, target, args),
    }
}

fn replaced(own: Size, what: Size, with: Size) -> Size {
    let most = if what.least == 0 {
        own.most.saturating_add(1).saturating_mul(with.most).saturating_add(own.most)
    } else if with.most <= what.least {
        own.most
    } else {
        own.most.div_ceil(what.least).saturating_mul(with.most)
    };
    Size::up_to(most)
}

fn looked_through(name: &str, target: Option<&Found>, item: &Known) -> Found {
    let Some(target) = target else { return Found::of(1, Known::Scalar) };
    let count = target.size().most;
    let known = match name {
        "isSorted" => Known::Bool,
        "max" | "min" => item.clone(),
        _ => Known::Scalar,
    };
    if target.known.is_text() {
        return Found::of(part(count, TEXT), known);
    }
    let each = if item.is_text() {
        1_u64.saturating_add(part(target.entry.unwrap_or_else(|| item.size()).most, TEXT))
    } else {
        1
    };
    Found::of(count.saturating_mul(each), known)
}

fn parsed(name: &str, text: Size) -> Found {
    let once = part(text.most, TEXT);
    match name {
        "isCanonical" => Found::of(part(text.most, 2.0 * TEXT), Known::Bool),
        "validate" => {
            Found::of(once.saturating_mul(part(FORMAT, PATTERN)), Known::Optional(Box::new(Known::list(Known::Text))))
        }
        "isURL" => Found::of(1, Known::Bool),
        name if name.starts_with("is") => Found::of(once, Known::Bool),
        _ => Found::of(once, Known::Opaque),
    }
}

/// What compares each item of a list with each other.
fn squared(list: Option<&Found>) -> Found {
    let Some(list) = list else { return Found::of(1, Known::Any) };
    let count = list.size().most;
    let cost = count.saturating_mul(count).saturating_mul(2).saturating_add(MADE);
    Found { cost, size: Some(list.size()), ..list.clone() }
}

/// Functions that take the same time whatever they are given, or nearly so.
fn plain(name: &str, target: Option<&Found>, args: &[Found]) -> Found {
    let first = args.first();
    let held = || target.map_or(Known::Any, |optional| optional.known.held());
    let known = match name {
        "dyn" => return first.map_or(Found::of(1, Known::Any), |same| Found { cost: 1, ..same.clone() }),
        "@pairs" => {
            let Some(over) = first else { return Found::of(1, Known::Any) };
            let pairs = Known::list(Known::Pair(Box::new(over.known.clone())));
            return Found { entry: over.entry, ..Found::sized(1, pairs, over.size()) };
        }
        "@present" => {
            let held = first.map_or(Known::Any, |optional| optional.known.held());
            return Found::sized(1, Known::list(held), Size::up_to(1));
        }
        "@only" => Known::Optional(Box::new(first.map_or(Known::Any, |list| list.known.inner()))),
        "@inner" => Known::Optional(Box::new(first.map_or(Known::Any, |list| list.known.inner().inner()))),
        "@insert" | "@merge" => Known::Map(Box::new(args.last().map_or(Known::Any, |value| value.known.clone()))),
        "of" | "ofNonZeroValue" => Known::Optional(Box::new(first.map_or(Known::Any, |value| value.known.clone()))),
        "none" => Known::Optional(Box::new(Known::Any)),
        "named" => Known::Optional(Box::new(Known::Opaque)),
        "value" => held(),
        "orValue" => held().or(first.map_or(Known::Any, |other| other.known.clone())),
        "or" => target.map_or(Known::Any, |optional| optional.known.clone()),
        "first" | "last" if target.is_some_and(|list| list.known.is_list()) => {
            Known::Optional(Box::new(target.map_or(Known::Any, |list| list.known.inner())))
        }
        "size" | "int" | "uint" | "double" | "timestamp" | "duration" | "compareTo" | "sign" | "asInteger"
        | "asApproximateFloat" | "major" | "minor" | "patch" | "prefixLength" | "family" => Known::Scalar,
        "string" | "format" | "charAt" | "quote" | "getScheme" | "getHost" | "getHostname" | "getPort"
        | "getEscapedPath" => {
            let size = first.or(target).filter(|found| found.known.is_text()).map(Found::size);
            return Found { size: Some(size.unwrap_or(Size::up_to(64))), ..Found::of(1, Known::Text) };
        }
        "bool"
        | "hasValue"
        | "isGreaterThan"
        | "isLessThan"
        | "isInteger"
        | "containsIP"
        | "containsCIDR"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast" => Known::Bool,
        "add" | "sub" | "masked" => Known::Opaque,
        name if name.starts_with("get") => Known::Scalar,
        _ => Known::Any,
    };
    Found::of(1, known)
}
