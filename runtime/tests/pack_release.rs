//! Letting go of a pack's pages, by the kernel's own account. Not under emulation, where fadvise does nothing.

use plantain::pack::{Metadata, Pack, PackBuilder};

#[test]
fn released_ranges_leave_memory_and_are_read_again() {
    // Beside the test's own program: on a disk, where /tmp may be memory.
    let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let path = folder.path().join("big.safetensors");
    let values: Vec<u8> =
        (0..8 << 20).map(|i: u32| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
    PackBuilder::new(Metadata::default())
        .page()
        .u8("big", &[8, 1 << 20], &values)
        .write(&path)
        .unwrap();
    let pack = Pack::open(&path).unwrap();
    let big = pack.tensor("big").unwrap();
    let range = big.file_range();
    // What writing left in the cache lies in large blocks.
    pack.release(0..u64::MAX).unwrap();
    pack.read_ahead(false).unwrap();
    pack.prefetch(range.clone()).unwrap();
    big.verify().unwrap();
    let resident = resident_kib(&pack);
    assert!(resident >= 8 << 10, "{resident} KiB of 8 MiB are resident after reading them");
    pack.release(range.clone()).unwrap();
    let resident = resident_kib(&pack);
    assert!(resident < 64, "{resident} KiB are resident after release");
    let before = storage_bytes();
    assert!(big.as_u8().unwrap() == values, "another read gives other bytes");
    let read = storage_bytes() - before;
    assert!(
        read >= 8 << 20,
        "{read} bytes of 8 MiB came from storage: the page cache kept the rest"
    );
    pack.unmap(range).unwrap();
    let resident = resident_kib(&pack);
    assert!(resident < 64, "{resident} KiB are resident in the process that let go of them");
    let before = storage_bytes();
    big.verify_anew().unwrap();
    assert_eq!(storage_bytes(), before, "the page cache let go of what the process did");
    pack.release(0..u64::MAX).unwrap();
    pack.prefetch(u64::MAX - 1..u64::MAX).unwrap();
}

/// Resident KiB of the pack's map, by the kernel's account.
fn resident_kib(pack: &Pack) -> usize {
    let start = format!("{:x}-", pack.file_bytes().as_ptr() as usize);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let map = &smaps[smaps.find(&start).expect("the map is listed")..];
    let line = map.lines().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that this thread has read from storage, by the kernel's account.
fn storage_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find(|line| line.starts_with("read_bytes:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
