//! What the containers of a pod do, as annotations on the pod tell. What has the name of a container behind its own, such
//! as `sim/exit.main`, is for that container only.
//!
//! | annotation | meaning | without |
//! | --- | --- | --- |
//! | `sim/exit` | the code that a container ends with by itself | it runs for ever |
//! | `sim/after` | how long after its start it ends, such as `5s`, `300ms`, `2m` | 1 s |
//! | `sim/exits-by-attempt` | codes of the 1st, 2nd ... run, such as `1,1,0`, the last for all others; `-` runs for ever. Runs of earlier pods of the same owner (and completion index) count | |
//! | `sim/exits-by-index` | the same by the completion index of an indexed job | |
//! | `sim/ready-after` | how long after its start it is ready | the probe's initial delay, or 0 |
//! | `sim/ready` | `false`: it is not ready as long as this stands | |
//! | `sim/stop-after` | how long it takes to end when told to; longer than the grace period: it is killed, with 137 | 0 |
//! | `sim/exit-on-term` | the code that it then ends with | 143 |
//! | `sim/init-after`, `sim/init-exit` | the same as the first two for init containers | 100 ms, 0 |
//! | `sim/cpu`, `sim/memory` | how much a container uses, such as `250m` and `64Mi`; may change | `1m`, `10Mi` |
//! | `sim/waiting` | a reason such as `ImagePullBackOff`: no container ever starts | |

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use shipway_schema::duration::nanoseconds;
use shipway_schema::quantity::Quantity;

const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The annotations of a pod, read.
pub(super) struct Plan<'a>(pub(super) &'a Pod);

impl Plan<'_> {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.0.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn told(&self, what: &str, container: &str) -> Option<&str> {
        self.annotation(&format!("sim/{what}.{container}")).or_else(|| self.annotation(&format!("sim/{what}")))
    }

    fn time(&self, what: &str, container: &str) -> Option<Duration> {
        let text = self.told(what, container)?;
        Some(time(text).unwrap_or_else(|| panic!("sim/{what}: {text:?} is not a time such as 5s")))
    }

    /// The completion index that the pod has.
    pub(super) fn index(&self) -> Option<&str> {
        self.annotation(INDEX)
    }

    /// When after its start run number `attempt` (from 0) of a container ends by itself, and with which code.
    pub(super) fn run(&self, container: &str, attempt: u32) -> Option<(Duration, i32)> {
        let after = self.time("after", container).unwrap_or(Duration::from_secs(1));
        let nth = |list: &str, at: usize| list.split(',').map(str::trim).nth(at).map(str::to_owned);
        let by_index = self.told("exits-by-index", container).zip(self.index().and_then(|index| index.parse().ok()));
        let by_attempt = self.told("exits-by-attempt", container).and_then(|list| {
            nth(list, usize::try_from(attempt).ok()?).or_else(|| list.rsplit(',').next().map(|it| it.trim().to_owned()))
        });
        let code = by_index.and_then(|(list, at)| nth(list, at)).or(by_attempt);
        let code = code.or_else(|| self.told("exit", container).map(str::to_owned))?;
        Some((after, code.parse().ok()?))
    }

    /// The same for an init container.
    pub(super) fn init_run(&self, container: &str) -> (Duration, i32) {
        let after = self.time("init-after", container).unwrap_or(Duration::from_millis(100));
        (after, self.told("init-exit", container).and_then(|code| code.parse().ok()).unwrap_or(0))
    }

    /// How long after its start a container is ready; `None`: it is not.
    pub(super) fn ready_after(&self, container: &str) -> Option<Duration> {
        if self.told("ready", container) == Some("false") {
            return None;
        }
        let probe = || {
            let spec = self.0.spec.as_ref()?;
            let probe = spec.containers.iter().find(|it| it.name == container)?.readiness_probe.as_ref()?;
            probe.initial_delay_seconds.and_then(|seconds| seconds.try_into().ok()).map(Duration::from_secs)
        };
        Some(self.time("ready-after", container).or_else(probe).unwrap_or_default())
    }

    /// How much processor and memory a container uses: billionths of one, and bytes.
    pub(super) fn uses(&self, container: &str) -> (u64, u64) {
        let told = |what: &str, absent: &str| {
            let text = self.told(what, container).unwrap_or(absent);
            Quantity::parse(text).unwrap_or_else(|error| panic!("sim/{what}: {error}"))
        };
        let (cpu, memory) = (told("cpu", "1m").to_nanos(), told("memory", "10Mi").to_units());
        (u64::try_from(cpu).unwrap_or(0), u64::try_from(memory).unwrap_or(0))
    }

    /// How long a container takes to end when it is told to, and its code then.
    pub(super) fn end(&self, container: &str) -> (Duration, i32) {
        let code = self.told("exit-on-term", container).and_then(|code| code.parse().ok());
        (self.time("stop-after", container).unwrap_or_default(), code.unwrap_or(143))
    }

    /// Why no container ever starts, if none does.
    pub(super) fn waiting(&self) -> Option<&str> {
        self.annotation("sim/waiting")
    }
}

fn time(text: &str) -> Option<Duration> {
    nanoseconds(text).and_then(|all| u64::try_from(all).ok()).map(Duration::from_nanos)
}
