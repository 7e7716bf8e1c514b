//! Stored types of values: f16, but f32 where f16 would not do.

use plantain::graph::{Binding, DType, DimError, Graph, Op, ValueId, bind_shape};

use super::calibrate::Runs;

/// Values of at most this many elements stay f32: they cost nothing, and timesteps need their digits.
const SMALL_ELEMENTS_MAX: usize = 2048;
/// Magnitudes above this in calibration stay f32; f16 ends at 65504.
const F16_PEAK_MAX: f32 = 16384.0;

/// Sets the stored type of every float value.
///
/// f32 are: inputs and outputs of the network, masks of attention, small values, and values whose magnitude
/// comes near f16's end. Ops that only move values have one type on both sides.
///
/// # Errors
/// [`DimError`] if a shape has no value under the binding.
pub fn assign(graph: &mut Graph, binding: Binding, runs: &Runs) -> Result<(), DimError> {
    let count = graph.values.len();
    let mut group: Vec<usize> = (0..count).collect();
    for node in &graph.nodes {
        if moves(&node.op) {
            for id in &node.inputs {
                let (a, b) = (find(&mut group, id.index()), find(&mut group, node.output.index()));
                group[a] = b;
            }
        }
    }
    let mut must = vec![false; count];
    let mut small = vec![true; count];
    for &id in graph.inputs.iter().chain(&graph.outputs) {
        must[find(&mut group, id.index())] = true;
    }
    for node in &graph.nodes {
        if let (Op::Attention { .. }, Some(mask)) = (&node.op, node.inputs.get(3)) {
            must[find(&mut group, mask.index())] = true;
        }
    }
    for index in 0..count {
        let root = find(&mut group, index);
        must[root] |= runs.peak(ValueId(index as u32)) > F16_PEAK_MAX;
        let elements: usize = bind_shape(&graph.values[index].shape, binding)?.iter().product();
        small[root] &= elements <= SMALL_ELEMENTS_MAX;
    }
    for index in 0..count {
        let root = find(&mut group, index);
        let value = &mut graph.values[index];
        if value.dtype != DType::I32 {
            value.dtype = if must[root] || small[root] { DType::F32 } else { DType::F16 };
        }
    }
    Ok(())
}

/// Whether an op needs one type on both sides, as [`plantain::graph`] states.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Concat { .. }
            | Op::Slice { .. }
            | Op::Transpose { .. }
            | Op::Reshape
            | Op::Expand
            | Op::PixelShuffle { .. }
            | Op::PixelUnshuffle { .. }
            | Op::Resize { .. }
            | Op::Pad { .. }
    )
}

fn find(group: &mut [usize], mut index: usize) -> usize {
    while group[index] != index {
        group[index] = group[group[index]];
        index = group[index];
    }
    index
}
