//! Import and lowering against tract's own float run, and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plantain::graph::{Binding, DType, Op, ValueId, validate_bound};
use plantain_pack::evaluate::{Array, Evaluator, Precision};
use plantain_pack::import::{ImportError, ImportOptions, Imported, import};
use plantain_pack::lower::{FloatNetwork, FloatTensor, lower};

/// Largest difference to tract, as a share of a tensor's largest value.
const TOLERANCE: f32 = 2e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn load(path: &Path) -> (Imported, FloatNetwork) {
    let imported = import(path, &ImportOptions::default()).unwrap();
    let network = lower(&imported, "network").unwrap();
    (imported, network)
}

/// Seeded inputs: noise, ids below 20, masks that hide the last two tokens.
fn inputs(network: &FloatNetwork, binding: Binding) -> BTreeMap<String, FloatTensor> {
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut inputs = BTreeMap::new();
    for &id in &network.graph.inputs {
        let value = network.graph.value(id);
        let shape = network.shape(id, binding).unwrap();
        let tokens = shape[shape.len() - 1];
        let data = (0..shape.iter().product::<usize>())
            .map(|index| match (value.dtype, value.name.contains("mask")) {
                (_, true) => f32::from(u8::from(index % tokens + 2 < tokens)),
                (DType::I32, false) => (noise().abs() * 19.0).floor(),
                _ => 1.5 * noise(),
            })
            .collect();
        inputs.insert(value.name.clone(), FloatTensor::new(shape, data));
    }
    inputs
}

/// Evaluates the lowered network and compares every value that has an origin with tract's.
fn compare(imported: &Imported, network: &FloatNetwork, binding: Binding) {
    let graph = &network.graph;
    validate_bound(graph, binding).unwrap();
    let inputs = inputs(network, binding);
    let arrays = inputs
        .iter()
        .map(|(name, t)| (name.clone(), Array { shape: t.shape.clone(), values: t.data.clone() }))
        .collect();
    let evaluator = Evaluator::new(graph, &network.weights, binding);
    let values = evaluator.run(&arrays, Precision::default()).unwrap();
    let reference = imported.reference(binding).unwrap();
    let all: Vec<ValueId> = (0..graph.values.len() as u32).map(ValueId).collect();
    let expected = reference.run(network, &inputs, &all).unwrap();
    assert!(graph.outputs.iter().all(|id| expected.contains_key(id)), "outputs are compared");
    if !network.free.batch || binding.batch > 1 {
        assert!(expected.len() * 3 > graph.values.len(), "many values are compared");
    }
    for (id, expected) in &expected {
        let actual = values[id.index()].as_ref().unwrap();
        let name = &graph.value(*id).name;
        assert_eq!(actual.shape, expected.shape, "{name}");
        let peak = expected.data.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        for (index, (a, e)) in actual.values.iter().zip(&expected.data).enumerate() {
            let close = (a - e).abs() <= TOLERANCE * peak;
            assert!(close, "{name}[{index}]: {a} where tract has {e} (peak {peak})");
        }
    }
}

fn count(network: &FloatNetwork, op: &str) -> usize {
    network.graph.nodes.iter().filter(|node| node.op.name() == op).count()
}

fn counts(network: &FloatNetwork, wanted: &[(&str, usize)]) {
    for &(op, expected) in wanted {
        let names: Vec<&str> = network.graph.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(count(network, op), expected, "{op} in {names:?}");
    }
}

fn fixed() -> Binding {
    Binding { batch: 1, height: 1, width: 1 }
}

#[test]
fn tokens_and_masked_attention() {
    let (imported, network) = load(&fixture("tokens.onnx"));
    counts(
        &network,
        &[
            ("attention", 1),
            ("transpose", 0),
            ("modulate", 1),
            ("rms_norm", 3),
            ("pixel_shuffle", 1),
            ("softmax", 0),
        ],
    );
    let heads = network.graph.nodes.iter().find_map(|node| match &node.op {
        Op::Attention { heads, scale, causal } => {
            Some((*heads, *scale, *causal, node.inputs.len()))
        }
        _ => None,
    });
    assert_eq!(heads, Some((4, 0.5, false, 4)), "heads, scale, causal, operands");
    compare(&imported, &network, fixed());
}

