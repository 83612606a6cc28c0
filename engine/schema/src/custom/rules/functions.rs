//! What each function costs, and what it gives, as far as that is known before any object is there.

use kube_cel::cel::common::ast::{CallExpr, Expr, LiteralValue};

use super::analysis::Found;
use super::known::{Known, Size};
use super::price::{TEXT, part};

/// Going through a regular expression, by its characters.
const PATTERN: f64 = 0.25;
/// The longest expression of a named format.
const FORMAT: u64 = 128;
/// The call of a function that makes a list.
const MADE: u64 = 11;

/// A call with what was found out about what it is given.
pub(super) struct Given<'a> {
    pub(super) call: &'a CallExpr,
    pub(super) target: Option<&'a Found>,
    pub(super) args: &'a [Found],
}

impl<'a> Given<'a> {
    fn name(&self) -> &'a str {
        &self.call.func_name
    }

    /// What it works on: the target, or the first argument.
    fn subject(&self) -> Option<&'a Found> {
        self.target.or(self.args.first())
    }

    /// What the list that it works on holds.
    fn item(&self) -> Known {
        self.subject().map_or(Known::Any, |list| list.known.inner())
    }

    fn own(&self) -> Size {
        self.target.map_or(Size::exactly(1), Found::size)
    }

    fn arg(&self, at: usize) -> Size {
        self.args.get(at).map_or(Size::exactly(1), Found::size)
    }
}

/// What a call costs beside its arguments, and what it gives.
pub(super) fn priced(given: &Given<'_>) -> Found {
    text(given)
        .or_else(|| list(given))
        .or_else(|| parsed(given))
        .unwrap_or_else(|| plain(given.name(), given.target, given.args))
}

/// Functions of texts.
fn text(given: &Given<'_>) -> Option<Found> {
    let (own, first) = (given.own(), given.arg(0));
    Some(match given.name() {
        "contains" if given.target.is_some() => {
            Found::of(part(own.most, TEXT).saturating_mul(part(first.most, TEXT)), Known::Bool)
        }
        "startsWith" | "endsWith" => Found::of(part(first.most, TEXT), Known::Bool),
        "matches" | "find" | "findAll" => {
            let (text, pattern) = if given.target.is_some() { (own, first) } else { (first, given.arg(1)) };
            let cost = part(text.most.saturating_add(1), TEXT).saturating_mul(part(pattern.most, PATTERN));
            match given.name() {
                "matches" => Found::of(cost, Known::Bool),
                "find" => Found::sized(cost, Known::Text, Size::up_to(text.most)),
                _ => Found::sized(cost, Known::list(Known::Text), Size::up_to(text.most)),
            }
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => Found::sized(part(own.most, TEXT), Known::Text, own),
        "replace" => Found::sized(part(own.most, 2.0 * TEXT), Known::Text, replaced(own, first, given.arg(1))),
        "split" => Found::sized(part(own.most, 2.0 * TEXT), Known::list(Known::Text), Size::up_to(own.most)),
        "join" => joined(given),
        _ => return None,
    })
}

/// Functions of lists.
fn list(given: &Given<'_>) -> Option<Found> {
    let known = || given.target.map_or(Known::Any, |list| list.known.clone());
    Some(match given.name() {
        "contains" | "intersects" | "equivalent" if given.target.is_none() => {
            Found::of(given.arg(0).most.saturating_mul(given.arg(1).most), Known::Bool)
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => looked_through(given),
        "distinct" | "sort" | "@sortBy" => squared(given.subject()),
        "reverse" | "slice" => made(given, known(), given.own()),
        "flatten" => {
            let item = given.item();
            made(given, Known::list(item.inner()), given.own().times(item.size()))
        }
        "range" if given.target.is_none() => {
            let count = match given.call.args.first().map(|count| &count.expr) {
                Some(Expr::Literal(LiteralValue::Int(count))) => {
                    Size::exactly(u64::try_from(*count.inner()).unwrap_or(0))
                }
                _ => Size::UNKNOWN,
            };
            Found::sized(MADE.saturating_add(count.most), Known::list(Known::Scalar), count)
        }
        _ => return None,
    })
}

/// A list made of the items of another.
fn made(given: &Given<'_>, known: Known, size: Size) -> Found {
    let entry = given.target.and_then(|list| list.entry);
    Found { size: Some(size), entry, ..Found::of(MADE.saturating_add(given.own().most), known) }
}

fn joined(given: &Given<'_>) -> Found {
    let (own, item) = (given.own(), given.item());
    let each = given.target.map_or(Size::exactly(1), |list| list.entry.unwrap_or_else(|| item.size()));
    let between = Size { least: own.least.saturating_sub(1), most: own.most.saturating_sub(1) };
    let gap = if given.args.is_empty() { Size::exactly(0) } else { given.arg(0) };
    let joined = own.times(each).plus(gap.times(between));
    Found::sized(part(joined.most, TEXT), Known::Text, joined)
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

fn looked_through(given: &Given<'_>) -> Found {
    let (Some(target), item) = (given.target, given.item()) else { return Found::of(1, Known::Scalar) };
    let name = given.name();
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

/// Functions that read a text as something else.
fn parsed(given: &Given<'_>) -> Option<Found> {
    let text = given.arg(0);
    let once = part(text.most, TEXT);
    Some(match given.name() {
        "isCanonical" => Found::of(part(text.most, 2.0 * TEXT), Known::Bool),
        "validate" => {
            Found::of(once.saturating_mul(part(FORMAT, PATTERN)), Known::Optional(Box::new(Known::list(Known::Text))))
        }
        "isURL" => Found::of(1, Known::Bool),
        "isQuantity" | "isSemver" | "isIP" | "isCIDR" => Found::of(once, Known::Bool),
        "url" | "quantity" | "semver" | "cidr" | "ip" => Found::of(once, Known::Opaque),
        _ => return None,
    })
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
