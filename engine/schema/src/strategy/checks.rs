//! Rules about single texts and numbers, worded as `kubectl` shows them: each answer finishes
//! "field: Invalid value: ...". What is right and wrong is decided in `names`, `quantity` and `selector`.

use std::net::IpAddr;

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

/// A name that stands in a path, such as `system:node`: whatever does not end or climb it.
pub(crate) fn path_segment(text: &str) -> Checked {
    ensure(text != "." && text != "..", &format!("may not be '{text}'"))?;
    match ['/', '%'].into_iter().find(|letter| text.contains(*letter)) {
        Some(letter) => Err(format!("may not contain '{letter}'")),
        None => Ok(()),
    }
}

/// `example.com/some/path`: a domain and a path below it.
pub(crate) fn domain_path(text: &str) -> Checked {
    let rule = "must be a domain-prefixed path (such as \"acme.io/foo\")";
    let (domain, path) = text.split_once('/').ok_or(rule)?;
    dns_subdomain(domain)?;
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    ensure(path.split('/').all(is_part), rule)
}

/// `webhook.example.com`: at least three dotted parts.
pub(crate) fn qualified_domain(text: &str) -> Checked {
    dns_subdomain(text)?;
    ensure(text.split('.').count() >= 3, "should be a domain with at least three segments separated by dots")
}

/// The name of a storage driver.
pub(crate) fn driver_name(text: &str) -> Checked {
    ensure(text.len() <= names::LABEL_MAX, "must be no more than 63 characters")?;
    dns_subdomain(&text.to_lowercase())
}

/// `example.com` or `*.example.com`.
pub(crate) fn host(text: &str) -> Checked {
    ensure(text.parse::<IpAddr>().is_err(), "must be a DNS name, not an IP address")?;
    let rule = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
                of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
                '*.example.com')";
    match text.strip_prefix("*.") {
        Some(rest) => names::dns1123_subdomain(rest).map_err(|_| rule.to_owned()),
        None if text.contains('*') => Err(rule.to_owned()),
        None => dns_subdomain(text),
    }
}

/// `10.0.0.0/8`: a range of addresses, written by its first one.
pub(crate) fn cidr(text: &str) -> Checked {
    let rule = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    network(text).map(drop).ok_or_else(|| rule.to_owned())
}

/// The first address of a range, its bits as a number, and how many of them all its addresses share.
pub(crate) fn network(text: &str) -> Option<(IpAddr, u128, u32)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u32 = length.parse().ok().filter(|_| length.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (bits, size) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let rest = size - length.min(size);
    let first = bits.checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0);
    (length <= size && first == bits).then_some((address, bits, length))
}

/// `25%`
pub(crate) fn percent(text: &str) -> Option<u32> {
    let digits = text.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A count, or a share in percent.
pub(crate) fn share(value: &Value) -> Checked {
    match value {
        Value::String(text) => ensure(
            percent(text).is_some(),
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%')",
        ),
        other => ensure(other.as_i64().is_none_or(|number| number >= 0), "must be greater than or equal to 0"),
    }
}

/// `http://host` or `https://host`, whatever follows.
pub(crate) fn url_of(text: &str, scheme: &str) -> Checked {
    let rest = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let rest = rest.ok_or_else(|| format!("'{scheme}' is the only allowed URL scheme"))?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    ensure(!host.is_empty(), "host must be specified")?;
    ensure(!host.contains('@'), "user information is not permitted in the URL")?;
    ensure(!rest.contains(['?', '#']), "query parameters and fragments are not permitted in the URL")
}

/// An identifier of an expression language.
pub(crate) fn identifier(text: &str) -> Checked {
    let first = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    ensure(first && rest, "must be a valid identifier: letters, digits and '_', not beginning with a digit")
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
    fn ranges_begin_at_their_first_address() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32", "fd00::/8", "::/0"] {
            assert!(cidr(good).is_ok(), "{good}");
        }
        for bad in ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8", "fd00::/129", ""] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_with_domains_follow_their_rules() {
        assert!(path_segment("system:node").is_ok() && path_segment("a/b").is_err() && path_segment("..").is_err());
        assert!(domain_path("example.com/a/b").is_ok() && domain_path("example.com").is_err());
        assert!(domain_path("example.com/").is_err() && domain_path("Example/a").is_err());
        assert!(qualified_domain("a.example.com").is_ok() && qualified_domain("example.com").is_err());
        assert!(host("*.example.com").is_ok() && host("a.*.com").is_err() && host("10.0.0.1").is_err());
        assert!(url_of("https://a.b/c", "https").is_ok() && url_of("http://a", "https").is_err());
        assert!(url_of("https://u@a", "https").is_err() && url_of("https://a?b", "https").is_err());
        assert!(identifier("_a1").is_ok() && identifier("1a").is_err() && identifier("").is_err());
        assert!(driver_name("Disk.CSI.example.com").is_ok() && driver_name("a_b").is_err());
    }

    #[test]
    fn shares_are_counts_or_percents() {
        for (value, good) in [(json!("25%"), true), (json!(3), true), (json!(-1), false), (json!("half"), false)] {
            assert_eq!(share(&value).is_ok(), good, "{value}");
        }
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
