//! A plain f32 interpreter of graphs: the float run that calibration and quantisation measure against.
//!
//! Enters: a validated graph in float form, its float weights, a binding and inputs. Leaves: every value as f32.
//! Never: speed tricks, panels, memory plans. It rounds where it is asked to (f16 storage, int8 layers), so that
//! the error of a choice can be measured before a pack exists.
//!
//! Float form: [`Op::MatmulF16`] and [`Op::ConvF16`] whose `weight.panels` names an f32 matrix `[n, k]` or
//! `[n, kernel_rows, kernel_columns, c]`, row-major; gather tables are f32.

mod attention;
mod linear;
mod norm;
mod pointwise;
mod shape;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use half::f16;
use plantain::graph::{Binding, DType, DimError, Graph, InputScale, Node, Op, ValueId, bind_shape};

pub(crate) use linear::window_columns;
pub use linear::{fake_quantise, round_ties_even};
pub(crate) use pointwise::unary;

use crate::lower::FloatTensor;

/// A tensor of computed values; ids are held as whole f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Array {
    /// Zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Array { shape: shape.to_vec(), values: vec![0.0; shape.iter().product()] }
    }

    /// Values of the last dimension.
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// `[b, h, w, c]`.
    fn image(&self) -> [usize; 4] {
        [self.shape[0], self.shape[1], self.shape[2], self.shape[3]]
    }
}

/// Where float weights come from.
pub trait WeightSource: Sync {
    /// The tensor of this name, row-major; whole numbers as f32.
    fn floats(&self, name: &str) -> Option<&[f32]>;
}

impl WeightSource for BTreeMap<String, FloatTensor> {
    fn floats(&self, name: &str) -> Option<&[f32]> {
        self.get(name).map(|tensor| tensor.data.as_slice())
    }
}

impl WeightSource for HashMap<String, Vec<f32>> {
    fn floats(&self, name: &str) -> Option<&[f32]> {
        self.get(name).map(Vec::as_slice)
    }
}

/// Why a graph cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A tensor is not there.
    #[error("node {node:?} reads the tensor {tensor:?}, which the network does not have")]
    MissingTensor {
        /// Reader.
        node: String,
        /// Tensor.
        tensor: String,
    },
    /// A tensor has another size.
    #[error("node {node:?} reads {found} values from {tensor:?} but needs {expected}")]
    TensorSize {
        /// Reader.
        node: String,
        /// Tensor.
        tensor: String,
        /// Values that it holds.
        found: usize,
        /// Values that the node needs.
        expected: usize,
    },
    /// An input is missing or has another shape.
    #[error("input {name:?} must have the shape {expected:?} but {found:?} was given")]
    Input {
        /// Input.
        name: String,
        /// Shape of the graph under the binding.
        expected: Vec<usize>,
        /// Shape that was given; empty if none was.
        found: Vec<usize>,
    },
    /// An operand does not have the shape that the op needs.
    #[error("node {node:?} ({op}) cannot take operands of shapes {shapes:?} to {output:?}")]
    Operands {
        /// Node.
        node: String,
        /// Its op.
        op: &'static str,
        /// Operands.
        shapes: Vec<Vec<usize>>,
        /// Result.
        output: Vec<usize>,
    },
    /// An id outside a table.
    #[error("node {node:?} looks up id {id} in a table of {rows} rows")]
    Id {
        /// Node.
        node: String,
        /// Id.
        id: f32,
        /// Rows.
        rows: usize,
    },
    /// The graph has int8 ops already.
    #[error("node {node:?} ({op}) is quantised; only the float form can be evaluated")]
    Quantised {
        /// Node.
        node: String,
        /// Its op.
        op: &'static str,
    },
    /// A dimension has no value.
    #[error(transparent)]
    Dim(#[from] DimError),
}

/// A linear layer as int8 arithmetic would see it.
#[derive(Clone, Debug)]
pub struct Int8Layer<'a> {
    /// Dequantised weights in the float form's layout.
    pub weight: Cow<'a, [f32]>,
    /// Scale of the input.
    pub input: InputScale,
}

