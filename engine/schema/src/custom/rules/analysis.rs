//! What can be said about a rule before any object is there: whether it speaks of fields that exist, whether it gives what
//! a rule has to give, and how much work it is at worst.
//!
//! Types are followed as far as the schema says them; what is not known passes and is found out when the rule runs. Work
//! is counted by the same model as upstream's, so that a definition is taken or refused here as it is there.

use kube_cel::cel::common::ast::operators::CONDITIONAL;
use kube_cel::cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr};

use super::compile::{Compiled, PAY};
use super::known::{Known, REQUEST, Size, fewest_bytes};
use super::price;
use crate::tree::Schema;

/// The most work of one rule.
const RULE: u64 = 10_000_000;
/// The most work of all rules of one schema.
pub(super) const SCHEMA: u64 = 100_000_000;
/// Looking at a name.
const NAME: u64 = 1;
/// Making a list.
const LIST: u64 = 10;
/// Making a map.
const MAP: u64 = 30;

/// What a rule costs at worst, with its message.
pub(super) struct Costs {
    pub(super) rule: u64,
    pub(super) message: u64,
}

/// Checks the types of a rule of a place, and counts its work. `times` is how often the place can occur in one object,
/// where that is bounded.
pub(super) fn check(rule: &Compiled, schema: &Schema, times: Option<u64>) -> Result<Costs, (&'static str, String)> {
    let of = |known: Known| Found { cost: 0, size: None, entry: None, known };
    let own = Known::Place(schema.clone());
    let old = if rule.text.optional_old { Known::Optional(Box::new(own.clone())) } else { own.clone() };
    let mut names = Names(vec![("self".to_owned(), of(own)), ("oldSelf".to_owned(), of(old))]);
    for name in super::run::TYPES {
        names.0.push((name.to_owned(), of(Known::Any)));
    }
    let failed = |field| move |problem: String| (field, format!("compilation failed: {problem}"));
    let found = names.follow(&rule.rule).map_err(failed("rule"))?;
    if !found.known.may_be_bool() {
        return Err(("rule", "cel expression must evaluate to a bool".into()));
    }
    let times = times.unwrap_or_else(|| REQUEST / (fewest_bytes(schema) + 1));
    let mut costs = Costs { rule: found.cost.saturating_mul(times), message: 0 };
    if let Some(message) = &rule.message {
        let found = names.follow(message).map_err(failed("messageExpression"))?;
        if !found.known.may_be_text() {
            return Err(("messageExpression", "messageExpression must evaluate to a string".into()));
        }
        costs.message = found.cost;
    }
    Ok(costs)
}

/// What is said of work that is over the bound of one rule; nothing where it is not.
pub(super) fn too_much(what: &str, cost: u64) -> Option<String> {
    (cost > RULE).then(|| excess(what, cost, RULE))
}

/// By how much work is over a bound.
pub(super) fn excess(what: &str, cost: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a factor to be read by people")]
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// What was found out about an expression.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) cost: u64,
    pub(super) known: Known,
    /// How large it is, where that follows from the expression.
    pub(super) size: Option<Size>,
    /// How large its items are, where that follows from the expression.
    pub(super) entry: Option<Size>,
}

impl Found {
    pub(super) fn of(cost: u64, known: Known) -> Self {
        Self { cost, known, size: None, entry: None }
    }

    pub(super) fn sized(cost: u64, known: Known, size: Size) -> Self {
        Self { cost, known, size: Some(size), entry: None }
    }

    pub(super) fn size(&self) -> Size {
        self.size.unwrap_or_else(|| self.known.size())
    }
}

type Followed = Result<Found, String>;

/// What names stand for, the innermost last.
struct Names(Vec<(String, Found)>);

impl Names {
    fn follow(&mut self, node: &IdedExpr) -> Followed {
        match &node.expr {
            Expr::Ident(name) => match self.0.iter().rev().find(|(own, _)| own == name) {
                Some((_, found)) => Ok(Found { cost: NAME, ..found.clone() }),
                None => Err(format!("undeclared reference to '{name}' (in container '')")),
            },
            Expr::Select(select) => {
                let operand = self.follow(&select.operand)?;
                let known = operand.known.member(&select.field)?;
                if select.test {
                    return Ok(Found::of(operand.cost, Known::Bool));
                }
                let looked = u64::from(operand.known.is_looked_into());
                Ok(Found::of(operand.cost.saturating_add(looked), known))
            }
            Expr::Call(call) => {
                let target = call.target.as_deref().filter(|target| !self.is_library(target));
                let target = target.map(|target| self.follow(target)).transpose()?;
                let args = call.args.iter().map(|arg| self.follow(arg)).collect::<Result<Vec<_>, _>>()?;
                price::call(call, target.as_ref(), &args)
            }
            Expr::Comprehension(each) if is_bind(each) => {
                let value = self.follow(&each.accu_init)?;
                self.0.push((each.accu_var.clone(), value.clone()));
                let result = self.follow(&each.result);
                self.0.pop();
                let result = result?;
                Ok(Found { cost: LIST.saturating_add(value.cost).saturating_add(result.cost), ..result })
            }
            Expr::Comprehension(each) => self.repeat(each),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Literal(literal) => Ok(self::literal(literal)),
            Expr::Struct(_) | Expr::Unspecified => Err("the expression is incomplete".into()),
        }
    }

