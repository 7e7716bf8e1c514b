//! The quantised graph and its tensors, in execution order.

use std::collections::BTreeMap;

use half::f16;
use plantain::graph::{DType, Graph, InputScale, Op, Weight};
use plantain::pack::panel::{PanelShape, pack_f16};

use super::attention::AttentionChoice;
use super::choose::Choices;
use super::layer::Layer;
use super::weights::Int8Weights;
use crate::lower::FloatNetwork;

/// Values of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredData {
    /// Weights.
    I8(Vec<i8>),
    /// Tables.
    U8(Vec<u8>),
    /// Weights and constants.
    F16(Vec<f16>),
    /// Scales, biases, norms, constants.
    F32(Vec<f32>),
    /// Sums, constants.
    I32(Vec<i32>),
}

impl StoredData {
    /// Values.
    pub fn len(&self) -> usize {
        match self {
            StoredData::I8(v) => v.len(),
            StoredData::U8(v) => v.len(),
            StoredData::F16(v) => v.len(),
            StoredData::F32(v) => v.len(),
            StoredData::I32(v) => v.len(),
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes, not padded.
    pub fn bytes(&self) -> usize {
        match self {
            StoredData::I8(v) => v.len(),
            StoredData::U8(v) => v.len(),
            StoredData::F16(v) => v.len() * 2,
            StoredData::F32(v) => v.len() * 4,
            StoredData::I32(v) => v.len() * 4,
        }
    }
}

/// A tensor as it goes into the pack.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Unique in the pack: `network/tensor`.
    pub name: String,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// As many values as the shape's product.
    pub data: StoredData,
}

/// Tensors by name, in the order in which nodes first read them.
struct Store<'a> {
    graph: &'a str,
    tensors: Vec<StoredTensor>,
    index: BTreeMap<String, usize>,
}

impl Store<'_> {
    /// Stores a tensor and says under which name: if the name is taken by other values, the node's joins it.
    fn put(&mut self, name: &str, node: &str, shape: Vec<usize>, data: StoredData) -> String {
        let mut stored = format!("{}/{name}", self.graph);
        if let Some(&index) = self.index.get(&stored) {
            if self.tensors[index].data == data {
                return stored;
            }
            stored = format!("{}/{node}/{name}", self.graph);
        }
        self.index.insert(stored.clone(), self.tensors.len());
        self.tensors.push(StoredTensor { name: stored.clone(), shape, data });
        stored
    }

    fn f32(&mut self, name: &str, node: &str, values: &[f32]) -> String {
        self.put(name, node, vec![values.len()], StoredData::F32(values.to_vec()))
    }
}

/// Turns the float form into what the engine runs. Value types are taken as they stand.
pub fn emit(network: &FloatNetwork, choices: &Choices) -> (Graph, Vec<StoredTensor>) {
    let mut graph = network.graph.clone();
    let name = graph.name.clone();
    let mut store = Store { graph: &name, tensors: Vec::new(), index: BTreeMap::new() };
    for index in 0..graph.nodes.len() {
        let output = graph.value(graph.nodes[index].output).dtype;
        let node = graph.nodes[index].name.clone();
        let op = match &network.graph.nodes[index].op {
            Op::MatmulF16 { .. } | Op::ConvF16 { .. } => {
                let layer =
                    Layer::at(&network.graph, index).expect("matmuls and convolutions are layers");
                let int8 = choices.layers.get(&index).and_then(|choice| choice.int8.as_ref());
                match int8 {
                    Some((weights, input)) => int8_op(network, &layer, weights, *input, &mut store),
                    None => f16_op(network, &layer, &mut store),
                }
            }
            Op::Attention { heads, scale, causal }
                if choices.attentions.get(&index).is_some_and(AttentionChoice::int8) =>
            {
                Op::AttentionI8 { heads: *heads, scale: *scale, causal: *causal }
            }
            op => other_op(network, op, &node, output, &mut store),
        };
        graph.nodes[index].op = op;
    }
    (graph, store.tensors)
}

