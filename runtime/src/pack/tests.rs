use half::f16;

use super::*;
use crate::graph::{Binding, DType, Graph};

/// A matmul of 5 inputs and 3 outputs over `[b, 5]`, then a SiLU.
fn tiny() -> PackBuilder {
    let graph: Graph = serde_json::from_str(
        r#"{"name": "denoiser",
            "values": [{"name": "x", "shape": [{"b": 1}, 5], "dtype": "f32"},
                       {"name": "y", "shape": [{"b": 1}, 3], "dtype": "f16"},
                       {"name": "z", "shape": [{"b": 1}, 3], "dtype": "f32"}],
            "nodes": [{"name": "in", "op": "matmul_i8", "k": 5, "n": 3, "inputs": [0], "output": 1,
                       "weight": {"panels": "in.w", "scale": "in.s", "sums": "in.q", "bias": "in.b"}},
                      {"name": "act", "op": "unary", "function": "silu", "inputs": [1], "output": 2}],
            "inputs": [0], "outputs": [2]}"#,
    )
    .unwrap();
    let shape = panel::PanelShape::matmul(3, 5);
    let panels = shape.pack_i8(&(1..16).collect::<Vec<i8>>());
    let sums = shape.sums(&panels);
    PackBuilder::lone(graph)
        .i8("in.w", &[1, 2, 16, 4], &panels)
        .f32("in.s", &[3], &[0.5, 0.25, 0.125])
        .i32("in.q", &[1, 16], &sums)
        .f32("in.b", &[3], &[1.0, 2.0, 3.0])
        .page()
        .f16("half", &[3, 7], &[f16::from_f32(1.5); 21])
}

#[test]
fn opens_and_lends_typed_views() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    tiny().write(&path).unwrap();
    let pack = Pack::open(&path).unwrap();
    assert_eq!(pack.graph("denoiser").unwrap().nodes.len(), 2);
    assert_eq!(pack.tensor("in.b").unwrap().as_f32().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(pack.tensor("in.b").unwrap().bytes_padded().len(), 64);
    let half = pack.tensor("half").unwrap();
    assert_eq!((half.shape(), half.len()), (&[3, 7][..], 21));
    assert_eq!(half.file_range().start % PAGE_BYTES as u64, 0);
    assert_eq!(half.as_f16().unwrap()[20], f16::from_f32(1.5));
    assert_eq!(
        half.as_i8().unwrap_err().to_string(),
        format!("pack {}: tensor \"half\" is F16 but was read as I8", path.display())
    );
    for tensor in pack.tensors() {
        assert_eq!(tensor.bytes().as_ptr() as usize % TENSOR_ALIGN_BYTES, 0);
        tensor.verify().unwrap();
    }
    pack.verify_all().unwrap();
    let shapes = crate::graph::validate_bound(
        pack.graph("denoiser").unwrap(),
        Binding { batch: 2, height: 1, width: 1 },
    );
    assert_eq!(shapes.unwrap()[2], [2, 3]);
    assert_eq!(DType::F16.bytes(), 2);
    assert!(pack.pipeline().is_err());
    assert_eq!(pack.hash(), Pack::from_bytes(pack.file_bytes()).unwrap().hash());
    assert_eq!(pack.file_sha256().unwrap().len(), 64);
}

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
    let before = resident_kib(&pack);
    assert!(before >= 8 << 10, "{before} KiB of 8 MiB are resident after reading them");
    pack.release(range.clone()).unwrap();
    let after = resident_kib(&pack);
    assert!(after < 64, "{after} KiB are resident after release");
    let before = storage_bytes();
    assert!(big.as_u8().unwrap() == values, "another read gives other bytes");
    let read = storage_bytes() - before;
    assert!(
        read >= 8 << 20,
        "{read} bytes of 8 MiB came from storage: the page cache kept the rest"
    );
    big.verify_anew().unwrap();
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

#[test]
fn finds_every_flipped_bit_of_a_small_pack() {
    let bytes = tiny().to_bytes();
    let data = bytes.len()
        - tiny().open().unwrap().tensors().map(|t| t.bytes_padded().len()).sum::<usize>();
    // Every bit of the header's text and of the data's first tensors, and some of the padding.
    let text = bytes.iter().rposition(|&byte| byte == b'}').unwrap().min(data) + 2;
    let spots = (0..text).chain((text..data).step_by(4099)).chain(data..data + 640);
    for at in spots.chain([bytes.len() - 1]) {
        for bit in if at < 64 || at >= data { 0..8 } else { 3..4 } {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let found = Pack::from_bytes(&damaged).and_then(|pack| pack.verify_all());
            assert!(found.is_err(), "bit {bit} of byte {at} was flipped and nobody saw it");
        }
    }
}
