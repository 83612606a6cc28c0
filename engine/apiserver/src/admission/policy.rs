//! Admission policies: expressions that judge or change what is written, bound to requests and parameters by bindings.
//!
//! A policy is compiled once per revision. What fails counts as its `failurePolicy` says. Which policies are asked is
//! settled before the first of them is: what one changes does not bring in another.

mod compile;
mod mutate;
mod params;
mod status;
mod validate;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use shipway_schema::Resource;

pub(super) use compile::{Binding, Policy, check};
pub(super) use mutate::{Invoked, mutate};
pub(super) use status::observe;
pub(super) use validate::validate;

use super::Request;
use super::expression::{Environment, aside};
use super::index::Bound;
use super::rules::Fit;
use crate::error::Denial;

/// A policy to be asked about a request, with one parameter of one of its bindings.
struct Invocation<'a> {
    policy: &'a Policy,
    binding: &'a Binding,
    /// The version of the resource that the policy asked for, where that is another one.
    version: Option<Arc<Resource>>,
    param: Value,
}

/// A policy that cannot be asked as it is configured.
struct Misfit<'a> {
    policy: &'a Policy,
    /// None where the policy itself is at fault.
    binding: Option<&'a Binding>,
    why: String,
}

/// Who is to be asked about a request, and who cannot be.
fn invocations<'a>(
    request: &Request<'_>,
    object: Option<&Value>,
    policies: &'a Bound,
) -> (Vec<Invocation<'a>>, Vec<Misfit<'a>>) {
    let (mut invocations, mut misfits) = (Vec::new(), Vec::new());
    for (policy, bindings) in policies {
        let Ok(rules) = &policy.rules else { continue };
        let version = match rules.fit(request, object) {
            Fit::No => continue,
            Fit::Yes => None,
            Fit::As(other) => Some(other),
        };
        for binding in bindings.iter().filter(|binding| binding.concerns(request, object)) {
            match params::of(request, policy, binding) {
                Ok(params) => invocations.extend(params.into_iter().map(|param| Invocation {
                    policy,
                    binding,
                    version: version.clone(),
                    param,
                })),
                Err(missing) => {
                    let binding = missing.by_binding.then_some(binding);
                    misfits.push(Misfit { policy, binding, why: missing.why });
                }
            }
        }
    }
    (invocations, misfits)
}

impl Invocation<'_> {
    /// What the policy's own expressions see.
    fn environment(&self, request: &Request<'_>, base: &Environment) -> Environment {
        let namespace = request.namespace().and_then(|name| request.call.server.namespaces().get(name));
        let namespace = namespace.map_or(Value::Null, |namespace| namespace.value());
        let beside = [("params", self.param.clone()), ("namespaceObject", namespace)];
        base.with(self.policy.variables.clone(), beside)
    }
}

/// A refusal of the request, with all that led to it.
fn denial(request: &Request<'_>, code: u16, reason: String, message: String, causes: &[String]) -> Denial {
    let mut details = Map::new();
    let about = request.about();
    for (field, value) in [("name", about.name), ("group", about.group), ("kind", about.resource)] {
        if !value.is_empty() {
            details.insert(field.into(), value.into());
        }
    }
    let causes: Vec<Value> = causes.iter().map(|message| json!({ "message": message })).collect();
    details.insert("causes".into(), causes.into());
    Denial { code, reason, message, details: Some(details.into()) }
}