fn panel_shape(layer: &Layer) -> PanelShape {
    let [kernel_rows, kernel_columns] = layer.kernel();
    PanelShape { outputs: layer.n, kernel_rows, kernel_columns, channels: layer.c }
}

fn int8_op(
    network: &FloatNetwork,
    layer: &Layer,
    weights: &Int8Weights,
    input_scale: InputScale,
    store: &mut Store,
) -> Op {
    let shape = panel_shape(layer);
    let panels = shape.pack_i8(&weights.values);
    let sums = shape.sums(&panels);
    let base = &layer.weight.panels;
    let panel_dims = vec![shape.panels(), shape.groups(), 16, 4];
    let sum_dims = vec![shape.kernel_rows, shape.panels() * 16];
    let weight = Weight {
        panels: store.put(base, layer.name, panel_dims, StoredData::I8(panels)),
        scale: Some(store.f32(&format!("{base}.scale"), layer.name, &weights.scale)),
        sums: Some(store.put(&format!("{base}.sums"), layer.name, sum_dims, StoredData::I32(sums))),
        bias: bias(network, layer, store),
    };
    let (n, epilogue) = (layer.n as u32, *layer.epilogue);
    match layer.window {
        Some(&window) => Op::ConvI8 { weight, c: layer.c as u32, n, window, input_scale, epilogue },
        None => Op::MatmulI8 { weight, k: layer.c as u32, n, epilogue },
    }
}

fn f16_op(network: &FloatNetwork, layer: &Layer, store: &mut Store) -> Op {
    let (k, base) = (layer.products(), &layer.weight.panels);
    let weights: Vec<f16> = network.weight(base).data.iter().map(|&w| f16::from_f32(w)).collect();
    let panels = pack_f16(layer.n, k, &weights);
    let dims = vec![layer.n.div_ceil(16), k, 16];
    let weight = Weight {
        panels: store.put(base, layer.name, dims, StoredData::F16(panels)),
        scale: None,
        sums: None,
        bias: bias(network, layer, store),
    };
    let (n, epilogue) = (layer.n as u32, *layer.epilogue);
    match layer.window {
        Some(&window) => Op::ConvF16 { weight, c: layer.c as u32, n, window, epilogue },
        None => Op::MatmulF16 { weight, k: k as u32, n, epilogue },
    }
}

fn bias(network: &FloatNetwork, layer: &Layer, store: &mut Store) -> Option<String> {
    let name = layer.weight.bias.as_deref()?;
    Some(store.f32(name, layer.name, &network.weight(name).data))
}

/// Ops without a weight matrix: their tensors keep their type, tables become int8 by row.
fn other_op(network: &FloatNetwork, op: &Op, node: &str, output: DType, store: &mut Store) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Constant { tensor } => {
            let source = network.weight(tensor);
            let data = match output {
                DType::F32 => StoredData::F32(source.data.clone()),
                DType::F16 => {
                    StoredData::F16(source.data.iter().map(|&x| f16::from_f32(x)).collect())
                }
                DType::I32 => StoredData::I32(source.data.iter().map(|&x| x as i32).collect()),
            };
            *tensor = store.put(tensor, node, source.shape.clone(), data);
        }
        Op::Depthwise { weight, bias, .. } => {
            let source = network.weight(weight);
            let data = source.data.iter().map(|&x| f16::from_f32(x)).collect();
            *weight = store.put(weight, node, source.shape.clone(), StoredData::F16(data));
            if let Some(bias) = bias {
                *bias = store.f32(bias, node, &network.weight(bias).data);
            }
        }
        Op::Gather { table, scale, rows } => {
            let source = network.weight(table);
            let width = source.data.len() / *rows as usize;
            let int8 = Int8Weights::quantise(&source.data, *rows as usize, &vec![1.0; width]);
            let shape = vec![*rows as usize, width];
            *scale = Some(store.f32(&format!("{table}.scale"), node, &int8.scale));
            *table = store.put(table, node, shape, StoredData::I8(int8.values));
        }
        op => {
            for name in super::equalise::names(op) {
                *name = store.f32(name, node, &network.weight(name).data);
            }
        }
    }
    op
}
