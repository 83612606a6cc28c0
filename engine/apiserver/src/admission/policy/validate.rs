//! Validating admission policies: what a validation that does not hold leads to is the binding's `validationActions`.
//!
//! All policies are asked, so that warnings and notes are complete; the first refusal is what the client sees.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::Request;
use super::super::expression::{Environment, Seen, aside};
use super::super::webhooks::holds_in;
use super::compile::{Actions, Validation};
use super::{Binding, Invocation, Policy, denial, invocations};
use crate::error::ApiError;

/// The longest message that is shown, in characters.
const MESSAGE: usize = 5 * 1024;
/// The longest note of a policy, in characters.
const NOTE: usize = 10 * 1024;
/// Where the audit log has what bindings with the action `Audit` found.
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What a validation found fault with.
struct Fault {
    message: String,
    reason: Option<String>,
    /// Which validation, counted from 0.
    at: usize,
}

impl Fault {
    fn of_all(message: String) -> Self {
        Self { message, reason: None, at: 0 }
    }
}

/// What has come out so far.
#[derive(Default)]
struct Verdict {
    denial: Option<(String, Fault)>,
    /// For the audit log.
    failures: Vec<Value>,
    /// The values of each policy's annotations.
    notes: BTreeMap<String, Vec<String>>,
}

/// Lets policies refuse a request.
pub(in super::super) fn validate(request: &Request<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    if hooks.policies.iter().all(|(_, bindings)| bindings.is_empty()) {
        return Ok(());
    }
    let verdict = aside(|| {
        let (invocations, misfits) = invocations(request, object, &hooks.policies);
        let (mut verdict, mut seen) = (Verdict::default(), Seen::default());
        for misfit in misfits.into_iter().filter(|misfit| misfit.policy.strict) {
            verdict.deny(who(misfit.policy, misfit.binding), Fault::of_all(misfit.why));
        }
        for invocation in &invocations {
            let base = seen.environment(request, object, invocation.version.as_deref());
            judge(request, invocation, &invocation.environment(request, base), &mut verdict);
        }
        verdict
    });
    verdict.end(request)
}

fn who(policy: &Policy, binding: Option<&Binding>) -> String {
    match binding {
        Some(binding) => format!("ValidatingAdmissionPolicy '{}' with binding '{}'", policy.name, binding.name),
        None => format!("ValidatingAdmissionPolicy '{}'", policy.name),
    }
}

fn judge(request: &Request<'_>, invocation: &Invocation<'_>, environment: &Environment, verdict: &mut Verdict) {
    let policy = invocation.policy;
    match holds_in(environment, &policy.conditions) {
        Ok(true) => {}
        Err(why) if policy.strict => return verdict.act(request, invocation, Fault::of_all(why)),
        Ok(false) | Err(_) => return,
    }
    for (at, validation) in policy.validations.iter().enumerate() {
        if let Some(fault) = fault(at, validation, environment, policy.strict) {
            verdict.act(request, invocation, fault);
        }
    }
    verdict.note(invocation, environment);
}

/// What a validation finds fault with; a failure is a fault where the policy is strict.
fn fault(at: usize, validation: &Validation, environment: &Environment, strict: bool) -> Option<Fault> {
    let result = validation.program.as_ref().map_err(Clone::clone).and_then(|program| environment.test(program));
    let text = validation.expression.trim();
    match result {
        Ok(true) => None,
        Ok(false) => Some(Fault { message: explained(validation, environment), reason: validation.reason.clone(), at }),
        Err(why) => {
            let message = format!("expression '{text}' resulted in error: {why}");
            strict.then_some(Fault { message, reason: None, at })
        }
    }
}

/// The message of a validation that does not hold: what its own expression says, what it says, or the expression.
fn explained(validation: &Validation, environment: &Environment) -> String {
    let made = validation.message_program.as_ref().and_then(|program| environment.text(program).ok().flatten());
    let made = made.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && !text.contains('\n'));
    let given = || validation.message.as_deref().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let message = made.filter(|text| text.len() <= MESSAGE).or_else(given);
    message.unwrap_or_else(|| format!("failed expression: {}", validation.expression.trim()))
}

impl Verdict {
    /// Does what the binding says about a fault.
    fn act(&mut self, request: &Request<'_>, invocation: &Invocation<'_>, fault: Fault) {
        let Invocation { policy, binding, .. } = invocation;
        let Actions { deny, warn, audit } = binding.actions;
        let who = who(policy, Some(binding));
        let message: String = fault.message.chars().take(MESSAGE).collect();
        if audit {
            self.failures.push(json!({
                "message": message,
                "policy": policy.name,
                "binding": binding.name,
                "expressionIndex": fault.at,
                "validationActions": binding.actions.names(),
            }));
        }
        if warn {
            request.call.warn(format!("Validation failed for {who}: {message}"));
        }
        if deny {
            self.deny(who, Fault { message, ..fault });
        }
    }

    fn deny(&mut self, who: String, fault: Fault) {
        self.denial.get_or_insert((who, fault));
    }

    /// Notes what the policy wants to have noted.
    fn note(&mut self, invocation: &Invocation<'_>, environment: &Environment) {
        let Invocation { policy, binding, .. } = invocation;
        for (key, program) in &policy.annotations {
            let value = program.as_ref().map_err(Clone::clone).and_then(|program| environment.text(program));
            match value.map(|value| value.map(|value| value.trim().chars().take(NOTE).collect::<String>())) {
                Ok(Some(value)) if !value.is_empty() => {
                    let values = self.notes.entry(format!("{}/{key}", policy.name)).or_default();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                Ok(_) => {}
                Err(why) if policy.strict => self.deny(who(policy, Some(binding)), Fault::of_all(why)),
                Err(why) => tracing::debug!(policy = policy.name, key, why, "an audit annotation failed"),
            }
        }
    }

    /// Writes the notes down and refuses the request if anybody did.
    fn end(self, request: &Request<'_>) -> Result<(), ApiError> {
        let notes = &request.call.notes;
        for (key, values) in self.notes {
            notes.annotate(key, values.join(", "));
        }
        if !self.failures.is_empty() {
            notes.annotate(FAILURES.into(), Value::from(self.failures).to_string());
        }
        let Some((who, fault)) = self.denial else { return Ok(()) };
        let reason = fault.reason.unwrap_or_else(|| "Invalid".into());
        let code = match reason.as_str() {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        let cause = format!("{who} denied request: {}", fault.message);
        let message = request.forbidden(cause.clone()).to_string();
        Err(denial(request, code, reason, message, &[cause]).into())
    }
}
