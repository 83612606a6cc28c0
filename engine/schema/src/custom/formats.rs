//! The formats of text and numbers that are checked; others are taken as they come, as upstream does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use crate::invalid::FieldError;
use crate::names;
use crate::path::Path;
use crate::tree::Schema;

/// What is wrong with the format of a value of the right type.
pub(super) fn error(schema: &Schema, value: &Value, path: &Path<'_>) -> Option<FieldError> {
    let format = schema.format()?;
    let fits = match value {
        Value::String(text) => fits(format, text),
        Value::Number(number) => match format {
            "int32" => number.as_i64().is_none_or(|number| i32::try_from(number).is_ok()),
            "int64" => number.as_f64().is_none_or(|number| number.abs() < 9.3e18),
            _ => true,
        },
        _ => true,
    };
    (!fits).then(|| FieldError::invalid(path, value, &format!("{path} in body must be of type {format}: {value}")))
}

fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "duration" => duration(text),
        "byte" => STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "hostname" => names::dns1123_subdomain(&text.to_ascii_lowercase()).is_ok(),
        "uri" => uri(text),
        "email" => email(text),
        "mac" => mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid(format, text),
        "hexcolor" => hex_color(text),
        "k8s-short-name" => names::dns1123_label(text).is_ok(),
        "k8s-long-name" => names::dns1123_subdomain(text).is_ok(),
        _ => true,
    }
}

/// `1h30m`, as Go writes durations.
pub(super) fn duration(text: &str) -> bool {
    crate::duration::nanoseconds(text).is_some()
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

/// Absolute, or a path from the root, without blanks.
fn uri(text: &str) -> bool {
    let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
            && !rest.is_empty()
    });
    (scheme || text.starts_with('/')) && !text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

fn email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(name, host)| {
        !name.is_empty()
            && !name.contains(char::is_whitespace)
            && names::dns1123_subdomain(&host.to_ascii_lowercase()).is_ok()
    })
}

fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8)
        && parts.iter().all(|part| part.len() == 2 && part.chars().all(|letter| letter.is_ascii_hexdigit()))
}

fn uuid(format: &str, text: &str) -> bool {
    let bare: String = text.chars().filter(|letter| *letter != '-').collect();
    let version = format.strip_prefix("uuid").and_then(|version| version.chars().next());
    bare.len() == 32
        && bare.chars().all(|letter| letter.is_ascii_hexdigit())
        && version.is_none_or(|version| bare.as_bytes()[12] == version as u8)
}

fn hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.chars().all(|letter| letter.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_formats_are_told_apart_and_unknown_ones_pass() {
        for (format, good, bad) in [
            ("date-time", "2024-02-29T10:00:00Z", "2024-02-30T10:00:00Z"),
            ("date", "2024-02-29", "2024-2-9"),
            ("duration", "1h30m0.5s", "1 hour"),
            ("byte", "aGk=", "%%"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "fd00::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("hostname", "example.com", "-a"),
            ("uri", "https://a/b", "no uri"),
            ("email", "a@example.com", "a"),
            ("mac", "00:11:22:aa:bb:cc", "00:11"),
            ("uuid4", "9b2f0c4e-3a1d-4c7e-8f2a-5b6c7d8e9f00", "9b2f0c4e-3a1d-1c7e-8f2a-5b6c7d8e9f00"),
            ("hexcolor", "#ffcc00", "#ffcc0"),
            ("k8s-short-name", "abc", "a.b"),
        ] {
            assert!(fits(format, good), "{format} {good}");
            assert!(!fits(format, bad), "{format} {bad}");
        }
        assert!(fits("made-up", "anything"));
    }
}
