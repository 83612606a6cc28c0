//! A set of completion indexes, kept and written as ranges in order: `1,3-5,7`.
//!
//! A job may have a hundred thousand of them; what is done here costs in ranges, not in indexes.

use std::fmt;

/// Ranges in ascending order, both ends included, with at least one index between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// Reads ranges, as far as they lie below `end`. What is no range is passed over: it was written by somebody else.
    pub(super) fn parse(text: &str, end: u32) -> Self {
        let mut ranges: Vec<(u32, u32)> = text.split(',').filter_map(|part| range(part, end)).collect();
        ranges.sort_unstable();
        Self::joined(ranges)
    }

    /// The set of these indexes.
    pub(super) fn of(indexes: impl IntoIterator<Item = u32>) -> Self {
        let mut ranges: Vec<(u32, u32)> = indexes.into_iter().map(|index| (index, index)).collect();
        ranges.sort_unstable();
        Self::joined(ranges)
    }

    /// Joins sorted ranges that touch or overlap.
    fn joined(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// What is in either set.
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut ranges: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        Self::joined(ranges)
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        let at = self.0.partition_point(|&(_, last)| last < index);
        self.0.get(at).is_some_and(|&(first, _)| first <= index)
    }

    /// How many indexes there are.
    pub(super) fn total(&self) -> usize {
        self.0.iter().map(|&(first, last)| (last - first) as usize + 1).sum()
    }

    /// How many indexes are in both sets.
    pub(super) fn common(&self, other: &Self) -> usize {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some(&&(first, last)), Some(&&(low, high))) = (mine.peek(), theirs.peek()) {
            let (low_end, high_end) = (first.max(low), last.min(high));
            if low_end <= high_end {
                count += (high_end - low_end) as usize + 1;
            }
            if last < high {
                mine.next()
            } else {
                theirs.next()
            };
        }
        count
    }

    /// The indexes below `end` that are not in the set, in order.
    pub(super) fn missing(&self, end: u32) -> impl Iterator<Item = u32> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|&(_, last)| last.saturating_add(1)));
        let ends = self.0.iter().map(|&(first, _)| first).chain(std::iter::once(end));
        starts.zip(ends).flat_map(move |(start, stop)| start..stop.min(end))
    }
}

/// `5` or `3-7`, cut off at `end`.
fn range(text: &str, end: u32) -> Option<(u32, u32)> {
    let (first, last) = text.trim().split_once('-').unwrap_or((text.trim(), text.trim()));
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    (first <= last && first < end).then(|| (first, last.min(end - 1)))
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &(first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                // Two are as long with a comma, and read as what they are.
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ranges_are_read_joined_and_cut_off() {
        let table = [
            ("", 10, "", 0),
            ("0", 10, "0", 1),
            ("1,3-5,7", 10, "1,3-5,7", 5),
            ("1,3-5,7", 5, "1,3,4", 3),
            ("7,1,2,3", 10, "1-3,7", 4),
            ("0-3,2-6", 10, "0-6", 7),
            ("4-4", 10, "4", 1),
            ("x,-,3-1,2,99999999999", 10, "2", 1),
            ("0-4294967295", 100_000, "0-99999", 100_000),
            ("0-9", 0, "", 0),
        ];
        for (text, end, shown, total) in table {
            let read = Indexes::parse(text, end);
            assert_eq!((read.to_string().as_str(), read.total()), (shown, total), "{text}");
        }
    }

    #[test]
    fn sets_of_indexes_behave_as_sets() {
        let samples = ["", "0", "0-9", "1,3-5,7", "2,4,6,8", "5-7,9", "0,1", "9"];
        let plain = |set: &Indexes| (0..12).filter(|&index| set.contains(index)).collect::<BTreeSet<u32>>();
        for one in samples.map(|text| Indexes::parse(text, 10)) {
            assert_eq!(Indexes::of(plain(&one)), one);
            assert!(one.missing(10).eq((0..10).filter(|&index| !one.contains(index))), "{one}");
            for other in samples.map(|text| Indexes::parse(text, 10)) {
                assert_eq!(plain(&one.union(&other)), &plain(&one) | &plain(&other), "{one} and {other}");
                assert_eq!(one.common(&other), plain(&one).intersection(&plain(&other)).count(), "{one} and {other}");
            }
        }
    }
}
