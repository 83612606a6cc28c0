//! Rules about single texts and numbers, worded as `kubectl` shows them: each answer finishes
//! "field: Invalid value: ...". What is right and wrong is decided in `names`, `quantity` and `selector`.

use serde_json::Value;

use crate::names;
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

type Checked = Result<(), String>;

fn ensure(holds: bool, rule: &str) -> Checked {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

/// Says which of the two is wrong with a name: its length or its letters.
fn name(text: &str, check: fn(&str) -> Checked, limit: usize, rule: &str) -> Checked {
    check(text).map_err(|_| {
        if text.len() > limit { format!("must be no more than {limit} characters") } else { rule.to_owned() }
    })
}

/// `my-name`
pub(crate) fn dns_label(text: &str) -> Checked {
    let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                and end with an alphanumeric character (e.g. 'my-name',  or '123-abc')";
    name(text, names::dns1123_label, names::LABEL_MAX, rule)
}

/// `my-name`, not beginning with a digit.
pub(crate) fn dns1035_label(text: &str) -> Checked {
    let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123')";
    name(text, names::dns1035_label, names::LABEL_MAX, rule)
}

/// `example.com`
pub(crate) fn dns_subdomain(text: &str) -> Checked {
    let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                must start and end with an alphanumeric character (e.g. 'example.com')";
    name(text, names::dns1123_subdomain, names::SUBDOMAIN_MAX, rule)
}

/// A name that can stand in a path: the names of roles may hold colons.
pub(crate) fn path_segment(text: &str) -> Checked {
    ensure(!matches!(text, "." | ".."), &format!("may not be '{text}'"))?;
    ensure(!text.contains('/'), "may not contain '/'")?;
    ensure(!text.contains('%'), "may not contain '%'")
}

/// `example.com/MyName`: the key of a label or an annotation.
pub(crate) fn qualified_name(text: &str) -> Checked {
    names::qualified_name(text).map_err(|_| match text.split_once('/') {
        Some(("", _)) => "prefix part must be non-empty".to_owned(),
        Some((prefix, _)) if names::dns1123_subdomain(prefix).is_err() => "prefix part must be a DNS subdomain".to_owned(),
        _ if text.is_empty() || text.ends_with('/') => "name part must be non-empty".to_owned(),
        _ => "name part must consist of at most 63 alphanumeric characters, '-', '_' or '.', and must start and end with \
              an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc')"
            .to_owned(),
    })
}

/// Empty, or `my_value`.
pub(crate) fn label_value(text: &str) -> Checked {
    let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345')";
    name(text, names::label_value, names::LABEL_MAX, rule)
}

/// `http`: the name of a port in a pod.
pub(crate) fn port_name(text: &str) -> Checked {
    let rule = "must consist of lower case letters, digits and single hyphens, must contain at least one letter, and must \
                not begin or end with a hyphen";
    name(text, names::port_name, names::PORT_NAME_MAX, rule)
}

/// A key of a config map or a secret, which may become a file name.
pub(crate) fn data_key(text: &str) -> Checked {
    ensure(!text.is_empty(), "must not be empty")?;
    ensure(text != "." && !text.starts_with(".."), "must not be '.' and must not start with '..'")?;
    let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                'KEY_NAME',  or 'key-name')";
    name(text, names::config_key, names::SUBDOMAIN_MAX, rule)
}

/// The name of an environment variable.
pub(crate) fn env_name(text: &str) -> Checked {
    let rule = "a valid environment variable name must consist only of printable ASCII characters other than '='";
    names::env_var_name(text).map_err(|_| rule.to_owned())
}

/// 1 to 65535.
pub(crate) fn port(number: i64) -> Checked {
    ensure((1..=65535).contains(&number), "must be between 1 and 65535, inclusive")
}

/// A port by number or by name.
pub(crate) fn port_or_name(value: &Value) -> Checked {
    match value {
        Value::String(name) => port_name(name),
        other => port(other.as_i64().unwrap_or(0)),
    }
}

/// A path that stays inside the folder it is joined to.
pub(crate) fn inner_path(text: &str) -> Checked {
    ensure(!text.starts_with('/'), "must be a relative path")?;
    ensure(!text.split('/').any(|part| part == ".."), "must not contain '..'")
}

/// `500m`, `1.5`, `2Gi`
pub(crate) fn quantity(text: &str) -> Checked {
    Quantity::parse(text).map(drop).map_err(|problem| problem.to_string())
}

/// Whether a label selector (`matchLabels`, `matchExpressions`) does not pick a set of labels. A selector that is not
/// valid passes over nothing: what is wrong with it is said elsewhere.
pub(crate) fn passes_over(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    LabelSelector::from_value(selector).is_ok_and(|selector| !selector.matches(label))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_follow_their_rules() {
        assert!(dns_label("a-1").is_ok() && dns_label("1a").is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        assert!(dns_subdomain("a.b-c.1").is_ok() && dns_subdomain("a..b").is_err());
        assert!(dns1035_label("1a").is_err() && dns1035_label("a1").is_ok());
        assert!(qualified_name("example.com/A_b.c").is_ok() && qualified_name("a").is_ok());
        for bad in ["", "/a", "a/", "a/b/c", "Ex.com/a"] {
            assert!(qualified_name(bad).is_err(), "{bad}");
        }
        assert!(label_value("").is_ok() && label_value("-").is_err());
        assert!(port_name("http-2").is_ok() && port_name("8080").is_err() && port_name("a--b").is_err());
        assert!(data_key("..data").is_err() && data_key(".hidden").is_ok());
    }

    #[test]
    fn selectors_pick_labels() {
        let labels = json!({ "app": "web", "tier": "front" });
        assert!(!passes_over(&json!({ "matchLabels": { "app": "web" } }), &labels));
        assert!(passes_over(&json!({ "matchLabels": { "app": "db" } }), &labels));
        let term = |operator: &str| json!({ "matchExpressions": [{ "key": "tier", "operator": operator, "values": ["front"] }] });
        assert!(!passes_over(&term("In"), &labels) && passes_over(&term("NotIn"), &labels));
        assert!(!passes_over(&term("Nonsense"), &labels));
    }
}
