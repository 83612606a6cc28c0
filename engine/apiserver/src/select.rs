//! Which objects a list, a watch or a collection delete is about: namespace, labels and fields.

use serde_json::json;
use shipway_schema::Resource;
use shipway_schema::selector::{FieldSelector, LabelSelector};

use crate::error::ApiError;
use crate::object::Object;
use crate::query::Query;

/// A namespace and both selectors of a request.
pub(crate) struct Selection {
    pub(crate) namespace: Option<String>,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; a field that the kind does not offer is refused.
    pub(crate) fn parse(resource: &Resource, namespace: Option<&str>, query: &Query) -> Result<Self, ApiError> {
        let bad = |error: &dyn std::fmt::Display| ApiError::BadRequest(error.to_string());
        let labels = query.get("labelSelector").map(LabelSelector::parse).transpose().map_err(|error| bad(&error))?;
        let fields = query.get("fieldSelector").map(FieldSelector::parse).transpose().map_err(|error| bad(&error))?;
        for (field, _, _) in fields.iter().flat_map(FieldSelector::terms) {
            let common = matches!(field.as_str(), "metadata.name" | "metadata.namespace");
            if !common && resource.selectable(&json!({}), field).is_none() {
                return Err(ApiError::BadRequest(format!("field label not supported: {field}")));
            }
        }
        Ok(Self { namespace: namespace.map(str::to_owned), labels, fields })
    }

    /// Whether the selectors leave nothing out.
    pub(crate) fn is_plain(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    /// The only key that can be selected, where the fields say so: a list by name becomes a get.
    pub(crate) fn only_key(&self, resource: &Resource) -> Option<String> {
        let name = self.fields.as_ref()?.required("metadata.name")?;
        match &self.namespace {
            Some(namespace) => Some(format!("{namespace}/{name}")),
            None => (!resource.namespaced).then(|| name.to_owned()),
        }
    }

    /// Whether the object is selected.
    pub(crate) fn matches(&self, resource: &Resource, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object.namespace() == Some(namespace))
            && self.labels.as_ref().is_none_or(|labels| labels.matches(|key| object.label(key)))
            && self.fields.as_ref().is_none_or(|fields| fields.matches(|field| object.field(resource, field)))
    }
}
