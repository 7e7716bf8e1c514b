//! What the process itself takes, measured.

/// Bytes that are kept free besides: the kernel's own tables, stacks that grow, code that is touched later and
/// what the system reads ahead of it.
pub const MARGIN_BYTES: u64 = 3 << 19;

/// Bytes that the process has in memory now: code, heap, stacks, page tables. `None` where the system does not
/// tell.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 =
            line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(field("VmRSS")? + field("VmPTE").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn touched_memory_is_seen() {
        let before = resident_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = resident_bytes().unwrap();
        assert!(after > before + (48 << 20), "{before} {after}");
        assert_eq!(block[7], 1);
    }
}
