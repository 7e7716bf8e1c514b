//! A pack against the ONNX networks that it was made from.
//!
//! Enters: an open pack, the folder or file, numbers of samples. Leaves: how far the engine's outputs are from
//! tract's float run, network by network, and the final pictures from float ones. Never: a change to the pack.
//!
//! The float side is tract on the ONNX files; the other side is the engine that devices run, on the pack's bytes.

mod layers;
mod tract;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use plantain::graph::{Binding, Graph};
use plantain::pack::{Pack, PackError};
use plantain::pipeline::PipelineSpec;
use serde::Serialize;

pub use layers::LayerComparison;
pub use tract::TractRun;

use layers::{Outputs, Unpacked};

use crate::chain::{Chain, ChainError, EngineRun, NetworkRun, Request, random_inputs};
use crate::evaluate::{Evaluator, Precision};
use crate::packing::{PackingError, load, requests};
use crate::quantise::{Inputs, Layer, QuantiseError};
use crate::recipe::Recipe;
use crate::report::{Error, ErrorSums, median, psnr_db};

/// Runs of one network that are compared layer by layer.
const LAYER_SAMPLES_MAX: usize = 2;
/// Layers that the text names.
const LAYERS_NAMED: usize = 3;
/// Runs of one network that are compared.
const SAMPLES_MAX: usize = 8;

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The ONNX side.
    #[error(transparent)]
    Packing(#[from] PackingError),
    /// The pack.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A run.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Networks that do not belong together.
    #[error(
        "the pack has the networks {pack} but {path} has {found}; name the folder that the pack was made from"
    )]
    Networks {
        /// Of the pack.
        pack: String,
        /// The folder.
        path: String,
        /// Of the folder.
        found: String,
    },
    /// A pack whose tokenizer's tables cannot be read.
    #[error("the pack's pipeline names the tensor {0:?}, which it does not have")]
    Table(String),
}

/// One network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkComparison {
    /// Its name.
    pub network: String,
    /// Runs that were compared.
    pub samples: usize,
    /// The engine against tract's float run, all outputs.
    pub outputs: Error,
    /// Each layer's output inside the quantised network, in execution order. The engine keeps no values, so this is
    /// the pack's arithmetic in the evaluator.
    pub layers: Vec<LayerComparison>,
}

/// One picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PictureComparison {
    /// As it was encoded.
    pub prompt: String,
    /// Of the noise.
    pub seed: u64,
    /// Against the picture of the float networks; `null` where no byte differs.
    #[serde(serialize_with = "crate::report::finite")]
    pub psnr_db: f64,
}

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// The pack's hash.
    pub pack: String,
    /// Each network on the same inputs.
    pub networks: Vec<NetworkComparison>,
    /// Whole pictures from the same noise.
    pub pictures: Vec<PictureComparison>,
    /// Median over the pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr_db_median: Option<f64>,
}

/// Compares a pack with its source. `pictures` prompts and seeds are drawn, each by both.
///
/// # Errors
/// [`VerifyError`]
pub fn verify(
    pack: Pack,
    against: &Path,
    prompts: Option<&[String]>,
    pictures: usize,
    threads: usize,
    progress: &mut dyn FnMut(&str),
) -> Result<Verification, VerifyError> {
    let model = load(against, &Recipe::default(), progress)?;
    let names = |graphs: &mut dyn Iterator<Item = &str>| graphs.collect::<Vec<_>>().join(", ");
    let in_pack = names(&mut pack.graphs().iter().map(|graph| graph.name.as_str()));
    let found = names(&mut model.networks.iter().map(|network| network.graph.name.as_str()));
    if in_pack != found {
        let path = against.display().to_string();
        return Err(VerifyError::Networks { pack: in_pack, path, found });
    }
    let graphs = pack.graphs().to_vec();
    let pack = Arc::new(pack);
    let engine = EngineRun::new(pack.clone(), &graphs, threads);
    let bindings: Vec<Binding> = model.networks.iter().map(|network| network.binding).collect();
    let tract = TractRun::new(model);
    let mut verification = Verification {
        pack: pack.hash(),
        networks: Vec::new(),
        pictures: Vec::new(),
        psnr_db_median: None,
    };
    match pack.pipeline() {
        Ok(spec) => {
            let sides = Sides { pack: &pack, spec, engine: &engine, tract: &tract };
            let known = requests(spec, prompts, &Recipe::default(), pictures);
            let runs = sides.draw(&known, pictures, &mut verification.pictures, progress)?;
            for graph in &graphs {
                let runs: Vec<&(String, Binding, Inputs)> =
                    runs.iter().filter(|(name, _, _)| *name == graph.name).collect();
                let count = runs.len().min(SAMPLES_MAX);
                let runs = (0..count).map(|i| runs[i * runs.len() / count]);
                let runs: Vec<(Binding, &Inputs)> =
                    runs.map(|(_, binding, inputs)| (*binding, inputs)).collect();
                progress(&format!("comparing {}", graph.name));
                verification.networks.push(compare(&pack, graph, &engine, &tract, &runs)?);
            }
        }
        Err(_) => {
            for (graph, &binding) in graphs.iter().zip(&bindings) {
                let inputs = (0..4)
                    .map(|seed| random_inputs(graph, binding, 1000 + seed))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| PackingError::Quantise(QuantiseError::from(error)))?;
                let runs: Vec<(Binding, &Inputs)> =
                    inputs.iter().map(|inputs| (binding, inputs)).collect();
                verification.networks.push(compare(&pack, graph, &engine, &tract, &runs)?);
            }
        }
    }
    let psnr: Vec<f64> = verification.pictures.iter().map(|picture| picture.psnr_db).collect();
    verification.psnr_db_median = median(&psnr);
    Ok(verification)
}

