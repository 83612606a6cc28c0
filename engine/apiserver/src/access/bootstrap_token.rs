//! Bootstrap tokens: `<id>.<secret>`, kept as Secrets in `kube-system`, with which nodes ask to join.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use subtle::ConstantTimeEq;

use crate::ApiServer;
use crate::clock;
use crate::identity::Identity;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// The public and the secret part of a text that has the form of a bootstrap token.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let (id, secret) = token.split_once('.')?;
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Who the token stands for, when its Secret says that it may be used so.
pub(super) fn check(server: &ApiServer, id: &str, secret: &str) -> Option<Identity> {
    let object = server.accounts().secret(&format!("kube-system/bootstrap-token-{id}"))?.value();
    let text = |key: &str| text(&object["data"], key).unwrap_or_default();
    let same: bool = text("token-secret").as_bytes().ct_eq(secret.as_bytes()).into();
    let terminating = !object["metadata"]["deletionTimestamp"].is_null();
    let used = text("usage-bootstrap-authentication") == "true";
    if !same || terminating || !used || object["type"] != TYPE || text("token-id") != id || is_over(&text("expiration"))
    {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in text("auth-extra-groups").split(',').map(str::trim).filter(|group| !group.is_empty()) {
        // Only groups of bootstrappers: a Secret must not make masters.
        groups.push(group.strip_prefix("system:bootstrappers:").map(|_| group.to_owned())?);
    }
    Some(Identity { user: format!("system:bootstrap:{id}"), groups, ..Identity::default() })
}

fn text(data: &Value, key: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(data[key].as_str()?).ok()?).ok()
}

/// Whether the time is over; one that cannot be read is.
fn is_over(expiration: &str) -> bool {
    !expiration.is_empty() && !expiration.parse::<jiff::Timestamp>().is_ok_and(|time| clock::now() < time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_bootstrap_token() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcde/.0123456789abcdef", "", "a.b.c"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_read_is_over() {
        assert!(is_over("2001-01-01T00:00:00Z") && is_over("soon") && !is_over("") && !is_over("2999-01-01T00:00:00Z"));
    }
}
