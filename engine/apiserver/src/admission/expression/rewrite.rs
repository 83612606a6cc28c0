//! Rewrites an expression so that what it does is charged, and refuses what cannot be done.

use std::cell::Cell;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, MapEntryExpr, MapExpr, SelectExpr, StructExpr, operators,
};

use shipway_schema::expression::{expand, is_expanded};

/// How deep an expression may be once it is parsed, its variables and theirs included.
const DEPTH: usize = 80;
/// Charges a step of a loop.
pub(super) const TICK: &str = "@tick";
/// Charges a value for its size.
pub(super) const WEIGH: &str = "@weigh";
/// Refuses a large argument of a function that multiplies.
pub(super) const SMALL: &str = "@small";
/// A variable of the policy.
pub(super) const VARIABLE: &str = "@variable";
/// Who is asked what somebody may do.
pub(super) const AUTHORIZER: &str = "@authorizer";
/// The same about the object of the request.
pub(super) const REQUESTED: &str = "@requestResource";
/// What a patch consists of.
const PATCH: &str = "JSONPatch";
const PATCH_FIELDS: [&str; 4] = ["from", "op", "path", "value"];

/// Operators that make nothing larger than what they are given.
const PLAIN: [&str; 20] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
];
/// Functions whose work or result is the product of their arguments' sizes.
const MULTIPLYING: [&str; 9] =
    ["distinct", "flatten", "format", "indexOf", "join", "lastIndexOf", "replace", "sort", "split"];
/// Names that stand before a function and are no values. Those of `sets` multiply.
const LIBRARIES: [&str; 6] = ["base64", "jsonpatch", "lists", "math", "optional", "sets"];

/// What an expression may name beside what every expression sees.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct Scope<'a> {
    /// Variables of the policy: names, and how deep they are.
    pub(in super::super) variables: &'a [(String, usize)],
    /// Whether it may make objects (`Object{...}`) and patches (`JSONPatch{...}`).
    pub(in super::super) makes: bool,
}

struct Rewriter<'a> {
    scope: Scope<'a>,
    deepest: Cell<usize>,
}

/// The expression with its meters, and how deep it is.
pub(super) fn metered(expression: IdedExpr, scope: Scope<'_>) -> Result<(IdedExpr, usize), String> {
    let rewriter = Rewriter { scope, deepest: Cell::new(0) };
    let expression = rewriter.walk(expression, 1)?;
    Ok((expression, rewriter.deepest.get()))
}

fn call(name: &str, argument: IdedExpr) -> IdedExpr {
    let id = argument.id;
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.into(), target: None, args: vec![argument] }) }
}

/// A call without arguments.
fn bare(name: &str) -> CallExpr {
    CallExpr { func_name: name.into(), target: None, args: Vec::new() }
}

fn text(text: &str) -> Expr {
    Expr::Literal(LiteralValue::String(text.into()))
}

/// Objects are named for their place: what is made for a field has to bear the field's name.
fn check_name(value: &IdedExpr, expected: &str) -> Result<(), String> {
    match &value.expr {
        Expr::Struct(made) if made.type_name != expected => {
            Err(format!("type mismatch: unexpected type name {:?}, expected {expected:?}", made.type_name))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|item| check_name(item, expected)),
        _ => Ok(()),
    }
}

