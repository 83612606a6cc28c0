//! What the controller of jobs remembers between two looks. All of it can be lost: after a start the watches are fresh, and
//! failures are read off the pods that are there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backoff::Record;
use crate::owned::Unseen;
use crate::written::Written;

pub(super) struct Memory {
    /// Pods that were made or deleted.
    pub(super) unseen: Arc<Unseen>,
    /// Jobs whose status was written, and pods whose finalizers were.
    pub(super) written: Written,
    /// The failures of each job, by uid.
    records: Mutex<HashMap<String, Record>>,
}

impl Memory {
    pub(super) fn new(unseen: Arc<Unseen>) -> Self {
        Self { unseen, written: Written::default(), records: Mutex::default() }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, uid: &str) -> Option<Record> {
        self.records().get(uid).copied()
    }

    pub(super) fn remember(&self, uid: &str, record: Record) {
        self.records().insert(uid.to_owned(), record);
    }

    /// Nothing more will be asked about this job.
    pub(super) fn forget(&self, uid: &str) {
        self.records().remove(uid);
    }
}