/// Which layers are quantised.
pub trait Int8Layers {
    /// The layer of a node; `None` if it is float.
    fn layer(&self, node: usize) -> Option<Int8Layer<'_>>;
}

impl Int8Layers for BTreeMap<usize, Int8Layer<'_>> {
    fn layer(&self, node: usize) -> Option<Int8Layer<'_>> {
        let layer = self.get(&node)?;
        Some(Int8Layer { weight: Cow::Borrowed(&layer.weight), input: layer.input })
    }
}

/// How to evaluate: which layers in int8, how values are stored.
#[derive(Clone, Copy, Default)]
pub struct Precision<'a> {
    /// Layers that are quantised.
    pub int8: Option<&'a dyn Int8Layers>,
    /// Node indices: attentions whose products are int8.
    pub attentions: Option<&'a BTreeSet<usize>>,
    /// Round every value whose stored type is f16.
    pub round_f16: bool,
}

/// One network with its weights under one binding.
#[derive(Clone, Copy)]
pub struct Evaluator<'a> {
    graph: &'a Graph,
    weights: &'a dyn WeightSource,
    binding: Binding,
}

/// All values of one run, by value id; `None` before its node ran.
pub type Values = Vec<Option<Array>>;

impl<'a> Evaluator<'a> {
    /// Checks nothing yet: shapes are checked while it runs.
    pub fn new(graph: &'a Graph, weights: &'a dyn WeightSource, binding: Binding) -> Self {
        Evaluator { graph, weights, binding }
    }

    /// Runs every node and keeps every value.
    ///
    /// # Errors
    /// [`EvaluateError`]
    pub fn run(
        &self,
        inputs: &BTreeMap<String, Array>,
        precision: Precision,
    ) -> Result<Values, EvaluateError> {
        let mut values: Values = vec![None; self.graph.values.len()];
        for &id in &self.graph.inputs {
            let value = self.graph.value(id);
            let expected = bind_shape(&value.shape, self.binding)?;
            let given = inputs.get(&value.name);
            match given {
                Some(array) if array.shape == expected => {
                    let mut array = array.clone();
                    self.store(id, &mut array, precision);
                    values[id.index()] = Some(array);
                }
                _ => {
                    return Err(EvaluateError::Input {
                        name: value.name.clone(),
                        expected,
                        found: given.map(|a| a.shape.clone()).unwrap_or_default(),
                    });
                }
            }
        }
        for index in 0..self.graph.nodes.len() {
            let output = self.node(index, &values, precision)?;
            values[self.graph.nodes[index].output.index()] = Some(output);
        }
        Ok(values)
    }

