use plantain::graph::Graph;
use plantain::pack::{PAGE_BYTES, PackBuilder, PackFault, Provenance, TENSOR_ALIGN_BYTES};

use super::*;

/// A layer norm after a gather.
fn graph() -> Graph {
    serde_json::from_str(
        r#"{"name": "words",
            "values": [{"name": "ids", "shape": [{"b": 1}, 7], "dtype": "i32"},
                       {"name": "rows", "shape": [{"b": 1}, 7, 6], "dtype": "f16"},
                       {"name": "out", "shape": [{"b": 1}, 7, 6], "dtype": "f32"}],
            "nodes": [{"name": "a", "op": "gather", "table": "t", "scale": "s", "rows": 9,
                       "inputs": [0], "output": 1},
                      {"name": "b", "op": "layer_norm", "eps": 1e-5, "gamma": "g", "inputs": [1], "output": 2}],
            "inputs": [0], "outputs": [2]}"#,
    )
    .unwrap()
}

fn metadata() -> Metadata {
    let provenance = Provenance {
        title: "Words".into(),
        licence: "MIT".into(),
        packer: "test".into(),
        ..Provenance::default()
    };
    Metadata { graphs: vec![graph()], provenance, ..Metadata::default() }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn writes_the_same_bytes_as_the_builder_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.safetensors");
    let table: Vec<i8> = (0..54).map(|i| i - 27).collect();
    let big = vec![7u8; STREAMED_BYTES_MIN + 3];
    let mut writer = PackWriter::create(&path).unwrap();
    writer.tensor("t", TensorType::I8, &[9, 6], bytemuck::cast_slice(&table)).unwrap();
    writer.tensor("s", TensorType::F32, &[9], &[0; 36]).unwrap();
    writer.tensor("g", TensorType::F32, &[6], &[0; 24]).unwrap();
    writer.tensor("big", TensorType::U8, &[big.len()], &big).unwrap();
    assert!(!path.exists(), "nothing appears before it is whole");
    let pack = writer.finish(&metadata()).unwrap();
    let builder = PackBuilder::new(metadata())
        .i8("t", &[9, 6], &table)
        .f32("s", &[9], &[0.0; 9])
        .f32("g", &[6], &[0.0; 6])
        .page()
        .u8("big", &[big.len()], &big);
    assert_eq!(std::fs::read(&path).unwrap(), builder.to_bytes());
    assert_eq!(pack.tensor("big").unwrap().file_range().start % PAGE_BYTES as u64, 0);
    assert_eq!(pack.tensor("g").unwrap().file_range().start % TENSOR_ALIGN_BYTES as u64, 0);
    pack.verify_all().unwrap();
    assert_eq!(files(folder.path()), 1, "temporary files stay behind");
}

#[test]
fn lists_tensors_where_they_are_first_read() {
    assert_eq!(execution_order([&graph(), &graph()]).unwrap(), ["t", "s", "g"]);
}

#[test]
fn refuses_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("words.safetensors");
    std::fs::write(&path, "the old pack").unwrap();
    let mut writer = PackWriter::create(&path).unwrap();
    let size = writer.tensor("t", TensorType::F32, &[9], &[0; 35]).unwrap_err();
    assert_eq!(size.to_string(), "tensor \"t\" has 35 bytes but its shape [9] needs 36");
    writer.tensor("t", TensorType::F32, &[9], &[0; 36]).unwrap();
    assert!(matches!(
        writer.tensor("t", TensorType::F32, &[9], &[0; 36]),
        Err(WriteError::NameTwice(_))
    ));
    let WriteError::Refused(error) = writer.finish(&metadata()).unwrap_err() else {
        panic!("a pack with a table of floats was written");
    };
    assert!(matches!(*error.fault, PackFault::Graph(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"the old pack");
    assert_eq!(files(folder.path()), 1, "temporary files stay behind");
    let missing = PackWriter::create(&folder.path().join("no/pack.safetensors")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot write "), "{missing}");
}
