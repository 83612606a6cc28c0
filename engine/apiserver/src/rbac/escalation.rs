//! Nobody hands out more than it has: whoever writes a role must hold its rules, whoever binds one must hold the role's,
//! or have the right to `escalate` or `bind`.

use serde_json::Value;
use shipway_schema::Resource;

use super::rule::{Rule, rules_of, uncovered};
use super::{GROUP, PLURALS};
use crate::authorize::{self, Attributes};
use crate::call::Call;
use crate::commit::Place;
use crate::error::ApiError;
use crate::identity::MASTERS;

/// A rule is taken apart into at most so many pieces; one with more has to be held as it stands.
const PIECES: usize = 10_000;

/// Refuses a write of a role or a binding that would give away what its writer does not have.
pub(crate) async fn check(call: &Call, place: &Place, old: Option<&Value>, new: &Value) -> Result<(), ApiError> {
    let resource = place.resource();
    if resource.group != GROUP || !PLURALS.contains(&&*resource.plural) || call.identity.is_in(MASTERS) {
        return Ok(());
    }
    let is_role = new.get("roleRef").is_none();
    let fields: &[&str] = if is_role { &["rules", "aggregationRule"] } else { &["roleRef", "subjects"] };
    if old.is_some_and(|old| fields.iter().all(|field| old.get(*field) == new.get(*field))) {
        return Ok(());
    }
    let namespace = place.namespace.as_deref().unwrap_or_default();
    let (verb, plural, name) = if is_role {
        ("escalate", &*resource.plural, place.name.as_str())
    } else {
        ("bind", referred(&new["roleRef"]), new["roleRef"]["name"].as_str().unwrap_or_default())
    };
    let asked = Attributes { verb, group: GROUP, resource: plural, namespace, name, ..Attributes::default() };
    if authorize::is_allowed(&call.server, &call.identity, &asked).await? {
        return Ok(());
    }
    let wanted = if is_role { given(new) } else { bound(call, place, new, resource)? };
    let held = authorize::held(&call.server, &call.identity, namespace);
    let missing = uncovered(&held, &wanted, PIECES);
    if missing.is_empty() { Ok(()) } else { Err(refused(call, place, &missing)) }
}

fn referred(reference: &Value) -> &'static str {
    if reference["kind"] == "Role" { "roles" } else { "clusterroles" }
}

/// What a role gives. One that gathers others' rules may come to give anything.
fn given(role: &Value) -> Vec<Rule> {
    let mut rules = rules_of(role);
    if role["aggregationRule"].is_object() {
        let any = || vec!["*".into()];
        rules.push(Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() });
        rules.push(Rule { verbs: any(), urls: any(), ..Rule::default() });
    }
    rules
}

/// What the role gives that a binding refers to.
fn bound(call: &Call, place: &Place, binding: &Value, resource: &Resource) -> Result<Vec<Rule>, ApiError> {
    let reference = &binding["roleRef"];
    let name = reference["name"].as_str().unwrap_or_default();
    let key = match &place.namespace {
        Some(namespace) if reference["kind"] == "Role" => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    };
    let missing = || {
        let about = crate::error::About {
            group: resource.group.to_string(),
            resource: referred(reference).into(),
            name: name.into(),
        };
        ApiError::NotFound(about)
    };
    Ok(authorize::role(&call.server, &key).ok_or_else(missing)?.to_vec())
}

fn refused(call: &Call, place: &Place, missing: &[Rule]) -> ApiError {
    let lines: Vec<String> = missing.iter().take(20).map(ToString::to_string).collect();
    let text = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        call.identity.user,
        call.identity.groups,
        lines.join("\n")
    );
    ApiError::Forbidden(place.about(), text)
}
