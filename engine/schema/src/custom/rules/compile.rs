//! From a rule's text to an expression that counts its own work.
//!
//! The evaluator knows no bounds, so bounds are written into the expression: before each step of each loop it has to pay,
//! and once it cannot pay any more every loop ends. What is outside of loops is bounded by the expression's size.

use kube_cel::cel::common::ast::operators::{CONDITIONAL, OPT_INDEX, OPT_SELECT};
use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use kube_cel::cel::parser::Parser;

use crate::expression::expand;
use crate::invalid::Reason;
use crate::tree::RuleText;

/// The longest expression, in bytes.
const LENGTH: usize = 16 * 1024;
/// The most nodes of an expression.
const NODES: usize = 4096;
/// How deep an expression may be nested.
const DEPTH: usize = 256;
/// How deep its brackets may be: the parser takes long for more.
const BRACKETS: usize = 128;
/// The function by which a loop pays.
pub(super) const PAY: &str = "@pay";

/// A rule that can be run.
pub(super) struct Compiled {
    pub(super) text: RuleText,
    pub(super) reason: Reason,
    pub(super) rule: IdedExpr,
    pub(super) message: Option<IdedExpr>,
    /// Whether it speaks of `oldSelf`.
    pub(super) transition: bool,
}

/// Why a rule cannot be compiled.
pub(super) struct Problem {
    /// `rule` or `messageExpression`
    pub(super) field: &'static str,
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn text<'a>(&self, rule: &'a RuleText) -> &'a str {
        if self.field == "rule" { &rule.rule } else { &rule.message_expression }
    }
}

impl Compiled {
    /// What stands for the rule in messages.
    pub(super) fn name(&self) -> &str {
        if self.text.message.is_empty() { self.text.rule.trim() } else { &self.text.message }
    }
}

/// The reason a rule gives; none when there is no such reason.
pub(super) fn reason(word: &str) -> Option<Reason> {
    Some(match word {
        "" | "FieldValueInvalid" => Reason::Invalid,
        "FieldValueRequired" => Reason::Required,
        "FieldValueForbidden" => Reason::Forbidden,
        "FieldValueDuplicate" => Reason::Duplicate,
        _ => return None,
    })
}

/// Compiles a rule and its message.
pub(super) fn compile(text: &RuleText) -> Result<Compiled, Problem> {
    let problem = |field| move |detail| Problem { field, detail };
    let (rule, transition) = expression(&text.rule).map_err(problem("rule"))?;
    let message = match &*text.message_expression {
        "" => None,
        given => Some(expression(given).map_err(problem("messageExpression"))?.0),
    };
    let reason = reason(&text.reason).unwrap_or(Reason::Invalid);
    Ok(Compiled { text: text.clone(), reason, rule, message, transition })
}

fn expression(text: &str) -> Result<(IdedExpr, bool), String> {
    if text.len() > LENGTH {
        return Err(format!("must not be longer than {LENGTH} bytes"));
    }
    let nested = text.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'(' | b'[' | b'{' => *depth += 1,
            b')' | b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    if nested.max().is_some_and(|deepest| deepest > BRACKETS) {
        return Err(format!("compilation failed: brackets are nested more than {BRACKETS} deep"));
    }
    let parsed = Parser::default().enable_optional_syntax(true).parse(text);
    let mut expr = parsed.map_err(|error| format!("compilation failed: {error}"))?;
    let transition = expr.references().has_variable("oldSelf");
    let mut nodes = 0;
    prepare(&mut expr, 0, &mut nodes)?;
    Ok((expr, transition))
}

fn call(func_name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: func_name.to_owned(), target: None, args }) }
}

fn literal(value: LiteralValue) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(value) }
}

