//! A plain f32 evaluator of the plantain graph: slow, unfused, without kernels or plan. It is the
//! float reference of a lowered network.

use std::collections::BTreeMap;

use plantain::graph::{Binding, DimError, Epilogue, Op, Unary, ValueId};

use plantain_pack::lower::{FloatNetwork, FloatTensor};

mod attention;
pub mod conv;
mod pointwise;
mod structure;

/// Why a network cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// An input is missing or has the wrong shape.
    #[error("input {name:?} has shape {actual:?} where {expected:?} is needed")]
    Input {
        /// Its name.
        name: String,
        /// What the graph says.
        expected: Vec<usize>,
        /// What was given; empty if nothing.
        actual: Vec<usize>,
    },
    /// A dimension has no value at this binding.
    #[error(transparent)]
    Dim(#[from] DimError),
    /// A form that only exists after quantising.
    #[error("node {node:?}: {op} has no float form; evaluate the network before it is quantised")]
    Quantised {
        /// Node.
        node: String,
        /// Op.
        op: &'static str,
    },
}

/// All values of a network for some inputs (by name, in the runtime's layout).
///
/// # Errors
/// [`EvalError`]: inputs that do not fit, or an int8 op.
pub fn evaluate(
    network: &FloatNetwork,
    inputs: &BTreeMap<String, FloatTensor>,
    binding: Binding,
) -> Result<BTreeMap<ValueId, FloatTensor>, EvalError> {
    let mut values: BTreeMap<ValueId, FloatTensor> = BTreeMap::new();
    for &id in &network.graph.inputs {
        let expected = network.shape(id, binding)?;
        let name = &network.graph.value(id).name;
        let given = inputs
            .get(name)
            .filter(|tensor| tensor.data.len() == expected.iter().product::<usize>());
        let Some(given) = given else {
            let actual = inputs.get(name).map_or_else(Vec::new, |tensor| tensor.shape.clone());
            return Err(EvalError::Input { name: name.clone(), expected, actual });
        };
        values.insert(id, FloatTensor::new(expected, given.data.clone()));
    }
    for node in &network.graph.nodes {
        let shape = network.shape(node.output, binding)?;
        let operands: Vec<&FloatTensor> = node.inputs.iter().map(|id| &values[id]).collect();
        let data = match &node.op {
            Op::Constant { tensor } => network.weight(tensor).data.clone(),
            Op::MatmulF16 { weight, k, n, epilogue } => {
                let bias = weight.bias.as_deref().map(|name| network.weight(name).data.as_slice());
                let matrix = &network.weight(&weight.panels).data;
                let raw = matmul(&operands[0].data, matrix, *k as usize, *n as usize, bias);
                finish(raw, epilogue, operands.get(1).copied())
            }
            Op::ConvF16 { weight, window, epilogue, .. } => {
                let bias = weight.bias.as_deref().map(|name| network.weight(name).data.as_slice());
                let kernel = network.weight(&weight.panels);
                let raw = conv::convolution(operands[0], kernel, bias, window, &shape);
                finish(raw, epilogue, operands.get(1).copied())
            }
            Op::Depthwise { weight, bias, window, epilogue } => {
                let bias = bias.as_deref().map(|name| network.weight(name).data.as_slice());
                let raw =
                    conv::depthwise(operands[0], network.weight(weight), bias, window, &shape);
                finish(raw, epilogue, operands.get(1).copied())
            }
            Op::Pool { kind, window } => conv::pool(operands[0], *kind, window, &shape),
            Op::Attention { heads, scale, causal } => {
                attention::attention(&operands, *heads as usize, *scale, *causal)
            }
            Op::BatchMatmul { transpose_b } => {
                attention::batch_matmul(operands[0], operands[1], *transpose_b)
            }
            Op::LayerNorm { eps, gamma, beta } => {
                let gamma = &network.weight(gamma).data;
                let beta = beta.as_deref().map(|name| network.weight(name).data.as_slice());
                attention::layer_norm(operands[0], *eps, gamma, beta)
            }
            Op::RmsNorm { eps, size, gamma } => {
                attention::rms_norm(operands[0], *eps, *size as usize, &network.weight(gamma).data)
            }
            Op::GroupNorm { groups, eps, gamma, beta, activation } => {
                let (gamma, beta) = (&network.weight(gamma).data, &network.weight(beta).data);
                let mut raw =
                    attention::group_norm(operands[0], *groups as usize, *eps, gamma, beta);
                apply(&mut raw, *activation);
                raw
            }
            Op::Softmax => attention::softmax(operands[0]),
            Op::Unary { function } => {
                operands[0].data.iter().map(|&x| pointwise::unary(*function, x)).collect()
            }
            Op::Binary { function } => {
                let f = |a, b| pointwise::binary(*function, a, b);
                structure::broadcast(operands[0], operands[1], &shape, f)
            }
            Op::Modulate => {
                let scaled =
                    structure::broadcast(operands[0], operands[1], &shape, |x, s| x * (1.0 + s));
                let scaled = FloatTensor::new(shape.clone(), scaled);
                structure::broadcast(&scaled, operands[2], &shape, |x, s| x + s)
            }
            Op::Gated { function } => pointwise::gated(operands[0], *function),
            Op::Resize { factor, mode } => structure::resize(operands[0], *factor, *mode, &shape),
            Op::PixelShuffle { factor, order } => {
                structure::pixel_shuffle(operands[0], *factor as usize, *order)
            }
            Op::PixelUnshuffle { factor, order } => {
                structure::pixel_unshuffle(operands[0], *factor as usize, *order)
            }
            Op::Concat { axis } => structure::concat(&operands, *axis as usize),
            Op::Slice { axis, start } => {
                let start = match start.as_fixed() {
                    Some(start) => start,
                    None => start.bind(binding)?,
                };
                structure::slice(operands[0], *axis as usize, start, &shape)
            }
            Op::Transpose { permutation } => {
                let permutation: Vec<usize> = permutation.iter().map(|&p| p as usize).collect();
                permuted(&operands[0].data, &operands[0].shape, &permutation)
            }
            Op::Reshape | Op::Cast => operands[0].data.clone(),
            Op::Expand => structure::broadcast(operands[0], operands[0], &shape, |a, _| a),
            Op::Pad { pad, value } => structure::pad(operands[0], *pad, *value, &shape),
            Op::Gather { table, .. } => {
                let table = network.weight(table);
                let c = table.shape[1];
                let rows = operands[0].data.iter().map(|&id| id as usize);
                rows.flat_map(|row| table.data[row * c..(row + 1) * c].iter().copied()).collect()
            }
            Op::TimestepEmbedding { frequencies, sin_first } => {
                let frequencies = &network.weight(frequencies).data;
                pointwise::timestep(&operands[0].data, frequencies, *sin_first)
            }
            Op::ReduceMean { axes } => structure::reduce(operands[0], axes, true),
            Op::ReduceSum { axes } => structure::reduce(operands[0], axes, false),
            Op::MatmulI8 { .. } | Op::ConvI8 { .. } => {
                let (node, op) = (node.name.clone(), node.op.name());
                return Err(EvalError::Quantised { node, op });
            }
        };
        values.insert(node.output, FloatTensor::new(shape, data));
    }
    Ok(values)
}

