//! Error by layer: the pack's own weights, evaluated as int8 would see them, against tract's float run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use half::f16;
use plantain::graph::{DType, Graph, InputScale, Op, Weight};
use plantain::pack::panel::{PANEL_OUTPUTS, PanelShape};
use plantain::pack::{Pack, PackError};
use serde::Serialize;

use crate::evaluate::{Array, Int8Layer};
use crate::quantise::Layer;
use crate::report::{Error, ErrorSums};

/// One layer of a pack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerComparison {
    /// Node.
    pub node: String,
    /// `int8` or `f16`.
    pub precision: &'static str,
    /// Of its output inside the quantised network.
    pub output: Error,
}

/// A pack's network in the evaluator's form.
pub(super) struct Unpacked {
    /// Its ops in float form.
    pub graph: Graph,
    /// Dequantised.
    pub weights: HashMap<String, Vec<f32>>,
    /// The layers that are int8, by node.
    pub int8: BTreeMap<usize, Int8Layer<'static>>,
    /// The attentions that are int8, by node.
    pub attentions: BTreeSet<usize>,
}

impl Unpacked {
    /// Reads all weights of a network.
    ///
    /// # Errors
    /// [`PackError`] if a tensor's bytes are not what its hash says.
    pub fn new(pack: &Pack, graph: &Graph) -> Result<Self, PackError> {
        let mut unpacked = Unpacked {
            graph: graph.clone(),
            weights: HashMap::new(),
            int8: BTreeMap::new(),
            attentions: BTreeSet::new(),
        };
        for index in 0..graph.nodes.len() {
            let op = unpacked.op(pack, graph, index)?;
            unpacked.graph.nodes[index].op = op;
        }
        Ok(unpacked)
    }

    fn op(&mut self, pack: &Pack, graph: &Graph, index: usize) -> Result<Op, PackError> {
        let node = &graph.nodes[index];
        let mut op = node.op.clone();
        match &mut op {
            Op::MatmulI8 { weight, k, n, epilogue } => {
                let shape = PanelShape::matmul(*n as usize, *k as usize);
                let weight = self.int8(pack, index, weight, shape, InputScale::Row)?;
                op = Op::MatmulF16 { weight, k: *k, n: *n, epilogue: *epilogue };
            }
            Op::ConvI8 { weight, c, n, window, input_scale, epilogue } => {
                let [kernel_rows, kernel_columns] = window.kernel.map(|side| side as usize);
                let (outputs, channels) = (*n as usize, *c as usize);
                let shape = PanelShape { outputs, kernel_rows, kernel_columns, channels };
                let weight = self.int8(pack, index, weight, shape, *input_scale)?;
                let (c, n, window, epilogue) = (*c, *n, *window, *epilogue);
                op = Op::ConvF16 { weight, c, n, window, epilogue };
            }
            Op::AttentionI8 { heads, scale, causal } => {
                op = Op::Attention { heads: *heads, scale: *scale, causal: *causal };
                self.attentions.insert(index);
            }
            Op::MatmulF16 { weight, k, n, .. } => {
                self.half(pack, weight, *n as usize, *k as usize)?;
            }
            Op::ConvF16 { weight, c, n, window, .. } => {
                let taps = (window.kernel[0] * window.kernel[1]) as usize;
                self.half(pack, weight, *n as usize, taps * *c as usize)?;
            }
            Op::Gather { table, scale, .. } => {
                if let Some(scale) = scale.take() {
                    let scales = pack.tensor(&scale)?.as_f32()?.to_vec();
                    let values = pack.tensor(table)?.as_i8()?;
                    let width = values.len() / scales.len().max(1);
                    let float = values.iter().enumerate();
                    let float = float.map(|(i, &q)| f32::from(q) * scales[i / width]);
                    self.weights.insert(table.clone(), float.collect());
                } else {
                    self.halves(pack, table)?;
                }
            }
            Op::Depthwise { weight, bias, .. } => {
                self.halves(pack, weight)?;
                if let Some(bias) = bias {
                    self.floats(pack, bias)?;
                }
            }
            Op::Constant { tensor } => match graph.value(node.output).dtype {
                DType::F32 => self.floats(pack, tensor)?,
                DType::F16 => self.halves(pack, tensor)?,
                DType::I32 => {
                    let values = pack.tensor(tensor)?.as_i32()?.iter().map(|&x| x as f32);
                    self.weights.insert(tensor.clone(), values.collect());
                }
            },
            op => {
                for name in crate::quantise::tensor_names(op) {
                    self.floats(pack, name)?;
                }
            }
        }
        Ok(op)
    }

    fn floats(&mut self, pack: &Pack, name: &str) -> Result<(), PackError> {
        let values = pack.tensor(name)?.as_f32()?.to_vec();
        self.weights.insert(name.to_owned(), values);
        Ok(())
    }

