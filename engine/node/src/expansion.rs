//! `$(NAME)` in commands, arguments and values: replaced when NAME is known, left as it stands when not; `$$` is one
//! dollar sign. As documented for container `command` and `args` in the Kubernetes API reference.

/// Expands `input`; `lookup` knows the names.
pub(crate) fn expand<'a>(input: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(dollar) = rest.find('$') {
        output.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            output.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => output.push_str(value),
                None => output.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            output.push('$');
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn known(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("x"),
            "EMPTY" => Some(""),
            "NEST" => Some("$(A)"),
            _ => None,
        }
    }

    #[test]
    fn known_names_are_replaced_and_unknown_ones_stay() {
        for (input, output) in [
            ("$(A)", "x"),
            ("_$(A)_$(A)", "_x_x"),
            ("$(EMPTY)", ""),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$$$$", "$$"),
            ("$(NEST)", "$(A)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("a$", "a$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(input, known), output, "{input}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_sign_is_left_alone(input in "[^$]*") {
            prop_assert_eq!(expand(&input, known), input);
        }

        #[test]
        fn anything_can_be_expanded(input in "[$()A-C ]*") {
            expand(&input, known);
        }
    }
}
