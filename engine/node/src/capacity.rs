//! What this machine is and has, read from the kernel.

use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::amount::Allocatable;
use crate::evict::Short;

/// How many pods the node takes.
pub(crate) const PODS: u32 = 250;
const GIB: u64 = 1 << 30;
/// The version of Kubernetes whose node this one acts as.
const ACTS_AS: &str = "v1.36.0";

/// Processors, memory and disk space in all.
pub(crate) fn capacity(home: &Path) -> Allocatable {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = meminfo(&read("/proc/meminfo"), "MemTotal").unwrap_or(GIB);
    let storage = rustix::fs::statvfs(home).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    Allocatable { cpu_milli: processors as u64 * 1000, memory, storage }
}

/// What is left for pods: the engine and the system keep a little memory and disk space.
pub(crate) fn allocatable(capacity: Allocatable) -> Allocatable {
    let kept = (capacity.memory / 20).min(GIB / 8);
    Allocatable { memory: capacity.memory - kept, storage: capacity.storage / 100 * 95, ..capacity }
}

/// Less memory than this is too little: a kubelet's default.
const LEAST_MEMORY: u64 = 100 << 20;

/// Whether the machine is short of memory or disk space now.
pub(crate) fn pressure(home: &Path) -> (bool, bool) {
    (short_of_memory().is_some(), short_of_disk(home).is_some())
}

/// What pods have to go for, memory before disk space.
pub(crate) fn shortage(home: &Path) -> Option<Short> {
    short_of_memory().or_else(|| short_of_disk(home))
}

fn short_of_memory() -> Option<Short> {
    let left = meminfo(&read("/proc/meminfo"), "MemAvailable").unwrap_or(GIB);
    (left < LEAST_MEMORY).then_some(Short::Memory { left, least: LEAST_MEMORY })
}

/// A twentieth of space or inodes has to be free.
fn short_of_disk(home: &Path) -> Option<Short> {
    let disk = rustix::fs::statvfs(home).ok()?;
    let (left, least) =
        (disk.f_bavail.saturating_mul(disk.f_frsize), (disk.f_blocks / 20).saturating_mul(disk.f_frsize));
    let few_inodes = disk.f_files > 0 && disk.f_favail < disk.f_files / 20;
    (left < least || few_inodes).then_some(Short::Disk { left, least })
}

pub(crate) fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `status.nodeInfo`.
pub(crate) fn system_info() -> NodeSystemInfo {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
        container_runtime_version: format!("shipway://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: text(uname.release()),
        kube_proxy_version: String::new(),
        kubelet_version: format!("{ACTS_AS}+shipway-{}", env!("CARGO_PKG_VERSION")),
        machine_id: read("/etc/machine-id").trim().to_owned(),
        operating_system: "linux".to_owned(),
        os_image: os_image(&read("/etc/os-release")),
        swap: None,
        system_uuid: read("/sys/class/dmi/id/product_uuid").trim().to_owned(),
    }
}

/// This machine's architecture as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_image(release: &str) -> String {
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// A small file of the kernel's, or nothing where there is none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_understood() {
        let text = "MemTotal:       8145200 kB\nMemAvailable:   4000000 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(8_145_200 * 1024));
        assert_eq!(meminfo(text, "SwapTotal"), None);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
    }

    #[test]
    fn a_machine_has_something_to_give() {
        let capacity = capacity(Path::new("/"));
        let allocatable = allocatable(capacity);
        assert!(capacity.cpu_milli >= 1000 && capacity.storage > 0);
        assert!(allocatable.memory > 0 && allocatable.memory < capacity.memory);
    }
}
