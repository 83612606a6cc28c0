//! `authorizer`: what the caller, or a service account, may do, asked from inside an expression.
//!
//! A question is put together step by step; only `check` answers it, from the same rules as every request.

use std::sync::Arc;

use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::Opaque;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};
use shipway_schema::expression::lent;

use super::super::Request;
use super::Means;
use super::rewrite::{AUTHORIZER, REQUESTED};
use crate::ApiServer;
use crate::authorize::Attributes;
use crate::identity::Identity;

type Answered = Result<Value, ExecutionError>;
type Text = Arc<String>;

/// Who asks about whom, and the object of the request.
#[derive(Clone)]
pub(super) struct Asker {
    server: ApiServer,
    requested: Arc<Question>,
}

/// What is asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Question {
    identity: Identity,
    /// Instead of a resource.
    path: Option<String>,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    fields: String,
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
struct Decision {
    allowed: bool,
    reason: String,
}

impl Opaque for Question {
    fn runtime_type_name(&self) -> &str {
        match (&self.path, self.resource.is_empty(), self.group.is_empty()) {
            (Some(_), ..) => "kubernetes.authorization.PathCheck",
            (None, true, true) => "kubernetes.authorization.Authorizer",
            (None, true, false) => "kubernetes.authorization.GroupCheck",
            (None, false, _) => "kubernetes.authorization.ResourceCheck",
        }
    }
}

impl Opaque for Decision {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }
}

fn wrong(function: &str) -> ExecutionError {
    ExecutionError::function_error(function, "no such overload")
}

fn of<T: Opaque>(value: &Value, function: &str) -> Result<Arc<dyn Opaque>, ExecutionError> {
    match value {
        Value::Opaque(opaque) if opaque.downcast_ref::<T>().is_some() => Ok(opaque.clone()),
        _ => Err(wrong(function)),
    }
}

/// The question with one part more.
fn with(value: &Value, function: &str, set: impl FnOnce(&mut Question)) -> Answered {
    let opaque = of::<Question>(value, function)?;
    let mut question = opaque.downcast_ref::<Question>().cloned().ok_or_else(|| wrong(function))?;
    set(&mut question);
    Ok(Value::Opaque(Arc::new(question)))
}

fn decided<T>(value: &Value, function: &str, show: impl FnOnce(&Decision) -> T) -> Result<T, ExecutionError> {
    let opaque = of::<Decision>(value, function)?;
    opaque.downcast_ref::<Decision>().map(show).ok_or_else(|| wrong(function))
}

fn plain(text: &Text) -> String {
    text.as_str().to_owned()
}

impl Asker {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let resource = request.place.resource();
        let requested = Question {
            identity: request.identity().clone(),
            path: None,
            group: resource.group.to_string(),
            resource: resource.plural.to_string(),
            subresource: request.subresource.to_owned(),
            namespace: request.namespace().unwrap_or_default().to_owned(),
            name: request.place.name.clone(),
            fields: String::new(),
        };
        Self { server: request.call.server.clone(), requested: Arc::new(requested) }
    }
}

fn asker(context: &FunctionContext<'_, '_>) -> Result<Asker, ExecutionError> {
    lent::<Means>(context)?.asker.clone().ok_or_else(|| wrong(context.name))
}

/// Adds the functions to a context.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function(REQUESTED, |context: &FunctionContext<'_, '_>| {
        Ok::<_, ExecutionError>(Value::Opaque(asker(context)?.requested))
    });
    context.add_function(AUTHORIZER, |context: &FunctionContext<'_, '_>| {
        let identity = asker(context)?.requested.identity.clone();
        Ok::<_, ExecutionError>(Value::Opaque(Arc::new(Question { identity, ..Question::default() })))
    });
    context.add_function("serviceAccount", |This(value): This<Value>, namespace: Text, name: Text| {
        with(&value, "serviceAccount", |asked| asked.identity = Identity::account(&namespace, &name).known())
    });
    context.add_function("path", |This(value): This<Value>, path: Text| {
        with(&value, "path", |asked| asked.path = Some(plain(&path)))
    });
    context.add_function("group", |This(value): This<Value>, group: Text| {
        with(&value, "group", |asked| asked.group = plain(&group))
    });
    context.add_function("resource", |This(value): This<Value>, name: Text| {
        with(&value, "resource", |asked| asked.resource = plain(&name))
    });
    context.add_function("subresource", |This(value): This<Value>, name: Text| {
        with(&value, "subresource", |asked| asked.subresource = plain(&name))
    });
    context.add_function("namespace", |This(value): This<Value>, name: Text| {
        with(&value, "namespace", |asked| asked.namespace = plain(&name))
    });
    context.add_function("name", |This(value): This<Value>, name: Text| {
        with(&value, "name", |asked| asked.name = plain(&name))
    });
    context.add_function("fieldSelector", |This(value): This<Value>, selector: Text| {
        with(&value, "fieldSelector", |asked| asked.fields = plain(&selector))
    });
    // No rule of this server looks at labels: who may do it with some may do it with any.
    context.add_function("labelSelector", |This(value): This<Value>, _: Text| with(&value, "labelSelector", |_| ()));
    register_answers(context);
}

fn register_answers(context: &mut Context<'_>) {
    context.add_function("check", |context: &FunctionContext<'_, '_>, This(value): This<Value>, verb: Text| {
        let opaque = of::<Question>(&value, "check")?;
        let question = opaque.downcast_ref::<Question>().ok_or_else(|| wrong("check"))?;
        Ok::<_, ExecutionError>(Value::Opaque(Arc::new(question.answer(&asker(context)?.server, &verb))))
    });
    context.add_function("allowed", |This(value): This<Value>| decided(&value, "allowed", |own| own.allowed));
    context.add_function("reason", |This(value): This<Value>| {
        decided(&value, "reason", |own| Value::String(Arc::new(own.reason.clone())))
    });
    // Nothing fails where everything is known.
    context.add_function("errored", |This(value): This<Value>| decided(&value, "errored", |_| false));
    context
        .add_function("error", |This(value): This<Value>| decided(&value, "error", |_| Value::String(Arc::default())));
}

impl Question {
    fn answer(&self, server: &ApiServer, verb: &str) -> Decision {
        let (authorizer, cache) = (server.authorizer(), server.cache());
        let why = if let Some(path) = &self.path {
            authorizer.decide_path(cache, &self.identity, verb, path)
        } else {
            let Self { group, resource, subresource, namespace, name, fields, .. } = self;
            let asked = Attributes { verb, group, resource, subresource, namespace, name, fields, labels: "" };
            authorizer.decide(cache, &self.identity, &asked)
        };
        Decision { allowed: why.is_some(), reason: why.map(|why| why.to_string()).unwrap_or_default() }
    }
}
