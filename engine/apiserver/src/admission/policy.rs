//! Validating admission policies: expressions that judge requests, bound to requests and parameters by bindings.
//!
//! A policy is compiled once per revision. What fails counts as its `failurePolicy` says; what a failed validation leads
//! to is the binding's `validationActions`.

mod compile;
mod params;

use serde_json::{Map, Value};

use compile::{Actions, Validation};
pub(super) use compile::{Binding, Policy, check};

use super::Request;
use super::expression::Environment;
use super::rules::{self, Fit};
use super::webhooks::holds_in;
use crate::error::{ApiError, Denial};

/// The longest message that is shown, in characters.
const MESSAGE: usize = 5 * 1024;

/// What a validation found fault with.
struct Fault {
    message: String,
    reason: Option<String>,
}

/// Lets policies refuse a request.
pub(super) fn validate(request: &Request<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    if hooks.policies.iter().all(|(_, bindings)| bindings.is_empty()) {
        return Ok(());
    }
    // What is evaluated takes time of its own; the other requests of this thread need not wait for it.
    aside(|| {
        let mut seen = Seen::default();
        for (policy, bindings) in &hooks.policies {
            judge(request, object, policy, bindings, &mut seen)?;
        }
        Ok(())
    })
}

fn aside<T>(work: impl FnOnce() -> T) -> T {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The request as expressions see it, in each version that a policy asked for.
#[derive(Default)]
struct Seen(Vec<(String, Environment)>);

impl Seen {
    fn environment(&mut self, request: &Request<'_>, object: Option<&Value>, fit: &Fit) -> &Environment {
        let version = match fit {
            Fit::As(other) => other.api_version(),
            _ => String::new(),
        };
        let at = self.0.iter().position(|(own, _)| *own == version).unwrap_or_else(|| {
            let made = match fit {
                Fit::As(other) => {
                    let (object, old) = (
                        object.map(|one| rules::convert(other, one)),
                        request.old.map(|one| rules::convert(other, one)),
                    );
                    Environment::of(&Request { old: old.as_ref(), ..*request }, object.as_ref())
                }
                _ => Environment::of(request, object),
            };
            self.0.push((version, made));
            self.0.len() - 1
        });
        &self.0[at].1
    }
}

fn judge(
    request: &Request<'_>,
    object: Option<&Value>,
    policy: &Policy,
    bindings: &[Binding],
    seen: &mut Seen,
) -> Result<(), ApiError> {
    let fit = match &policy.rules {
        Ok(rules) => rules.fit(request, object),
        Err(_) => Fit::No,
    };
    if matches!(fit, Fit::No) {
        return Ok(());
    }
    let meant = bindings.iter().filter(|binding| binding.concerns(request, object));
    for binding in meant {
        let base = seen.environment(request, object, &fit);
        let params = match params::of(request, policy, binding) {
            Ok(params) => params,
            Err(why) => {
                fail(request, policy, binding, why)?;
                continue;
            }
        };
        for param in params {
            let namespace = request.namespace().and_then(|name| request.call.server.namespaces().get(name));
            let namespace = namespace.map_or(Value::Null, |namespace| namespace.value());
            let beside = [("params", param), ("namespaceObject", namespace)];
            let environment = base.with(policy.variables.clone(), beside);
            match holds_in(&environment, &policy.conditions) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    fail(request, policy, binding, why)?;
                    continue;
                }
            }
            for fault in policy.validations.iter().filter_map(|one| fault(one, &environment, policy.strict)) {
                act(request, policy, binding, fault)?;
            }
            annotate(request, policy, &environment);
        }
    }
    Ok(())
}

/// What a validation finds fault with; a failure is a fault where the policy is strict.
fn fault(validation: &Validation, environment: &Environment, strict: bool) -> Option<Fault> {
    let result = validation.program.as_ref().map_err(Clone::clone).and_then(|program| environment.test(program));
    let text = validation.expression.trim();
    match result {
        Ok(true) => None,
        Ok(false) => Some(Fault { message: explained(validation, environment), reason: validation.reason.clone() }),
        Err(why) => {
            strict.then(|| Fault { message: format!("expression '{text}' resulted in error: {why}"), reason: None })
        }
    }
}

/// The message of a validation that does not hold: what its own expression says, what it says, or the expression.
fn explained(validation: &Validation, environment: &Environment) -> String {
    let made = validation.message_program.as_ref().and_then(|program| environment.text(program).ok().flatten());
    let made = made.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && !text.contains('\n'));
    let given = || validation.message.clone().filter(|text| !text.is_empty());
    let message = made.filter(|text| text.len() <= MESSAGE).or_else(given);
    message.unwrap_or_else(|| format!("failed expression: {}", validation.expression.trim()))
}

fn fail(request: &Request<'_>, policy: &Policy, binding: &Binding, why: String) -> Result<(), ApiError> {
    if policy.strict { act(request, policy, binding, Fault { message: why, reason: None }) } else { Ok(()) }
}

/// Does what the binding says about a fault.
fn act(request: &Request<'_>, policy: &Policy, binding: &Binding, fault: Fault) -> Result<(), ApiError> {
    let Actions { deny, warn, audit } = binding.actions;
    let who = format!("ValidatingAdmissionPolicy '{}' with binding '{}'", policy.name, binding.name);
    let message: String = fault.message.chars().take(MESSAGE).collect();
    if audit {
        tracing::info!(policy = policy.name, binding = binding.name, message, "a policy found fault");
    }
    if warn {
        request.call.warn(format!("Validation failed for {who}: {message}"));
    }
    if !deny {
        return Ok(());
    }
    let reason = fault.reason.unwrap_or_else(|| "Invalid".into());
    let code = match reason.as_str() {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let text = request.forbidden(format!("{who} denied request: {message}"));
    let mut details = Map::new();
    let about = request.about();
    for (field, value) in [("name", about.name), ("group", about.group), ("kind", about.resource)] {
        if !value.is_empty() {
            details.insert(field.into(), value.into());
        }
    }
    details.insert("causes".into(), serde_json::json!([{ "message": text.to_string() }]));
    Err(Denial { code, reason, message: text.to_string(), details: Some(details.into()) }.into())
}

/// Notes what the policy wants to have noted.
fn annotate(request: &Request<'_>, policy: &Policy, environment: &Environment) {
    for (key, program) in &policy.annotations {
        let value = program.as_ref().map_err(Clone::clone).and_then(|program| environment.text(program));
        match value {
            Ok(Some(value)) => {
                let object = request.place.key();
                tracing::info!(policy = policy.name, object, key, value, "audit annotation");
            }
            Ok(None) => {}
            Err(why) => tracing::debug!(policy = policy.name, key, why, "an audit annotation failed"),
        }
    }
}
