//! From a folder, or one ONNX file, to a pack.
//!
//! Enters: paths, a recipe, prompts. Leaves: a pack that appears by rename, and the report. Never: a decision about
//! numbers (that is `quantise`), a byte of the format (that is `write`).

mod golden;
mod output;
mod source;

use std::path::{Path, PathBuf};

use half::f16;
use plantain::graph::Binding;
use plantain::pack::{Metadata, Pack, PackError, Provenance, Source};
use plantain::pipeline::{PipelineSpec, WORD_STATES};

pub(crate) use golden::memory_weights;
pub use source::{Model, Pipeline, load, networks};

use crate::chain::{Chain, ChainError, EvaluatorRun, Request, Trace, random_inputs};
use crate::import::ImportError;
use crate::lower::LowerError;
use crate::prune::{self, PruneError};
use crate::quantise::{
    self, Inputs, Options, QuantiseError, Quantised, Samples, StoredData, StoredTensor,
};
use crate::recipe::{Recipe, RecipeError, TokenizerTables};
use crate::report::PackingReport;
use crate::write::WriteError;

/// Why there is no pack.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    /// The folder or the recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// An ONNX file.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An op or a shape.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// What cannot be pruned, or not well.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// Numbers.
    #[error(transparent)]
    Quantise(#[from] QuantiseError),
    /// A prompt, a schedule, a run.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Writing.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Reading the pack again.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A file.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No prompt to calibrate on.
    #[error("{path} holds no prompt; write one a line")]
    NoPrompts {
        /// File.
        path: PathBuf,
    },
    /// A network whose sizes do not fit the others'.
    #[error("the {network} does not fit the other networks: {problem}")]
    Fit {
        /// Network.
        network: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// What to pack.
#[derive(Clone, Debug, Default)]
pub struct PackRequest {
    /// A folder in diffusers' layout, or one `.onnx` file.
    pub source: PathBuf,
    /// The pack.
    pub out: PathBuf,
    /// What the folder does not say.
    pub recipe: Recipe,
    /// More patterns of layers that stay f16.
    pub keep_f16: Vec<String>,
    /// Prompts to calibrate on.
    pub prompts: Option<Vec<String>>,
    /// Share of a picture's multiply-adds to remove, over what the recipe says.
    pub prune: Option<f64>,
}

/// Prompts of a file, one a line.
///
/// # Errors
/// [`PackingError::Read`], [`PackingError::NoPrompts`].
pub fn read_prompts(path: &Path) -> Result<Vec<String>, PackingError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| PackingError::Read { path: path.to_owned(), source })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let prompts: Vec<String> = lines.map(str::to_owned).collect();
    match prompts.is_empty() {
        true => Err(PackingError::NoPrompts { path: path.to_owned() }),
        false => Ok(prompts),
    }
}

/// Runs of one network that calibration keeps.
const SAMPLES_MAX: usize = 16;
/// Pictures that calibration draws where nobody names prompts.
const PROMPTS_DEFAULT: usize = 12;
/// What is drawn where neither prompts nor words are known.
const PROMPTS: [&str; 4] =
    ["a red apple", "a photo of a cat", "a small house by the sea at sunset", "a blue boat"];

