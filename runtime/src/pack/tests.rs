use half::f16;

use super::*;
use crate::graph::{Binding, Graph};

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
fn reads_blocks_past_the_page_cache_or_without_it() {
    // A file system in memory may have no way past its cache.
    let memory = std::path::Path::new("/dev/shm");
    let folders = [Some(std::env::temp_dir()), memory.is_dir().then(|| memory.to_owned())];
    for folder in folders.into_iter().flatten() {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let path = folder.path().join("tiny.safetensors");
        tiny().write(&path).unwrap();
        let pack = Pack::open(&path).unwrap();
        let (bytes, arena) = (pack.file_bytes(), crate::arena::Arena::new(1 << 16).unwrap());
        for pack in [&pack, &Pack::from_bytes(bytes).unwrap()] {
            let all: &mut [u8] = arena.write(0, 0, 1 << 16);
            for start in (0..bytes.len()).step_by(2 * READ_ALIGN_BYTES) {
                pack.read(start as u64, &mut all[start..start + 2 * READ_ALIGN_BYTES]).unwrap();
            }
            assert_eq!(&all[..bytes.len()], bytes);
            pack.read(bytes.len() as u64, &mut all[..READ_ALIGN_BYTES]).unwrap();
            let tensor = pack.tensor("half").unwrap();
            tensor.verify_bytes(tensor.bytes_padded()).unwrap();
            let mut damaged = tensor.bytes_padded().to_vec();
            damaged[3] ^= 4;
            assert!(tensor.verify_bytes(&damaged).is_err());
        }
    }
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
    assert!(pack.pipeline().is_err());
    assert_eq!(pack.hash(), Pack::from_bytes(pack.file_bytes()).unwrap().hash());
    assert_eq!(pack.file_sha256().unwrap().len(), 64);
}