#[test]
fn heads_in_a_free_batch() {
    let (imported, network) = load(&fixture("folded_heads.onnx"));
    counts(
        &network,
        &[
            ("attention", 2),
            ("transpose", 0),
            ("group_norm", 3),
            ("layer_norm", 2),
            ("gated", 1),
            ("timestep_embedding", 1),
            ("concat", 1),
            ("expand", 0),
            ("resize", 1),
            ("softmax", 0),
        ],
    );
    let free = network.free;
    assert!(free.batch && free.height && free.width);
    assert_eq!(network.unit, 2);
    compare(&imported, &network, Binding { batch: 1, height: 4, width: 6 });
    compare(&imported, &network, Binding { batch: 3, height: 2, width: 10 });
    let odd = network.shape(network.graph.outputs[0], Binding { batch: 1, height: 4, width: 4 });
    assert_eq!(odd.unwrap(), [1, 4, 4, 4]);
}

#[test]
fn convolutions_of_every_kind() {
    let (imported, network) = load(&fixture("convolutions.onnx"));
    counts(
        &network,
        &[
            ("depthwise", 1),
            ("conv_f16", 5),
            ("pool", 2),
            ("pad", 1),
            ("resize", 2),
            ("transpose", 0),
        ],
    );
    compare(&imported, &network, Binding { batch: 2, height: 6, width: 8 });
}

#[test]
fn pixel_shuffles_however_written() {
    let (imported, network) = load(&fixture("shuffles.onnx"));
    assert!(count(&network, "pixel_shuffle") >= 1);
    compare(&imported, &network, fixed());
}

#[test]
fn text_encoder_is_causal() {
    let (imported, network) = load(&fixture("text.onnx"));
    counts(&network, &[("attention", 1), ("gather", 1), ("gated", 1), ("transpose", 0)]);
    let causal = |op: &Op| matches!(op, Op::Attention { causal: true, .. });
    assert!(network.graph.nodes.iter().any(|n| causal(&n.op) && n.inputs.len() == 3));
    compare(&imported, &network, Binding { batch: 2, height: 1, width: 1 });
}

#[test]
fn fused_ops_of_late_opsets() {
    let (imported, network) = load(&fixture("opset23.onnx"));
    counts(
        &network,
        &[("attention", 1), ("rms_norm", 1), ("group_norm", 1), ("transpose", 0), ("softmax", 0)],
    );
    compare(&imported, &network, fixed());
}

#[test]
fn a_mask_that_differs_by_head_stays_in_parts() {
    let (imported, network) = load(&fixture("relative_bias.onnx"));
    counts(&network, &[("attention", 0), ("batch_matmul", 2), ("softmax", 1)]);
    compare(&imported, &network, fixed());
}

#[test]
fn masks_of_truth_values() {
    let (imported, network) = load(&fixture("masks.onnx"));
    counts(&network, &[("attention", 3), ("transpose", 0), ("softmax", 0)]);
    assert!(network.graph.nodes.iter().all(|n| n.op.name() != "attention" || n.inputs.len() == 4));
    compare(&imported, &network, fixed());
}

#[test]
fn rounding_of_activations_is_dropped_and_weights_are_kept() {
    let (imported, network) = load(&fixture("rounded.onnx"));
    counts(&network, &[("conv_f16", 1), ("matmul_f16", 1), ("softmax", 1), ("transpose", 0)]);
    compare(&imported, &network, fixed());
    let kernel = network.weights.values().find(|tensor| tensor.shape == [6, 3, 3, 3]).unwrap();
    for (row, weights) in kernel.data.chunks_exact(27).enumerate() {
        let scale = 0.002 + 0.002 * row as f32 / 5.0;
        assert!(weights.iter().all(|w| (w / scale - (w / scale).round()).abs() < 1e-3), "{row}");
    }
}