/// Expands what the parser does not, makes loops pay, and refuses what is too large or unknown.
fn prepare(node: &mut IdedExpr, depth: usize, nodes: &mut usize) -> Result<(), String> {
    *nodes += 1;
    if depth > DEPTH || *nodes > NODES {
        return Err("compilation failed: the expression is too large".into());
    }
    expand(node).map_err(|problem| format!("compilation failed: {problem}"))?;
    let deeper = depth + 1;
    match &mut node.expr {
        Expr::Call(call) => {
            known(call)?;
            if call.func_name == OPT_SELECT {
                // The library's own `.?` fails on what is not there; its `[?]` does not.
                OPT_INDEX.clone_into(&mut call.func_name);
            }
            if let Some(target) = &mut call.target {
                prepare(target, deeper, nodes)?;
            }
            call.args.iter_mut().try_for_each(|arg| prepare(arg, deeper, nodes))
        }
        Expr::Comprehension(comprehension) => looping(comprehension, deeper, nodes),
        Expr::Select(select) => prepare(&mut select.operand, deeper, nodes),
        Expr::List(list) => list.elements.iter_mut().try_for_each(|each| prepare(each, deeper, nodes)),
        Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
            EntryExpr::MapEntry(entry) => {
                prepare(&mut entry.key, deeper, nodes)?;
                prepare(&mut entry.value, deeper, nodes)
            }
            EntryExpr::StructField(_) => Err("compilation failed: messages cannot be made".into()),
        }),
        Expr::Struct(_) => Err("compilation failed: messages cannot be made".into()),
        Expr::Unspecified => Err("compilation failed: the expression is incomplete".into()),
        Expr::Ident(_) | Expr::Literal(_) => Ok(()),
    }
}

fn looping(comprehension: &mut ComprehensionExpr, depth: usize, nodes: &mut usize) -> Result<(), String> {
    let before = *nodes;
    prepare(&mut comprehension.iter_range, depth, nodes)?;
    prepare(&mut comprehension.accu_init, depth, nodes)?;
    prepare(&mut comprehension.loop_cond, depth, nodes)?;
    prepare(&mut comprehension.loop_step, depth, nodes)?;
    prepare(&mut comprehension.result, depth, nodes)?;
    let price = i64::try_from(*nodes - before).unwrap_or(i64::MAX);
    let condition = std::mem::take(&mut comprehension.loop_cond);
    let pay = call(PAY, vec![literal(LiteralValue::Int(price.into()))]);
    comprehension.loop_cond = call(CONDITIONAL, vec![pay, condition, literal(LiteralValue::Boolean(false.into()))]);
    Ok(())
}

/// Whether a function is one that the evaluator has.
fn known(call: &CallExpr) -> Result<(), String> {
    let name = call.func_name.as_str();
    // No user can write the names of operators and of what macros are made of.
    let operator = name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'_');
    let library = call.target.as_ref().and_then(|target| match &target.expr {
        Expr::Ident(prefix) => Some(format!("{prefix}.{name}")),
        _ => None,
    });
    if operator || is_function(name) || library.is_some_and(|library| is_function(&library)) {
        return Ok(());
    }
    Err(format!("compilation failed: undeclared reference to '{name}'"))
}

fn is_function(name: &str) -> bool {
    FUNCTIONS.split(' ').any(|own| own == name)
}

/// Every function that the evaluator has, between blanks.
const FUNCTIONS: &str = "\
    add asApproximateFloat asInteger base64.decode base64.encode bool bytes charAt cidr compareTo \
    contains containsCIDR containsIP distinct double duration dyn endsWith family find findAll first \
    flatten format format.byte format.date format.datetime format.dns1035Label format.dns1035LabelPrefix \
    format.dns1123Label format.dns1123LabelPrefix format.dns1123Subdomain format.dns1123SubdomainPrefix \
    format.labelValue format.named format.qualifiedName format.uri format.uuid getDate getDayOfMonth \
    getDayOfWeek getDayOfYear getEscapedPath getFullYear getHost getHostname getHours getMilliseconds \
    getMinutes getMonth getPort getQuery getScheme getSeconds hasValue indexOf int ip ip.isCanonical \
    isCIDR isCIDRv4 isCIDRv6 isGlobalUnicast isGreaterThan isIP isIPv4 isIPv6 isInteger isLessThan \
    isLinkLocalMulticast isLinkLocalUnicast isLoopback isQuantity isSemver isSorted isURL isUnspecified \
    join jsonpatch.escapeKey last lastIndexOf lists.range lowerAscii major masked matches math.abs \
    math.bitAnd math.bitNot math.bitOr math.bitShiftLeft math.bitShiftRight math.bitXor math.ceil \
    math.floor math.greatest math.isFinite math.isInf math.isNaN math.least math.round math.sign \
    math.sqrt math.trunc max min minor optional.none optional.of optional.ofNonZeroValue or orValue \
    patch prefixLength quantity replace reverse semver sets.contains sets.equivalent sets.intersects \
    sign size slice sort split startsWith string strings.quote sub substring sum timestamp trim type \
    uint upperAscii url validate value";
