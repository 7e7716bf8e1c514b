//! What this machine says of itself, under `/proc`, `/sys` and `/dev`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::sysfs;

/// What was read; what could not be read is `None` or empty.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Folder that stands for `/`.
    root: PathBuf,
    /// `/proc/device-tree/model`.
    pub model: Option<String>,
    /// Processors that are on.
    pub cores: u32,
    /// Highest clock of any core, MHz.
    pub mhz: Option<u32>,
    /// Features of the first processor.
    pub features: BTreeSet<String>,
    /// Memory that Linux has, bytes.
    pub ram_bytes: Option<u64>,
    /// Memory that could be had now, bytes.
    pub available_bytes: Option<u64>,
    /// Whether a memory limit can be set and checked by cgroups.
    pub memory_cgroup: bool,
}

impl Machine {
    /// Reads the machine below `root`, which is `/` but in tests.
    pub(super) fn read(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let cpuinfo = text("proc/cpuinfo").unwrap_or_default();
        let meminfo = text("proc/meminfo").unwrap_or_default();
        let controllers = text("sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let v1 = root.join("sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
        Self {
            model: text("proc/device-tree/model")
                .map(|model| model.trim_end_matches('\0').trim().into()),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count() as u32,
            mhz: clock(root),
            features: features(&cpuinfo),
            ram_bytes: kibibytes(&meminfo, "MemTotal:"),
            available_bytes: kibibytes(&meminfo, "MemAvailable:"),
            memory_cgroup: v1 || controllers.split_whitespace().any(|name| name == "memory"),
            root: root.into(),
        }
    }

    /// Whether a file is there.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path.trim_start_matches('/')).exists()
    }

    /// Files that match a path with `*` in its parts, sorted.
    pub(super) fn matching(&self, pattern: &str) -> Vec<PathBuf> {
        sysfs::matching(&self.root, pattern)
    }

    /// Where a shared library lies, if it is in a usual place.
    pub(super) fn library(&self, name: &str) -> Option<PathBuf> {
        [
            "/usr/lib/*",
            "/lib/*",
            "/usr/lib",
            "/usr/local/lib",
            "/usr/local/cuda/lib64",
            "/opt/*/lib",
        ]
        .iter()
        .flat_map(|folder| self.matching(&format!("{folder}/{name}*")))
        .next()
    }
}

fn clock(root: &Path) -> Option<u32> {
    let machine = Machine { root: root.into(), ..Machine::default() };
    machine
        .matching("/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq")
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u32>().ok())
        .max()
        .map(|khz| khz / 1000)
}

/// The features of the first processor: `Features` on ARM, `flags` on x86.
fn features(cpuinfo: &str) -> BTreeSet<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| matches!(key.trim(), "Features" | "flags"))
        .map(|(_, names)| names.split_whitespace().map(Into::into).collect())
        .unwrap_or_default()
}

fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = rest.trim().trim_end_matches("kB").trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(Path::new("/"));
        assert!(machine.cores > 0);
        assert!(machine.ram_bytes > machine.available_bytes);
        assert!(!machine.features.is_empty());
        assert!(machine.exists("/proc/self"));
        assert!(!machine.exists("/proc/no-such-file"));
        assert_eq!(machine.matching("/proc/self/stat*us").len(), 1);
    }

    #[test]
    fn an_empty_machine_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::read(dir.path());
        assert_eq!((machine.cores, machine.mhz, machine.ram_bytes), (0, None, None));
        assert!(machine.model.is_none() && !machine.memory_cgroup);
        assert!(machine.library("libhailort.so").is_none());
    }
}
