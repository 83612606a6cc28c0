//! Mutating admission policies: configurations to be merged over what is written, and JSON patches.
//!
//! Nobody comes to own what a policy sets; it belongs to whoever made the request, as with webhooks.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value;
use shipway_schema::Resource;
use shipway_schema::patch::{PatchError, json_patch, overlay};

use super::super::Request;
use super::super::change::{self, Unfit};
use super::super::expression::{Environment, Seen, aside};
use super::super::rules;
use super::super::webhooks::holds_in;
use super::compile::Mutation;
use super::{Invocation, Misfit, denial, invocations};
use crate::error::ApiError;
use crate::meta;

/// Policy, binding, and the parameter's namespace and name.
type Key = (String, String, String);

/// Which policies have run.
#[derive(Default)]
pub(in super::super) struct Invoked {
    /// Those that want to run again when something came after them.
    again: HashSet<Key>,
    /// Whether any did.
    pub(in super::super) any: bool,
}

/// Lets policies change an object; in a second round only those that ran before and asked for it.
pub(in super::super) fn mutate(
    request: &Request<'_>,
    object: &mut Value,
    before: Option<&Invoked>,
) -> Result<Invoked, ApiError> {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    if hooks.mutating_policies.iter().all(|(_, bindings)| bindings.is_empty()) {
        return Ok(Invoked::default());
    }
    aside(|| {
        let (invocations, misfits) = invocations(request, Some(object), &hooks.mutating_policies);
        let misfits = misfits.into_iter().filter(|misfit| misfit.policy.strict);
        let mut faults: Vec<(String, &str)> = misfits.map(|misfit| (denied(&misfit), "Forbidden")).collect();
        let (mut invoked, mut seen) = (Invoked::default(), Seen::default());
        for invocation in &invocations {
            let key = key(invocation);
            if before.is_some_and(|before| !before.again.contains(&key)) {
                continue;
            }
            // The object is another one each time.
            let base = seen.environment(request, None, invocation.version.as_deref());
            let environment = invocation.environment(request, base).seeing(&shown(request, object, invocation));
            match holds_in(&environment, &invocation.policy.conditions) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    faults.extend(fault(invocation, why));
                    continue;
                }
            }
            run(request, object, invocation, environment, &mut faults)?;
            invoked.any = true;
            if invocation.policy.again {
                invoked.again.insert(key);
            }
        }
        refuse(request, &faults)?;
        Ok(invoked)
    })
}

/// Applies the mutations of a policy one after the other; each sees what those before it did.
fn run(
    request: &Request<'_>,
    object: &mut Value,
    invocation: &Invocation<'_>,
    mut environment: Environment,
    faults: &mut Vec<(String, &str)>,
) -> Result<(), ApiError> {
    let mut seen = true;
    for mutation in &invocation.policy.mutations {
        if !std::mem::replace(&mut seen, true) {
            environment = environment.seeing(&shown(request, object, invocation));
        }
        match apply(request, object, invocation.version.as_deref(), mutation, &environment) {
            Ok(next) => {
                *object = next;
                seen = false;
            }
            Err(Unfit::Edit(why)) => faults.extend(fault(invocation, why)),
            Err(Unfit::Result(why)) => return Err(ApiError::Internal(why)),
        }
    }
    Ok(())
}

/// What the policy is shown of the object.
fn shown<'a>(request: &Request<'_>, object: &'a Value, invocation: &Invocation<'_>) -> Cow<'a, Value> {
    rules::shown(request, object, invocation.version.as_deref())
}

fn apply(
    request: &Request<'_>,
    object: &Value,
    version: Option<&Resource>,
    mutation: &Mutation,
    environment: &Environment,
) -> Result<Value, Unfit> {
    let program = mutation.program.as_ref().map_err(|why| Unfit::Edit(why.clone()))?;
    let made = environment.json(program).map_err(Unfit::Edit)?;
    change::change(request, object, version, true, |shown| {
        if mutation.patches { patch(shown, &made) } else { merge(request, shown, made, version) }
    })
}

fn patch(shown: &mut Value, made: &Value) -> Result<(), String> {
    match json_patch(shown, made) {
        // What a test finds different is left alone.
        Ok(()) | Err(PatchError::TestFailed { .. }) => Ok(()),
        Err(error) => Err(format!("JSONPatch: {error}")),
    }
}

fn merge(request: &Request<'_>, shown: &mut Value, mut made: Value, version: Option<&Resource>) -> Result<(), String> {
    let failed = |why: String| format!("error applying patch: {why}");
    let shape = change::shape(request, version).ok_or_else(|| failed("the kind has no schema".into()))?;
    if let Some(fields) = made.as_object_mut() {
        for field in ["apiVersion", "kind"] {
            fields.extend(shown.get(field).map(|own| (field.to_owned(), own.clone())));
        }
    }
    *shown = overlay(&shape, shown, &made).map_err(|error| failed(format!("invalid ApplyConfiguration: {error}")))?;
    Ok(())
}

fn key(invocation: &Invocation<'_>) -> Key {
    let param = format!("{}/{}", meta::text(&invocation.param, "namespace"), meta::text(&invocation.param, "name"));
    (invocation.policy.name.clone(), invocation.binding.name.clone(), param)
}

/// A failure where the policy is strict.
fn fault(invocation: &Invocation<'_>, why: String) -> Option<(String, &'static str)> {
    let Invocation { policy, binding, .. } = invocation;
    let misfit = Misfit { policy, binding: Some(binding), why };
    policy.strict.then(|| (denied(&misfit), "Invalid"))
}

fn denied(misfit: &Misfit<'_>) -> String {
    let (policy, why) = (&misfit.policy.name, &misfit.why);
    match misfit.binding {
        Some(binding) => format!("policy '{policy}' with binding '{}' denied request: {why}", binding.name),
        None => format!("policy {policy:?} denied request: {why}"),
    }
}

fn refuse(request: &Request<'_>, faults: &[(String, &str)]) -> Result<(), ApiError> {
    let Some((message, reason)) = faults.first() else { return Ok(()) };
    let causes: Vec<String> = faults.iter().map(|(message, _)| message.clone()).collect();
    Err(denial(request, 403, (*reason).to_owned(), message.clone(), &causes).into())
}