impl Rewriter<'_> {
    fn walk(&self, mut node: IdedExpr, depth: usize) -> Result<IdedExpr, String> {
        self.reach(depth)?;
        expand(&mut node)?;
        let id = node.id;
        let walk = |node: IdedExpr| self.walk(node, depth + 1);
        let ided = |expr| IdedExpr { id, expr };
        Ok(match node.expr {
            Expr::Select(select) => self.select(id, select, depth)?,
            Expr::Call(inner) => self.call(id, inner, depth)?,
            Expr::List(mut list) => {
                list.elements = list.elements.into_iter().map(walk).collect::<Result<_, _>>()?;
                call(WEIGH, ided(Expr::List(list)))
            }
            Expr::Map(mut map) => {
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(inner) = &mut entry.expr else {
                        return Err("a map takes entries, no fields".into());
                    };
                    inner.key = walk(std::mem::take(&mut inner.key))?;
                    inner.value = walk(std::mem::take(&mut inner.value))?;
                }
                call(WEIGH, ided(Expr::Map(map)))
            }
            Expr::Comprehension(mut loops) => {
                loops.iter_range = walk(std::mem::take(&mut loops.iter_range))?;
                loops.accu_init = walk(std::mem::take(&mut loops.accu_init))?;
                loops.loop_cond = call(TICK, walk(std::mem::take(&mut loops.loop_cond))?);
                loops.loop_step = walk(std::mem::take(&mut loops.loop_step))?;
                loops.result = walk(std::mem::take(&mut loops.result))?;
                ided(Expr::Comprehension(loops))
            }
            Expr::Ident(name) if name == "authorizer" => ided(Expr::Call(bare(AUTHORIZER))),
            Expr::Struct(made) => self.make(id, made, depth)?,
            Expr::Unspecified => return Err("the expression has an empty part".into()),
            other @ (Expr::Ident(_) | Expr::Literal(_)) => ided(other),
        })
    }

    fn call(&self, id: u64, mut inner: CallExpr, depth: usize) -> Result<IdedExpr, String> {
        let plain = PLAIN.contains(&inner.func_name.as_str());
        if inner.func_name.starts_with('@') && !plain && !is_expanded(&inner.func_name) {
            return Err(format!("undeclared reference to '{}'", inner.func_name));
        }
        if inner.func_name == operators::OPT_SELECT {
            // The library's own `.?` fails on what is not there; its `[?]` does not.
            inner.func_name = operators::OPT_INDEX.into();
        }
        let library = match inner.target.as_deref() {
            Some(IdedExpr { expr: Expr::Ident(name), .. }) if LIBRARIES.contains(&name.as_str()) => name.as_str(),
            _ => "",
        };
        let small = library == "sets" || MULTIPLYING.contains(&inner.func_name.as_str());
        let library = !library.is_empty();
        let walk = |node: IdedExpr| {
            let node = self.walk(node, depth + 1)?;
            Ok::<_, String>(if small && !matches!(node.expr, Expr::Literal(_)) { call(SMALL, node) } else { node })
        };
        inner.target = match inner.target {
            Some(target) if library => Some(target),
            Some(target) => Some(Box::new(walk(*target)?)),
            None => None,
        };
        inner.args = inner.args.into_iter().map(walk).collect::<Result<_, _>>()?;
        let node = IdedExpr { id, expr: Expr::Call(inner) };
        Ok(if plain { node } else { call(WEIGH, node) })
    }

    /// A field of something. The library's own selection of a field takes whatever has no fields for `false`; its index
    /// fails, and goes on behind what is optional.
    fn select(&self, id: u64, mut select: SelectExpr, depth: usize) -> Result<IdedExpr, String> {
        let ided = |expr| IdedExpr { id, expr };
        match &select.operand.expr {
            Expr::Ident(name) if name == "variables" => {
                return self.variable(id, &select.field, select.test, depth);
            }
            Expr::Ident(name) if name == "authorizer" && select.field == "requestResource" && !select.test => {
                return Ok(ided(Expr::Call(bare(REQUESTED))));
            }
            _ => {}
        }
        select.field = unescape(&select.field);
        select.operand = Box::new(self.walk(*select.operand, depth + 1)?);
        if select.test {
            return Ok(ided(Expr::Select(select)));
        }
        let args = vec![*select.operand, ided(text(&select.field))];
        Ok(ided(Expr::Call(CallExpr { func_name: operators::INDEX.into(), target: None, args })))
    }

    /// An object, or an operation of a patch: a map that says what it is made for.
    fn make(&self, id: u64, made: StructExpr, depth: usize) -> Result<IdedExpr, String> {
        let name = made.type_name;
        let is_object = name == "Object" || name.starts_with("Object.");
        if !self.scope.makes || !(is_object || name == PATCH) {
            return Err(format!("undeclared reference to '{name}'"));
        }
        let mut entries = Vec::with_capacity(made.entries.len());
        for entry in made.entries {
            let EntryExpr::StructField(given) = entry.expr else {
                return Err(format!("{name} takes fields, no entries"));
            };
            let field = unescape(&given.field);
            if name == PATCH && !PATCH_FIELDS.contains(&field.as_str()) {
                return Err(format!("undefined field '{field}'"));
            }
            if is_object {
                check_name(&given.value, &format!("{name}.{}", given.field))?;
            }
            let key = IdedExpr { id: entry.id, expr: text(&field) };
            let value = self.walk(given.value, depth + 1)?;
            let expr = EntryExpr::MapEntry(MapEntryExpr { key, value, optional: given.optional });
            entries.push(IdedEntryExpr { id: entry.id, expr });
        }
        Ok(call(WEIGH, IdedExpr { id, expr: Expr::Map(MapExpr { entries }) }))
    }

    fn reach(&self, depth: usize) -> Result<(), String> {
        self.deepest.set(self.deepest.get().max(depth));
        if depth > DEPTH { Err(format!("the expression is deeper than {DEPTH} levels")) } else { Ok(()) }
    }

    fn variable(&self, id: u64, field: &str, test: bool, depth: usize) -> Result<IdedExpr, String> {
        let name = unescape(field);
        let known = self.scope.variables.iter().find(|(known, _)| *known == name);
        let (_, below) = known.ok_or_else(|| format!("undefined field '{name}'"))?;
        self.reach(depth + below)?;
        if test {
            return Ok(IdedExpr { id, expr: Expr::Literal(LiteralValue::Boolean(true.into())) });
        }
        Ok(call(VARIABLE, IdedExpr { id, expr: text(&name) }))
    }
}

/// The name of a field as objects have it: `__namespace__` is `namespace`, `a__dash__b` is `a-b`.
pub(super) fn unescape(field: &str) -> String {
    const WORDS: [(&str, &str); 4] =
        [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    if !field.contains("__") {
        return field.to_owned();
    }
    if let Some(word) = field.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_lowercase())
        && !WORDS.iter().any(|(escaped, _)| *escaped == field)
    {
        return word.to_owned();
    }
    WORDS.iter().fold(field.to_owned(), |name, (escaped, plain)| name.replace(escaped, plain))
}
