//! Whether a container that ended is started again: by its policy, or by what it ended with. Pure.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRuleOnExitCodes};

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// However it ended.
    Always,
    /// Unless it ended well.
    OnFailure,
    /// Not at all.
    Never,
}

impl Restart {
    pub(crate) fn parse(word: Option<&str>) -> Self {
        match word {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    pub(super) fn wants(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// Exit codes after which a container is started again whatever its policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExitRule {
    codes: Vec<i32>,
    /// Whether it means all other codes.
    others: bool,
}

impl ExitRule {
    pub(super) fn all_of(spec: &Container) -> Vec<Self> {
        let rules = spec.restart_policy_rules.as_deref().unwrap_or_default();
        let restarts = rules.iter().filter(|rule| rule.action == "Restart").filter_map(|rule| rule.exit_codes.as_ref());
        let rule = |codes: &ContainerRestartRuleOnExitCodes| Self {
            codes: codes.values.clone().unwrap_or_default(),
            others: codes.operator == "NotIn",
        };
        restarts.map(rule).collect()
    }

    pub(super) fn matches(&self, code: i32) -> bool {
        self.codes.contains(&code) != self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_means_its_codes_or_all_others() {
        let rule =
            |operator: &str| json!({"action": "Restart", "exitCodes": {"operator": operator, "values": [1, 42]}});
        let of = |rules: serde_json::Value| {
            let container = json!({"name": "c", "restartPolicyRules": rules});
            ExitRule::all_of(&serde_json::from_value(container).expect("a container"))
        };
        let (these, others) = (&of(json!([rule("In")]))[0], &of(json!([rule("NotIn")]))[0]);
        assert!(these.matches(42) && !these.matches(2));
        assert!(others.matches(2) && !others.matches(42));
        assert!(of(json!([{"action": "Other", "exitCodes": {"operator": "In", "values": [1]}}])).is_empty());
    }
}
