//! tract's float run as a backend.

use std::cell::RefCell;
use std::collections::BTreeMap;

use plantain::graph::{Binding, ValueId};

use crate::chain::NetworkRun;
use crate::evaluate::{Array, Evaluator, Precision};
use crate::import::FloatReference;
use crate::lower::{FloatNetwork, FloatTensor};
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

impl TractRun {
    /// tract's values of these names; where fusing left no tensor of the ONNX network that a value stands for, the
    /// lowered network's own float value.
    ///
    /// # Errors
    /// What tract says, or the name of a network that is not there.
    pub fn values(
        &self,
        network: &str,
        binding: Binding,
        inputs: &Inputs,
        names: &[&str],
    ) -> Result<BTreeMap<String, Array>, Box<dyn std::error::Error + Send + Sync>> {
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
        let values = lowered.graph.values.iter().zip(0..);
        let wanted: Vec<ValueId> = values
            .filter(|(value, _)| names.contains(&value.name.as_str()))
            .map(|(_, id)| ValueId(id))
            .collect();
        let found = references[known].2.run(lowered, &tensors, &wanted)?;
        let array = |tensor: FloatTensor| Array { shape: tensor.shape, values: tensor.data };
        let name = |id: ValueId| lowered.graph.value(id).name.clone();
        let mut values: BTreeMap<String, Array> =
            found.into_iter().map(|(id, tensor)| (name(id), array(tensor))).collect();
        if wanted.iter().any(|&id| !values.contains_key(&name(id))) {
            let evaluator = Evaluator::new(&lowered.graph, &lowered.weights, binding);
            let mut own = evaluator.run(inputs, Precision::default())?;
            for &id in &wanted {
                if let Some(array) = own[id.index()].take() {
                    values.entry(name(id)).or_insert(array);
                }
            }
        }
        Ok(values)
    }

    /// The outputs of a network, in order.
    fn outputs(&self, network: &str) -> Vec<String> {
        let model = self.model.borrow();
        let network = model.networks.iter().find(|n| n.graph.name == network);
        let name = |n: &FloatNetwork, id: ValueId| n.graph.value(id).name.clone();
        network.map_or_else(Vec::new, |n| n.graph.outputs.iter().map(|&id| name(n, id)).collect())
    }
}

impl NetworkRun for TractRun {
    fn run(
        &self,
        network: &str,
        binding: Binding,
        inputs: &Inputs,
    ) -> Result<Vec<Array>, Box<dyn std::error::Error + Send + Sync>> {
        let names = self.outputs(network);
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut found = self.values(network, binding, inputs, &wanted)?;
        names
            .iter()
            .map(|name| {
                found.remove(name).ok_or_else(|| format!("tract has no output for {name:?}").into())
            })
            .collect()
    }

    fn has(&self, network: &str) -> bool {
        self.model.borrow().networks.iter().any(|n| n.graph.name == network)
    }
}
