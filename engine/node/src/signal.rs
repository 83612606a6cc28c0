//! Signals by the names that images and pods use.

pub(crate) const KILL: i32 = 9;
pub(crate) const TERM: i32 = 15;

/// `SIGQUIT`, `QUIT` or `3` as a number.
pub(crate) fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = bare.strip_prefix("RTMIN+") {
        return offset.parse::<i32>().ok().map(|offset| 34 + offset).filter(|number| *number <= 64);
    }
    nix::sys::signal::Signal::iterator()
        .find(|signal| signal.as_str() == format!("SIG{bare}"))
        .map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        assert_eq!(number("SIGQUIT"), Some(3));
        assert_eq!(number("term"), Some(TERM));
        assert_eq!(number("9"), Some(KILL));
        assert_eq!(number("SIGRTMIN+3"), Some(37));
        assert_eq!(number("SIGNOTHING"), None);
        assert_eq!(number("0"), None);
    }
}
