//! tract's own float run of a network: what every lowered and quantised form is compared with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plantain::graph::{Binding, Graph, ValueId, bind_shape};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::knobs::KnobScope;

use super::ImportError;
use super::convert::floats;
use super::model::guarded;
use crate::lower::{FloatNetwork, FloatTensor, Origin, permuted};

/// A model that tract runs in f32 with all its intermediate results at hand.
pub struct FloatReference {
    path: PathBuf,
    model: TypedModel,
    binding: Binding,
}

impl FloatReference {
    pub(super) fn new(path: PathBuf, model: TypedModel, binding: Binding) -> Self {
        FloatReference { path, model, binding }
    }

    /// Runs the model.
    ///
    /// `inputs` are by name and in the runtime's layout (images `[b, h, w, c]`). What comes back
    /// are the tensors that the graph's `wanted` values stand for, in their own layout and shape;
    /// values without an origin are left out.
    ///
    /// # Errors
    /// [`ImportError::Reference`] for a missing input or one of the wrong shape, or what tract says.
    pub fn run(
        &self,
        network: &FloatNetwork,
        inputs: &BTreeMap<String, FloatTensor>,
        wanted: &[ValueId],
    ) -> Result<BTreeMap<ValueId, FloatTensor>, ImportError> {
        let mut sources = tvec![];
        for &outlet in self.model.input_outlets().map_err(|e| reference(e.to_string()))? {
            let name = &self.model.node(outlet.node).name;
            let fact = self.model.outlet_fact(outlet).map_err(|e| reference(e.to_string()))?;
            let shape: Vec<usize> = fact.shape.as_concrete().unwrap_or_default().to_vec();
            let input = inputs
                .get(name)
                .ok_or_else(|| reference(format!("input {name:?} of {shape:?} is missing")))?;
            sources.push(self.source(name, input, &shape, fact.datum_type)?.into_tvalue());
        }
        let origins: Vec<(ValueId, &Origin)> =
            wanted.iter().filter_map(|id| Some((*id, network.origins.get(id)?))).collect();
        let mut tensors = BTreeMap::new();
        for (outlet, tensor) in self.tensors(sources, &origins)? {
            for (id, origin) in origins.iter().filter(|(_, origin)| origin.outlet == outlet) {
                let arranged = self.arranged(&network.graph, *id, origin, &tensor)?;
                tensors.insert(*id, arranged);
            }
        }
        Ok(tensors)
    }

    /// An input of the runtime's layout in the model's.
    fn source(
        &self,
        name: &str,
        input: &FloatTensor,
        shape: &[usize],
        datum_type: DatumType,
    ) -> Result<Tensor, ImportError> {
        let ours: Vec<usize> = match shape {
            &[b, c, h, w] => vec![b, h, w, c],
            _ => shape.to_vec(),
        };
        if input.data.len() != ours.iter().product::<usize>() {
            return Err(reference(format!(
                "input {name:?} has shape {:?} where {ours:?} is needed",
                input.shape
            )));
        }
        let data = match ours.as_slice() {
            [_, _, _, _] => permuted(&input.data, &ours, &[0, 3, 1, 2]),
            _ => input.data.clone(),
        };
        guarded(&self.path, || {
            Ok(Tensor::from_shape(shape, &data)?.cast_to_dt(datum_type)?.into_owned())
        })
    }

    /// Runs the model and keeps the outlets that are asked for.
    fn tensors(
        &self,
        sources: TVec<TValue>,
        origins: &[(ValueId, &Origin)],
    ) -> Result<Vec<(String, FloatTensor)>, ImportError> {
        guarded(&self.path, || {
            let mut names: Vec<&str> = origins.iter().map(|(_, o)| o.outlet.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let mut model = self.model.clone();
            let outlets: Vec<OutletId> = names
                .iter()
                .map(|name| Ok(OutletId::new(model.node_id_by_name(name)?, 0)))
                .collect::<TractResult<_>>()?;
            model.select_output_outlets(&outlets)?;
            // Its direct convolution is many times slower than its matmul form.
            let scope = KnobScope::new([("TRACT_DISABLE_DIRECT_SPATIAL", "true")])?;
            let plan = scope.enter(|| model.into_optimized()?.into_runnable())?;
            let results = plan.run(sources)?;
            names
                .iter()
                .zip(results.iter())
                .map(|(name, tensor)| Ok(((*name).to_owned(), floats(tensor)?)))
                .collect()
        })
    }

    fn arranged(
        &self,
        graph: &Graph,
        id: ValueId,
        origin: &Origin,
        tensor: &FloatTensor,
    ) -> Result<FloatTensor, ImportError> {
        let binding = self.binding;
        let split = bind_shape(&origin.split, binding).map_err(|e| reference(e.to_string()))?;
        let shape = bind_shape(&graph.value(id).shape, binding);
        let shape = shape.map_err(|e| reference(e.to_string()))?;
        if split.iter().product::<usize>() != tensor.data.len() {
            return Err(reference(format!(
                "{:?} has shape {:?} where {split:?} is expected",
                origin.outlet, tensor.shape
            )));
        }
        Ok(FloatTensor::new(shape, permuted(&tensor.data, &split, &origin.permutation)))
    }
}

fn reference(message: String) -> ImportError {
    ImportError::Reference(message)
}
