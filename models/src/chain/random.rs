//! Inputs for a network that nobody wrote prompts for.

use plantain::graph::{Binding, DType, DimError, Graph, Op, ValueId, bind_shape};
use plantain::rng::{Stream, fill_normal};

use crate::evaluate::Array;
use crate::quantise::Inputs;

/// Timesteps that samples take in turn.
const TIMESTEPS: [f32; 5] = [999.0, 500.0, 20.0, 750.0, 250.0];

/// Inputs drawn by a seed: normal values, ids inside the tables that they look up, ones for masks, and timesteps
/// of a schedule of 1000.
///
/// # Errors
/// [`DimError`] if an input has no shape under the binding.
pub fn random_inputs(graph: &Graph, binding: Binding, seed: u64) -> Result<Inputs, DimError> {
    let mut inputs = Inputs::new();
    for (index, &id) in graph.inputs.iter().enumerate() {
        let value = graph.value(id);
        let mut array = Array::zeros(&bind_shape(&value.shape, binding)?);
        let stream = Stream::Step(index as u32);
        if value.name.contains("mask") {
            array.values.fill(1.0);
        } else if value.dtype == DType::I32 {
            let rows = rows(graph, id);
            fill_normal(seed, stream, &mut array.values);
            let pick = |x: f32| (x.abs().fract() * rows as f32).floor().min(rows as f32 - 1.0);
            array.values.iter_mut().for_each(|x| *x = pick(*x));
        } else if value.shape.len() <= 1 {
            array.values.fill(TIMESTEPS[seed as usize % TIMESTEPS.len()]);
        } else {
            fill_normal(seed, stream, &mut array.values);
        }
        inputs.insert(value.name.clone(), array);
    }
    Ok(inputs)
}

/// Rows of the smallest table that an id input looks up.
fn rows(graph: &Graph, id: ValueId) -> u32 {
    let tables = graph.nodes.iter().filter_map(|node| match node.op {
        Op::Gather { rows, .. } if node.inputs.contains(&id) => Some(rows),
        _ => None,
    });
    tables.min().unwrap_or(2)
}
