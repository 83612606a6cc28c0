//! Holds back new pods until the policies about them are in the kernel: a pod is isolated from the first instant of its
//! containers on, not from the moment at which somebody gets round to it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::NetworkError;

/// How long a pod waits; then it fails and is tried again, rather than running without protection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pods whose arrival nobody has noticed yet; who comes beyond that waits for the news of its status.
const ARRIVALS: usize = 1024;

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nobody enforces policies here.
    #[default]
    Unwatched,
    /// Whoever enforces them does not know all of them yet.
    Learning,
    /// There are none.
    Open,
    /// There are some.
    Guarded,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// The pods whose rules are in the kernel.
    settled: HashMap<String, Ipv4Addr>,
}

/// Between whoever attaches pods and whoever enforces policies.
#[derive(Debug)]
pub(crate) struct Guard {
    state: watch::Sender<State>,
    arrived: mpsc::Sender<String>,
    arrivals: std::sync::Mutex<Option<mpsc::Receiver<String>>>,
}

impl Default for Guard {
    fn default() -> Self {
        let (arrived, arrivals) = mpsc::channel(ARRIVALS);
        Self { state: watch::Sender::default(), arrived, arrivals: Some(arrivals).into() }
    }
}

impl Guard {
    /// Waits until the policies about a pod are in the kernel. Where there are none this takes no time.
    pub(crate) async fn admit(&self, uid: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let mut state = self.state.subscribe();
        let learnt = |state: &State| state.phase != Phase::Learning;
        let settled = |state: &State| state.phase != Phase::Guarded || state.settled.get(uid) == Some(&address);
        let admitted = async {
            let known = state.wait_for(learnt).await.is_ok_and(|state| settled(&state));
            if known {
                return;
            }
            if self.arrived.try_send(uid.to_owned()).is_err() {
                tracing::debug!(uid, "many pods arrive at once: this one is noticed by its status");
            }
            let waited = state.wait_for(settled).await;
            waited.expect("the sender lives as long as this guard");
        };
        timeout(PATIENCE, admitted).await.map_err(|_| NetworkError::Unguarded { uid: uid.to_owned() })
    }

    /// From now on pods wait until [`Self::begin`]. Gives the pods that arrive; nothing when somebody has them already.
    pub(crate) fn learn(&self) -> Option<mpsc::Receiver<String>> {
        let arrivals = self.arrivals.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()?;
        self.state.send_modify(|state| state.phase = Phase::Learning);
        Some(arrivals)
    }

    /// Says whether there are policies, and which pods' rules are in the kernel besides those said before.
    pub(crate) fn begin(&self, guarded: bool, settled: impl IntoIterator<Item = (String, Ipv4Addr)>) {
        self.state.send_modify(|state| {
            state.phase = if guarded { Phase::Guarded } else { Phase::Open };
            state.settled.extend(settled);
            if !guarded {
                state.settled = HashMap::new();
            }
        });
    }

    /// Says that a pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.state.send_if_modified(|state| {
            state.settled.remove(uid);
            false
        });
    }

    /// Nobody enforces policies any more; what is in the kernel stays.
    pub(crate) fn end(&self) {
        self.state.send_modify(|state| *state = State::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 2);

    #[tokio::test(start_paused = true)]
    async fn a_pod_waits_only_where_policies_are_and_until_its_rules_are() {
        let guard = Guard::default();
        guard.admit("a", ADDRESS).await.unwrap();
        let mut arrivals = guard.learn().unwrap();
        assert!(guard.learn().is_none());
        assert!(matches!(guard.admit("a", ADDRESS).await, Err(NetworkError::Unguarded { .. })));
        guard.begin(false, []);
        guard.admit("a", ADDRESS).await.unwrap();
        guard.begin(true, []);
        let settle = async {
            assert_eq!(arrivals.recv().await.as_deref(), Some("a"));
            guard.begin(true, [("a".to_owned(), ADDRESS)]);
        };
        let (admitted, ()) = tokio::join!(guard.admit("a", ADDRESS), settle);
        admitted.unwrap();
        guard.forget("a");
        assert!(guard.admit("a", ADDRESS).await.is_err());
    }
}
