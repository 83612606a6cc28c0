//! Rules about single texts and numbers: names, label values, ports, quantities.
//!
//! Each returns what is wrong in words that finish "field: Invalid value: ...".

use serde_json::Value;

use crate::lookup;

type Checked = Result<(), String>;

fn word(text: &str, first: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool, last: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => first(*only) && last(*only),
        [head, middle @ .., tail] => first(*head) && middle.iter().all(|byte| inner(*byte)) && last(*tail),
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn bounded(text: &str, limit: usize) -> Checked {
    if text.len() <= limit { Ok(()) } else { Err(format!("must be no more than {limit} characters")) }
}

fn ensure(holds: bool, rule: &str) -> Checked {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

/// `my-name`
pub(crate) fn dns_label(text: &str) -> Checked {
    bounded(text, 63)?;
    let rule = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                and end with an alphanumeric character (e.g. 'my-name',  or '123-abc')";
    ensure(word(text, lower, |byte| lower(byte) || byte == b'-', lower), rule)
}

/// `my-name`, not beginning with a digit.
pub(crate) fn dns1035_label(text: &str) -> Checked {
    bounded(text, 63)?;
    let rule = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123')";
    ensure(word(text, |byte| byte.is_ascii_lowercase(), |byte| lower(byte) || byte == b'-', lower), rule)
}

/// `example.com`
pub(crate) fn dns_subdomain(text: &str) -> Checked {
    bounded(text, 253)?;
    let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                must start and end with an alphanumeric character (e.g. 'example.com')";
    let part = |part: &str| word(part, lower, |byte| lower(byte) || byte == b'-', lower);
    ensure(text.split('.').all(part), rule)
}

/// `example.com/MyName`: the key of a label or an annotation.
pub(crate) fn qualified_name(text: &str) -> Checked {
    let name = match text.split_once('/') {
        Some(("", _)) => return Err("prefix part must be non-empty".to_owned()),
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|problem| format!("prefix part {problem}"))?;
            name
        }
        None => text,
    };
    if name.is_empty() {
        return Err("name part must be non-empty".to_owned());
    }
    bounded(name, 63).map_err(|problem| format!("name part {problem}"))?;
    let rule = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc')";
    ensure(name_word(name), rule)
}

/// Empty, or `my_value`.
pub(crate) fn label_value(text: &str) -> Checked {
    bounded(text, 63)?;
    let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345')";
    ensure(text.is_empty() || name_word(text), rule)
}

fn name_word(text: &str) -> bool {
    word(text, alphanumeric, |byte| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.'), alphanumeric)
}

/// `http`: the name of a port in a pod.
pub(crate) fn port_name(text: &str) -> Checked {
    bounded(text, 15)?;
    ensure(
        text.bytes().all(|byte| lower(byte) || byte == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    )?;
    ensure(text.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)")?;
    ensure(!text.contains("--"), "must not contain consecutive hyphens")?;
    ensure(!text.starts_with('-') && !text.ends_with('-'), "must not begin or end with a hyphen")
}

/// A key of a config map or a secret, which may become a file name.
pub(crate) fn data_key(text: &str) -> Checked {
    bounded(text, 253)?;
    let plain = |byte: u8| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.');
    let rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                'KEY_NAME',  or 'key-name')";
    ensure(!text.is_empty() && text.bytes().all(plain), rule)?;
    ensure(text != "." && !text.starts_with(".."), "must not be '.' and must not start with '..'")
}

/// The name of an environment variable.
pub(crate) fn env_name(text: &str) -> Checked {
    let rule = "a valid environment variable name must consist only of printable ASCII characters other than '='";
    ensure(text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'='), rule)
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
    let rule = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    ensure(nanos(text).is_some(), rule)
}

/// A quantity in billionths, rounded up; `None` when it is none or too large to say so.
pub(crate) fn nanos(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, digits) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mantissa: i128 =
        if whole.is_empty() && fraction.is_empty() { 0 } else { format!("{whole}{fraction}").parse().ok()? };
    let (times, tens) = scale(suffix)?;
    let tens = tens + 9 - i32::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(times)?;
    let nanos = if tens >= 0 {
        scaled.checked_mul(10_i128.checked_pow(tens.unsigned_abs())?)?
    } else {
        let divisor = 10_i128.checked_pow(tens.unsigned_abs())?;
        scaled / divisor + i128::from(scaled % divisor != 0)
    };
    Some(if negative { -nanos } else { nanos })
}

/// What a suffix multiplies with: a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    if let Some(index) = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|each| *each == suffix) {
        return Some((1_i128 << (10 * (index + 1)), 0));
    }
    let tens = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        other => other.strip_prefix(['e', 'E'])?.parse().ok().filter(|tens| (-30..=30).contains(tens))?,
    };
    Some((1, tens))
}

/// Whether a label selector (`matchLabels`, `matchExpressions`) picks a set of labels.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let equal = lookup::entries(selector, "matchLabels").all(|(key, value)| label(key) == value.as_str());
    equal
        && lookup::list(selector, "matchExpressions").iter().all(|term| {
            let value = label(lookup::text(term, "key"));
            let listed = || lookup::list(term, "values").iter().any(|each| each.as_str() == value);
            match lookup::text(term, "operator") {
                "In" => value.is_some() && listed(),
                "NotIn" => value.is_none() || !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
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
    fn quantities_are_exact() {
        assert_eq!(nanos("500m"), nanos("0.5"));
        assert_eq!(nanos("1Ki"), nanos("1024"));
        assert_eq!(nanos("1.5Gi"), nanos("1536Mi"));
        assert_eq!(nanos("1e3"), nanos("1k"));
        assert_eq!(nanos("-1"), Some(-1_000_000_000));
        for bad in ["", "x", "1x", "1..2", "--1", "1 ", "."] {
            assert_eq!(nanos(bad), None, "{bad}");
        }
    }

    #[test]
    fn selectors_pick_labels() {
        let labels = json!({ "app": "web", "tier": "front" });
        assert!(selects(&json!({ "matchLabels": { "app": "web" } }), &labels));
        assert!(!selects(&json!({ "matchLabels": { "app": "db" } }), &labels));
        let term = |operator: &str| json!({ "matchExpressions": [{ "key": "tier", "operator": operator, "values": ["front"] }] });
        assert!(selects(&term("In"), &labels) && !selects(&term("NotIn"), &labels));
        assert!(selects(&term("Exists"), &labels) && !selects(&term("DoesNotExist"), &labels));
    }
}
