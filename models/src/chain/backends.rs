//! Networks run by the evaluator (float) and by the engine (the pack's own arithmetic).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use plantain::engine::{Engine, EngineError, EngineOptions, NetworkIndex, Weights};
use plantain::graph::{Binding, DType, DimError, Graph, bind_shape};

use super::NetworkRun;
use crate::evaluate::{Array, EvaluateError, Evaluator, Precision};
use crate::lower::FloatNetwork;
use crate::quantise::Inputs;

/// Why a backend did not run a network.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No such network.
    #[error("there is no network {0:?}")]
    NoNetwork(String),
    /// An input is missing.
    #[error("input {0:?} is missing")]
    NoInput(String),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The evaluator.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A shape.
    #[error(transparent)]
    Dim(#[from] DimError),
}

/// Float networks in the evaluator.
pub struct EvaluatorRun<'a> {
    /// By name in the pack.
    pub networks: BTreeMap<&'a str, &'a FloatNetwork>,
}

impl NetworkRun for EvaluatorRun<'_> {
    fn run(
        &self,
        network: &str,
        binding: Binding,
        inputs: &Inputs,
    ) -> Result<Vec<Array>, Box<dyn std::error::Error + Send + Sync>> {
        let network = self
            .networks
            .get(network)
            .ok_or_else(|| BackendError::NoNetwork(network.to_owned()))?;
        let evaluator = Evaluator::new(&network.graph, &network.weights, binding);
        let mut values = evaluator.run(inputs, Precision::default())?;
        Ok(network.graph.outputs.iter().filter_map(|id| values[id.index()].take()).collect())
    }

    fn has(&self, network: &str) -> bool {
        self.networks.contains_key(network)
    }
}

/// The runtime's engine. Engines are made for one binding each and kept.
pub struct EngineRun<'a> {
    weights: Arc<dyn Weights>,
    graphs: &'a [Graph],
    threads: usize,
    engines: RefCell<Vec<(String, Binding, Engine)>>,
}

impl<'a> EngineRun<'a> {
    /// Runs the graphs of a pack on its weights.
    pub fn new(weights: Arc<dyn Weights>, graphs: &'a [Graph], threads: usize) -> Self {
        EngineRun { weights, graphs, threads, engines: RefCell::default() }
    }

    fn outputs(
        &self,
        network: &str,
        binding: Binding,
        inputs: &Inputs,
    ) -> Result<Vec<Array>, BackendError> {
        let graph = self
            .graphs
            .iter()
            .find(|graph| graph.name == network)
            .ok_or_else(|| BackendError::NoNetwork(network.to_owned()))?;
        let mut engines = self.engines.borrow_mut();
        let known = engines.iter().position(|(name, b, _)| name == network && *b == binding);
        let index = match known {
            Some(index) => index,
            None => {
                let options = EngineOptions::new(self.threads);
                let engine = Engine::load(self.weights.clone(), &[(graph, binding)], &options)?;
                engines.push((network.to_owned(), binding, engine));
                engines.len() - 1
            }
        };
        let engine = &mut engines[index].2;
        let only = NetworkIndex(0);
        for &id in &graph.inputs {
            let value = graph.value(id);
            let array =
                inputs.get(&value.name).ok_or_else(|| BackendError::NoInput(value.name.clone()))?;
            if value.dtype == DType::I32 {
                let ids: Vec<i32> = array.values.iter().map(|&id| id as i32).collect();
                engine.set_ids(only, &value.name, &ids)?;
            } else {
                engine.set_input(only, &value.name, &array.values)?;
            }
        }
        engine.run(only)?;
        let mut outputs = Vec::new();
        for (index, &id) in graph.outputs.iter().enumerate() {
            let mut array = Array::zeros(&bind_shape(&graph.value(id).shape, binding)?);
            engine.read_output(only, index, &mut array.values)?;
            outputs.push(array);
        }
        Ok(outputs)
    }
}

impl NetworkRun for EngineRun<'_> {
    fn run(
        &self,
        network: &str,
        binding: Binding,
        inputs: &Inputs,
    ) -> Result<Vec<Array>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.outputs(network, binding, inputs)?)
    }

    fn has(&self, network: &str) -> bool {
        self.graphs.iter().any(|graph| graph.name == network)
    }
}
