//! What a name may look like: objects, labels, ports, environment variables, keys of a ConfigMap.
//!
//! Each function answers with one sentence that says what is wrong and what would be right; the caller adds the field.
//! Lengths are in bytes, which equals characters because every accepted character is ASCII.

/// The longest DNS label, label value and name part of a label key.
pub const LABEL_MAX: usize = 63;
/// The longest DNS subdomain: object names and prefixes of label keys.
pub const SUBDOMAIN_MAX: usize = 253;
/// The longest name of a port (RFC 6335, section 5.1).
pub const PORT_NAME_MAX: usize = 15;

/// Checks a DNS label of RFC 1123, such as the name of a namespace or a container.
pub fn dns1123_label(name: &str) -> Result<(), String> {
    bounded(name, LABEL_MAX)?;
    if is_label(name) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no DNS label: use lower-case letters, digits and '-', and begin and end with a letter or digit"
    ))
}

/// Checks a DNS subdomain of RFC 1123, such as the name of most objects.
pub fn dns1123_subdomain(name: &str) -> Result<(), String> {
    bounded(name, SUBDOMAIN_MAX)?;
    if name.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no DNS subdomain: use lower-case letters, digits, '-' and '.', \
         and begin and end each dotted part with a letter or digit"
    ))
}

/// Checks a DNS label of RFC 1035, such as the name of a Service: unlike RFC 1123's it begins with a letter.
pub fn dns1035_label(name: &str) -> Result<(), String> {
    bounded(name, LABEL_MAX)?;
    if is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no DNS label of RFC 1035: use lower-case letters, digits and '-', \
         begin with a letter and end with a letter or digit"
    ))
}

/// Checks a qualified name: `[prefix/]name`, the key of a label, an annotation or an extended resource.
pub fn qualified_name(name: &str) -> Result<(), String> {
    let local = match name.split_once('/') {
        None => name,
        Some(("", _)) => return Err(format!("{name:?} has an empty prefix before '/'")),
        Some((prefix, local)) => {
            dns1123_subdomain(prefix).map_err(|wrong| format!("the prefix of {name:?} is not valid: {wrong}"))?;
            local
        }
    };
    if local.contains('/') {
        return Err(format!("{name:?} has more than one '/': a prefix and a name, such as example.com/name, is all"));
    }
    bounded(local, LABEL_MAX).map_err(|wrong| format!("the name part of {name:?} {wrong}"))?;
    if is_word(local) {
        return Ok(());
    }
    Err(format!(
        "the name part of {name:?} may hold letters, digits, '-', '_' and '.', \
         and begins and ends with a letter or digit"
    ))
}

/// Checks the value of a label; the empty one is fine.
pub fn label_value(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    bounded(value, LABEL_MAX)?;
    if is_word(value) {
        return Ok(());
    }
    Err(format!(
        "{value:?} is no label value: use letters, digits, '-', '_' and '.', and begin and end with a letter or digit"
    ))
}

/// Checks the name of an environment variable: any printable ASCII but `=`, as Kubernetes 1.34 and later take it.
pub fn env_var_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Ok(());
    }
    Err(format!("{name:?} is no name of an environment variable: use printable ASCII characters other than '='"))
}

/// Checks the name of a port (`IANA_SVC_NAME`).
pub fn port_name(name: &str) -> Result<(), String> {
    bounded(name, PORT_NAME_MAX)?;
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Err(format!("{name:?} is no port name: use lower-case letters, digits and '-'"));
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(format!("{name:?} is no port name: at least one letter is needed"));
    }
    if name.contains("--") {
        return Err(format!("{name:?} is no port name: '-' may not follow '-'"));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(format!("{name:?} is no port name: it may not begin or end with '-'"));
    }
    Ok(())
}

/// Checks a key of a ConfigMap or a Secret, which becomes a file name.
pub fn config_key(key: &str) -> Result<(), String> {
    bounded(key, SUBDOMAIN_MAX)?;
    if key == "." || key.starts_with("..") {
        return Err(format!("{key:?} may not be '.' or begin with '..'"));
    }
    if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(());
    }
    Err(format!("{key:?} may hold only letters, digits, '-', '_' and '.'"))
}

fn bounded(name: &str, max: usize) -> Result<(), String> {
    match name.len() {
        0 => Err("must not be empty".to_owned()),
        length if length > max => Err(format!("must be no more than {max} characters, not {length}")),
        _ => Ok(()),
    }
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    framed(name, inner, b"-")
}

fn is_word(name: &str) -> bool {
    framed(name, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

/// Whether `name` holds only `edge` characters and `within`, and begins and ends with an `edge` one.
fn framed(name: &str, edge: impl Fn(u8) -> bool, within: &[u8]) -> bool {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    edge(*first) && edge(*last) && bytes.iter().all(|byte| edge(*byte) || within.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Result<(), String>;

    fn assert_table(check: Check, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(check(name), Ok(()), "{name:?} should pass");
        }
        for name in bad {
            assert!(check(name).is_err(), "{name:?} should be refused");
        }
    }

    #[test]
    fn dns_names_follow_their_rfc() {
        let long = "a".repeat(64);
        assert_table(dns1123_label, &["a", "0", "a-b", "1a"], &["", "A", "-a", "a-", "a.b", "a_b", "ä", &long]);
        assert_table(dns1035_label, &["a", "a-1"], &["", "1a", "a-", "a.b"]);
        let long = "a.".repeat(127) + "a";
        assert_table(dns1123_subdomain, &["a", "a.b-c.0"], &["", "a..b", ".a", "a.", "a.-b", "A.b", &long]);
    }

    #[test]
    fn label_keys_have_one_optional_prefix() {
        assert_table(
            qualified_name,
            &["app", "App_1.x", "example.com/app", "app.kubernetes.io/name"],
            &["", "/a", "a/", "a/b/c", "Ex.com/a", "-a", "a-", "a b"],
        );
        let key = format!("{}/{}", "p".repeat(253), "n".repeat(63));
        assert_eq!(qualified_name(&key), Ok(()));
        assert!(qualified_name(&format!("{key}n")).unwrap_err().contains("63"));
    }

    #[test]
    fn label_values_may_be_empty() {
        assert_table(label_value, &["", "a", "1.2.3", "A_b-c"], &["-a", "a.", "a/b", "a b", "a\n", &"a".repeat(64)]);
    }

    #[test]
    fn environment_names_take_all_printable_ascii_but_the_equals_sign() {
        assert_table(env_var_name, &["A", "a.b", "1A", "a b", "("], &["", "A=B", "A\n", "Ä", "\u{7f}"]);
    }

    #[test]
    fn port_names_need_a_letter_and_no_double_hyphen() {
        assert_table(
            port_name,
            &["http", "http-2", "0a", "a-b-c"],
            &["", "80", "-a", "a-", "a--b", "HTTP", "a_b", "a234567890123456"],
        );
    }

    #[test]
    fn config_keys_are_file_names() {
        assert_table(config_key, &["a", "a.b", ".env", "A_b-c"], &["", ".", "..", "..a", "a/b", "a b"]);
    }
}
