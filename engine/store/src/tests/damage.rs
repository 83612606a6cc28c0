//! Every byte of a small log is changed in turn, and every file cut at every length.
//!
//! What was acknowledged is there, or the store refuses to start and says where the damage is. The one exception is the
//! last frame: damage there looks like a write that a crash interrupted.

use super::model::Model;
use super::{assert_same, open, workload};
use crate::frame::Frame;
use crate::segment::{self, FIRST, Identity};
use crate::sim::SimDisk;
use crate::{Disk, StoreError};

/// A log with its states before and after the last batch.
struct Sample {
    disk: SimDisk,
    files: Vec<Layout>,
    without_last: Model,
    whole: Model,
}

struct Layout {
    name: String,
    bytes: Vec<u8>,
    /// Where frames begin and end.
    frames: Vec<(usize, usize)>,
}

fn sample() -> Sample {
    let disk = SimDisk::default();
    let log = open(&disk).unwrap();
    let (mut without_last, mut whole) = (Model::new(), Model::new());
    for batch in workload(5, 18) {
        let before = whole.clone();
        whole.apply_all(&batch);
        log.batch(&batch).unwrap();
        if whole != before {
            without_last = before;
        }
    }
    drop(log);
    let mut names: Vec<String> = disk.list().unwrap().into_iter().filter(|n| segment::number(n).is_some()).collect();
    names.sort();
    let files = names.into_iter().map(|name| layout(&disk, name)).collect();
    Sample { disk, files, without_last, whole }
}

fn layout(disk: &SimDisk, name: String) -> Layout {
    let bytes = disk.contents(&name);
    let seed = Identity { log: 7, number: segment::number(&name).unwrap() }.seed();
    let (mut frames, mut at) = (Vec::new(), FIRST);
    while let Some(frame) = bytes.get(at..).and_then(|rest| Frame::parse(rest, seed)) {
        frames.push((at, at + frame.head.size()));
        at += frame.head.size();
    }
    Layout { name, bytes, frames }
}

impl Sample {
    /// The index of the file that is written to.
    fn active(&self) -> usize {
        self.files.iter().rposition(|file| !file.frames.is_empty()).unwrap()
    }

    /// Where a change at `at` has to be reported, or the state that the log then has.
    fn expected(&self, index: usize, at: usize) -> Result<&Model, u64> {
        let file = &self.files[index];
        let frame = file.frames.iter().find(|(begin, end)| (*begin..*end).contains(&at));
        let end = file.frames.last().map_or(FIRST, |(_, end)| *end);
        match frame {
            _ if at < FIRST => Err(0),
            Some((_, last)) if index == self.active() && *last == end => Ok(&self.without_last),
            Some((begin, _)) => Err(*begin as u64),
            None if index >= self.active() => Ok(&self.whole),
            None => Err(end as u64),
        }
    }
}

#[test]
fn every_changed_byte_is_refused_by_place_or_only_costs_an_unfinished_tail() {
    let sample = sample();
    assert!(sample.active() >= 3, "the sample has to span segments");
    assert!(sample.files[sample.active()].frames.len() >= 2, "and its last one has to have a middle");
    for (index, file) in sample.files.iter().enumerate() {
        for at in 0..file.bytes.len() {
            let mut changed = file.bytes.clone();
            changed[at] ^= 1 << (at % 8);
            sample.disk.replace(&file.name, &changed);
            match (open(&sample.disk), sample.expected(index, at)) {
                (Ok(log), Ok(model)) => assert_same(&*log, model),
                (Err(StoreError::Corrupt { file: named, offset, .. }), Err(expected)) => {
                    assert_eq!((named, offset), (sample.disk.path(&file.name), expected), "byte {at}");
                }
                (got, expected) => panic!("byte {at} of {}: {:?} instead of {expected:?}", file.name, got.err()),
            }
            sample.disk.replace(&file.name, &file.bytes);
            restore(&sample);
        }
    }
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let sample = sample();
    for file in sample.files.iter().filter(|file| file.bytes.len() == super::small().segment_bytes) {
        for length in 0..file.bytes.len() {
            sample.disk.replace(&file.name, &file.bytes[..length]);
            let refused = open(&sample.disk);
            assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{} cut at {length}", file.name);
        }
        sample.disk.replace(&file.name, &file.bytes);
    }
}

#[test]
fn a_missing_file_is_refused_by_name() {
    let sample = sample();
    for index in 0..sample.active() {
        let name = &sample.files[index].name;
        sample.disk.remove(name).unwrap();
        let refused = open(&sample.disk);
        assert!(matches!(refused, Err(StoreError::Corrupt { file, .. }) if file == sample.disk.path(name)));
        sample.disk.create(name).unwrap();
        restore(&sample);
    }
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let sample = sample();
    let name = &sample.files[1].name;
    let stranger = Identity { log: 8, number: 2 }.encode(1024);
    sample.disk.replace(name, &[&stranger[..], &sample.files[1].bytes[FIRST..]].concat());
    assert!(matches!(open(&sample.disk), Err(StoreError::Corrupt { offset: 0, .. })));
}

/// A start wipes torn tails; this puts the files back as they were.
fn restore(sample: &Sample) {
    for file in &sample.files {
        if sample.disk.contents(&file.name) != file.bytes {
            sample.disk.replace(&file.name, &file.bytes);
        }
    }
}
