//! The query string: decoded once, asked by name.
//!
//! Keeps repeated parameters in order; unknown ones are simply never asked for.

use crate::error::ApiError;

/// Decoded parameters in the order of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of a URL behind `?`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key, true)?, decode(value, true)?))
        });
        Ok(Self(decoded.collect::<Result<_, ApiError>>()?))
    }

    /// The first non-empty value of a parameter.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(own, value)| own == key && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// A flag: `true`, `1` or present without a value.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.all(key).next().is_some_and(|value| matches!(value, "" | "true" | "1" | "True"))
    }

    /// A flag that may be left out.
    pub(crate) fn optional_flag(&self, key: &str) -> Option<bool> {
        self.get(key).map(|value| matches!(value, "true" | "1" | "True"))
    }

    /// A whole number that must not be negative.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let read = |text: &str| {
            text.parse().map_err(|_| ApiError::BadRequest(format!("{key}: {text:?} is not a non-negative number")))
        };
        self.get(key).map(read).transpose()
    }
}

/// The query string that says these parameters.
pub(crate) fn encode(parameters: &[(String, String)]) -> String {
    let pair = |(name, value): &(String, String)| format!("{}={}", escape(name), escape(value));
    parameters.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Percent-encodes a value.
pub(crate) fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Undoes percent-encoding; `+` means a blank in a query and itself in a path.
pub(crate) fn decode(text: &str, plus_is_blank: bool) -> Result<String, ApiError> {
    let malformed = || ApiError::BadRequest(format!("malformed percent-encoding in {text:?}"));
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' if plus_is_blank => b' ',
            b'%' => {
                let digits = [bytes.next().ok_or_else(malformed)?, bytes.next().ok_or_else(malformed)?];
                let digits = std::str::from_utf8(&digits).map_err(|_| malformed())?;
                u8::from_str_radix(digits, 16).map_err(|_| malformed())?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_empty_ones_count_as_missing() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+(a)&limit=&watch=1&force").unwrap();
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert_eq!(query.get("limit"), None);
        assert!(query.flag("watch") && query.flag("force") && !query.flag("other"));
    }

    #[test]
    fn parameters_are_encoded_and_read_back() {
        assert_eq!(escape("2026-01-02T03:04:05+01:00"), "2026-01-02T03%3A04%3A05%2B01%3A00");
        let text = encode(&[("command".into(), "echo".into()), ("command".into(), "a&b=c d".into())]);
        assert_eq!(Query::parse(&text).unwrap().all("command").collect::<Vec<_>>(), ["echo", "a&b=c d"]);
    }

    #[test]
    fn malformed_encoding_is_refused() {
        for text in ["a=%", "a=%2", "a=%zz", "a=%ff"] {
            assert!(matches!(Query::parse(text), Err(ApiError::BadRequest(_))), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_encoding(text in ".*") {
            let encoded = text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"));
            proptest::prop_assert_eq!(decode(&encoded, true).unwrap(), text);
        }
    }
}
