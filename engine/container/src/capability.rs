//! Capability names, sets as bits, and the calls that give them up. Numbers from include/uapi/linux/capability.h.

use std::fs;
use std::io;

/// Position is the kernel's number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    /// By name, with or without `CAP_`; the unknown name is the error.
    pub(crate) fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, String> {
        let mut set = Self::default();
        for name in names {
            let name = name.as_ref();
            set.0 |= Self::named(name).ok_or_else(|| format!("unknown capability \"{name}\""))?.0;
        }
        Ok(set)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        NAMES.iter().position(|known| *known == bare).map(|number| Self(1 << number))
    }

    /// What this process may still use.
    pub(crate) fn permitted() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let bits = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.map(Self).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no CapPrm"))
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn names(self) -> Vec<&'static str> {
        NAMES.into_iter().enumerate().filter(|(number, _)| self.0 & (1 << number) != 0).map(|(_, name)| name).collect()
    }

    #[expect(unsafe_code, reason = "prctl(2) has no safe wrapper for the bounding set")]
    /// Takes everything else out of the bounding set, for this process and all after it. Needs `SETPCAP`.
    pub(crate) fn bound(self) -> io::Result<()> {
        for number in 0..u64::BITS {
            if self.0 & (1 << number) != 0 {
                continue;
            }
            // SAFETY: plain integers; the call touches no memory of ours.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
            // EINVAL: the kernel knows no capability of that number, nor any higher one.
            if result != 0 {
                let error = io::Error::last_os_error();
                return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
            }
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "capset(2) has no safe wrapper")]
    /// Makes the set this thread's permitted and effective one, and empties the inheritable and ambient ones.
    pub(crate) fn assume(self) -> io::Result<()> {
        #[repr(C)]
        struct Header {
            version: u32,
            pid: i32,
        }
        #[repr(C)]
        struct Data {
            effective: u32,
            permitted: u32,
            inheritable: u32,
        }
        let word = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("masked to 32 bits");
        let data = |bits| Data { effective: bits, permitted: bits, inheritable: 0 };
        let header = Header { version: VERSION, pid: 0 };
        let sets = [data(word(self.0)), data(word(self.0 >> 32))];
        // SAFETY: header and sets are laid out as capset(2) of version 3 reads them: one header, two data words.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain integers; the call touches no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_their_prefix() {
        let set = Capabilities::parse(&["CAP_CHOWN", "BPF"]).unwrap();
        assert_eq!(set.names(), ["CHOWN", "BPF"]);
        assert_eq!(set, Capabilities(1 | 1 << 39));
    }

    #[test]
    fn an_unknown_name_is_said() {
        assert_eq!(Capabilities::parse(&["CAP_FLY"]), Err("unknown capability \"CAP_FLY\"".to_owned()));
    }
}
