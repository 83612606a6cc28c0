//! Webhooks: those that change objects one after the other, those that only judge all at once.
//!
//! Each has its own time; one that hangs costs that and no more, and one that fails is treated as its `failurePolicy`
//! says. Which requests a webhook gets is decided here; how it is reached is `webhook`'s business.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;
use shipway_schema::patch::json_patch;
use shipway_schema::{FieldError, Reason, Resource};

use super::Request;
use super::change::{self, Unfit};
use super::expression::{Environment, Program, Scope, Seen, aside};
use super::review::{self, Answer};
use super::rules::{Fit, Rules};
use crate::error::ApiError;
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
    fn fit(&self, request: &Request<'_>, object: Option<&Value>, seen: &mut Seen) -> Result<Fit, ApiError> {
        // Rules that cannot be read are refused when they are written.
        let Ok(rules) = &self.rules else { return Ok(Fit::No) };
        let fit = rules.fit(request, object);
        let version = match &fit {
            Fit::No => return Ok(Fit::No),
            Fit::Yes => None,
            Fit::As(other) => Some(&**other),
        };
        if !self.holds(request, object, version, seen)? {
            return Ok(Fit::No);
        }
        if request.dry_run && !self.harmless {
            return Err(ApiError::BadRequest(format!("admission webhook {:?} does not support dry run", self.name)));
        }
        Ok(fit)
    }

    /// Whether all conditions hold. One that does not settles it; else one that fails refuses the request, or, where
    /// that does not matter, counts as one that does not hold.
    fn holds(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        version: Option<&Resource>,
        seen: &mut Seen,
    ) -> Result<bool, ApiError> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        match aside(|| holds_in(seen.environment(request, object, version), &self.conditions)) {
            Ok(holds) => Ok(holds),
            Err(why) if self.strict => Err(request.forbidden(why)),
            Err(_) => Ok(false),
        }
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
                for (key, value) in &answer.annotations {
                    request.call.notes.annotate(format!("{}/{key}", self.name), value.clone());
                }
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
    conditions.map(|one| (text(&one["name"]), Program::compile(&text(&one["expression"]), Scope::default()))).collect()
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

/// Which webhooks were called, and how often the object had changed by then.
#[derive(Default)]
pub(super) struct Called {
    hooks: Vec<(Arc<Hook>, usize)>,
    /// How often the object has changed.
    pub(super) changes: usize,
}

/// Lets webhooks change an object, in the order of their configurations' names.
pub(super) async fn mutate(request: &Request<'_>, mut object: Option<&mut Value>) -> Result<Called, ApiError> {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    let (mut called, mut seen) = (Called::default(), Seen::default());
    for hook in &hooks.mutating {
        if let Some(changed) = run(request, hook, object.as_deref_mut(), &mut seen).await? {
            called.changes += usize::from(changed);
            called.hooks.push((hook.clone(), called.changes));
        }
    }
    Ok(called)
}

/// Calls those webhooks once more that asked for it and have not seen the last change.
pub(super) async fn again(
    request: &Request<'_>,
    mut object: Option<&mut Value>,
    called: Called,
) -> Result<(), ApiError> {
    let mut seen = Seen::default();
    for (hook, changes) in called.hooks {
        if hook.again && changes < called.changes {
            run(request, &hook, object.as_deref_mut(), &mut seen).await?;
        }
    }
    Ok(())
}

/// Calls one webhook; says whether it changed the object, or nothing when it was not called. `seen` is the object as
/// conditions see it.
async fn run(
    request: &Request<'_>,
    hook: &Hook,
    object: Option<&mut Value>,
    seen: &mut Seen,
) -> Result<Option<bool>, ApiError> {
    let other = match hook.fit(request, object.as_deref(), seen)? {
        Fit::No => return Ok(None),
        Fit::Yes => None,
        Fit::As(other) => Some(other),
    };
    let Some(answer) = hook.call(request, object.as_deref(), other.as_deref()).await? else { return Ok(Some(false)) };
    if let Some(denial) = answer.denial {
        return Err(denial.into());
    }
    let (Some(patch), Some(object)) = (answer.patch, object) else { return Ok(Some(false)) };
    let next = patched(request, object, &patch, other.as_deref())
        .map_err(|why| ApiError::Internal(format!("patch of webhook {:?}: {why}", hook.name)))?;
    let changed = next != *object;
    if changed {
        *seen = Seen::default();
        *object = next;
    }
    Ok(Some(changed))
}

/// The object as a webhook wants it, made fit to be stored.
fn patched(request: &Request<'_>, object: &Value, patch: &Value, other: Option<&Resource>) -> Result<Value, String> {
    let edit = |shown: &mut Value| json_patch(shown, patch).map_err(|error| error.to_string());
    change::change(request, object, other, false, edit).map_err(Unfit::into_text)
}

/// Asks all webhooks that judge, at once; the first that refuses by order decides.
pub(super) async fn validate(request: &Request<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    if hooks.validating.is_empty() {
        return Ok(());
    }
    let (mut calls, mut seen) = (Vec::new(), Seen::default());
    for hook in &hooks.validating {
        match hook.fit(request, object, &mut seen)? {
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
