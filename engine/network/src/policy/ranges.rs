//! Arithmetic of ranges: of addresses and of ports, both ends included. Pure.

use std::net::Ipv4Addr;

use crate::config::mask;

/// A range of numbers, both ends included.
pub(crate) type Range = (u32, u32);

/// The same numbers as ranges in order that neither overlap nor touch.
pub(crate) fn united(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut united: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match united.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => united.push((first, last)),
        }
    }
    united
}

/// What is left of a range without others.
pub(crate) fn without((first, last): Range, others: Vec<Range>) -> Vec<Range> {
    let mut left = Vec::new();
    let mut next = Some(first);
    for (from, to) in united(others).into_iter().filter(|(from, to)| *to >= first && *from <= last) {
        let Some(start) = next else { break };
        if from > start {
            left.push((start, from - 1));
        }
        next = to.checked_add(1).filter(|next| *next <= last);
    }
    left.extend(next.map(|start| (start, last)));
    left
}

/// The addresses of an IPv4 network in CIDR notation.
pub(crate) fn block(text: &str) -> Option<Range> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix) = (address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?);
    if prefix > 32 {
        return None;
    }
    let first = u32::from(address) & mask(prefix);
    Some((first, first | !mask(prefix)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(united(vec![(5, 9), (1, 4), (20, 30), (25, 26), (7, 3)]), [(1, 9), (20, 30)]);
        assert_eq!(united(vec![(0, u32::MAX), (1, 2)]), [(0, u32::MAX)]);
    }

    #[test]
    fn networks_are_read() {
        assert_eq!(block("10.0.0.0/8"), Some((0x0a00_0000, 0x0aff_ffff)));
        assert_eq!(block("10.1.2.3/32"), Some((0x0a01_0203, 0x0a01_0203)));
        assert_eq!(block("0.0.0.0/0"), Some((0, u32::MAX)));
        for wrong in ["10.0.0.0", "10.0.0.0/33", "fd00::/8", "/", "10.0.0/8"] {
            assert_eq!(block(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_out_is_out_and_all_else_stays(whole in (0_u32..40, 0_u32..40), others in proptest::collection::vec((0_u32..40, 0_u32..40), 0..6)) {
            prop_assume!(whole.0 <= whole.1);
            let left = without(whole, others.clone());
            for number in 0..40 {
                let inside = |(first, last): &Range| (*first..=*last).contains(&number);
                let expected = inside(&whole) && !others.iter().any(inside);
                prop_assert_eq!(left.iter().any(inside), expected);
            }
        }
    }
}
