//! Python's safetensors opens a pack, and a pack that it saved again is refused.

use std::process::Command;

use plantain::pack::{Pack, PackFault};

const READ: &str = r#"
import json, sys
from safetensors import safe_open
from safetensors.numpy import save_file
with safe_open(sys.argv[1], "np") as pack:
    metadata = pack.metadata()
    tensors = {name: pack.get_tensor(name) for name in pack.keys()}
json.dump({
    "version": metadata["plantain.version"],
    "graphs": [graph["name"] for graph in json.loads(metadata["plantain.graphs"])],
    "sums": {name: float(tensor.astype("f8").sum()) for name, tensor in tensors.items()},
    "bytes": {name: tensor.nbytes for name, tensor in tensors.items()},
}, sys.stdout)
save_file(tensors, sys.argv[2], metadata)
"#;

#[test]
fn python_reads_the_same_tensors() {
    let Some(python) = std::env::var_os("PLANTAIN_PYTHON") else {
        println!("left out: PLANTAIN_PYTHON names no Python (cargo xtask test sets it)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    plantain_tests::packs::every_op().write(&path).unwrap();
    let output = Command::new(python).args(["-c", READ]).arg(&path).arg(&again).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["version"], "2");
    assert_eq!(seen["graphs"], serde_json::json!(["text_encoder", "denoiser", "decoder"]));
    let pack = Pack::open(&path).unwrap();
    assert_eq!(seen["bytes"].as_object().unwrap().len(), pack.tensors().len());
    for tensor in pack.tensors() {
        let padded = tensor.bytes_padded();
        assert_eq!(seen["bytes"][tensor.name()], padded.len(), "{}", tensor.name());
        let sum: f64 = match tensor.dtype() {
            plantain::pack::TensorType::I8 => {
                tensor.as_i8().unwrap().iter().map(|&x| f64::from(x)).sum()
            }
            plantain::pack::TensorType::U8 => {
                tensor.as_u8().unwrap().iter().map(|&x| f64::from(x)).sum()
            }
            plantain::pack::TensorType::F16 => {
                tensor.as_f16().unwrap().iter().map(|x| x.to_f64()).sum()
            }
            plantain::pack::TensorType::F32 => {
                tensor.as_f32().unwrap().iter().map(|&x| f64::from(x)).sum()
            }
            plantain::pack::TensorType::I32 => {
                tensor.as_i32().unwrap().iter().map(|&x| f64::from(x)).sum()
            }
        };
        let theirs = seen["sums"][tensor.name()].as_f64().unwrap();
        assert!(
            (theirs - sum).abs() <= 1e-9 * sum.abs().max(1.0),
            "{}: {theirs} {sum}",
            tensor.name()
        );
    }
    let error = Pack::open(&again).unwrap_err();
    assert!(
        matches!(*error.fault, PackFault::Rewritten | PackFault::HeaderDamaged { .. }),
        "{error}"
    );
}
