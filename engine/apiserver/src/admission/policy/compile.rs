//! Policies and bindings of both sorts as objects say them, and as they are used.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use shipway_schema::{FieldError, Reason};

use super::super::Request;
use super::super::expression::{Program, Scope};
use super::super::rules::{Fit, Rules};
use crate::error::ApiError;

/// The most validations, variables or annotations of one policy.
pub(super) const MOST: usize = 256;

/// Compiled variables by name.
type Variables = HashMap<String, Arc<Program>>;

/// A compiled policy.
pub(in super::super) struct Policy {
    pub(super) name: String,
    pub(super) rules: Result<Rules, String>,
    /// Whether a failure refuses the request.
    pub(super) strict: bool,
    /// `apiVersion` and kind of its parameters.
    pub(super) param_kind: Option<(String, String)>,
    pub(super) conditions: Vec<(String, Result<Program, String>)>,
    pub(super) variables: Arc<Variables>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<(String, Result<Program, String>)>,
    pub(super) mutations: Vec<Mutation>,
    /// Whether its mutations want to see what came after them.
    pub(super) again: bool,
    /// What of it cannot be compiled.
    problems: Vec<(String, String, String)>,
}

/// One mutation of a policy.
pub(super) struct Mutation {
    pub(super) program: Result<Program, String>,
    /// Whether it makes a JSON patch; else a configuration to be merged.
    pub(super) patches: bool,
}

/// One validation of a policy.
pub(super) struct Validation {
    pub(super) expression: String,
    pub(super) program: Result<Program, String>,
    pub(super) message: Option<String>,
    pub(super) message_program: Option<Program>,
    pub(super) reason: Option<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten().take(MOST)
}

impl Policy {
    pub(in super::super) fn parse(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let constraints = &spec["matchConstraints"];
        let rules = Rules::parse(&constraints["resourceRules"], &constraints["excludeResourceRules"], constraints);
        let mut compiler = Compiler { makes: spec["mutations"].is_array(), problems: Vec::new() };
        if let Err(why) = &rules {
            compiler.problems.push(("spec.matchConstraints".into(), String::new(), why.clone()));
        }
        let (variables, names) = compiler.variables(&spec["variables"]);
        let conditions = compiler.named(&spec["matchConditions"], "matchConditions", "name", "expression", &[]);
        let validations =
            list(&spec["validations"]).enumerate().map(|(at, one)| compiler.validation(at, one, &names)).collect();
        let annotations =
            compiler.named(&spec["auditAnnotations"], "auditAnnotations", "key", "valueExpression", &names);
        let kind = &spec["paramKind"];
        Self {
            name: text(&policy["metadata"]["name"]),
            rules,
            strict: spec["failurePolicy"] != "Ignore",
            param_kind: kind.is_object().then(|| (text(&kind["apiVersion"]), text(&kind["kind"]))),
            conditions,
            variables: Arc::new(variables),
            validations,
            annotations,
            mutations: list(&spec["mutations"])
                .enumerate()
                .map(|(at, one)| compiler.mutation(at, one, &names))
                .collect(),
            again: spec["reinvocationPolicy"] == "IfNeeded",
            problems: compiler.problems,
        }
    }
}

/// Compiles, and remembers what could not be: field, expression, why.
struct Compiler {
    /// Whether variables and mutations may make objects.
    makes: bool,
    problems: Vec<(String, String, String)>,
}

impl Compiler {
    fn compile(&mut self, field: String, expression: &Value, names: &[(String, usize)]) -> Result<Program, String> {
        self.compile_in(field, expression, Scope { variables: names, makes: false })
    }

    fn compile_in(&mut self, field: String, expression: &Value, scope: Scope<'_>) -> Result<Program, String> {
        let expression = text(expression);
        let program = Program::compile(&expression, scope);
        if let Err(why) = &program {
            self.problems.push((field, expression, why.clone()));
        }
        program
    }

    /// Each variable may use those before it.
    fn variables(&mut self, variables: &Value) -> (Variables, Vec<(String, usize)>) {
        let (mut compiled, mut names) = (HashMap::new(), Vec::new());
        for (at, one) in list(variables).enumerate() {
            let field = format!("spec.variables[{at}].expression");
            let scope = Scope { variables: &names, makes: self.makes };
            let program = self.compile_in(field, &one["expression"], scope).ok();
            names.push((text(&one["name"]), program.as_ref().map_or(0, |program| program.depth)));
            compiled.extend(program.map(|program| (text(&one["name"]), Arc::new(program))));
        }
        (compiled, names)
    }

