//! What can be told of an expression before it runs, from the schemas of what it reads: fields that no object has, and
//! comparisons that can never be made. It only ever warns; what it does not know it lets pass.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators};
use shipway_schema::{Kind, Schema};

use super::parse;
use super::rewrite::unescape;

/// How deep an expression is looked into.
const DEPTH: usize = 80;
const COMPARISONS: [&str; 6] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
];

/// What is known of a value.
#[derive(Clone)]
pub(in super::super) enum Type {
    /// Nothing.
    Any,
    /// It has this shape.
    Shaped(Schema),
    Bool,
    Int,
    Text,
}

impl Type {
    fn of(schema: Schema) -> Self {
        match (schema.kind(), schema.format()) {
            (Kind::Boolean, _) => Self::Bool,
            (Kind::Integer, _) => Self::Int,
            (Kind::String, None) => Self::Text,
            (Kind::Object | Kind::Map | Kind::List, _) => Self::Shaped(schema),
            _ => Self::Any,
        }
    }

    /// What its items are, or its keys.
    fn items(&self) -> Self {
        match self {
            Self::Shaped(schema) if schema.kind() == Kind::List => schema.inner().map_or(Self::Any, Self::of),
            Self::Shaped(_) => Self::Text,
            _ => Self::Any,
        }
    }

    /// What an index leads to.
    fn at(&self) -> Self {
        match self {
            Self::Shaped(schema) if matches!(schema.kind(), Kind::List | Kind::Map) => {
                schema.inner().map_or(Self::Any, Self::of)
            }
            _ => Self::Any,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Any => "dyn",
            Self::Shaped(schema) if schema.kind() == Kind::List => "list",
            Self::Shaped(_) => "object",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Text => "string",
        }
    }
}

/// An expression as it is looked through.
pub(in super::super) struct Parsed {
    text: String,
    tree: IdedExpr,
}

impl Parsed {
    /// None for what cannot be parsed.
    pub(in super::super) fn of(text: &str) -> Option<Self> {
        parse(text).ok().map(|tree| Self { text: text.to_owned(), tree })
    }
}

/// Looks through the expressions of one policy.
#[derive(Default)]
pub(in super::super) struct Checker {
    /// What can be named, inner names last.
    names: Vec<(String, Type)>,
    /// The policy's variables.
    variables: Vec<(String, Type)>,
    text: String,
    problems: Vec<String>,
}

impl Checker {
    pub(in super::super) fn name(&mut self, name: &str, schema: Option<Schema>) {
        self.names.push((name.to_owned(), schema.map_or(Type::Any, Type::of)));
    }

    /// Learns what a variable is from its expression.
    pub(in super::super) fn variable(&mut self, name: &str, parsed: &Parsed) {
        let known = self.look_at(parsed);
        self.problems.clear();
        self.variables.push((name.to_owned(), known));
    }

    /// What is wrong with an expression, each with its place.
    pub(in super::super) fn check(&mut self, parsed: &Parsed) -> Vec<String> {
        self.look_at(parsed);
        std::mem::take(&mut self.problems)
    }

    fn look_at(&mut self, parsed: &Parsed) -> Type {
        self.text.clone_from(&parsed.text);
        self.walk(&parsed.tree, 0)
    }