#[test]
fn stable_diffusion_shaped_networks_at_two_sizes() {
    for (folder, attention) in [("sd_small", 8), ("sd_outlier", 8)] {
        let (imported, network) = load(&shared(folder).join("unet"));
        counts(&network, &[("attention", attention), ("transpose", 0), ("softmax", 0)]);
        for (height, width) in [(8, 8), (4, 6)] {
            compare(&imported, &network, Binding { batch: 2, height, width });
        }
    }
    for network in ["text_encoder", "vae_decoder"] {
        let (imported, network) = load(&shared("sd_small").join(network));
        counts(&network, &[("transpose", 0)]);
        compare(&imported, &network, Binding { batch: 1, height: 8, width: 4 });
    }
}

#[test]
fn a_free_sequence_can_be_fixed_by_its_name() {
    let sizes = BTreeMap::from([("sequence".to_owned(), 7)]);
    let imported = import(&fixture("free_sequence.onnx"), &ImportOptions { sizes }).unwrap();
    let network = lower(&imported, "network").unwrap();
    let shape = network.shape(network.graph.outputs[0], Binding { batch: 2, height: 1, width: 1 });
    assert_eq!(shape.unwrap(), [2, 7, 8]);
}

fn refusal(path: &Path) -> String {
    match import(path, &ImportOptions::default()) {
        Err(error) => error.to_string(),
        Ok(imported) => lower(&imported, "network").unwrap_err().to_string(),
    }
}

#[test]
fn refusals_name_the_node_and_what_to_do() {
    let cases = [
        ("unknown_op.onnx", ["\"/odd\"", "com.example.Frobnicate", "ai.onnx"]),
        ("cumsum.onnx", ["\"/CumSum_", "CumSum", "export"]),
        ("free_sequence.onnx", ["\"input_ids\"", "\"sequence\"", "fixed size"]),
        ("external.onnx", ["\"c1\"", "absent.data", "copy that file"]),
        ("absent.onnx", ["cannot read", "absent.onnx", "No such file"]),
        ("make_onnx.py", ["make_onnx.py", "not an ONNX model", "torch.onnx.export"]),
    ];
    for (name, parts) in cases {
        let message = refusal(&fixture(name));
        assert!(!message.contains('\n'), "one line: {message}");
        for part in parts {
            assert!(message.contains(part), "{name}: {part:?} is missing in: {message}");
        }
    }
}

#[test]
fn cut_files_are_refused() {
    let whole = std::fs::read(fixture("tokens.onnx")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for length in [0, 1, 10, whole.len() / 2, whole.len() - 1] {
        let path = folder.path().join("cut.onnx");
        std::fs::write(&path, &whole[..length]).unwrap();
        match import(&path, &ImportOptions::default()) {
            Err(ImportError::NotOnnx { .. } | ImportError::Model { .. }) => {}
            Err(other) => panic!("{length} bytes: {other}"),
            Ok(_) => panic!("{length} bytes of {} were imported", whole.len()),
        }
    }
}

#[test]
fn external_data_is_read_and_its_length_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::copy(fixture("external.onnx"), &path).unwrap();
    let data: Vec<u8> = (0..16u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
    std::fs::write(folder.path().join("absent.data"), &data[..40]).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("has 40 bytes where 64 from byte 0 are needed"), "{message}");
    std::fs::write(folder.path().join("absent.data"), &data).unwrap();
    let (imported, network) = load(folder.path());
    compare(&imported, &network, fixed());
}

/// Bytes changed at random: an answer or a refusal, never a panic.
#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.onnx");
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for name in ["relative_bias.onnx", "shuffles.onnx", "text.onnx"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        for _ in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random(3) {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
            }
            std::fs::write(&path, bytes).unwrap();
            if let Ok(imported) = import(&path, &ImportOptions::default()) {
                let _ = lower(&imported, "network");
            }
        }
    }
}