    fn named(
        &mut self,
        from: &Value,
        field: &str,
        key: &str,
        expression: &str,
        names: &[(String, usize)],
    ) -> Vec<(String, Result<Program, String>)> {
        let one = |(at, one): (usize, &Value)| {
            let field = format!("spec.{field}[{at}].{expression}");
            (text(&one[key]), self.compile(field, &one[expression], names))
        };
        list(from).enumerate().map(one).collect()
    }

    fn mutation(&mut self, at: usize, one: &Value, names: &[(String, usize)]) -> Mutation {
        let patches = one["patchType"] == "JSONPatch";
        let kind = if patches { "jsonPatch" } else { "applyConfiguration" };
        let field = format!("spec.mutations[{at}].{kind}.expression");
        let scope = Scope { variables: names, makes: self.makes };
        Mutation { program: self.compile_in(field, &one[kind]["expression"], scope), patches }
    }

    fn validation(&mut self, at: usize, one: &Value, names: &[(String, usize)]) -> Validation {
        let field = |name: &str| format!("spec.validations[{at}].{name}");
        let program = self.compile(field("expression"), &one["expression"], names);
        let message = one["messageExpression"].as_str().filter(|text| !text.is_empty());
        let message_program =
            message.and_then(|_| self.compile(field("messageExpression"), &one["messageExpression"], names).ok());
        Validation {
            expression: text(&one["expression"]),
            program,
            message: one["message"].as_str().map(str::to_owned),
            message_program,
            reason: one["reason"].as_str().map(str::to_owned),
        }
    }
}

/// What a binding does about a fault.
#[derive(Clone, Copy)]
pub(super) struct Actions {
    pub(super) deny: bool,
    pub(super) warn: bool,
    pub(super) audit: bool,
}

impl Actions {
    /// As the binding spells them.
    pub(super) fn names(self) -> Vec<&'static str> {
        let all = [(self.deny, "Deny"), (self.warn, "Warn"), (self.audit, "Audit")];
        all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
    }
}

/// A binding as it is used.
#[derive(Clone)]
pub(in super::super) struct Binding {
    pub(super) name: String,
    pub(in super::super) policy: String,
    pub(super) actions: Actions,
    /// `paramRef`, null where there is none.
    pub(super) param: Arc<Value>,
    rules: Option<Arc<Result<Rules, String>>>,
    /// Whether the binding itself names resources; else it takes what the policy takes.
    any: bool,
}

impl Binding {
    pub(in super::super) fn parse(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let own = &spec["matchResources"];
        let acts = |action: &str| list(&spec["validationActions"]).any(|one| one == action);
        let any = own["resourceRules"].as_array().is_none_or(Vec::is_empty);
        let everything =
            serde_json::json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
        let named = if any { &everything } else { &own["resourceRules"] };
        let rules = own.is_object().then(|| Arc::new(Rules::parse(named, &own["excludeResourceRules"], own)));
        Self {
            name: text(&binding["metadata"]["name"]),
            policy: text(&spec["policyName"]),
            actions: Actions { deny: acts("Deny"), warn: acts("Warn"), audit: acts("Audit") },
            param: Arc::new(spec["paramRef"].clone()),
            rules,
            any,
        }
    }

    /// Whether the binding is about the request. One whose selectors cannot be read is about all.
    pub(super) fn concerns(&self, request: &Request<'_>, object: Option<&Value>) -> bool {
        match self.rules.as_deref() {
            None => true,
            Some(Ok(rules)) => !matches!(rules.fit(request, object), Fit::No),
            Some(Err(_)) => self.any,
        }
    }
}

/// Refuses a policy with expressions that cannot be compiled.
pub(in super::super) fn check(request: &Request<'_>, policy: &Value) -> Result<(), ApiError> {
    if request.old.is_some_and(|old| old["spec"] == policy["spec"]) {
        return Ok(());
    }
    let parsed = Policy::parse(policy);
    let errors: Vec<FieldError> = parsed
        .problems
        .into_iter()
        .map(|(field, expression, why)| FieldError {
            field,
            reason: Reason::Invalid,
            message: format!("Invalid value: {expression:?}: compilation failed: {why}"),
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::Invalid(request.place.about_kind(), errors)) }
}
