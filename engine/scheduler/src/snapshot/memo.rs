//! Results kept by what they were asked for, so many and no more: the one that was not asked for the longest goes first.

use std::collections::HashMap;

#[derive(Clone, Debug)]
pub(super) struct Memo<T> {
    by_question: HashMap<String, (u64, T)>,
    clock: u64,
    most: usize,
}

impl<T> Memo<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { by_question: HashMap::new(), clock: 0, most }
    }

    /// The kept answer, or what `find` finds.
    pub(super) fn get(&mut self, question: &str, find: impl FnOnce() -> T) -> &T {
        self.clock += 1;
        if !self.by_question.contains_key(question) {
            self.make_room();
            self.by_question.insert(question.to_owned(), (self.clock, find()));
        }
        let clock = self.clock;
        let entry = self.by_question.get_mut(question).expect("it was found or put there");
        entry.0 = clock;
        &entry.1
    }

    fn make_room(&mut self) {
        if self.by_question.len() >= self.most {
            let oldest =
                self.by_question.iter().min_by_key(|(_, (used, _))| *used).map(|(question, _)| question.clone());
            oldest.map(|question| self.by_question.remove(&question));
        }
    }

    /// The kept answers, to bring them up to date.
    pub(super) fn each(&mut self) -> impl Iterator<Item = (&String, &mut T)> {
        self.by_question.iter_mut().map(|(question, (_, answer))| (question, answer))
    }

    pub(super) fn clear(&mut self) {
        self.by_question.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_that_was_asked_for_last_stays() {
        let mut memo = Memo::new(2);
        for question in ["a", "b", "a", "c"] {
            memo.get(question, || question.to_owned());
        }
        let mut kept: Vec<String> = memo.each().map(|(question, _)| question.clone()).collect();
        kept.sort();
        assert_eq!(kept, ["a", "c"]);
        assert_eq!(memo.get("a", || "again".to_owned()), "a");
    }
}
