//! Reads what pods and containers use. Blocks on small files of the kernel's; keeps nothing between two readings.

use std::sync::Arc;

use super::runtime::Runtime;
use crate::cgroup::{self, Counters, Usage};
use crate::error::ContainerError;
use crate::layout::{Layout, check_name};

/// The counters of one instance's pods.
#[derive(Clone, Debug)]
pub struct Meter {
    counters: Counters,
    layout: Arc<Layout>,
}

impl Runtime {
    /// Finds the kernel's counters.
    pub fn meter(&self) -> Result<Meter, ContainerError> {
        let all = cgroup::hierarchies().map_err(ContainerError::io("look for control groups"))?;
        Ok(Meter { counters: Counters::in_hierarchies(&all), layout: self.layout().clone() })
    }
}

impl Meter {
    /// What a pod uses with all of its containers; none when it has no group.
    pub fn pod(&self, uid: &str) -> Option<Usage> {
        self.counters.read(&self.layout.pod(uid).ok()?.cgroup)
    }

    /// What a container uses; none when it does not run.
    pub fn container(&self, uid: &str, id: &str) -> Option<Usage> {
        check_name("container", id).ok()?;
        self.counters.read(&self.layout.pod(uid).ok()?.container(id).cgroup)
    }
}
