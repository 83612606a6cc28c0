//! Webhooks: those that change objects one after the other, those that only judge all at once.
//!
//! Each has its own time; one that hangs costs that and no more, and one that fails is treated as its `failurePolicy`
//! says. Which requests a webhook gets is decided here; how it is reached is `webhook`'s business.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use shipway_schema::patch::json_patch;
use shipway_schema::{FieldError, Reason, Resource, apply_defaults, check_types, prune};

use super::expression::{Environment, Program};
use super::review::{self, Answer};
use super::rules::{self, Fit, Rules};
use super::{Request, run_mutators};
use crate::error::ApiError;
use crate::meta;
use crate::webhook::ClientConfig;

/// What a webhook gets when it does not say, and at most.
const TIMEOUT: u64 = 10;
const TIMEOUT_MOST: u64 = 30;
/// The most conditions of one webhook.
const CONDITIONS: usize = 64;

/// One webhook as it is configured.
pub(super) struct Hook {
    name: String,
    client: Result<ClientConfig, String>,
    rules: Result<Rules, String>,
    conditions: Vec<(String, Result<Program, String>)>,
    /// Whether a failure refuses the request.
    strict: bool,
    timeout: Duration,
    /// Whether it wants to see what later ones changed.
    again: bool,
    /// Whether it may be called for a dry run.
    harmless: bool,
}

impl Hook {
    /// All webhooks of a configuration.
    pub(super) fn all_of(configuration: &Value) -> Vec<Self> {
        configuration["webhooks"].as_array().into_iter().flatten().map(Self::parse).collect()
    }

    fn parse(hook: &Value) -> Self {
        let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT).clamp(1, TIMEOUT_MOST);
        let v1 = hook["admissionReviewVersions"].as_array().is_none_or(|all| all.iter().any(|one| one == "v1"));
        let client = ClientConfig::parse(&hook["clientConfig"]).map_err(|error| error.to_string());
        Self {
            name: hook["name"].as_str().unwrap_or_default().to_owned(),
            client: if v1 {
                client
            } else {
                Err("admissionReviewVersions has no version that this server speaks".into())
            },
            rules: Rules::parse(&hook["rules"], &Value::Null, hook),
            conditions: conditions(&hook["matchConditions"]),
            strict: hook["failurePolicy"] != "Ignore",
            timeout: Duration::from_secs(seconds),
            again: hook["reinvocationPolicy"] == "IfNeeded",
            harmless: matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
        }
    }

    /// Whether the webhook is to be called, and in which version of the resource.
    fn fit(&self, request: &Request<'_>, object: Option<&Value>) -> Result<Fit, ApiError> {
        // Rules that cannot be read are refused when they are written.
        let Ok(rules) = &self.rules else { return Ok(Fit::No) };
        let fit = rules.fit(request, object);
        if matches!(fit, Fit::No) || !holds(request, object, &self.conditions, self.strict)? {
            return Ok(Fit::No);
        }
        if request.dry_run && !self.harmless {
            return Err(ApiError::BadRequest(format!("admission webhook {:?} does not support dry run", self.name)));
        }
        Ok(fit)
    }

    /// Asks the webhook; none when it failed and that does not matter.
    async fn call(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        resource: Option<&Resource>,
    ) -> Result<Option<Answer>, ApiError> {
        let uid = uuid::Uuid::new_v4().to_string();
        let asked = review::ask(request, object, resource, &uid);
        let reply = match &self.client {
            Ok(client) => {
                let called = request.call.server.webhooks().call(client, &asked, self.timeout).await;
                called.map_err(|error| format!("failed to call webhook: {error}"))
            }
            Err(why) => Err(format!("could not get REST client: {why}")),
        };
        match reply.and_then(|reply| review::read(&reply, &uid, &self.name)) {
            Ok(answer) => {
                answer.warnings.iter().for_each(|warning| request.call.warn(warning.clone()));
                Ok(Some(answer))
            }
            Err(why) => self.failed(&why).map(|()| None),
        }
    }

    fn failed(&self, why: &str) -> Result<(), ApiError> {
        let text = format!("failed calling webhook {:?}: {why}", self.name);
        if self.strict {
            return Err(ApiError::Internal(text));
        }
        tracing::warn!(webhook = self.name, why, "a webhook failed and is ignored");
        Ok(())
    }
}

/// Reads `matchConditions`.
pub(super) fn conditions(list: &Value) -> Vec<(String, Result<Program, String>)> {
    let conditions = list.as_array().into_iter().flatten().take(CONDITIONS);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    conditions.map(|one| (text(&one["name"]), Program::compile(&text(&one["expression"]), &[]))).collect()
}

/// Whether all conditions hold. One that does not settles it; else one that fails refuses the request, or, where that
/// does not matter, counts as one that does not hold.
fn holds(
    request: &Request<'_>,
    object: Option<&Value>,
    conditions: &[(String, Result<Program, String>)],
    strict: bool,
) -> Result<bool, ApiError> {
    if conditions.is_empty() {
        return Ok(true);
    }
    match holds_in(&Environment::of(request, object), conditions) {
        Ok(holds) => Ok(holds),
        Err(why) if strict => Err(request.forbidden(why)),
        Err(_) => Ok(false),
    }
}

/// Whether all conditions hold in an environment.
pub(super) fn holds_in(
    environment: &Environment,
    conditions: &[(String, Result<Program, String>)],
) -> Result<bool, String> {
    let mut failed = None;
    for (name, condition) in conditions {
        let result = condition.as_ref().map_err(Clone::clone).and_then(|condition| environment.test(condition));
        match result {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => failed = failed.or(Some(format!("match condition {name:?} failed: {why}"))),
        }
    }
    failed.map_or(Ok(true), Err)
}

