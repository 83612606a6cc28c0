//! One rule of a role: what it allows, and whether it goes at least as far as another.

use std::fmt::{self, Write};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::authorize::Attributes;

type Words = Vec<Box<str>>;

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) verbs: Words,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Words,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Words,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Words,
    #[serde(default, rename = "nonResourceURLs", deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub(crate) urls: Words,
}

/// A list that may be `null`.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(from).map(Option::unwrap_or_default)
}

/// The rules of a role; those that cannot be read allow nothing.
pub(crate) fn rules_of(role: &Value) -> Vec<Rule> {
    let rules = role["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

fn has(words: &[Box<str>], word: &str) -> bool {
    words.iter().any(|own| **own == *"*" || **own == *word)
}

/// Whether a word of a rule means the resource: `*`, `pods`, `pods/log` or `*/log`.
fn means(own: &str, resource: &str, subresource: &str) -> bool {
    match own.split_once('/') {
        _ if own == "*" => true,
        None => subresource.is_empty() && own == resource,
        Some((first, second)) => {
            !subresource.is_empty() && second == subresource && (first == "*" || first == resource)
        }
    }
}

/// Whether a path of a rule means the path: itself, or all that begin with what stands before a final `*`.
fn leads(own: &str, path: &str) -> bool {
    own == path || own.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

impl Rule {
    /// Whether it allows a request about a resource.
    pub(crate) fn allows(&self, asked: &Attributes<'_>) -> bool {
        has(&self.verbs, asked.verb)
            && has(&self.api_groups, asked.group)
            && self.resources.iter().any(|own| means(own, asked.resource, asked.subresource))
            && self.names(asked.name)
    }

    fn names(&self, name: &str) -> bool {
        self.resource_names.is_empty() || self.resource_names.iter().any(|own| **own == *name)
    }

    /// Whether it allows a request for a path that is no resource.
    pub(crate) fn allows_path(&self, verb: &str, path: &str) -> bool {
        has(&self.verbs, verb) && self.urls.iter().any(|own| leads(own, path))
    }

    /// Whether everything that `other` allows is allowed by this one alone.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let words = |own: &[Box<str>], asked: &[Box<str>]| asked.iter().all(|word| has(own, word));
        let resource = |asked: &str| {
            let (resource, subresource) = asked.split_once('/').unwrap_or((asked, ""));
            self.resources.iter().any(|own| **own == *asked || means(own, resource, subresource))
        };
        words(&self.verbs, &other.verbs)
            && words(&self.api_groups, &other.api_groups)
            && other.resources.iter().all(|asked| resource(asked))
            && (self.resource_names.is_empty()
                || (!other.resource_names.is_empty() && other.resource_names.iter().all(|name| self.names(name))))
            && other.urls.iter().all(|path| self.urls.iter().any(|own| leads(own, path)))
    }

    /// The rule in pieces of one verb, group, resource and name, or one verb and path; at most `limit`.
    pub(crate) fn pieces(&self, limit: usize) -> Vec<Self> {
        let one = |word: &str| vec![Box::from(word)];
        let mut pieces = Vec::new();
        let names: Vec<Words> = match self.resource_names.as_slice() {
            [] => vec![Vec::new()],
            names => names.iter().map(|name| one(name)).collect(),
        };
        for verb in &self.verbs {
            pieces.extend(self.urls.iter().map(|url| Self { verbs: one(verb), urls: one(url), ..Self::default() }));
            for (group, resource) in
                self.api_groups.iter().flat_map(|group| self.resources.iter().map(move |it| (group, it)))
            {
                pieces.extend(names.iter().map(|names| Self {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: names.clone(),
                    urls: Vec::new(),
                }));
                if pieces.len() > limit {
                    return pieces;
                }
            }
        }
        pieces
    }
}

/// What of `wanted` none of `held` covers, in pieces; those beyond `limit` pieces of one rule count as not covered.
pub(crate) fn uncovered(held: &[Rule], wanted: &[Rule], limit: usize) -> Vec<Rule> {
    let is_covered = |rule: &Rule| held.iter().any(|own| own.covers(rule));
    let rest = wanted.iter().filter(|rule| !is_covered(rule));
    rest.flat_map(|rule| {
        let pieces = rule.pieces(limit);
        if pieces.len() > limit {
            vec![rule.clone()]
        } else {
            pieces.into_iter().filter(|it| !is_covered(it)).collect()
        }
    })
    .collect()
}

/// As upstream shows a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.urls),
            ("Verbs", &self.verbs),
        ];
        let mut text = String::new();
        for (name, words) in fields.into_iter().filter(|(_, words)| !words.is_empty()) {
            let separator = if text.is_empty() { "" } else { ", " };
            write!(text, "{separator}{name}:{words:?}")?;
        }
        write!(f, "{{{text}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(Into::into).collect();
        let core = |words: Words| words.into_iter().map(|it| if *it == *"core" { "".into() } else { it }).collect();
        Rule {
            verbs: words(verbs),
            api_groups: core(words(groups)),
            resources: words(resources),
            resource_names: words(names),
            urls: vec![],
        }
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_beside() {
        let asked = |verb, group, resource, subresource, name| Attributes {
            verb,
            group,
            resource,
            subresource,
            name,
            ..Attributes::default()
        };
        let pods = rule("get list", "core", "pods pods/log", "");
        assert!(pods.allows(&asked("get", "", "pods", "", "a")) && pods.allows(&asked("get", "", "pods", "log", "a")));
        assert!(
            !pods.allows(&asked("get", "", "pods", "exec", "a")) && !pods.allows(&asked("get", "apps", "pods", "", ""))
        );
        let scale = rule("*", "*", "*/scale", "");
        assert!(scale.allows(&asked("update", "apps", "deployments", "scale", "a")));
        assert!(!scale.allows(&asked("update", "apps", "deployments", "", "a")));
        let named = rule("get", "core", "secrets", "a b");
        assert!(
            named.allows(&asked("get", "", "secrets", "", "b")) && !named.allows(&asked("get", "", "secrets", "", "c"))
        );
        assert!(!named.allows(&asked("get", "", "secrets", "", "")), "a list has no name");
        assert!(rule("*", "*", "*", "").allows(&asked("x", "y", "z", "q", "")));
    }

    #[test]
    fn a_path_is_itself_or_below_a_star() {
        let rule =
            Rule { verbs: vec!["get".into()], urls: vec!["/healthz".into(), "/api/*".into()], ..Rule::default() };
        assert!(rule.allows_path("get", "/healthz") && rule.allows_path("get", "/api/v1"));
        assert!(
            !rule.allows_path("get", "/healthz/x")
                && !rule.allows_path("get", "/api")
                && !rule.allows_path("put", "/api/")
        );
    }

    #[test]
    fn covering_is_exact() {
        let wide = rule("get list", "core apps", "pods deployments", "");
        assert!(wide.covers(&rule("get", "core", "pods", "a")));
        assert!(!wide.covers(&rule("get delete", "core", "pods", "")));
        assert!(!wide.covers(&rule("get", "core", "pods/log", "")) && !wide.covers(&rule("get", "*", "pods", "")));
        assert!(rule("*", "*", "*", "").covers(&rule("*", "*", "*", "")) && rule("*", "*", "*", "").covers(&wide));
        assert!(!rule("get", "core", "pods", "a").covers(&rule("get", "core", "pods", "")), "one name is not all");
        assert!(rule("get", "core", "*/log", "").covers(&rule("get", "core", "pods/log", "")));
        assert!(!rule("get", "core", "pods", "").covers(&rule("get", "core", "*", "")));
    }

    #[test]
    fn several_rules_cover_together_and_the_rest_is_named() {
        let held = [rule("get", "core", "pods", ""), rule("list", "core", "pods secrets", "")];
        assert!(uncovered(&held, &[rule("get list", "core", "pods", "")], 100).is_empty());
        let missing = uncovered(&held, &[rule("get", "core", "pods secrets", "")], 100);
        let texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(texts, [r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#]);
        assert_eq!(uncovered(&held, &[rule("a b c", "x y z", "q r s", "")], 10).len(), 1, "too many pieces are one");
    }
}
