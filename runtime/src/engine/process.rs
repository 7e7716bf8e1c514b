//! What the process itself takes, measured.

/// Bytes that are kept free besides: the kernel's own tables, stacks that grow, code that is touched later and
/// what the system reads ahead of it.
pub const MARGIN_BYTES: u64 = 2 << 20;

/// Bytes that the process has in memory now, or that the system may charge it for: heap, stacks and page tables as they are,
/// code as large as its files are mapped, because the page cache that is read for it counts in a memory cgroup
/// whether it is touched or not. Maps of data, such as packs, do not count. `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 =
            line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    Some(field("RssAnon")? + field("VmPTE").unwrap_or(0) + code_bytes(&maps))
}

/// Bytes of the maps of all files that are mapped to be executed.
fn code_bytes(maps: &str) -> u64 {
    let entries = || {
        maps.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (range, access) = (words.next()?, words.next()?);
            let path = words.nth(3).filter(|path| path.starts_with('/'))?;
            let (first, end) = range.split_once('-')?;
            let place = |text| u64::from_str_radix(text, 16).ok();
            Some((path, access.contains('x'), place(end)?.checked_sub(place(first)?)?))
        })
    };
    let is_code = |path| entries().any(|(other, executable, _)| other == path && executable);
    entries().filter(|&(path, _, _)| is_code(path)).map(|(_, _, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_counts_whole_and_data_not_at_all() {
        let maps = "1000-3000 r--p 00000000 08:01 1   /bin/p\n3000-7000 r-xp 00002000 08:01 1   /bin/p\n\
                    8000-9000 r--s 00000000 08:01 2   /data/pack\n9000-a000 rw-p 00000000 00:00 0 \n\
                    b000-c000 r-xp 00000000 00:00 0   [vdso]\n";
        assert_eq!(code_bytes(maps), 0x6000);
    }

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