/// Lets webhooks change an object, in the order of their configurations' names. When later ones changed it, earlier ones
/// that asked for it are called once more. Says whether any changed it.
pub(super) async fn mutate(request: &Request<'_>, mut object: Option<&mut Value>) -> Result<bool, ApiError> {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    // How often the object had changed when a webhook was called for the first time.
    let mut called: Vec<(Arc<Hook>, usize)> = Vec::new();
    let mut changes = 0;
    for hook in &hooks.mutating {
        if let Some(changed) = run(request, hook, object.as_deref_mut()).await? {
            changes += usize::from(changed);
            called.push((hook.clone(), changes));
        }
    }
    if changes == 0 {
        return Ok(false);
    }
    if let Some(object) = object.as_deref_mut() {
        let before = object.clone();
        run_mutators(request, object)?;
        changes += usize::from(*object != before);
    }
    for (hook, seen) in called {
        if hook.again && seen < changes {
            run(request, &hook, object.as_deref_mut()).await?;
        }
    }
    Ok(true)
}

/// Calls one webhook; says whether it changed the object, or nothing when it was not called.
async fn run(request: &Request<'_>, hook: &Hook, object: Option<&mut Value>) -> Result<Option<bool>, ApiError> {
    let other = match hook.fit(request, object.as_deref())? {
        Fit::No => return Ok(None),
        Fit::Yes => None,
        Fit::As(other) => Some(other),
    };
    let Some(answer) = hook.call(request, object.as_deref(), other.as_deref()).await? else { return Ok(Some(false)) };
    if let Some(denial) = answer.denial {
        return Err(denial.into());
    }
    let (Some(patch), Some(object)) = (answer.patch, object) else { return Ok(Some(false)) };
    let before = object.clone();
    *object = patched(request, &before, &patch, other.as_deref())
        .map_err(|why| ApiError::Internal(format!("patch of webhook {:?}: {why}", hook.name)))?;
    Ok(Some(*object != before))
}

/// The object as a webhook wants it, made fit to be stored.
fn patched(request: &Request<'_>, object: &Value, patch: &Value, other: Option<&Resource>) -> Result<Value, String> {
    let failed = |error: shipway_schema::patch::PatchError| error.to_string();
    if request.subresource == "scale" {
        let paths = &request.place.resource().scale;
        let mut scale = crate::scale::view(paths, object);
        json_patch(&mut scale, patch).map_err(failed)?;
        let mut next = object.clone();
        crate::scale::put(&mut next, &paths.spec_replicas, scale["spec"]["replicas"].clone());
        return Ok(next);
    }
    let mut next = other.map_or_else(|| object.clone(), |other| rules::convert(other, object));
    json_patch(&mut next, patch).map_err(failed)?;
    let own = request.place.resource();
    if request.kind()[2] != *own.kind {
        return Ok(next);
    }
    if other.is_some() {
        next = rules::convert(own, &next);
    }
    check_identity(object, &next)?;
    let wrong = check_types(own.schema(), &next);
    if let Some(first) = wrong.first() {
        return Err(first.to_string());
    }
    prune(own.schema(), &mut next);
    apply_defaults(own.schema(), &mut next);
    own.strategy().default(&mut next);
    Ok(next)
}

/// A webhook may not make another object of it.
fn check_identity(old: &Value, new: &Value) -> Result<(), String> {
    if !new.is_object() || !new["metadata"].is_object() {
        return Err("what is left is no object".into());
    }
    for field in ["apiVersion", "kind"] {
        if old[field] != new[field] {
            return Err(format!("{field} may not be changed"));
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "generation"] {
        if meta::text(old, field) != meta::text(new, field) {
            return Err(format!("metadata.{field} may not be changed"));
        }
    }
    Ok(())
}

/// Asks all webhooks that judge, at once; the first that refuses by order decides.
pub(super) async fn validate(request: &Request<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    if hooks.validating.is_empty() {
        return Ok(());
    }
    let mut calls = Vec::new();
    for hook in &hooks.validating {
        match hook.fit(request, object)? {
            Fit::No => {}
            Fit::Yes => calls.push((hook, None)),
            Fit::As(other) => calls.push((hook, Some(other))),
        }
    }
    let answers = calls.iter().map(|(hook, other)| hook.call(request, object, other.as_deref()));
    for answer in join_all(answers).await {
        if let Some(denial) = answer?.and_then(|answer| answer.denial) {
            return Err(denial.into());
        }
    }
    Ok(())
}

/// Refuses a configuration that could never work.
pub(super) fn check(request: &Request<'_>, configuration: &Value) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    for (at, hook) in configuration["webhooks"].as_array().into_iter().flatten().enumerate() {
        let mut wrong = |field: String, value: String, why: String| {
            let message = format!("Invalid value: {value:?}: {why}");
            errors.push(FieldError { field: format!("webhooks[{at}].{field}"), reason: Reason::Invalid, message });
        };
        if let Err(error) = ClientConfig::parse(&hook["clientConfig"]) {
            wrong("clientConfig".into(), String::new(), error.to_string());
        }
        if let Err(why) = Rules::parse(&hook["rules"], &Value::Null, hook) {
            wrong("rules".into(), String::new(), why);
        }
        for (index, (_, condition)) in conditions(&hook["matchConditions"]).into_iter().enumerate() {
            if let Err(why) = condition {
                let text = hook["matchConditions"][index]["expression"].as_str().unwrap_or_default().to_owned();
                wrong(format!("matchConditions[{index}].expression"), text, format!("compilation failed: {why}"));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::Invalid(request.place.about_kind(), errors)) }
}
