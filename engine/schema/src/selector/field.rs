//! Field selectors: `metadata.name=x,status.phase!=Running`, with `\\`, `\,` and `\=` inside values.

use std::fmt;
use std::str::FromStr;

use super::SelectorError;

/// How the value of a field is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOperator {
    /// `=` or `==`.
    Equals,
    /// `!=`.
    NotEquals,
}

/// A set of conditions on fields, all of which must hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<(String, FieldOperator, String)>,
}

impl FieldSelector {
    /// Reads the form of a query parameter; the empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, operator, value) = split_term(part).ok_or_else(|| SelectorError::Syntax {
                selector: text.to_owned(),
                found: format!("{part:?}"),
                expected: "a field, one of = == !=, and a value",
            })?;
            let value = unescape(value).ok_or_else(|| SelectorError::Syntax {
                selector: text.to_owned(),
                found: format!("{value:?}"),
                expected: r"a value in which \ , and = are written \\ \, and \=",
            })?;
            terms.push((field.to_owned(), operator, value));
        }
        Ok(Self { terms })
    }

    /// Whether it selects every object.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The conditions, in the order they were written.
    pub fn terms(&self) -> &[(String, FieldOperator, String)] {
        &self.terms
    }

    /// The value that `field` must have, where one is asked for: lets a list by name become a get.
    pub fn required(&self, field: &str) -> Option<&str> {
        let equal = |(name, operator, _): &&(String, FieldOperator, String)| {
            name == field && *operator == FieldOperator::Equals
        };
        self.terms.iter().find(equal).map(|(_, _, value)| value.as_str())
    }

    /// Whether an object is selected whose fields `field` looks up; a missing field counts as empty.
    pub fn matches(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|(name, operator, value)| {
            let found = field(name).unwrap_or_default();
            (found == *value) == (*operator == FieldOperator::Equals)
        })
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, FieldOperator, &str)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    let (operator, value) = if let Some(value) = rest.strip_prefix("!=") {
        (FieldOperator::NotEquals, value)
    } else {
        let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
        (FieldOperator::Equals, value)
    };
    (!field.is_empty()).then_some((field, operator, value))
}

/// The value without its escapes; `None` where an escape is unknown or a special character stands unescaped.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.push(letters.next().filter(|next| "\\,=".contains(*next))?),
            ',' | '=' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (field, operator, value)) in self.terms.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let sign = if *operator == FieldOperator::Equals { "=" } else { "!=" };
            write!(f, "{comma}{field}{sign}")?;
            for letter in value.chars() {
                let escape = if "\\,=".contains(letter) { "\\" } else { "" };
                write!(f, "{escape}{letter}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selects(selector: &str) -> bool {
        let selector = FieldSelector::parse(selector).unwrap_or_else(|wrong| panic!("{wrong}"));
        selector.matches(|field| match field {
            "metadata.name" => Some("web".to_owned()),
            "odd" => Some("a,b=c\\d".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn fields_are_compared_and_missing_ones_are_empty() {
        for selector in [
            "",
            ",",
            "metadata.name=web",
            "metadata.name==web",
            "metadata.name!=x",
            "spec.nodeName=",
            r"odd=a\,b\=c\\d",
            "metadata.name=web,gone!=x",
        ] {
            assert!(selects(selector), "{selector}");
        }
        for selector in ["metadata.name=x", "metadata.name!=web", "spec.nodeName!=", "metadata.name=web,gone=x"] {
            assert!(!selects(selector), "{selector}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_selector_is_named() {
        for (selector, part) in [
            ("a", "\"a\""),
            ("=b", "\"=b\""),
            ("a=b=c", "\"b=c\""),
            (r"a=\x", "\\\\x"),
            (r"a=b\", "b\\\\"),
            ("x=1,a!b", "\"a!b\""),
        ] {
            let wrong = FieldSelector::parse(selector).expect_err(selector).to_string();
            assert!(wrong.contains(part), "{selector} gave {wrong}");
        }
    }

    #[test]
    fn the_required_value_of_a_field_is_found() {
        let selector = FieldSelector::parse("a!=x,metadata.name=web").unwrap();
        assert_eq!(selector.required("metadata.name"), Some("web"));
        assert_eq!(selector.required("a"), None);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_again_gives_the_same_selector(field in "[a-z.]{1,8}", value in "\\PC{0,8}", equal: bool) {
            let operator = if equal { FieldOperator::Equals } else { FieldOperator::NotEquals };
            let selector = FieldSelector { terms: vec![(field, operator, value)] };
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[a=!,\\\\]{0,12}|\\PC{0,20}") {
            if let Ok(selector) = FieldSelector::parse(&text) {
                prop_assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
