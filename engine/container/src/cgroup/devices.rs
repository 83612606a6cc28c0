//! Which device nodes work inside a container, whoever made them.
//!
//! On version 1 the kernel keeps the list. Version 2 would want a BPF program: there the container loses the right to
//! make nodes instead, and its root filesystem honours none, so that only those that we made in /dev are left.

use std::fs;
use std::io;

use super::Group;

/// Making nodes is harmless; using them is what counts. Then: null, zero, full, tty, random, urandom, console-less ptmx
/// and the pseudo terminals (Documentation/admin-guide/devices.txt).
const ALLOWED: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 5:0 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

impl Group {
    /// Denies all devices but the usual ones. False: this machine keeps no such list.
    pub(crate) fn restrict_devices(&self) -> io::Result<bool> {
        let Some((false, folder)) = self.with("devices") else { return Ok(false) };
        fs::write(folder.join("devices.deny"), "a")?;
        for rule in ALLOWED {
            fs::write(folder.join("devices.allow"), rule)?;
        }
        Ok(true)
    }
}