/// Packs a model.
///
/// # Errors
/// [`PackingError`], in one sentence; no pack appears then.
pub fn pack(
    request: &PackRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<(Pack, PackingReport), PackingError> {
    let mut model = load(&request.source, &request.recipe, progress)?;
    let mut pruning = None;
    if let Some(options) = prune_options(request) {
        let prompts = request.prompts.as_ref().unwrap_or(&request.recipe.calibrate_prompts).clone();
        prune::check(&model, &prompts, &options)?;
        let networks = model.networks.clone();
        let (unpruned, calibration) = quantised(&mut model, request, progress)?;
        model.networks = networks;
        let seconds = prune::seconds(&unpruned, &calibration.samples)?;
        let pruned = prune::prune(&mut model, &prompts, &options, &seconds, progress)?;
        pruning = Some((unpruned, pruned, options));
    }
    let (quantised, Calibration { golden, tables, .. }) = quantised(&mut model, request, progress)?;
    let compare = |(unpruned, pruned, options): (Vec<Quantised>, prune::Pruned, prune::Options)| {
        let sides = [&unpruned[..], &quantised[..]];
        prune::compare(model.pipeline.as_ref(), sides, &pruned, &options, progress)
    };
    let mut report = PackingReport {
        pack_bytes: 0,
        networks: quantised.iter().map(|q| q.report.clone()).collect(),
        pruning: pruning.map(compare).transpose()?,
    };
    progress("running the quantised networks for the pack's self-test");
    let golden = golden::run(&quantised, &golden)?;
    let metadata = Metadata {
        graphs: quantised.iter().map(|q| q.graph.clone()).collect(),
        pipeline: model.pipeline.as_ref().map(|pipeline| pipeline.spec.clone()),
        provenance: provenance(request, &model)?,
        golden: golden.iter().map(|run| run.entry.clone()).collect(),
        report: Some(report.summary()),
    };
    progress("writing");
    let pack = output::write(&request.out, &quantised, &tables, &golden, &metadata)?;
    report.pack_bytes = pack.bytes();
    Ok((pack, report))
}

/// Calibrates and quantises a model's networks, which are used up.
fn quantised(
    model: &mut Model,
    request: &PackRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<(Vec<Quantised>, Calibration), PackingError> {
    let options = options(request);
    let calibration = match &model.pipeline {
        Some(pipeline) => calibration(model, pipeline, request, progress)?,
        None => random_calibration(model)?,
    };
    let mut quantised = Vec::new();
    for (network, samples) in
        std::mem::take(&mut model.networks).into_iter().zip(&calibration.samples)
    {
        progress(&format!("quantising {}", network.graph.name));
        quantised.push(quantise::quantise(network, samples, &options)?);
    }
    Ok((quantised, calibration))
}

fn prune_options(request: &PackRequest) -> Option<prune::Options> {
    let recipe = &request.recipe.prune;
    Some(prune::Options {
        share: request.prune.or(recipe.share)?,
        db_min: recipe.db_min.unwrap_or(prune::Options::DB_MIN),
    })
}

fn options(request: &PackRequest) -> Options {
    let mut options = Options::default();
    let recipe = &request.recipe.quantise;
    options.keep_f16 = [recipe.keep_f16.clone(), request.keep_f16.clone()].concat();
    options.snr_db_min = recipe.snr_db_min.unwrap_or(options.snr_db_min);
    options.f16_share_max = recipe.f16_share_max.unwrap_or(options.f16_share_max);
    options
}

/// What is drawn: named prompts, the recipe's, or the model's own words in all its styles.
pub fn requests(
    spec: &PipelineSpec,
    prompts: Option<&[String]>,
    recipe: &Recipe,
    count: usize,
) -> Vec<Request> {
    let style = |index: usize| spec.styles.get(index % spec.styles.len().max(1));
    let request = |(index, prompt): (usize, &String)| {
        Request::new(spec, prompt, style(index).map(|style| style.name.as_str()), index as u64)
    };
    let prompts = match prompts {
        Some(prompts) => prompts.to_vec(),
        None if !recipe.calibrate_prompts.is_empty() => recipe.calibrate_prompts.clone(),
        None if spec.words.is_empty() => PROMPTS.map(str::to_owned).to_vec(),
        None => {
            // Evenly over the list, so that every kind of word is met.
            let count = count.min(spec.words.len()).max(1);
            (0..count).map(|i| phrase(&spec.words[i * spec.words.len() / count])).collect()
        }
    };
    prompts.iter().enumerate().map(request).collect()
}

/// A word with its article.
pub(crate) fn phrase(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']) && !word.starts_with("uni");
    format!("{} {word}", if vowel { "an" } else { "a" })
}

/// What the float networks said.
struct Calibration {
    /// By network.
    samples: Vec<Samples>,
    /// The run of each network that becomes golden.
    golden: Vec<(Binding, Inputs)>,
    /// Tokenizer and words.
    tables: Vec<StoredTensor>,
}

fn calibration(
    model: &Model,
    pipeline: &Pipeline,
    request: &PackRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<Calibration, PackingError> {
    let spec = &pipeline.spec;
    let networks = EvaluatorRun { networks: networks(model) };
    let TokenizerTables { vocabulary, merges, .. } = &pipeline.tokenizer;
    let chain = Chain::new(spec, vocabulary, merges.as_deref(), &networks)?;
    let mut traces: Vec<Trace> = Vec::new();
    let requests = requests(spec, request.prompts.as_deref(), &request.recipe, PROMPTS_DEFAULT);
    for (index, request) in requests.iter().enumerate() {
        progress(&format!(
            "drawing {} of {} in float: {}",
            index + 1,
            requests.len(),
            request.prompt
        ));
        traces.push(chain.draw(request)?);
    }
    let smallest = match spec.size.min == spec.size.default {
        true => traces[0].clone(),
        false => chain.draw(&Request { size: spec.size.min, ..requests[0].clone() })?,
    };
    let mut samples = Vec::new();
    let mut golden = Vec::new();
    for network in &model.networks {
        let name = network.graph.name.as_str();
        let runs: Vec<&Inputs> =
            traces.iter().filter_map(|t| t.inputs.get(name)).flatten().collect();
        let count = runs.len().min(SAMPLES_MAX);
        let inputs = (0..count).map(|i| runs[i * runs.len() / count].clone()).collect();
        let binding = chain.binding_of(name, spec.size.default, &traces[0]);
        samples.push(Samples { binding, inputs });
        let binding = chain.binding_of(name, spec.size.min, &smallest);
        golden.extend(
            smallest
                .inputs
                .get(name)
                .and_then(|runs| runs.first())
                .map(|inputs| (binding, inputs.clone())),
        );
    }
    progress("encoding the model's words");
    let tables = tables(pipeline, &chain)?;
    Ok(Calibration { samples, golden, tables })
}

/// The tokenizer's tables, and the states of the words that the model knows.
fn tables(pipeline: &Pipeline, chain: &Chain) -> Result<Vec<StoredTensor>, PackingError> {
    let TokenizerTables { spec, vocabulary, merges } = &pipeline.tokenizer;
    let table = |name: &String, bytes: &Vec<u8>| StoredTensor {
        name: name.clone(),
        shape: vec![bytes.len()],
        data: StoredData::U8(bytes.clone()),
    };
    let mut tables = vec![table(&spec.vocabulary, vocabulary)];
    tables.extend(spec.merges.iter().zip(merges).map(|(name, bytes)| table(name, bytes)));
    let words = &pipeline.spec.words;
    if !words.is_empty() {
        let mut states = Vec::new();
        for word in words {
            states.extend(chain.mean_state(word)?.into_iter().map(f16::from_f32));
        }
        tables.push(StoredTensor {
            name: WORD_STATES.to_owned(),
            shape: vec![words.len(), states.len() / words.len()],
            data: StoredData::F16(states),
        });
    }
    Ok(tables)
}

fn random_calibration(model: &Model) -> Result<Calibration, PackingError> {
    let mut samples = Vec::new();
    let mut golden = Vec::new();
    for network in &model.networks {
        let binding = network.binding;
        let inputs = (0..4)
            .map(|seed| random_inputs(&network.graph, binding, seed))
            .collect::<Result<Vec<_>, _>>()
            .map_err(QuantiseError::from)?;
        golden.push((binding, inputs[0].clone()));
        samples.push(Samples { binding, inputs });
    }
    Ok(Calibration { samples, golden, tables: Vec::new() })
}

fn provenance(request: &PackRequest, model: &Model) -> Result<Provenance, PackingError> {
    let text = |key: &str| {
        let folder = model.pipeline.as_ref()?.folder.plantain(key)?;
        folder.as_str().map(str::to_owned)
    };
    let recipe = &request.recipe;
    let stem = || request.source.file_stem().map(|name| name.to_string_lossy().into_owned());
    let sources = model.sources.iter().map(|path| {
        let read = |source| PackingError::Read { path: path.clone(), source };
        let relative =
            path.strip_prefix(&request.source).ok().filter(|p| !p.as_os_str().is_empty());
        let name = relative.or_else(|| path.file_name().map(Path::new)).unwrap_or(path);
        Ok(Source {
            path: name.to_string_lossy().into_owned(),
            sha256: output::sha256_file(path).map_err(read)?,
        })
    });
    Ok(Provenance {
        title: recipe.title.clone().or_else(|| text("name")).or_else(stem).unwrap_or_default(),
        licence: recipe
            .licence
            .clone()
            .or_else(|| text("licence"))
            .unwrap_or_else(|| "unstated".to_owned()),
        origin: recipe.origin.clone().or_else(|| text("provenance")).unwrap_or_default(),
        packer: format!("plantain-pack {}", env!("CARGO_PKG_VERSION")),
        sources: sources.collect::<Result<_, PackingError>>()?,
    })
}
