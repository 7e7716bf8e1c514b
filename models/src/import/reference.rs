//! tract's own float run of a network: what every lowered and quantised form is compared with.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

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
    /// The model has the nodes that were lowered. Where a size is one, tract simplifies more, and
    /// a name may stand for another step of the computation.
    same: bool,
    last: RefCell<Option<(Vec<OutletId>, Arc<TypedRunnableModel>)>>,
}

impl FloatReference {
    /// `names`: the nodes of the model as it was lowered.
    pub(super) fn new(
        path: PathBuf,
        model: TypedModel,
        binding: Binding,
        names: &HashSet<&str>,
    ) -> Self {
        let same = model.eval_order().is_ok_and(|order| {
            let found: HashSet<&str> = order.iter().map(|&id| &*model.node(id).name).collect();
            found == *names
        });
        FloatReference { path, model, binding, same, last: RefCell::new(None) }
    }

    /// Runs the model.
    ///
    /// `inputs` are by name and in the runtime's layout (images `[b, h, w, c]`). What comes back
    /// are the tensors that the graph's `wanted` values stand for, in their own layout and shape;
    /// values without an origin are left out, and at a batch of one (where the network is free in
    /// it) possibly all but the outputs.
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
        let origins: Vec<(ValueId, &Origin, OutletId)> = wanted
            .iter()
            .filter_map(|&id| {
                let origin = network.origins.get(&id)?;
                Some((id, origin, self.outlet(&network.graph, id, origin)?))
            })
            .collect();
        let outlets: Vec<OutletId> = origins.iter().map(|&(_, _, outlet)| outlet).collect();
        let mut tensors = BTreeMap::new();
        for ((id, origin, _), tensor) in origins.iter().zip(self.tensors(sources, &outlets)?) {
            let arranged = self.arranged(&network.graph, *id, origin, &tensor)?;
            if let Some(arranged) = arranged {
                tensors.insert(*id, arranged);
            } else if network.graph.outputs.contains(id) {
                let name = &network.graph.value(*id).name;
                return Err(reference(format!("output {name:?} has shape {:?}", tensor.shape)));
            }
        }
        Ok(tensors)
    }

    /// The outlet that a value stands for; only outputs are known at every binding.
    fn outlet(&self, graph: &Graph, id: ValueId, origin: &Origin) -> Option<OutletId> {
        match graph.outputs.iter().position(|&output| output == id) {
            Some(index) => self.model.output_outlets().ok()?.get(index).copied(),
            None if !self.same => None,
            None => Some(OutletId::new(self.model.node_id_by_name(&origin.outlet).ok()?, 0)),
        }
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
        outlets: &[OutletId],
    ) -> Result<Vec<FloatTensor>, ImportError> {
        let mut distinct = outlets.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let plan = self.plan(&distinct)?;
        guarded(&self.path, || {
            let results = plan.run(sources)?;
            let place = |outlet| distinct.binary_search(outlet).unwrap_or_default();
            outlets.iter().map(|outlet| floats(&results[place(outlet)])).collect()
        })
    }

    /// The plan that yields these outlets; the last one is kept.
    fn plan(&self, outlets: &[OutletId]) -> Result<Arc<TypedRunnableModel>, ImportError> {
        let mut last = self.last.borrow_mut();
        if let Some((known, plan)) = &*last
            && known == outlets
        {
            return Ok(Arc::clone(plan));
        }
        let plan = guarded(&self.path, || {
            let mut model = self.model.clone();
            model.select_output_outlets(outlets)?;
            // Its direct convolution is many times slower than its matmul form.
            let scope = KnobScope::new([("TRACT_DISABLE_DIRECT_SPATIAL", "true")])?;
            scope.enter(|| model.into_optimized()?.into_runnable())
        })?;
        *last = Some((outlets.to_vec(), Arc::clone(&plan)));
        Ok(plan)
    }

    /// The tensor in the value's layout; `None` if it has another size at this binding.
    fn arranged(
        &self,
        graph: &Graph,
        id: ValueId,
        origin: &Origin,
        tensor: &FloatTensor,
    ) -> Result<Option<FloatTensor>, ImportError> {
        let binding = self.binding;
        let split = bind_shape(&origin.split, binding).map_err(|e| reference(e.to_string()))?;
        let shape = bind_shape(&graph.value(id).shape, binding);
        let shape = shape.map_err(|e| reference(e.to_string()))?;
        let fits = split.iter().product::<usize>() == tensor.data.len();
        Ok(fits
            .then(|| FloatTensor::new(shape, permuted(&tensor.data, &split, &origin.permutation))))
    }
}

fn reference(message: String) -> ImportError {
    ImportError::Reference(message)
}
