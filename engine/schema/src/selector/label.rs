//! Label selectors: `a=b,c!=d,e in (x,y),f notin (z),g,!h`, and the same as `matchLabels` and `matchExpressions`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::SelectorError;
use crate::names;

/// How the value of a label is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
}

/// A set of conditions on labels, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    /// `None` selects nothing; an empty list selects everything.
    requirements: Option<Vec<Requirement>>,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self { requirements: Some(Vec::new()) }
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// The conditions; empty both for everything and for nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    /// Reads the form of a query parameter; the empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { text, rest: text }.selector()
    }

    /// Reads a `LabelSelector` object: `null` selects nothing, `{}` everything.
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        let selector = match selector {
            Value::Null => return Ok(Self::nothing()),
            Value::Object(selector) => selector,
            _ => return Err(shape("", "must be an object")),
        };
        let mut requirements = Vec::new();
        match selector.get("matchLabels") {
            None | Some(Value::Null) => {}
            Some(Value::Object(labels)) => equalities(labels, "matchLabels", &mut requirements)?,
            Some(_) => return Err(shape("matchLabels", "must be an object")),
        }
        match selector.get("matchExpressions") {
            None | Some(Value::Null) => {}
            Some(Value::Array(expressions)) => {
                for (at, expression) in expressions.iter().enumerate() {
                    requirements.push(Requirement::from_expression(expression, at)?);
                }
            }
            Some(_) => return Err(shape("matchExpressions", "must be a list")),
        }
        Ok(Self { requirements: Some(requirements) })
    }

    /// Reads a plain map of labels, such as the selector of a Service; an empty one selects everything.
    pub fn from_labels(labels: &Map<String, Value>) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        equalities(labels, "selector", &mut requirements)?;
        Ok(Self { requirements: Some(requirements) })
    }

    /// Whether an object is selected whose labels `label` looks up.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.as_ref().is_some_and(|all| all.iter().all(|one| one.matches(label(&one.key))))
    }
}

fn equalities(labels: &Map<String, Value>, field: &str, into: &mut Vec<Requirement>) -> Result<(), SelectorError> {
    for (key, value) in labels {
        let Value::String(value) = value else {
            return Err(shape(&format!("{field}[{key}]"), "must be a string"));
        };
        into.push(Requirement::new(key, Operator::In(BTreeSet::from([value.clone()])))?);
    }
    Ok(())
}

fn shape(field: &str, reason: &'static str) -> SelectorError {
    let field = if field.is_empty() { "." } else { field };
    SelectorError::Shape { field: field.to_owned(), reason }
}

impl Requirement {
    fn new(key: &str, operator: Operator) -> Result<Self, SelectorError> {
        names::qualified_name(key).map_err(|reason| SelectorError::Key { key: key.to_owned(), reason })?;
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            if values.is_empty() {
                return Err(SelectorError::Values { key: key.to_owned(), reason: "needs at least one value" });
            }
            for value in values {
                names::label_value(value).map_err(|reason| SelectorError::Value {
                    key: key.to_owned(),
                    value: value.clone(),
                    reason,
                })?;
            }
        }
        Ok(Self { key: key.to_owned(), operator })
    }

    fn from_expression(expression: &Value, at: usize) -> Result<Self, SelectorError> {
        let field = |name: &str| format!("matchExpressions[{at}]{name}");
        let text = |name: &str| expression.get(name).and_then(Value::as_str);
        let key = text("key").ok_or_else(|| shape(&field(".key"), "must be a string"))?;
        let values = match expression.get("values") {
            None | Some(Value::Null) => BTreeSet::new(),
            Some(Value::Array(values)) => {
                let texts = values.iter().map(|value| value.as_str().map(ToOwned::to_owned)).collect::<Option<_>>();
                texts.ok_or_else(|| shape(&field(".values"), "must hold strings"))?
            }
            Some(_) => return Err(shape(&field(".values"), "must be a list")),
        };
        let bare = |operator: Operator| {
            let reason = "takes no values";
            if values.is_empty() { Ok(operator) } else { Err(SelectorError::Values { key: key.to_owned(), reason }) }
        };
        let operator = match text("operator") {
            Some("In") => Operator::In(values),
            Some("NotIn") => Operator::NotIn(values),
            Some("Exists") => bare(Operator::Exists)?,
            Some("DoesNotExist") => bare(Operator::DoesNotExist)?,
            Some("Gt") => Operator::GreaterThan(only_number(key, &values)?),
            Some("Lt") => Operator::LessThan(only_number(key, &values)?),
            _ => return Err(shape(&field(".operator"), "must be In, NotIn, Exists or DoesNotExist")),
        };
        Self::new(key, operator)
    }

    /// The label that is looked at.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The one value that the label must have, where there is but one.
    pub fn equals(&self) -> Option<&str> {
        match &self.operator {
            Operator::In(values) if values.len() == 1 => values.first().map(String::as_str),
            _ => None,
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(than) => number().is_some_and(|number| number > *than),
            Operator::LessThan(than) => number().is_some_and(|number| number < *than),
        }
    }
}

