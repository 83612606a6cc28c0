//! `audit.k8s.io/v1` Policy: the first rule that fits a request says how much of it is written down.

use serde::Deserialize;

use crate::identity::Identity;
use crate::path::ResourcePath;

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "a policy may have metadata; nothing is read from it")]
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// A request, as rules see it.
pub(super) struct Asked<'a> {
    pub(super) identity: Option<&'a Identity>,
    pub(super) verb: &'a str,
    pub(super) path: &'a str,
    /// None for a path that is no resource.
    pub(super) target: Option<&'a ResourcePath>,
}

/// What a policy says about a request.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) omit: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

/// Whose bodies are secrets themselves: group, resource, subresource.
const SENSITIVE: [(&str, &str, &str); 3] =
    [("", "secrets", ""), ("", "serviceaccounts", "token"), ("authentication.k8s.io", "tokenreviews", "")];

impl Policy {
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let policy: Self = serde_saphyr::from_slice(text).map_err(|error| error.to_string())?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err("expected apiVersion audit.k8s.io/v1 and kind Policy".into());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            if !rule.urls.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
                return Err(format!(
                    "rules[{index}]: rules cannot apply to both regular resources and non-resource URLs"
                ));
            }
        }
        Ok(policy)
    }

    /// What is written down of a request.
    pub(super) fn verdict(&self, asked: &Asked<'_>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(asked)) else {
            return Verdict { level: Level::None, omit: Vec::new(), omit_managed_fields: false };
        };
        let omit = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        let sensitive = asked.target.is_some_and(|target| is_sensitive(target) && !rule.names(target));
        let level = if sensitive { rule.level.min(Level::Metadata) } else { rule.level };
        Verdict { level, omit, omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields) }
    }
}

fn subresource(target: &ResourcePath) -> &str {
    target.subresource.as_deref().unwrap_or_default()
}

fn is_sensitive(target: &ResourcePath) -> bool {
    SENSITIVE.contains(&(&*target.group, &*target.plural, subresource(target)))
}

fn any(list: &[String], fits: impl Fn(&str) -> bool) -> bool {
    list.is_empty() || list.iter().any(|own| fits(own))
}

impl Rule {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        let user = asked.identity.map_or("", |identity| &*identity.user);
        any(&self.users, |own| own == user)
            && any(&self.user_groups, |own| asked.identity.is_some_and(|identity| identity.is_in(own)))
            && any(&self.verbs, |own| own == "*" || own == asked.verb)
            && if let Some(target) = asked.target {
                self.urls.is_empty() && self.fits_resource(target)
            } else {
                let leads = |own: &str| {
                    own == asked.path || own.strip_suffix('*').is_some_and(|start| asked.path.starts_with(start))
                };
                self.resources.is_empty() && self.namespaces.is_empty() && any(&self.urls, leads)
            }
    }

    fn fits_resource(&self, target: &ResourcePath) -> bool {
        any(&self.namespaces, |own| own == target.namespace.as_deref().unwrap_or_default())
            && (self.resources.is_empty() || self.resources.iter().any(|own| own.fits(target)))
    }

    /// Whether the rule names the resource itself and not just everything.
    fn names(&self, target: &ResourcePath) -> bool {
        let full = match subresource(target) {
            "" => target.plural.clone(),
            subresource => format!("{}/{subresource}", target.plural),
        };
        self.resources.iter().any(|own| own.group == target.group && own.resources.contains(&full))
    }
}

impl GroupResources {
    fn fits(&self, target: &ResourcePath) -> bool {
        let subresource = subresource(target);
        let means = |own: &str| {
            let Some((resource, second)) = own.split_once('/') else {
                return own == "*" || (subresource.is_empty() && own == target.plural);
            };
            !subresource.is_empty()
                && (resource == "*" || resource == target.plural)
                && (second == "*" || second == subresource)
        };
        let name = target.name.as_deref().unwrap_or_default();
        self.group == target.group && any(&self.resources, means) && any(&self.resource_names, |own| own == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-scheduler"]}
- {level: None, nonResourceURLs: ["/healthz*", "/version"]}
- level: RequestResponse
  verbs: [create]
  resources: [{group: "", resources: [secrets], resourceNames: []}]
  namespaces: [open]
- {level: Request, resources: [{group: "", resources: [pods, "pods/*"]}], omitStages: [ResponseStarted]}
- {level: RequestResponse}
"#;

    fn level(user: &str, verb: &str, path: &str) -> Level {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let identity = Identity::new(user, &[]);
        let target = crate::path::parse(path).unwrap();
        policy.verdict(&Asked { identity: Some(&identity), verb, path, target: target.as_ref() }).level
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(level("system:kube-scheduler", "get", "/api/v1/pods"), Level::None);
        assert_eq!(level("jane", "get", "/healthz/ping"), Level::None);
        assert_eq!(level("jane", "get", "/metrics"), Level::RequestResponse);
        assert_eq!(level("jane", "get", "/api/v1/namespaces/a/pods/b/log"), Level::Request);
        assert_eq!(level("jane", "get", "/apis/apps/v1/deployments"), Level::RequestResponse);
    }

    #[test]
    fn secrets_are_written_down_only_where_a_rule_names_them() {
        assert_eq!(level("jane", "get", "/api/v1/namespaces/open/secrets/a"), Level::Metadata);
        assert_eq!(level("jane", "create", "/api/v1/namespaces/other/secrets"), Level::Metadata);
        assert_eq!(level("jane", "create", "/api/v1/namespaces/open/secrets"), Level::RequestResponse);
        assert_eq!(level("jane", "create", "/api/v1/namespaces/a/serviceaccounts/b/token"), Level::Metadata);
        assert_eq!(level("jane", "create", "/apis/authentication.k8s.io/v1/tokenreviews"), Level::Metadata);
    }

    #[test]
    fn a_policy_with_a_mistake_is_refused() {
        for wrong in ["rules: []", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]", "{"] {
            assert!(Policy::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let both =
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]";
        assert!(Policy::parse(both.as_bytes()).unwrap_err().starts_with("rules[0]"));
    }
}