fn matmul(x: &[f32], matrix: &[f32], k: usize, n: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let mut result = Vec::with_capacity(x.len() / k * n);
    for row in x.chunks_exact(k) {
        for (output, weights) in matrix.chunks_exact(k).enumerate() {
            let sum: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
            result.push(sum + bias.map_or(0.0, |bias| bias[output]));
        }
    }
    result
}

fn finish(mut raw: Vec<f32>, epilogue: &Epilogue, residual: Option<&FloatTensor>) -> Vec<f32> {
    apply(&mut raw, epilogue.activation);
    if let (true, Some(residual)) = (epilogue.residual, residual) {
        raw.iter_mut().zip(&residual.data).for_each(|(x, r)| *x += r);
    }
    raw
}

fn apply(values: &mut [f32], function: Option<Unary>) {
    if let Some(function) = function {
        values.iter_mut().for_each(|x| *x = pointwise::unary(function, *x));
    }
}
pub fn permuted(data: &[f32], from: &[usize], permutation: &[usize]) -> Vec<f32> {
    let mut strides = vec![1; from.len()];
    for axis in (1..from.len()).rev() { strides[axis - 1] = strides[axis] * from[axis]; }
    let to: Vec<usize> = permutation.iter().map(|&p| from[p]).collect();
    (0..data.len()).map(|mut i| { let mut o = 0; for a in (0..to.len()).rev() { o += i % to[a] * strides[permutation[a]]; i /= to[a]; } data[o] }).collect()
}
