//! Keeping threads on cores.

/// Keeps the calling thread on one core from now on.
///
/// # Errors
/// The system's, if there is no such core or the process may not use it.
#[cfg(target_os = "linux")]
pub(super) fn pin(core: usize) -> std::io::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    if core >= CpuSet::MAX_CPU {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_core: usize) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// The machine's cores as the system lists them, such as `0-3`; empty where it does not tell.
pub(super) fn online() -> String {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    list.trim().to_owned()
}
