//! tract's float run as a backend.

use std::cell::RefCell;
use std::collections::BTreeMap;

use plantain::graph::Binding;

use crate::chain::NetworkRun;
use crate::evaluate::Array;
use crate::import::FloatReference;
use crate::lower::FloatTensor;
use crate::packing::Model;
use crate::quantise::Inputs;

/// The ONNX networks of a model in tract.
pub struct TractRun {
    model: RefCell<Model>,
    references: RefCell<Vec<(String, Binding, FloatReference)>>,
}

impl TractRun {
    /// All networks of a model.
    pub fn new(model: Model) -> Self {
        TractRun { model: RefCell::new(model), references: RefCell::default() }
    }
}

impl NetworkRun for TractRun {
    fn run(
        &self,
        network: &str,
        binding: Binding,
        inputs: &Inputs,
    ) -> Result<Vec<Array>, Box<dyn std::error::Error + Send + Sync>> {
        let model = &mut *self.model.borrow_mut();
        let index = model
            .networks
            .iter()
            .position(|n| n.graph.name == network)
            .ok_or_else(|| format!("there is no network {network:?}"))?;
        let mut references = self.references.borrow_mut();
        let known = references.iter().position(|(name, b, _)| name == network && *b == binding);
        let known = match known {
            Some(known) => known,
            None => {
                let reference = model.imported[index].reference(binding)?;
                references.push((network.to_owned(), binding, reference));
                references.len() - 1
            }
        };
        let lowered = &model.networks[index];
        let tensors: BTreeMap<String, FloatTensor> = inputs
            .iter()
            .map(|(name, a)| (name.clone(), FloatTensor::new(a.shape.clone(), a.values.clone())))
            .collect();
        let outputs = &lowered.graph.outputs;
        let mut found = references[known].2.run(lowered, &tensors, outputs)?;
        outputs
            .iter()
            .map(|id| {
                let missing =
                    || format!("tract has no output for {:?}", lowered.graph.value(*id).name);
                let tensor = found.remove(id).ok_or_else(missing)?;
                Ok(Array { shape: tensor.shape, values: tensor.data })
            })
            .collect()
    }

    fn has(&self, network: &str) -> bool {
        self.model.borrow().networks.iter().any(|n| n.graph.name == network)
    }
}
