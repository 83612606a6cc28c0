//! Files of variables, which init containers write for others: `NAME='value'` a line. What stands in single quotes is taken as it
//! is, over several lines if need be; lines that begin with `#` and empty ones say nothing. Pure.

/// The value of a name, the last one where it stands more than once; none where it does not stand.
pub(crate) fn value(text: &str, name: &str) -> Result<Option<String>, String> {
    let mut rest = text;
    let mut found = None;
    while let Some((known, value, after)) = next(rest)? {
        if known == name {
            found = Some(value.to_owned());
        }
        rest = after;
    }
    Ok(found)
}

/// The first variable, and the text behind it.
fn next(text: &str) -> Result<Option<(&str, &str, &str)>, String> {
    let mut rest = text;
    loop {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            if after.is_empty() {
                return Ok(None);
            }
            rest = after;
            continue;
        }
        let (name, _) = line.split_once('=').ok_or("a line is not of the form NAME='value'")?;
        let value = rest[name.len() + 1..].trim_start_matches([' ', '\t']);
        let Some(quoted) = value.strip_prefix('\'') else {
            let bare = value.split('\n').next().unwrap_or_default();
            return Ok(Some((name.trim(), bare.trim(), after)));
        };
        let (inside, behind) = quoted.split_once('\'').ok_or("a quote is not closed")?;
        let (tail, after) = behind.split_once('\n').unwrap_or((behind, ""));
        if !tail.trim().is_empty() {
            return Err(format!("there is something behind the value of {}", name.trim()));
        }
        return Ok(Some((name.trim(), inside, after)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_as_they_stand_between_quotes() {
        let text = "# made by init\n\nA='one'\n B = 'two words # no comment' \nC='first\nsecond'\nA='three'\nD=bare\n";
        let of = |name| value(text, name).expect("a file of variables");
        assert_eq!(of("A").as_deref(), Some("three"));
        assert_eq!(of("B").as_deref(), Some("two words # no comment"));
        assert_eq!(of("C").as_deref(), Some("first\nsecond"));
        assert_eq!(of("D").as_deref(), Some("bare"));
        assert_eq!(of("E"), None);
        assert_eq!(value("", "A"), Ok(None));
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for text in ["A", "A='open", "A='x' y"] {
            assert!(value(text, "A").is_err(), "{text}");
        }
    }
}
