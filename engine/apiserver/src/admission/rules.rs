//! Which requests a webhook or a policy is about: operations, groups, versions, resources, and labels.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use shipway_schema::selector::LabelSelector;
use shipway_schema::{Conversion, Resource};

use super::Request;
use crate::scale;

/// What configures admission is out of its own reach, so that no configuration can lock everybody out.
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// Conditions on requests.
pub(super) struct Rules {
    included: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Whether other versions of a resource count.
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    /// Empty for all names.
    names: Vec<String>,
    /// `None` for both.
    namespaced: Option<bool>,
}

/// How a request fits.
pub(super) enum Fit {
    No,
    /// As it is.
    Yes,
    /// In another version of its resource.
    As(Arc<Resource>),
}

impl Rules {
    /// Reads `rules` (or `resourceRules` and `excludeResourceRules`) and what stands beside them.
    pub(super) fn parse(rules: &Value, excluded: &Value, beside: &Value) -> Result<Self, String> {
        let list = |rules: &Value| rules.as_array().into_iter().flatten().map(Rule::parse).collect();
        let selector = |field: &str| match &beside[field] {
            Value::Null => Ok(LabelSelector::everything()),
            given => LabelSelector::from_value(given).map_err(|error| format!("{field}: {error}")),
        };
        Ok(Self {
            included: list(rules),
            excluded: list(excluded),
            equivalent: beside["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// Whether a request with an object is meant.
    pub(super) fn fit(&self, request: &Request<'_>, object: Option<&Value>) -> Fit {
        let resource = request.place.resource();
        if resource.group == super::GROUP && EXEMPT.contains(&&*resource.plural) {
            return Fit::No;
        }
        let fit = self.fit_rules(request, resource);
        if matches!(fit, Fit::No) || !self.fits_namespace(request, object) || !self.fits_object(request, object) {
            return Fit::No;
        }
        fit
    }

    fn fit_rules(&self, request: &Request<'_>, resource: &Arc<Resource>) -> Fit {
        let meant = |rules: &[Rule], resource: &Resource| rules.iter().any(|rule| rule.fits(request, resource));
        if meant(&self.excluded, resource) {
            return Fit::No;
        }
        if meant(&self.included, resource) {
            return Fit::Yes;
        }
        if !self.equivalent || self.included.is_empty() {
            return Fit::No;
        }
        let registry = request.call.server.registry();
        let same = |other: &&Arc<Resource>| {
            other.kept.group == resource.kept.group
                && other.kept.plural == resource.kept.plural
                && (&other.group, &other.version) != (&resource.group, &resource.version)
        };
        let others: Vec<&Arc<Resource>> = registry.all().filter(same).collect();
        if others.iter().any(|other| meant(&self.excluded, other)) {
            return Fit::No;
        }
        others.into_iter().find(|other| meant(&self.included, other)).map_or(Fit::No, |other| Fit::As(other.clone()))
    }

    fn fits_namespace(&self, request: &Request<'_>, object: Option<&Value>) -> bool {
        if self.namespaces.is_everything() {
            return true;
        }
        if request.is("", "Namespace") {
            return object.or(request.old).is_some_and(|own| self.namespaces.matches(|key| label(own, key)));
        }
        let Some(name) = request.namespace() else { return true };
        let namespace = request.call.server.namespaces().get(name);
        namespace.is_some_and(|namespace| self.namespaces.matches(|key| namespace.label(key)))
    }

    fn fits_object(&self, request: &Request<'_>, object: Option<&Value>) -> bool {
        self.objects.is_everything()
            || object.into_iter().chain(request.old).any(|one| self.objects.matches(|key| label(one, key)))
    }
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

impl Rule {
    fn parse(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |resource: String| match resource.split_once('/') {
            Some((resource, below)) => (resource.to_owned(), below.to_owned()),
            None => (resource, String::new()),
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources").into_iter().map(split).collect(),
            names: texts("resourceNames"),
            namespaced: match rule["scope"].as_str() {
                Some("Namespaced") => Some(true),
                Some("Cluster") => Some(false),
                _ => None,
            },
        }
    }

    fn fits(&self, request: &Request<'_>, resource: &Resource) -> bool {
        let named = |list: &[String], name: &str| list.iter().any(|own| own == "*" || own == name);
        let one = |own: &str, name: &str| own == "*" || own == name;
        named(&self.operations, request.operation.text())
            && named(&self.groups, &resource.group)
            && named(&self.versions, &resource.version)
            && self.resources.iter().any(|(own, below)| one(own, &resource.plural) && one(below, request.subresource))
            && (self.names.is_empty() || self.names.contains(&request.place.name))
            && self.namespaced.is_none_or(|namespaced| namespaced == resource.namespaced)
    }
}

/// What webhooks and policies are shown of an object that a request carries, in another version where one is given.
pub(super) fn shown<'a>(request: &Request<'_>, object: &'a Value, version: Option<&Resource>) -> Cow<'a, Value> {
    match version {
        _ if request.subresource == "scale" => Cow::Owned(scale::view(&request.place.resource().scale, object)),
        Some(other) => Cow::Owned(convert(other, object)),
        None => Cow::Borrowed(object),
    }
}

/// An object in another version of its kind; as it is where only a webhook could convert it.
pub(super) fn convert(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    match &resource.kept.conversion {
        Conversion::Rename | Conversion::Webhook(_) => {
            if object.is_object() {
                object["apiVersion"] = resource.api_version().into();
            }
            object
        }
        Conversion::With(convert) => convert(object, &resource.api_version()),
    }
}
