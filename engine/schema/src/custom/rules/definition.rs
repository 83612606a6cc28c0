//! What is wrong with the rules of a schema, before any object is there.

use super::analysis::{self, Costs};
use super::compile::{self, compile};
use super::{deep, field_names, known, texts};
use crate::custom::report::Report;
use crate::invalid::FieldError;
use crate::path::Path;
use crate::tree::{Kind, ListType, RuleText, Schema};

/// So many of the dearest rules are named when all of them together are too dear.
const NAMED: usize = 4;

/// What is wrong with the rules of a schema, at the paths of the definition.
pub(in crate::custom) fn check_definition(schema: &Schema, path: &Path<'_>) -> Vec<FieldError> {
    let check = || {
        let mut walk = Walk { report: Report::new(), total: 0, dearest: Vec::new() };
        walk.all(schema, path, Place { correlatable: true, times: Some(1) });
        walk.finish(path)
    };
    deep(check).unwrap_or_else(|| {
        vec![FieldError::invalid(path, &serde_json::Value::Null, "its validation rules could not be compiled")]
    })
}

/// Where a schema stands.
#[derive(Clone, Copy)]
struct Place {
    /// Whether an update can tell which old value a new one replaces.
    correlatable: bool,
    /// How often it can occur in one object; none without a bound.
    times: Option<u64>,
}

/// One schema on its way through the checks.
struct Walk {
    report: Report,
    /// What all rules cost together.
    total: u64,
    dearest: Vec<(u64, FieldError)>,
}

impl Walk {
    /// Checks the rules of a place and of all below.
    fn all(&mut self, schema: &Schema, path: &Path<'_>, place: Place) {
        if self.report.is_full() {
            return;
        }
        let list = path.field("x-kubernetes-validations");
        for (index, rule) in texts(schema).iter().enumerate() {
            self.one(schema, rule, &list.index(index), place);
        }
        for (name, field) in schema.properties().filter(|(_, field)| field.definition().is_none()) {
            self.all(&field, &path.field("properties").key(name), place);
        }
        let Some(inner) = schema.inner() else { return };
        let times = place.times.zip(known::bounded(schema)).map(|(times, most)| times.saturating_mul(most));
        match schema.kind() {
            Kind::List => {
                let keyed = matches!(schema.list_type(), ListType::Map(_));
                let place = Place { correlatable: place.correlatable && keyed, times };
                self.all(&inner, &path.field("items"), place);
            }
            _ => self.all(&inner, &path.field("additionalProperties"), Place { times, ..place }),
        }
    }

    fn one(&mut self, schema: &Schema, rule: &RuleText, path: &Path<'_>, place: Place) {
        if self.report.is_full() {
            return;
        }
        if rule.rule.trim().is_empty() {
            return self.report.push(FieldError::required(&path.field("rule"), "rule is not specified"));
        }
        self.texts(schema, rule, path);
        let invalid =
            |field: &str, value: &str, detail: &str| FieldError::invalid(&path.field(field), &value.into(), detail);
        let compiled = match compile(rule) {
            Err(problem) => return self.report.push(invalid(problem.field, problem.text(rule), &problem.detail)),
            Ok(compiled) => compiled,
        };
        if compiled.transition && !place.correlatable {
            let detail = "oldSelf cannot be used on the uncorrelatable portion of the schema";
            self.report.push(invalid("rule", &rule.rule, detail));
        }
        if rule.optional_old && !compiled.transition {
            let detail = "may not be set if oldSelf is not used in rule";
            self.report.push(FieldError::invalid(&path.field("optionalOldSelf"), &true.into(), detail));
        }
        match analysis::check(&compiled, schema, place.times) {
            Err((field, detail)) => {
                let text = if field == "rule" { &rule.rule } else { &rule.message_expression };
                self.report.push(invalid(field, text, &detail));
            }
            Ok(costs) => self.charge(&costs, path),
        }
    }

    /// What a rule says beside its expressions.
    fn texts(&mut self, schema: &Schema, rule: &RuleText, path: &Path<'_>) {
        if rule.rule.trim().contains('\n') && rule.message.is_empty() && rule.message_expression.is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            self.report.push(FieldError::required(&path.field("message"), detail));
        }
        if rule.message.contains('\n') {
            let detail = "message must not contain line breaks";
            self.report.push(FieldError::invalid(&path.field("message"), &(&*rule.message).into(), detail));
        }
        if compile::reason(&rule.reason).is_none() {
            let known = ["FieldValueRequired", "FieldValueInvalid", "FieldValueForbidden", "FieldValueDuplicate"];
            self.report.push(FieldError::not_supported(&path.field("reason"), &(&*rule.reason).into(), &known));
        }
        let names = field_names(&rule.field_path);
        let known = names.iter().try_fold(schema.clone(), |schema, name| schema.field(name)).is_some();
        if !rule.field_path.is_empty() && (names.is_empty() || !known) {
            let detail = "fieldPath must be a valid path";
            self.report.push(FieldError::invalid(&path.field("fieldPath"), &(&*rule.field_path).into(), detail));
        }
    }

    fn charge(&mut self, costs: &Costs, path: &Path<'_>) {
        for (field, what, cost) in [
            ("rule", "estimated rule cost", costs.rule),
            ("messageExpression", "estimated messageExpression cost", costs.message),
        ] {
            if let Some(detail) = analysis::too_much(what, cost) {
                self.report.push(FieldError::forbidden(&path.field(field), &detail));
            }
            self.total = self.total.saturating_add(cost);
            if cost >= analysis::SCHEMA / 100 {
                let detail =
                    "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
                self.dearest.push((cost, FieldError::forbidden(&path.field(field), detail)));
            }
        }
    }

    fn finish(mut self, path: &Path<'_>) -> Vec<FieldError> {
        if self.total > analysis::SCHEMA {
            self.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            let named = self.dearest.into_iter().take(NAMED).map(|(_, error)| error);
            self.report.extend(named.collect());
            let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
            let detail = analysis::excess(what, self.total, analysis::SCHEMA);
            self.report.push(FieldError::forbidden(path, &detail));
        }
        self.report.finish(path)
    }
}
