//! Golden runs: what the engine makes of known inputs, kept in the pack for self-tests on the device.

use std::sync::Arc;

use plantain::engine::MemoryWeights;
use plantain::graph::{Binding, DType, Graph};
use plantain::pack::Golden;

use super::PackingError;
use crate::chain::{ChainError, EngineRun, NetworkRun};
use crate::quantise::{Inputs, Quantised, StoredData, StoredTensor};

/// One golden run with its tensors.
pub struct GoldenRun {
    /// What the metadata says.
    pub entry: Golden,
    /// Inputs, then outputs.
    pub tensors: Vec<StoredTensor>,
}

/// The tensors of quantised networks as the engine reads them.
pub fn memory_weights(quantised: &[Quantised]) -> MemoryWeights {
    let mut weights = MemoryWeights::new();
    for tensor in quantised.iter().flat_map(|network| &network.tensors) {
        match &tensor.data {
            StoredData::I8(values) => weights.insert(&tensor.name, values),
            StoredData::U8(values) => weights.insert(&tensor.name, values),
            StoredData::F16(values) => weights.insert(&tensor.name, values),
            StoredData::F32(values) => weights.insert(&tensor.name, values),
            StoredData::I32(values) => weights.insert(&tensor.name, values),
        }
    }
    weights
}

/// Runs every network once with the engine.
///
/// # Errors
/// [`PackingError::Chain`] if the engine refuses.
pub fn run(
    quantised: &[Quantised],
    inputs: &[(Binding, Inputs)],
) -> Result<Vec<GoldenRun>, PackingError> {
    let weights = memory_weights(quantised);
    let graphs: Vec<Graph> = quantised.iter().map(|network| network.graph.clone()).collect();
    let engine = EngineRun::new(Arc::new(weights), &graphs, 1);
    let mut runs = Vec::new();
    for (graph, (binding, inputs)) in graphs.iter().zip(inputs) {
        let outputs = engine
            .run(&graph.name, *binding, inputs)
            .map_err(|source| ChainError::Network { network: graph.name.clone(), source })?;
        let mut entry = Golden {
            network: graph.name.clone(),
            binding: (*binding).into(),
            inputs: Default::default(),
            outputs: Default::default(),
        };
        let mut tensors = Vec::new();
        for &id in &graph.inputs {
            let value = graph.value(id);
            let array = &inputs[&value.name];
            let data = match value.dtype {
                DType::I32 => StoredData::I32(array.values.iter().map(|&x| x as i32).collect()),
                _ => StoredData::F32(array.values.clone()),
            };
            let name = format!("golden/{}/in/{}", graph.name, value.name);
            entry.inputs.insert(value.name.clone(), name.clone());
            tensors.push(StoredTensor { name, shape: array.shape.clone(), data });
        }
        for (&id, array) in graph.outputs.iter().zip(outputs) {
            let value = graph.value(id);
            let name = format!("golden/{}/out/{}", graph.name, value.name);
            entry.outputs.insert(value.name.clone(), name.clone());
            let data = StoredData::F32(array.values);
            tensors.push(StoredTensor { name, shape: array.shape, data });
        }
        runs.push(GoldenRun { entry, tensors });
    }
    Ok(runs)
}
