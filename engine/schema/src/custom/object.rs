//! What a write of a custom object must satisfy: the metadata that every object has, the schema, then the rules.

use std::sync::Arc;

use serde_json::Value;

use super::{Custom, values};
use crate::invalid::FieldError;
use crate::lookup;
use crate::strategy::{Generations, Strategy, checks, metadata};

/// The particulars of one version of a custom resource.
pub(super) struct CustomObject {
    custom: Arc<Custom>,
    api_version: String,
    kind: String,
    has_status: bool,
}

impl CustomObject {
    pub(super) fn new(custom: Arc<Custom>, api_version: String, kind: &str, version: &Value) -> Self {
        let has_status = version["subresources"]["status"].is_object();
        Self { custom, api_version, kind: kind.to_owned(), has_status }
    }
}

impl Strategy for CustomObject {
    fn default(&self, object: &mut Value) {
        lookup::fill_zero(object, "apiVersion", self.api_version.as_str());
        lookup::fill_zero(object, "kind", self.kind.as_str());
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.has_status {
            lookup::remove(object, "status");
        }
    }

    fn generations(&self) -> Generations {
        if self.has_status { Generations::AllBut(&["metadata", "status"]) } else { Generations::AllBut(&["metadata"]) }
    }

    fn validate_below(&self, _: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        self.validate(object, Some(old))
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        errors.extend(values::check(self.custom.schema(), object, old));
        // A rule may rely on what the schema promises.
        if errors.is_empty() {
            errors.extend(self.custom.check_rules(object, old));
        }
        errors
    }
}