    /// Runs again only what depends on the nodes in `changed`, under another precision, on top of a whole run.
    /// Shows each node's new output to `visit` and forgets it after its last reader. Leaves the graph's outputs, in
    /// order.
    ///
    /// # Errors
    /// [`EvaluateError`]
    pub fn rerun(
        &self,
        base: &Values,
        changed: &[usize],
        precision: Precision,
        mut visit: impl FnMut(usize, &Array),
    ) -> Result<Vec<Array>, EvaluateError> {
        let mut dirty = vec![false; self.graph.values.len()];
        let mut overlay: Values = vec![None; self.graph.values.len()];
        let last_readers = self.last_readers();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            if changed.contains(&index) || node.inputs.iter().any(|id| dirty[id.index()]) {
                let output = self.node_over(index, &overlay, base, precision)?;
                visit(index, &output);
                overlay[node.output.index()] = Some(output);
                dirty[node.output.index()] = true;
            }
            for id in &node.inputs {
                if last_readers[id.index()] == Some(index) {
                    overlay[id.index()] = None;
                }
            }
        }
        Ok(self
            .graph
            .outputs
            .iter()
            .filter_map(|id| overlay[id.index()].take().or_else(|| base[id.index()].clone()))
            .collect())
    }

    /// The last node that reads each value; `None` for the graph's outputs and what nothing reads.
    fn last_readers(&self) -> Vec<Option<usize>> {
        let mut last = vec![None; self.graph.values.len()];
        for (index, node) in self.graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|id| last[id.index()] = Some(index));
        }
        self.graph.outputs.iter().for_each(|id| last[id.index()] = None);
        last
    }

    /// Runs one node on the values of a run.
    ///
    /// # Errors
    /// [`EvaluateError`]
    pub fn node(
        &self,
        index: usize,
        values: &Values,
        precision: Precision,
    ) -> Result<Array, EvaluateError> {
        self.node_over(index, &[], values, precision)
    }

    /// Runs one node on the values of a run, some of them replaced by `overlay`.
    ///
    /// # Errors
    /// [`EvaluateError`]
    pub fn node_over(
        &self,
        index: usize,
        overlay: &[Option<Array>],
        base: &[Option<Array>],
        precision: Precision,
    ) -> Result<Array, EvaluateError> {
        let node = &self.graph.nodes[index];
        let shape = bind_shape(&self.graph.value(node.output).shape, self.binding)?;
        let operand = |id: &ValueId| {
            overlay
                .get(id.index())
                .and_then(Option::as_ref)
                .or_else(|| base.get(id.index()).and_then(Option::as_ref))
        };
        let inputs: Vec<&Array> = node.inputs.iter().filter_map(operand).collect();
        let int8 = precision.int8.and_then(|layers| layers.layer(index));
        let call = Call {
            node,
            inputs: &inputs,
            shape: &shape,
            binding: self.binding,
            int8,
            attention_int8: precision.attentions.is_some_and(|nodes| nodes.contains(&index)),
            weights: self.weights,
        };
        if inputs.len() != node.inputs.len() {
            return Err(call.operands());
        }
        let mut output = call.run()?;
        if output.shape != shape || output.values.len() != shape.iter().product::<usize>() {
            return Err(call.operands());
        }
        self.store(node.output, &mut output, precision);
        Ok(output)
    }

    fn store(&self, id: ValueId, array: &mut Array, precision: Precision) {
        if precision.round_f16 && self.graph.value(id).dtype == DType::F16 {
            round_f16(&mut array.values);
        }
    }
}

/// Rounds values to f16.
pub fn round_f16(values: &mut [f32]) {
    for value in values {
        *value = f16::from_f32(*value).to_f32();
    }
}

/// One node with its operands.
struct Call<'a> {
    node: &'a Node,
    inputs: &'a [&'a Array],
    shape: &'a [usize],
    binding: Binding,
    int8: Option<Int8Layer<'a>>,
    attention_int8: bool,
    weights: &'a dyn WeightSource,
}

