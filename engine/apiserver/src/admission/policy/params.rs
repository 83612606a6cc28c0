//! The parameters that a binding gives a policy: one object by name, or all that a selector picks.

use serde_json::Value;
use shipway_schema::selector::LabelSelector;

use super::super::Request;
use super::{Binding, Policy};

/// The most parameters of one binding.
const MOST: usize = 1024;

/// Why there are no parameters, and whether the binding is to blame; else the policy is.
pub(super) struct Missing {
    pub(super) why: String,
    pub(super) by_binding: bool,
}

fn missing(why: impl Into<String>) -> Missing {
    Missing { why: format!("failed to configure binding: {}", why.into()), by_binding: true }
}

/// The parameters to judge with, one after the other; null where the policy takes none. None at all means that the
/// binding has nothing to say.
pub(super) fn of(request: &Request<'_>, policy: &Policy, binding: &Binding) -> Result<Vec<Value>, Missing> {
    let Some((version, kind)) = &policy.param_kind else { return Ok(vec![Value::Null]) };
    let reference = &*binding.param;
    if reference.is_null() {
        return Ok(vec![Value::Null]);
    }
    let server = &request.call.server;
    let resource = server.registry().of_kind(version, kind).ok_or_else(|| Missing {
        why: format!(
            "failed to configure policy: failed to find resource referenced by paramKind: '{version}, Kind={kind}'"
        ),
        by_binding: false,
    })?;
    let given = reference["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    if given.is_some() && !resource.namespaced {
        return Err(missing("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"));
    }
    let namespace = if resource.namespaced { given.or(request.namespace()) } else { None };
    if resource.namespaced && namespace.is_none() {
        return Err(missing("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"));
    }
    let table = server.cache().table(&resource);
    let name = reference["name"].as_str().filter(|name| !name.is_empty());
    let found: Vec<Value> = if let Some(name) = name {
        let key = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        table.get(&key).map(|object| object.value()).into_iter().collect()
    } else {
        let selector = LabelSelector::from_value(&reference["selector"])
            .map_err(|error| missing(format!("paramRef.selector: {error}")))?;
        let objects = server.cache().snapshot(&table, namespace, None).objects;
        let picked = objects.iter().filter(|object| selector.matches(|key| object.label(key)));
        picked.take(MOST).map(|object| object.value()).collect()
    };
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err(missing("no params found for policy binding with `Deny` parameterNotFoundAction"));
    }
    Ok(found)
}
