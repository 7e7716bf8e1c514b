//! Ops as the engine runs them: what is quantised, multiplied, finished and stored, tile by tile.

use std::error::Error;
use std::sync::Arc;

use half::f16;
use plantain::engine::{Engine, EngineOptions, MemoryWeights, NetworkIndex};
use plantain::graph::{
    Binding, DType, Dim, Epilogue, Graph, InputScale, Node, Op, ResizeMode, Unary, Value, ValueId,
    Weight, Window, output_shape, tensor_needs,
};
use plantain::pack::TensorType;

use super::Work::{Macs, Values};
use super::{line, mark};

const BINDING: Binding = Binding { batch: 1, height: 1, width: 1 };
/// An image of `[1, 16, 16, 64]`.
const IMAGE: &[usize] = &[1, 16, 16, 64];
/// A sequence of `[1, 128, 320]`.
const TOKENS: &[usize] = &[1, 128, 320];
const PLAIN: Epilogue = Epilogue { activation: None, residual: false };

/// Counts each op alone.
///
/// # Errors
/// If the engine refuses one.
pub fn count_all() -> Result<(), Box<dyn Error>> {
    let cell = window(1, 1, 0);
    let (same, down) = (window(3, 1, 1), window(3, 2, 1));
    let rich = Epilogue { activation: Some(Unary::Silu), residual: true };
    let calibrated = InputScale::Static(0.01);
    let attention = Op::Attention { heads: 8, scale: 0.2, causal: false };
    let attention_i8 = Op::AttentionI8 { heads: 8, scale: 0.2, causal: false };
    let group_norm = Op::GroupNorm {
        groups: 8,
        eps: 1e-5,
        gamma: "gamma".into(),
        beta: "beta".into(),
        activation: Some(Unary::Silu),
    };
    let layer_norm = Op::LayerNorm { eps: 1e-5, gamma: "gamma".into(), beta: Some("beta".into()) };
    let up = Op::Resize { factor: [2, 2], mode: ResizeMode::Nearest };
    let cases: [(&str, Op, &[&[usize]]); 17] = [
        ("conv_i8 3x3", conv_i8(same, InputScale::Row, PLAIN), &[IMAGE]),
        ("conv_i8 3x3, calibrated", conv_i8(same, calibrated, PLAIN), &[IMAGE]),
        ("conv_i8 3x3, silu, residual", conv_i8(same, InputScale::Row, rich), &[IMAGE, IMAGE]),
        ("conv_i8 3x3, stride 2", conv_i8(down, InputScale::Row, PLAIN), &[IMAGE]),
        ("conv_i8 1x1", conv_i8(cell, InputScale::Row, PLAIN), &[IMAGE]),
        ("conv_f16 3x3", conv_f16(same), &[IMAGE]),
        ("depthwise 3x3", depthwise(same), &[IMAGE]),
        ("depthwise 3x3, stride 2", depthwise(down), &[IMAGE]),
        ("matmul_i8", matmul_i8(320, 320, PLAIN), &[TOKENS]),
        ("matmul_i8", matmul_i8(320, 320, PLAIN), &[&[1, 1, 320]]),
        ("matmul_f16", matmul_f16(320, 320), &[TOKENS]),
        ("attention, 8 heads", attention, &[TOKENS, TOKENS, TOKENS]),
        ("attention_i8, 8 heads", attention_i8, &[TOKENS, TOKENS, TOKENS]),
        ("group_norm, silu", group_norm, &[IMAGE]),
        ("layer_norm", layer_norm, &[TOKENS]),
        ("softmax", Op::Softmax, &[TOKENS]),
        ("resize nearest", up, &[IMAGE]),
    ];
    for (name, op, inputs) in cases {
        let case = format!("op {name}, {:?}", inputs[0]);
        count_op(&case, op, inputs).map_err(|error| format!("{case}: {error}"))?;
    }
    Ok(())
}

fn window(kernel: u32, stride: u32, pad: u32) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] }
}

fn int8() -> Weight {
    let name = |name: &str| Some(name.to_owned());
    Weight { panels: "panels".into(), scale: name("scale"), sums: name("sums"), bias: name("bias") }
}

fn half() -> Weight {
    Weight { panels: "panels".into(), scale: None, sums: None, bias: Some("bias".into()) }
}

fn conv_i8(window: Window, input_scale: InputScale, epilogue: Epilogue) -> Op {
    Op::ConvI8 { weight: int8(), c: 64, n: 64, window, input_scale, epilogue }
}

fn conv_f16(window: Window) -> Op {
    Op::ConvF16 { weight: half(), c: 64, n: 64, window, epilogue: PLAIN }
}

fn depthwise(window: Window) -> Op {
    Op::Depthwise { weight: "weight".into(), bias: Some("bias".into()), window, epilogue: PLAIN }
}

fn matmul_i8(k: u32, n: u32, epilogue: Epilogue) -> Op {
    Op::MatmulI8 { weight: int8(), k, n, epilogue }
}

fn matmul_f16(k: u32, n: u32) -> Op {
    Op::MatmulF16 { weight: half(), k, n, epilogue: PLAIN }
}

/// A graph of one node, run once to warm up and once between two marks.
fn count_op(case: &str, op: Op, inputs: &[&[usize]]) -> Result<(), Box<dyn Error>> {
    let shape = output_shape(&op, inputs, &[], BINDING)?;
    let graph = lone(op, inputs, &shape);
    let mut weights = MemoryWeights::new();
    for need in tensor_needs(&graph, &graph.nodes[0])? {
        let length = need.elements as usize;
        match need.dtype {
            TensorType::I8 => weights.insert(need.name, &vec![3i8; length]),
            TensorType::F16 => weights.insert(need.name, &vec![f16::from_f32(0.03); length]),
            TensorType::I32 => weights.insert(need.name, &vec![0i32; length]),
            _ => weights.insert(need.name, &vec![0.01f32; length]),
        }
    }
    let mut engine = Engine::load(Arc::new(weights), &[(&graph, BINDING)], &EngineOptions::new(1))?;
    let network = NetworkIndex(0);
    let feed = |engine: &mut Engine| {
        for (index, shape) in inputs.iter().enumerate() {
            let length = shape.iter().product();
            let values: Vec<f32> =
                (0..length).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
            engine.set_input(network, &index.to_string(), &values)?;
        }
        Ok::<(), Box<dyn Error>>(())
    };
    feed(&mut engine)?;
    engine.run(network)?;
    let macs: u64 = engine.profile(network).iter().map(|op| op.macs).sum();
    let work = if macs > 0 { Macs(macs as usize) } else { Values(shape.iter().product()) };
    let line = line(case, work);
    feed(&mut engine)?;
    mark("");
    engine.run(network)?;
    mark(&line);
    Ok(())
}

fn lone(op: Op, inputs: &[&[usize]], output: &[usize]) -> Graph {
    let value = |(index, shape): (usize, &&[usize])| Value {
        name: index.to_string(),
        shape: shape.iter().map(|&length| Dim::fixed(length)).collect(),
        dtype: DType::F16,
    };
    let values: Vec<Value> = inputs.iter().chain([&output]).enumerate().map(value).collect();
    let inputs: Vec<ValueId> = (0..inputs.len() as u32).map(ValueId).collect();
    let output = ValueId(inputs.len() as u32);
    let node = Node { name: "node".into(), op, inputs: inputs.clone(), output };
    Graph { name: "one op".into(), values, nodes: vec![node], inputs, outputs: vec![output] }
}
