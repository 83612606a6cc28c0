//! How far it is, on a terminal; and in the end a table of what was found.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Instant;

use shipway_sim::chaos::{Life, Outcome};

/// One life that was lived.
pub(crate) struct Done {
    pub(crate) life: Life,
    pub(crate) outcome: Outcome,
}

/// What has been found so far.
pub(crate) struct Report {
    began: Instant,
    total: usize,
    done: Vec<Done>,
}

impl Report {
    pub(crate) fn new(total: usize) -> Self {
        Self { began: Instant::now(), total, done: Vec::new() }
    }

    /// Takes one in; a broken one is told at once.
    pub(crate) fn add(&mut self, done: Done) {
        if let Some(first) = done.outcome.violations.first() {
            clear();
            println!("seed {}: {first}", done.life.seed);
        }
        self.done.push(done);
        if std::io::stderr().is_terminal() {
            let broken = self.broken().count();
            eprint!("\r{} of {} seeds, {broken} broken, {:.0?} ", self.done.len(), self.total, self.began.elapsed());
        }
    }

    fn broken(&self) -> impl Iterator<Item = &Done> {
        self.done.iter().filter(|done| !done.outcome.violations.is_empty())
    }

    /// Prints the table. Says whether nothing was broken.
    pub(crate) fn end(&self) -> bool {
        clear();
        let sum = |read: fn(&Outcome) -> u64| self.done.iter().map(|done| read(&done.outcome)).sum::<u64>();
        let seconds: f64 = self.done.iter().map(|done| done.outcome.seconds).sum();
        let real: f64 = self.done.iter().map(|done| done.outcome.real).sum();
        println!("seeds              {:>12}", self.done.len());
        println!("broken             {:>12}", self.broken().count());
        println!("virtual hours      {:>12.1}", seconds / 3600.0);
        println!("virtual per real   {:>12.0}", seconds / self.began.elapsed().as_secs_f64());
        println!("  of one process   {:>12.0}", seconds / real.max(f64::MIN_POSITIVE));
        println!("changes            {:>12}", sum(|outcome| outcome.changes));
        println!("faults             {:>12}", sum(|outcome| outcome.faults));
        println!("commits            {:>12}", sum(|outcome| outcome.revision));
        println!("real time          {:>12.1?}", self.began.elapsed());
        for (kind, seeds) in self.kinds() {
            let first: Vec<String> = seeds.iter().take(8).map(u64::to_string).collect();
            println!("{:>5} seeds: {kind} ({})", seeds.len(), first.join(" "));
        }
        self.broken().next().is_none()
    }

    /// What was broken, without the names in it, and in which seeds.
    fn kinds(&self) -> BTreeMap<String, Vec<u64>> {
        let mut kinds: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for done in self.broken() {
            let text = &done.outcome.violations[0];
            let plain = text.split_whitespace().filter(|word| !word.contains(|letter: char| letter.is_ascii_digit()));
            kinds.entry(plain.collect::<Vec<_>>().join(" ")).or_default().push(done.life.seed);
        }
        kinds
    }
}

/// One life in a line.
pub(crate) fn summary(outcome: &Outcome) -> String {
    let Outcome { violations, seconds, real, changes, faults, revision, fingerprint, .. } = outcome;
    let broken = if violations.is_empty() { "well".to_owned() } else { format!("{} broken", violations.len()) };
    format!(
        "{broken}; {seconds:.0} s in {real:.2} s, {changes} changes, {faults} faults, {revision} commits, {fingerprint:016x}"
    )
}

/// Takes the line of progress away.
fn clear() {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // Nobody is told if the terminal is gone.
        drop(write!(terminal, "\r{:60}\r", ""));
    }
}
