//! Classes that objects get when they name none: storage classes for claims, ingress classes for ingresses.

use serde_json::Value;

use super::Request;
use crate::cache::Table;
use crate::error::ApiError;

const STORAGE_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const STORAGE_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const INGRESS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Names the default storage class.
pub(super) fn default_storage(request: &Request<'_>, claim: &mut Value) -> Result<(), ApiError> {
    let classes = &request.call.server.admission().tables.storage_classes;
    fill(request, claim, classes, STORAGE_DEFAULT, "storageClassName", STORAGE_ANNOTATION);
    Ok(())
}

/// Names the default ingress class.
pub(super) fn default_ingress(request: &Request<'_>, ingress: &mut Value) -> Result<(), ApiError> {
    let classes = &request.call.server.admission().tables.ingress_classes;
    fill(request, ingress, classes, INGRESS_DEFAULT, "ingressClassName", INGRESS_ANNOTATION);
    Ok(())
}

fn fill(request: &Request<'_>, object: &mut Value, classes: &Table, mark: &str, field: &str, annotation: &str) {
    let chosen = !object["spec"][field].is_null() || !object["metadata"]["annotations"][annotation].is_null();
    if chosen || !object["spec"].is_object() {
        return;
    }
    let classes = request.call.server.cache().snapshot(classes, None, None).objects;
    let defaults = classes.iter().map(|class| class.value());
    let defaults = defaults.filter(|class| class["metadata"]["annotations"][mark] == "true");
    if let Some(name) = newest(defaults) {
        object["spec"][field] = name.into();
    }
}

/// The name of the class made last; of those made in the same second the first by name.
fn newest(classes: impl Iterator<Item = Value>) -> Option<String> {
    let text = |class: &Value, field: &str| class["metadata"][field].as_str().unwrap_or_default().to_owned();
    let keyed = classes.map(|class| (text(&class, "creationTimestamp"), text(&class, "name")));
    keyed.max_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1))).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_wins_and_names_settle_a_draw() {
        let class = |name: &str, made: &str| json!({"metadata": {"name": name, "creationTimestamp": made}});
        let classes = [class("a", "2026-01-01"), class("c", "2026-01-02"), class("b", "2026-01-02")];
        assert_eq!(newest(classes.into_iter()).as_deref(), Some("b"));
        assert_eq!(newest(std::iter::empty()), None);
    }
}
