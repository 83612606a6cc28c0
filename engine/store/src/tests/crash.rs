//! The power goes, or the process is killed, at every single operation on the disk.
//!
//! Whatever was answered must be there afterwards. The batch in flight may be there, whole, or not at all.

use super::model::Model;
use super::{assert_same, open, workload};
use crate::sim::{Fault, SimDisk};
use crate::{Store, Txn};

const BATCHES: usize = 24;

/// What a client knows after a crash: the store with all that was acknowledged, and with what was in flight, too.
struct Known {
    acknowledged: Model,
    possible: Model,
}

impl Known {
    /// Runs the workload until the disk fails, and says what was learned by then.
    fn run(disk: &SimDisk, batches: &[Vec<Txn>]) -> Self {
        let mut acknowledged = Model::new();
        let mut possible = acknowledged.clone();
        if let Ok(log) = open(disk) {
            for batch in batches {
                let expected = possible.apply_all(batch);
                match log.batch(batch) {
                    Ok(answers) => assert_eq!(answers, expected),
                    Err(_) => break,
                }
                acknowledged = possible.clone();
            }
        }
        Self { acknowledged, possible }
    }

    /// Opens the disk, checks that it has one of the two, and returns which.
    fn check(&self, disk: &SimDisk) -> Model {
        let log = open(disk).expect("a crash never makes a log unreadable");
        let found = if log.revision() == self.acknowledged.head() { &self.acknowledged } else { &self.possible };
        assert_same(&*log, found);
        found.clone()
    }
}

/// Calls `each` with the disk as the crash at each operation left it.
fn at_every_operation(mut each: impl FnMut(u64, &SimDisk, &Known)) {
    let batches = workload(1, BATCHES);
    for at in 0.. {
        let disk = SimDisk::default();
        disk.fault_at(at, Fault::PowerCut);
        let known = Known::run(&disk, &batches);
        if !disk.is_dead() {
            assert!(at > 80, "the workload has to touch the disk often enough to mean something");
            return;
        }
        each(at, &disk, &known);
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    at_every_operation(|at, disk, known| {
        for seed in 0..8 {
            let disk = disk.after_power_cut(at * 1000 + seed);
            let mut model = known.check(&disk);
            // And the store goes on from there, also through the next power cut.
            let log = open(&disk).unwrap();
            for batch in workload(2, 4) {
                model.apply_all(&batch);
                log.batch(&batch).unwrap();
            }
            drop(log);
            assert_same(&*open(&disk.after_power_cut(seed)).unwrap(), &model);
        }
    });
}

#[test]
fn a_second_power_cut_while_recovering_from_the_first_loses_nothing_either() {
    at_every_operation(|at, disk, known| {
        let first = disk.after_power_cut(at);
        for again in 0..100 {
            let second = first.after_kill();
            second.fault_at(again, Fault::PowerCut);
            let opened = open(&second);
            if !second.is_dead() {
                assert!(opened.is_ok());
                return;
            }
            drop(opened);
            known.check(&second.after_power_cut(again));
        }
        panic!("recovery should take fewer operations");
    });
}

#[test]
fn what_a_restarted_process_shows_survives_a_power_cut_right_after() {
    at_every_operation(|at, disk, known| {
        let killed = disk.after_kill();
        let shown = known.check(&killed);
        let after = open(&killed.after_power_cut(at)).expect("readable before, readable after");
        assert_same(&*after, &shown);
    });
}

#[test]
fn what_a_restarted_process_writes_into_segments_it_found_survives_a_power_cut() {
    at_every_operation(|at, disk, known| {
        let killed = disk.after_kill();
        // No room to make another segment, which would make the names of those found durable by the way.
        killed.set_space(Some(0));
        let Ok(log) = open(&killed) else {
            assert_eq!(known.acknowledged.head(), 1, "only a log that has no segment yet needs room to open");
            return;
        };
        let mut model =
            if log.revision() == known.acknowledged.head() { &known.acknowledged } else { &known.possible }.clone();
        let txn = Txn::new().put("more", vec![b'x'; 100]);
        while log.batch(std::slice::from_ref(&txn)).is_ok() {
            model.apply(&txn);
        }
        drop(log);
        assert_same(&*open(&killed.after_power_cut(at)).unwrap(), &model);
    });
}

#[test]
fn a_write_torn_at_any_byte_is_dropped() {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    let mut model = Model::new();
    let first = Txn::new().put("a", "1");
    model.apply(&first);
    log.batch(&[first]).unwrap();
    let name = crate::segment::name(1);
    let before = disk.contents(&name);
    log.batch(&[Txn::new().put("b", "22222222222").delete("a")]).unwrap();
    drop(log);
    let after = disk.contents(&name);
    let differs = |at: &usize| before[*at] != after[*at];
    let (begin, end) = ((0..after.len()).find(differs).unwrap(), (0..after.len()).rfind(differs).unwrap());
    for written in begin..=end {
        let torn = [&after[..written], &before[written..]].concat();
        disk.replace(&name, &torn);
        assert_same(&*open(&disk).unwrap(), &model);
        assert_eq!(disk.contents(&name), before, "the torn tail is wiped");
    }
}
