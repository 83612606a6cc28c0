//! The moment until which a pod may run without its node renewing it, as the two processes see it that must agree: the node
//! writes it to a file, supervisors on the leash read it and stop all they hold when it has passed (docs/decisions/0013).
//!
//! Time is that since the machine was started, with the time counted in which it was suspended: nobody can set that clock.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk;

/// Names one run of the machine's kernel.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A moment since the machine was started.
#[expect(clippy::unsafe_derive_deserialize, reason = "reading the clock does not rest on the moment read")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    #[expect(unsafe_code, reason = "the standard library's clock stands still while the machine is suspended")]
    pub fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for one timespec during the call.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
        assert!(result == 0, "the kernel has this clock since 2.6.39");
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanos))
    }

    /// That much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// How long it is until `later`; nothing when that has passed.
    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    boot: String,
    until: Moment,
}

/// Lets the pods on this leash run until then. A reader sees the old or the new moment.
pub fn lengthen(leash: &Path, until: Moment) -> io::Result<()> {
    disk::write(leash, &Written { boot: boot()?, until })
}

/// Until when the pods on this leash may run. What cannot be read, or was written before the machine was last started, is no
/// leave to run.
pub(crate) fn end(leash: &Path) -> Option<Moment> {
    let written: Written = disk::read(leash).ok()?;
    boot().is_ok_and(|boot| boot == written.boot).then_some(written.until)
}

fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_counts_and_only_since_the_machine_started() {
        let folder = tempfile::tempdir().unwrap();
        let leash = folder.path().join("leash");
        assert_eq!(end(&leash), None);
        let (now, second) = (Moment::now(), Duration::from_secs(1));
        lengthen(&leash, now).unwrap();
        lengthen(&leash, now.after(second)).unwrap();
        assert_eq!(end(&leash), Some(now.after(second)));
        disk::write(&leash, &Written { boot: "another".to_owned(), until: now.after(second) }).unwrap();
        assert_eq!(end(&leash), None);
        std::fs::write(&leash, "{").unwrap();
        assert_eq!(end(&leash), None);
    }

    #[test]
    fn moments_are_ordered_and_do_not_overflow() {
        let now = Moment::now();
        assert!(Moment::now() >= now && now.after(Duration::MAX) > now);
        assert_eq!(now.after(Duration::from_secs(3)).until(now), Duration::ZERO);
        assert_eq!(now.until(now.after(Duration::from_secs(3))), Duration::from_secs(3));
    }
}