    fn halves(&mut self, pack: &Pack, name: &str) -> Result<(), PackError> {
        let values = pack.tensor(name)?.as_f16()?.iter().map(|x| x.to_f32());
        self.weights.insert(name.to_owned(), values.collect());
        Ok(())
    }

    /// f16 panels `[ceil(n/16)][k][16]` to `[n, k]`.
    fn half(&mut self, pack: &Pack, weight: &Weight, n: usize, k: usize) -> Result<(), PackError> {
        let panels: &[f16] = pack.tensor(&weight.panels)?.as_f16()?;
        let at = |index: usize| {
            let (output, k_index) = (index / k, index % k);
            (output / PANEL_OUTPUTS * k + k_index) * PANEL_OUTPUTS + output % PANEL_OUTPUTS
        };
        let values = (0..n * k).map(|index| panels[at(index)].to_f32()).collect();
        self.weights.insert(weight.panels.clone(), values);
        weight.bias.as_ref().map_or(Ok(()), |bias| self.floats(pack, bias))
    }

    fn int8(
        &mut self,
        pack: &Pack,
        node: usize,
        weight: &Weight,
        shape: PanelShape,
        input: InputScale,
    ) -> Result<Weight, PackError> {
        let panels = pack.tensor(&weight.panels)?.as_i8()?;
        let scales = match &weight.scale {
            Some(name) => pack.tensor(name)?.as_f32()?.to_vec(),
            None => vec![1.0; shape.outputs],
        };
        let mut values = Vec::new();
        for (output, scale) in scales.iter().enumerate() {
            for row in 0..shape.kernel_rows {
                for column in 0..shape.kernel_columns {
                    let tap = (0..shape.channels)
                        .map(|c| f32::from(panels[shape.index(output, row, column, c)]) * scale);
                    values.extend(tap);
                }
            }
        }
        if let Some(bias) = &weight.bias {
            self.floats(pack, bias)?;
        }
        self.int8.insert(node, Int8Layer { weight: values.clone().into(), input });
        self.weights.insert(weight.panels.clone(), values);
        Ok(Weight { scale: None, sums: None, ..weight.clone() })
    }
}

/// Outputs of every layer in some runs: tract's and the pack's.
#[derive(Default)]
pub(super) struct Outputs {
    by_node: BTreeMap<usize, (Vec<f32>, Vec<f32>)>,
}

impl Outputs {
    /// Adds one run. `float` are float values by name.
    pub fn add(
        &mut self,
        unpacked: &Unpacked,
        found: &[Option<Array>],
        float: &BTreeMap<String, Array>,
    ) {
        for layer in Layer::all(&unpacked.graph) {
            let output = unpacked.graph.nodes[layer.node].output;
            let float = float.get(&unpacked.graph.value(output).name);
            if let (Some(float), Some(found)) = (float, &found[output.index()])
                && float.values.len() == found.values.len()
            {
                let (reference, ours) = self.by_node.entry(layer.node).or_default();
                reference.extend_from_slice(&float.values);
                ours.extend_from_slice(&found.values);
            }
        }
    }

    /// Error of every layer, in execution order.
    ///
    /// Where the packer moved a factor, a power of two, from one layer's channels into the next layer's columns, it is
    /// taken out first.
    pub fn errors(mut self, unpacked: &Unpacked) -> Vec<LayerComparison> {
        let layers = Layer::all(&unpacked.graph);
        let compare = |layer: &Layer| {
            let (reference, mut found) = self.by_node.remove(&layer.node)?;
            let mut sums = vec![(0.0f64, 0.0f64); layer.n];
            for (r, f) in reference.chunks(layer.n).zip(found.chunks(layer.n)) {
                for (sum, (&r, &f)) in sums.iter_mut().zip(r.iter().zip(f)) {
                    sum.0 += f64::from(r) * f64::from(f);
                    sum.1 += f64::from(r).powi(2);
                }
            }
            let factor = |&(product, square): &(f64, f64)| match product / square {
                ratio if ratio.is_finite() && ratio > 0.0 => ratio.log2().round().exp2() as f32,
                _ => 1.0,
            };
            let factors: Vec<f32> = sums.iter().map(factor).collect();
            for cell in found.chunks_mut(layer.n) {
                cell.iter_mut().zip(&factors).for_each(|(x, f)| *x /= f);
            }
            Some(LayerComparison {
                node: layer.name.to_owned(),
                precision: if unpacked.int8.contains_key(&layer.node) { "int8" } else { "f16" },
                output: ErrorSums::of(&reference, &found).into(),
            })
        };
        layers.iter().filter_map(compare).collect()
    }
}