/// Both sides of the comparison.
struct Sides<'a> {
    pack: &'a Pack,
    spec: &'a PipelineSpec,
    engine: &'a dyn NetworkRun,
    tract: &'a dyn NetworkRun,
}

impl Sides<'_> {
    /// Draws pictures with both. Leaves the float side's runs.
    fn draw(
        &self,
        known: &[Request],
        pictures: usize,
        compared: &mut Vec<PictureComparison>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<(String, Binding, Inputs)>, VerifyError> {
        let spec = self.spec;
        let table = |name: &str| -> Result<&[u8], VerifyError> {
            let missing = || VerifyError::Table(name.to_owned());
            self.pack.tensor(name)?.as_u8().map_err(|_| missing())
        };
        let vocabulary = table(&spec.tokenizer.vocabulary)?;
        let merges = spec.tokenizer.merges.as_deref().map(table).transpose()?;
        let float = Chain::new(spec, vocabulary, merges, self.tract)?;
        let int8 = Chain::new(spec, vocabulary, merges, self.engine)?;
        let mut runs = Vec::new();
        for index in 0..pictures {
            // More pictures than prompts: the same prompts from other noise.
            let known = &known[index % known.len()];
            let request = Request { seed: 1000 + index as u64, ..known.clone() };
            progress(&format!("drawing {} of {pictures} twice: {}", index + 1, request.prompt));
            let reference = float.draw(&request)?;
            let found = int8.draw(&request)?;
            compared.push(PictureComparison {
                prompt: request.prompt.clone(),
                seed: request.seed,
                psnr_db: psnr_db(&reference.picture, &found.picture),
            });
            for (&name, inputs) in &reference.inputs {
                let binding = float.binding_of(name, request.size, &reference);
                runs.extend(inputs.iter().map(|inputs| (name.to_owned(), binding, inputs.clone())));
            }
        }
        Ok(runs)
    }
}

fn compare(
    pack: &Pack,
    graph: &Graph,
    engine: &dyn NetworkRun,
    tract: &TractRun,
    runs: &[(Binding, &Inputs)],
) -> Result<NetworkComparison, VerifyError> {
    let network = graph.name.as_str();
    let failed = |source| ChainError::Network { network: network.to_owned(), source };
    let mut sums = ErrorSums::default();
    for &(binding, inputs) in runs {
        let reference = tract.run(network, binding, inputs).map_err(failed)?;
        let found = engine.run(network, binding, inputs).map_err(failed)?;
        for (reference, found) in reference.iter().zip(&found) {
            sums.add(&reference.values, &found.values);
        }
    }
    let unpacked = Unpacked::new(pack, graph)?;
    let names: Vec<&str> = Layer::all(&unpacked.graph)
        .iter()
        .map(|layer| graph.value(graph.nodes[layer.node].output).name.as_str())
        .collect();
    let mut outputs = Outputs::default();
    for &(binding, inputs) in runs.iter().take(LAYER_SAMPLES_MAX) {
        let float = tract.values(network, binding, inputs, &names).map_err(failed)?;
        let evaluator = Evaluator::new(&unpacked.graph, &unpacked.weights, binding);
        let precision = Precision {
            int8: Some(&unpacked.int8),
            attentions: Some(&unpacked.attentions),
            round_f16: true,
        };
        let found = evaluator
            .run(inputs, precision)
            .map_err(|error| PackingError::Quantise(QuantiseError::from(error)))?;
        outputs.add(&unpacked, &found, &float);
    }
    Ok(NetworkComparison {
        network: network.to_owned(),
        samples: runs.len(),
        outputs: sums.into(),
        layers: outputs.errors(&unpacked),
    })
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for network in &self.networks {
            writeln!(
                f,
                "{}: {:.1} dB, cosine {:.5}, largest error {:.3e} against tract's float run ({} samples)",
                network.network,
                network.outputs.snr_db,
                network.outputs.cosine,
                network.outputs.max,
                network.samples,
            )?;
            let mut worst: Vec<&LayerComparison> = network.layers.iter().collect();
            worst.sort_by(|a, b| a.output.snr_db.total_cmp(&b.output.snr_db));
            for layer in worst.into_iter().take(LAYERS_NAMED) {
                let LayerComparison { node, precision, output } = layer;
                writeln!(f, "  {:.1} dB at {node}, {precision}", output.snr_db)?;
            }
        }
        for picture in &self.pictures {
            writeln!(f, "{:.1} dB  seed {}, {:?}", picture.psnr_db, picture.seed, picture.prompt)?;
        }
        if let Some(median) = self.psnr_db_median {
            writeln!(f, "median of {} pictures: {median:.1} dB", self.pictures.len())?;
        }
        Ok(())
    }
}