    fn walk(&mut self, node: &IdedExpr, depth: usize) -> Type {
        if depth > DEPTH {
            return Type::Any;
        }
        match &node.expr {
            Expr::Ident(name) => find(&self.names, name),
            Expr::Literal(LiteralValue::Boolean(_)) => Type::Bool,
            Expr::Literal(LiteralValue::Int(_)) => Type::Int,
            Expr::Literal(LiteralValue::String(_)) => Type::Text,
            Expr::Select(select) => self.select(select, depth),
            Expr::Call(call) => self.call(call, depth),
            Expr::List(list) => {
                list.elements.iter().for_each(|item| drop(self.walk(item, depth + 1)));
                Type::Any
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.walk(&entry.key, depth + 1);
                        self.walk(&entry.value, depth + 1);
                    }
                }
                Type::Any
            }
            Expr::Comprehension(each) => self.comprehension(each, depth),
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => Type::Any,
        }
    }

    fn select(&mut self, select: &SelectExpr, depth: usize) -> Type {
        let field = unescape(&select.field);
        if matches!(&select.operand.expr, Expr::Ident(name) if name == "variables") {
            return find(&self.variables, &field);
        }
        let found = match self.walk(&select.operand, depth + 1) {
            Type::Any => Type::Any,
            Type::Shaped(schema) if matches!(schema.kind(), Kind::Object | Kind::Map) => match schema.field(&field) {
                Some(inner) => Type::of(inner),
                None if schema.kind() == Kind::Map || schema.preserves_unknown() => Type::Any,
                None => self.fault(&select.field, &format!("undefined field '{}'", select.field)),
            },
            other => {
                let why = format!("type '{}' does not support field selection", other.name());
                self.fault(&select.field, &why)
            }
        };
        if select.test { Type::Bool } else { found }
    }

    fn call(&mut self, call: &CallExpr, depth: usize) -> Type {
        if let Some(target) = &call.target {
            self.walk(target, depth + 1);
        }
        let args: Vec<Type> = call.args.iter().map(|arg| self.walk(arg, depth + 1)).collect();
        match (call.func_name.as_str(), args.as_slice()) {
            (operators::INDEX, [value, _]) => value.at(),
            (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, _) => Type::Bool,
            (name, [left, right]) if COMPARISONS.contains(&name) => {
                let plain = |of: &Type| matches!(of, Type::Bool | Type::Int | Type::Text);
                if plain(left) && plain(right) && left.name() != right.name() {
                    let (left, right) = (left.name(), right.name());
                    self.problem(0, &format!("found no matching overload for '{name}' applied to '({left}, {right})'"));
                }
                Type::Bool
            }
            _ => Type::Any,
        }
    }

    fn comprehension(&mut self, each: &ComprehensionExpr, depth: usize) -> Type {
        let items = self.walk(&each.iter_range, depth + 1).items();
        self.walk(&each.accu_init, depth + 1);
        let outside = self.names.len();
        self.names.push((each.iter_var.clone(), if each.iter_var2.is_some() { Type::Any } else { items }));
        self.names.extend(each.iter_var2.clone().map(|name| (name, Type::Any)));
        self.names.push((each.accu_var.clone(), Type::Any));
        for part in [&each.loop_cond, &each.loop_step, &each.result] {
            self.walk(part, depth + 1);
        }
        self.names.truncate(outside);
        Type::Any
    }

    /// Notes a fault of a field where it is first named.
    fn fault(&mut self, field: &str, why: &str) -> Type {
        let named = |at: &(usize, &str)| {
            let after = self.text[at.0 + at.1.len()..].chars().next();
            !after.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
        };
        let pattern = format!(".{field}");
        let at = self.text.match_indices(&pattern).find(named).map_or(0, |(at, _)| at);
        self.problem(at, why);
        Type::Any
    }

    /// `ERROR: <input>:1:7: ...` with the line and a mark below it.
    fn problem(&mut self, at: usize, why: &str) {
        let before = &self.text[..at];
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let shown = self.text.lines().nth(line).unwrap_or_default();
        let dots = ".".repeat(column);
        let text = format!("ERROR: <input>:{}:{}: {why}\n | {shown}\n | {dots}^", line + 1, column + 1);
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }
}

fn find(names: &[(String, Type)], name: &str) -> Type {
    names.iter().rev().find(|(own, _)| own == name).map_or(Type::Any, |(_, known)| known.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipway_schema::Registry;

    fn problems(text: &str) -> Vec<String> {
        let registry = Registry::builtin();
        let mut checker = Checker::default();
        checker.name("object", registry.of_kind("apps/v1", "Deployment").map(|kind| kind.schema().clone()));
        checker.variable("pod", &Parsed::of("object.spec.template.spec").unwrap());
        checker.check(&Parsed::of(text).unwrap())
    }

    #[test]
    fn what_no_object_has_is_told_with_its_place() {
        let expected = "ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^";
        assert_eq!(problems("object.replicas > 1"), [expected]);
        let table = [
            ("object.spec.template.spec.containers.all(c, c.imag != '')", "1:46: undefined field 'imag'"),
            ("true &&\n object.spec.replica == 1", "2:13: undefined field 'replica'"),
            ("variables.pod.container[0].name == 'a'", "undefined field 'container'"),
            ("object.spec.replicas.x == 1", "type 'int' does not support field selection"),
            ("object.metadata.name > 1", "found no matching overload for '_>_' applied to '(string, int)'"),
            ("has(object.spek)", "undefined field 'spek'"),
        ];
        for (text, part) in table {
            let found = problems(text);
            assert!(found.len() == 1 && found[0].contains(part), "{text} {found:?}");
        }
    }

    #[test]
    fn what_may_be_is_let_pass() {
        for text in [
            "object.spec.replicas <= 5 && has(object.spec.paused)",
            "object.metadata.labels.anything == 'x' && object.metadata.labels['y'] == 'z'",
            "object.spec.template.spec.containers.exists(c, c.image.contains(':') && c.resources.limits['cpu'] == '1')",
            "object.metadata.labels.all(key, key.startsWith('x'))",
            "variables.pod.containers.map(object, object.name).size() > 0 && variables.unknown.x",
            "request.anything.at == all && object.?spec.orValue(1) == 2",
            "object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z')",
        ] {
            assert_eq!(problems(text), Vec::<String>::new(), "{text}");
        }
    }
}