impl Call<'_> {
    fn operands(&self) -> EvaluateError {
        EvaluateError::Operands {
            node: self.node.name.clone(),
            op: self.node.op.name(),
            shapes: self.inputs.iter().map(|a| a.shape.clone()).collect(),
            output: self.shape.to_vec(),
        }
    }

    fn require(&self, condition: bool) -> Result<(), EvaluateError> {
        condition.then_some(()).ok_or_else(|| self.operands())
    }

    fn tensor(&self, name: &str, expected: usize) -> Result<&[f32], EvaluateError> {
        let found = self.weights.floats(name).ok_or_else(|| EvaluateError::MissingTensor {
            node: self.node.name.clone(),
            tensor: name.to_owned(),
        })?;
        if found.len() != expected {
            return Err(EvaluateError::TensorSize {
                node: self.node.name.clone(),
                tensor: name.to_owned(),
                found: found.len(),
                expected,
            });
        }
        Ok(found)
    }

    fn run(&self) -> Result<Array, EvaluateError> {
        let op = &self.node.op;
        let expected_inputs = match op {
            Op::Constant { .. } => 0..=0,
            Op::MatmulF16 { epilogue, .. }
            | Op::ConvF16 { epilogue, .. }
            | Op::Depthwise { epilogue, .. } => {
                let count = 1 + usize::from(epilogue.residual);
                count..=count
            }
            Op::BatchMatmul { .. } | Op::Binary { .. } => 2..=2,
            Op::Attention { .. } => 3..=4,
            Op::Modulate => 3..=3,
            Op::Concat { .. } => 1..=usize::MAX,
            _ => 1..=1,
        };
        self.require(expected_inputs.contains(&self.inputs.len()))?;
        match op {
            Op::MatmulI8 { .. } | Op::ConvI8 { .. } | Op::AttentionI8 { .. } => {
                Err(EvaluateError::Quantised { node: self.node.name.clone(), op: op.name() })
            }
            Op::Constant { tensor } => {
                let values = self.tensor(tensor, self.shape.iter().product())?;
                Ok(Array { shape: self.shape.to_vec(), values: values.to_vec() })
            }
            Op::MatmulF16 { weight, k, n, epilogue } => {
                self.matmul(weight, *k as usize, *n as usize, epilogue)
            }
            Op::ConvF16 { weight, c, n, window, epilogue } => {
                self.convolution(weight, *c as usize, *n as usize, window, epilogue)
            }
            Op::Depthwise { weight, bias, window, epilogue } => {
                self.depthwise(weight, bias.as_deref(), window, epilogue)
            }
            Op::BatchMatmul { transpose_b } => self.batch_matmul(*transpose_b),
            Op::Attention { heads, scale, causal } if self.attention_int8 => {
                self.attention_int8(*heads as usize, *scale, *causal)
            }
            Op::Attention { heads, scale, causal } => {
                self.attention(*heads as usize, *scale, *causal)
            }
            Op::LayerNorm { eps, gamma, beta } => self.layer_norm(*eps, gamma, beta.as_deref()),
            Op::RmsNorm { eps, size, gamma } => self.rms_norm(*eps, *size as usize, gamma),
            Op::GroupNorm { groups, eps, gamma, beta, activation } => {
                self.group_norm(*groups as usize, *eps, gamma, beta, *activation)
            }
            Op::Unary { function } => {
                let values = self.inputs[0].values.iter().map(|&x| pointwise::unary(*function, x));
                Ok(Array { shape: self.inputs[0].shape.clone(), values: values.collect() })
            }
            Op::Binary { function } => self.binary(*function),
            Op::Modulate => self.modulate(),
            Op::Gated { function } => self.gated(*function),
            Op::Resize { factor, mode } => self.resize(*factor, *mode),
            Op::PixelShuffle { factor, order } => self.pixel_shuffle(*factor as usize, *order),
            Op::PixelUnshuffle { factor, order } => self.pixel_unshuffle(*factor as usize, *order),
            Op::Concat { axis } => self.concat(*axis as usize),
            Op::Slice { axis, start } => {
                // A slice from 0 is the one dimension that may be zero.
                let start = match start.as_fixed() {
                    Some(start) => start,
                    None => start.bind(self.binding)?,
                };
                self.slice(*axis as usize, start)
            }
            Op::Transpose { permutation } => self.transpose(permutation),
            Op::Reshape | Op::Cast => {
                Ok(Array { shape: self.shape.to_vec(), values: self.inputs[0].values.clone() })
            }
            Op::Expand => self.expand(),
            Op::Pad { pad, value } => self.pad(*pad, *value),
            Op::Softmax => self.softmax(),
            Op::Gather { table, rows, .. } => self.gather(table, *rows as usize),
            Op::TimestepEmbedding { frequencies, sin_first } => {
                self.timestep_embedding(frequencies, *sin_first)
            }
            Op::Pool { kind, window } => self.pool(*kind, window),
            Op::ReduceMean { axes } => self.reduce(axes, true),
            Op::ReduceSum { axes } => self.reduce(axes, false),
        }
    }
}

#[cfg(test)]
mod tests;
