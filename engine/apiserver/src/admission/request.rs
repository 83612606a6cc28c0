//! What the chain knows of a write: who does what to which object, and what was there before.

use serde_json::{Map, Value, json};
use shipway_schema::Resource;

use crate::call::Call;
use crate::commit::Place;
use crate::error::{About, ApiError};
use crate::identity::Identity;

/// What a request does, in admission's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// An object comes to be.
    Create,
    /// An object changes, by whatever verb.
    Update,
    /// An object goes.
    Delete,
    /// A stream to or through an object is opened.
    Connect,
}

impl Operation {
    /// As rules and reviews spell it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Delete => "DeleteOptions",
            Self::Connect => "",
        }
    }
}

/// One write on its way through the chain. The object itself travels beside it, as it may still change.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) call: &'a Call,
    pub(crate) place: &'a Place,
    pub(crate) operation: Operation,
    /// The path below the object; empty for the object itself.
    pub(crate) subresource: &'a str,
    /// What is there now; none for a create and a connect.
    pub(crate) old: Option<&'a Value>,
    pub(crate) dry_run: bool,
}

impl<'a> Request<'a> {
    pub(crate) fn create(call: &'a Call, place: &'a Place) -> Result<Self, ApiError> {
        let dry_run = call.is_dry_run()?;
        Ok(Self { call, place, operation: Operation::Create, subresource: "", old: None, dry_run })
    }

    pub(crate) fn update(
        call: &'a Call,
        place: &'a Place,
        subresource: Option<&'a str>,
        old: &'a Value,
    ) -> Result<Self, ApiError> {
        let (operation, dry_run) = (Operation::Update, call.is_dry_run()?);
        Ok(Self { call, place, operation, subresource: subresource.unwrap_or_default(), old: Some(old), dry_run })
    }

    pub(crate) fn delete(call: &'a Call, place: &'a Place, old: &'a Value, dry_run: bool) -> Self {
        Self { call, place, operation: Operation::Delete, subresource: "", old: Some(old), dry_run }
    }

    /// Whether the server itself changes an object after what was posted below it has passed the chain.
    pub(super) fn is_follow_up(&self) -> bool {
        self.operation == Operation::Update && self.subresource == "binding"
    }

    pub(crate) fn identity(&self) -> &'a Identity {
        &self.call.identity
    }

    pub(crate) fn namespace(&self) -> Option<&'a str> {
        self.place.namespace.as_deref()
    }

    /// Whether the request is about objects of a kind, or paths below them.
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        super::is(self.place.resource(), group, kind)
    }

    pub(crate) fn forbidden(&self, why: impl Into<String>) -> ApiError {
        ApiError::Forbidden(self.about(), why.into())
    }

    pub(crate) fn about(&self) -> About {
        self.place.about()
    }

    /// Group, version and kind of what the request carries, which below an object may be another kind.
    pub(crate) fn kind(&self) -> [String; 3] {
        let resource = self.place.resource();
        if self.operation == Operation::Connect {
            let options = super::connect::options_kind(resource, self.subresource).unwrap_or_default();
            return ["", "v1", options].map(str::to_owned);
        }
        let own = || [&resource.group, &resource.version, &resource.kind].map(ToString::to_string);
        let below = resource.subresource(self.subresource).and_then(|below| below.kind);
        below.map_or_else(own, |kind| [kind.group, kind.version, kind.kind].map(str::to_owned))
    }

    /// The same where the request is shown in another version of its resource.
    pub(super) fn kind_in(&self, shown: &Resource) -> [String; 3] {
        let own = self.kind();
        if own[2] == *self.place.resource().kind {
            return [&shown.group, &shown.version, &shown.kind].map(ToString::to_string);
        }
        own
    }

    /// The request's options in the form that webhooks and policies see.
    pub(crate) fn options(&self) -> Value {
        if self.operation == Operation::Connect {
            return Value::Null;
        }
        let mut options = Map::new();
        options.insert("kind".into(), self.operation.options().into());
        options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        if self.dry_run {
            options.insert("dryRun".into(), json!(["All"]));
        }
        if self.operation != Operation::Delete {
            for name in ["fieldManager", "fieldValidation"] {
                if let Some(given) = self.call.query.get(name) {
                    options.insert(name.into(), given.into());
                }
            }
        }
        Value::Object(options)
    }
}
