//! Asking a conversion webhook: `ConversionReview` v1.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use shipway_schema::Resource;

use crate::error::ApiError;
use crate::object::Object;
use crate::webhook::{ClientConfig, Webhooks};

/// How long a conversion may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most objects that go out at once.
const OBJECTS: usize = 500;
/// About how many bytes go out at once.
const BYTES: usize = 8 * 1024 * 1024;

/// Replaces the objects that are in another version than the resource's.
pub(super) async fn replace(
    webhooks: &Webhooks,
    config: &Value,
    resource: &Resource,
    objects: &mut [Arc<Object>],
) -> Result<(), ApiError> {
    let wanted = resource.api_version();
    let review = Review { webhooks, config, kind: &resource.kind, wanted: &wanted };
    let foreign: Vec<usize> = (0..objects.len()).filter(|at| objects[*at].api_version() != wanted).collect();
    let mut rest = foreign.as_slice();
    while !rest.is_empty() {
        let mut size = 0;
        let fitting = rest.iter().take(OBJECTS).take_while(|at| {
            let first = size == 0;
            size += objects[**at].len();
            first || size <= BYTES
        });
        let (batch, later) = rest.split_at(fitting.count());
        let converted = review.convert(batch.iter().map(|at| objects[*at].value()).collect()).await?;
        for (at, value) in batch.iter().zip(converted) {
            objects[*at] = Arc::new(objects[*at].with_content(&value).map_err(ApiError::Internal)?);
        }
        rest = later;
    }
    Ok(())
}

/// One webhook with what is asked of it.
pub(super) struct Review<'a> {
    pub(super) webhooks: &'a Webhooks,
    /// `spec.conversion.webhook`
    pub(super) config: &'a Value,
    pub(super) kind: &'a str,
    pub(super) wanted: &'a str,
}

impl Review<'_> {
    /// The objects in the wished version, in their order.
    pub(super) async fn convert(&self, objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
        let failed = |problem: &dyn std::fmt::Display| {
            let from = objects.first().and_then(|object| object["apiVersion"].as_str()).unwrap_or_default();
            ApiError::Internal(format!("conversion webhook for {from}, Kind={} failed: {problem}", self.kind))
        };
        let config = ClientConfig::parse(&self.config["clientConfig"]).map_err(|error| failed(&error))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let body = json!({
            "kind": "ConversionReview",
            "apiVersion": "apiextensions.k8s.io/v1",
            "request": {"uid": uid, "desiredAPIVersion": self.wanted, "objects": objects},
        });
        let mut answer = self.webhooks.call(&config, &body, TIMEOUT).await.map_err(|error| failed(&error))?;
        let response = answer["response"].take();
        let converted = self.check(&objects, &uid, response).map_err(|problem| failed(&problem))?;
        Ok(converted)
    }

    fn check(&self, objects: &[Value], uid: &str, mut response: Value) -> Result<Vec<Value>, String> {
        if response["uid"] != *uid {
            return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
        }
        let result = &response["result"];
        if result["status"] != "Success" {
            let told = result["message"].as_str().unwrap_or("it gave no reason");
            return Err(told.chars().take(1024).collect());
        }
        let Value::Array(converted) = response["convertedObjects"].take() else {
            return Err("response.convertedObjects is no list".into());
        };
        if converted.len() != objects.len() {
            return Err(format!("returned {} objects, expected {}", converted.len(), objects.len()));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        pairs
            .map(|(at, (before, after))| {
                self.accept(before, after)
                    .map_err(|problem| format!("invalid converted object at index {at}: {problem}"))
            })
            .collect()
    }

    /// One converted object: of the wished version, the same object, with only labels and annotations of its metadata
    /// changed.
    fn accept(&self, before: &Value, mut after: Value) -> Result<Value, String> {
        for (field, expected) in [("apiVersion", self.wanted), ("kind", self.kind)] {
            if after[field] != *expected {
                return Err(format!("{field} is {}, expected {expected:?}", after[field]));
            }
        }
        if !after["metadata"].is_object() {
            return Err("it has no metadata".into());
        }
        for field in ["name", "namespace", "uid"] {
            let (own, given) = (before["metadata"].get(field), after["metadata"].get(field));
            if own != given {
                return Err(format!("metadata.{field} must not be changed"));
            }
        }
        let mut metadata = before["metadata"].clone();
        for field in ["labels", "annotations"] {
            if let Some(fields) = metadata.as_object_mut() {
                match after["metadata"].get(field).filter(|given| given.is_object()) {
                    Some(given) => drop(fields.insert(field.into(), given.clone())),
                    None => drop(fields.shift_remove(field)),
                }
            }
        }
        after["metadata"] = metadata;
        Ok(after)
    }
}
