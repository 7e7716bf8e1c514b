//! A memory cgroup, version 1 or 2, with a hard limit and no swap, for one child process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A group that is removed when it is dropped.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    version: u8,
}

impl MemoryGroup {
    /// A group with this limit; `Err` says why this machine cannot make one.
    pub fn new(limit_bytes: u64) -> Result<Self, String> {
        let name = format!(
            "plantain-test-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (folder, version) = if v1.join("memory.limit_in_bytes").exists() {
            (v1.join(name), 1)
        } else {
            (Path::new("/sys/fs/cgroup").join(name), 2)
        };
        fs::create_dir(&folder).map_err(|error| {
            format!("{} cannot be made: {error}; run as root", folder.display())
        })?;
        let group = MemoryGroup { folder, version };
        let (limit, swap) = if version == 1 {
            ("memory.limit_in_bytes", "memory.swappiness")
        } else {
            ("memory.max", "memory.swap.max")
        };
        group.write(limit, &limit_bytes.to_string())?;
        // A kernel without swap accounting has no such file, and no swap that counts.
        let _ = group.write(swap, "0");
        Ok(group)
    }

    /// The file that a process writes its id to in order to join.
    pub fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// How often the limit was hit: memory had to be reclaimed, or was refused.
    pub fn limit_hits(&self) -> Result<u64, String> {
        let read = |file: &str| {
            fs::read_to_string(self.folder.join(file))
                .map_err(|error| format!("{file} cannot be read: {error}"))
        };
        let number =
            |text: &str| text.trim().parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
        if self.version == 1 {
            return number(&read("memory.failcnt")?);
        }
        let events = read("memory.events")?;
        let max = events.lines().find_map(|line| line.strip_prefix("max ")).unwrap_or("0");
        number(max)
    }

    /// The most memory that was charged, page cache included.
    pub fn peak_bytes(&self) -> Option<u64> {
        let file = if self.version == 1 { "memory.max_usage_in_bytes" } else { "memory.peak" };
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        fs::write(self.folder.join(file), text)
            .map_err(|error| format!("{file} cannot be set to {text}: {error}"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel needs a moment to let go of a process that has ended.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("{} could not be removed", self.folder.display());
    }
}
