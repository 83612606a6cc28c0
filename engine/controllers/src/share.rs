//! Numbers that may be given as so many of a hundred.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a percentage that comes out broken is rounded to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Up,
    Down,
}

/// A number, or a percentage of `whole`; nothing where it is neither. Never negative.
pub(crate) fn share(part: &IntOrString, whole: i32, round: Round) -> Option<i32> {
    let percent: i64 = match part {
        IntOrString::Int(number) => return Some((*number).max(0)),
        IntOrString::String(text) => text.strip_suffix('%')?.parse::<i32>().ok()?.max(0).into(),
    };
    let scaled = i64::from(whole.max(0)) * percent + if round == Round::Up { 99 } else { 0 };
    Some(i32::try_from(scaled / 100).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_of_the_whole_and_numbers_stay() {
        let percent = |text: &str, whole, round| share(&IntOrString::String(text.to_owned()), whole, round);
        assert_eq!(percent("25%", 3, Round::Up), Some(1));
        assert_eq!(percent("25%", 3, Round::Down), Some(0));
        assert_eq!(percent("100%", i32::MAX, Round::Up), Some(i32::MAX));
        assert_eq!(percent("2147483647%", i32::MAX, Round::Down), Some(i32::MAX));
        assert_eq!((percent("25", 10, Round::Up), percent("x%", 10, Round::Up)), (None, None));
        assert_eq!(share(&IntOrString::Int(7), 3, Round::Up), Some(7));
        assert_eq!(share(&IntOrString::Int(-7), 3, Round::Up), Some(0));
    }
}