fn only_number(key: &str, values: &BTreeSet<String>) -> Result<i64, SelectorError> {
    let mut values = values.iter();
    match (values.next(), values.next()) {
        (Some(value), None) => number(key, value),
        _ => Err(SelectorError::Values { key: key.to_owned(), reason: "takes exactly one value, a whole number" }),
    }
}

fn number(key: &str, value: &str) -> Result<i64, SelectorError> {
    value.parse().map_err(|_| SelectorError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        reason: "must be a whole number".to_owned(),
    })
}

/// Reads the text from left to right; `rest` is what is not read yet.
struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        self.space();
        if self.rest.is_empty() {
            return Ok(LabelSelector::everything());
        }
        loop {
            requirements.push(self.requirement()?);
            if self.rest.is_empty() {
                return Ok(LabelSelector { requirements: Some(requirements) });
            }
            if !self.take(",") {
                return Err(self.unexpected("',' or the end"));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take("!") {
            let key = self.key()?;
            return Requirement::new(key, Operator::DoesNotExist);
        }
        let key = self.key()?;
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Requirement::new(key, Operator::Exists);
        }
        let operator = if self.take("!=") {
            Operator::NotIn(BTreeSet::from([self.word().to_owned()]))
        } else if self.take("==") || self.take("=") {
            Operator::In(BTreeSet::from([self.word().to_owned()]))
        } else if self.take(">") {
            Operator::GreaterThan(number(key, self.word())?)
        } else if self.take("<") {
            Operator::LessThan(number(key, self.word())?)
        } else {
            self.set_operator()?
        };
        Requirement::new(key, operator)
    }

    fn set_operator(&mut self) -> Result<Operator, SelectorError> {
        const EXPECTED: &str = "one of = == != in notin > < ',' or the end";
        let before = self.rest;
        match self.word() {
            "in" => Ok(Operator::In(self.values()?)),
            "notin" => Ok(Operator::NotIn(self.values()?)),
            _ => {
                self.rest = before;
                Err(self.unexpected(EXPECTED))
            }
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if !self.take("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = BTreeSet::new();
        if self.take(")") {
            return Ok(values);
        }
        loop {
            values.insert(self.word().to_owned());
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
    }

    fn key(&mut self) -> Result<&'a str, SelectorError> {
        match self.word() {
            "" => Err(self.unexpected("a label key")),
            key => Ok(key),
        }
    }

    fn word(&mut self) -> &'a str {
        let stop = |c: char| c.is_whitespace() || "=!(),<>".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(stop).unwrap_or(self.rest.len()));
        self.rest = rest;
        self.space();
        word
    }

    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else {
            return false;
        };
        self.rest = rest;
        self.space();
        true
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unexpected(&self, expected: &'static str) -> SelectorError {
        let found = match self.rest {
            "" => "the end".to_owned(),
            rest => format!("{rest:?}"),
        };
        SelectorError::Syntax { selector: self.text.to_owned(), found, expected }
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for LabelSelector {
    /// The form of a query parameter; `<none>` for the selector of nothing, which has no such form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(requirements) = &self.requirements else {
            return f.write_str("<none>");
        };
        for (at, requirement) in requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let set = |f: &mut fmt::Formatter<'_>, sign: &str, word: &str, values: &BTreeSet<String>| {
            let listed: Vec<&str> = values.iter().map(String::as_str).collect();
            match listed.as_slice() {
                [only] => write!(f, "{key}{sign}{only}"),
                several => write!(f, "{key} {word} ({})", several.join(",")),
            }
        };
        match &self.operator {
            Operator::In(values) => set(f, "=", "in", values),
            Operator::NotIn(values) => set(f, "!=", "notin", values),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(than) => write!(f, "{key}>{than}"),
            Operator::LessThan(than) => write!(f, "{key}<{than}"),
        }
    }
}

#[cfg(test)]
mod tests;