    /// The prefix of a library's function is no variable.
    fn is_library(&self, target: &IdedExpr) -> bool {
        matches!(&target.expr, Expr::Ident(name) if !self.0.iter().any(|(own, _)| own == name))
    }

    fn repeat(&mut self, each: &ComprehensionExpr) -> Followed {
        let range = self.follow(&each.iter_range)?;
        let init = self.follow(&each.accu_init)?;
        let begun = init.clone();
        let known = range.known.each();
        let size = match &known {
            _ if range.known.is_map() => Some(Size::up_to(0)),
            // What its schema says of an item goes before what all that the list holds have in common.
            Known::Place(_) => None,
            _ => range.entry,
        };
        self.0.push((each.accu_var.clone(), init));
        self.0.push((each.iter_var.clone(), Found { cost: 0, known, size, entry: range.entry }));
        let condition = self.follow(unmetered(&each.loop_cond));
        let step = self.follow(&each.loop_step);
        self.0.pop();
        let result = self.follow(&each.result);
        self.0.pop();
        let (condition, step, result) = (condition?, step?, result?);
        let count = range.size();
        let once = condition.cost.saturating_add(step.cost);
        let loops = once.saturating_mul(count.most);
        let cost = range.cost.saturating_add(begun.cost).saturating_add(result.cost).saturating_add(loops);
        Ok(match &each.accu_init.expr {
            Expr::List(_) | Expr::Map(_) => {
                Found { cost, known: step.known.or(begun.known), size: Some(count), entry: step.entry }
            }
            _ => Found { cost, ..result },
        })
    }

    fn list(&mut self, list: &ListExpr) -> Followed {
        let elements = list.elements.iter().map(|each| self.follow(each)).collect::<Result<Vec<_>, _>>()?;
        let cost = elements.iter().fold(LIST, |sum, each| sum.saturating_add(each.cost));
        let entry = elements.iter().map(Found::size).reduce(Size::or);
        let size = Some(Size::exactly(elements.len() as u64));
        let known = elements.into_iter().map(|each| each.known).reduce(Known::or).unwrap_or(Known::Any);
        Ok(Found { cost, known: Known::list(known), size, entry })
    }

    fn map(&mut self, map: &MapExpr) -> Followed {
        let (mut cost, mut known) = (MAP, Known::Any);
        for entry in &map.entries {
            if let EntryExpr::MapEntry(entry) = &entry.expr {
                let (key, value) = (self.follow(&entry.key)?, self.follow(&entry.value)?);
                cost = cost.saturating_add(key.cost).saturating_add(value.cost);
                known = known.or(value.known);
            }
        }
        Ok(Found::sized(cost, Known::Map(Box::new(known)), Size::exactly(map.entries.len() as u64)))
    }
}

fn literal(literal: &LiteralValue) -> Found {
    let (known, length) = match literal {
        LiteralValue::Boolean(_) => (Known::Bool, 1),
        LiteralValue::String(text) => (Known::Text, text.inner().chars().count() as u64),
        LiteralValue::Bytes(bytes) => (Known::Text, bytes.inner().len() as u64),
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => (Known::Scalar, 1),
        LiteralValue::Null => (Known::Any, 1),
    };
    Found::sized(0, known, Size::exactly(length))
}

/// The condition of a loop without what it pays.
fn unmetered(condition: &IdedExpr) -> &IdedExpr {
    match &condition.expr {
        Expr::Call(call) if call.func_name == CONDITIONAL => match call.args.as_slice() {
            [IdedExpr { expr: Expr::Call(pay), .. }, condition, _] if pay.func_name == PAY => condition,
            _ => condition,
        },
        _ => condition,
    }
}

/// Whether a loop only binds a name.
fn is_bind(each: &ComprehensionExpr) -> bool {
    let never =
        matches!(&unmetered(&each.loop_cond).expr, Expr::Literal(LiteralValue::Boolean(flag)) if !*flag.inner());
    never && matches!(&each.iter_range.expr, Expr::List(list) if list.elements.is_empty())
}
