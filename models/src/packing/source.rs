//! A model as it is found: networks in float form, and the pipeline around them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plantain::graph::{Binding, bind_shape};
use plantain::pipeline::PipelineSpec;

use super::PackingError;
use crate::import::{ImportOptions, Imported, import};
use crate::lower::{FloatNetwork, lower};
use crate::recipe::{
    Folder, NetworkPorts, Recipe, RecipeError, SizeFacts, TokenizerTables, build_spec,
    read_tokenizer,
};

/// A model before quantising.
pub struct Model {
    /// In the order in which a picture needs them.
    pub networks: Vec<FloatNetwork>,
    /// As they were imported, in the same order.
    pub imported: Vec<Imported>,
    /// Absent for a lone network.
    pub pipeline: Option<Pipeline>,
    /// Files that it was made from.
    pub sources: Vec<PathBuf>,
}

/// What is around the networks.
pub struct Pipeline {
    /// The folder.
    pub folder: Folder,
    /// The description that goes into the pack.
    pub spec: PipelineSpec,
    /// Its tables.
    pub tokenizer: TokenizerTables,
}

/// The networks by name.
pub fn networks(model: &Model) -> BTreeMap<&str, &FloatNetwork> {
    model.networks.iter().map(|network| (network.graph.name.as_str(), network)).collect()
}

/// Loads a folder, or one ONNX file.
///
/// # Errors
/// [`PackingError`]
pub fn load(
    source: &Path,
    recipe: &Recipe,
    progress: &mut dyn FnMut(&str),
) -> Result<Model, PackingError> {
    if source.extension().is_some_and(|extension| extension == "onnx") {
        return lone(source, progress);
    }
    let folder = Folder::open(source)?;
    let mut model = Model {
        networks: Vec::new(),
        imported: Vec::new(),
        pipeline: None,
        sources: folder.sources()?,
    };
    for component in &folder.components {
        progress(&format!("importing {}", component.onnx.display()));
        let mut imported = import(&component.onnx, &ImportOptions::default())?;
        model.networks.push(lower(&imported, component.network)?);
        imported.forget_weights();
        model.imported.push(imported);
    }
    model.pipeline = Some(pipeline(folder, recipe, &model.networks)?);
    Ok(model)
}

fn lone(source: &Path, progress: &mut dyn FnMut(&str)) -> Result<Model, PackingError> {
    if !source.is_file() {
        return Err(PackingError::Recipe(RecipeError::Missing {
            path: source.to_owned(),
            advice: "name an .onnx file, or a folder in diffusers' layout",
        }));
    }
    progress(&format!("importing {}", source.display()));
    let mut imported = import(source, &ImportOptions::default())?;
    let stem = source.file_stem().map(|name| name.to_string_lossy().into_owned());
    let network = lower(&imported, stem.as_deref().unwrap_or("network"))?;
    imported.forget_weights();
    Ok(Model {
        networks: vec![network],
        imported: vec![imported],
        pipeline: None,
        sources: vec![source.to_owned()],
    })
}

fn pipeline(
    folder: Folder,
    recipe: &Recipe,
    networks: &[FloatNetwork],
) -> Result<Pipeline, PackingError> {
    let find = |name: &'static str| networks.iter().find(|n| n.graph.name == name);
    let need = |name: &'static str| {
        let problem = "it is missing".to_owned();
        find(name).ok_or(PackingError::Fit { network: name, problem })
    };
    let (text, denoiser, decoder) = (need("text_encoder")?, need("denoiser")?, need("decoder")?);
    let (refiner, enlarger) = (find("refiner"), find("enlarger"));
    let tokens_max = text
        .graph
        .inputs
        .first()
        .and_then(|&id| text.graph.value(id).shape.get(1)?.as_fixed())
        .ok_or_else(|| PackingError::Fit {
            network: "text_encoder",
            problem: "its first input is not [batch, tokens] with a fixed number of tokens"
                .to_owned(),
        })?;
    let tokenizer = read_tokenizer(&folder.path, tokens_max as u32)?;
    let ports = NetworkPorts {
        text_encoder: &text.graph,
        denoiser: &denoiser.graph,
        decoder: &decoder.graph,
        refiner: refiner.map(|network| &network.graph),
        enlarger: enlarger.map(|network| &network.graph),
    };
    let sizes = sizes(denoiser, decoder, refiner, enlarger)?;
    let spec = build_spec(&folder, recipe, &ports, tokenizer.spec.clone(), &sizes)?;
    Ok(Pipeline { folder, spec, tokenizer })
}

/// What the networks say about sizes, with their factors multiplied.
fn sizes(
    denoiser: &FloatNetwork,
    decoder: &FloatNetwork,
    refiner: Option<&FloatNetwork>,
    enlarger: Option<&FloatNetwork>,
) -> Result<SizeFacts, PackingError> {
    let imported = Binding { batch: 1, ..denoiser.binding };
    let latent = image(denoiser, "denoiser", imported, true)?;
    let cells = Binding { batch: 1, height: latent[1] as u32, width: latent[2] as u32 };
    let mut factor = factor(decoder, "decoder", cells)?;
    let mut unit = denoiser.unit.max(1).max(decoder.unit);
    let mut free = [denoiser, decoder].iter().all(|n| n.free.height && n.free.width);
    if let Some(refiner) = refiner {
        let pixels =
            Binding { batch: 1, height: cells.height * factor, width: cells.width * factor };
        // The refiner's own unit counts pixels of the decoder.
        unit = unit.max(refiner.unit.div_ceil(factor.max(1)));
        factor *= self::factor(refiner, "refiner", pixels)?;
        free &= refiner.free.height && refiner.free.width;
    }
    let picture = Binding { batch: 1, height: cells.height * factor, width: cells.width * factor };
    let enlarge = enlarger.map(|network| self::factor(network, "enlarger", picture)).transpose()?;
    Ok(SizeFacts {
        latent_channels: latent[3] as u32,
        cell_pixels: factor,
        imported: cells,
        free,
        unit,
        enlarge,
    })
}

/// The shape of a network's first image.
fn image(
    network: &FloatNetwork,
    name: &'static str,
    binding: Binding,
    input: bool,
) -> Result<Vec<usize>, PackingError> {
    let graph = &network.graph;
    let ports = if input { &graph.inputs } else { &graph.outputs };
    let fault = |problem: String| PackingError::Fit { network: name, problem };
    let id = ports.iter().find(|&&id| graph.value(id).shape.len() == 4).ok_or_else(|| {
        fault("it has no input and output [batch, channels, height, width]".to_owned())
    })?;
    bind_shape(&graph.value(*id).shape, binding).map_err(|error| fault(error.to_string()))
}

/// How much larger a network's picture is than its input.
fn factor(
    network: &FloatNetwork,
    name: &'static str,
    binding: Binding,
) -> Result<u32, PackingError> {
    let from = image(network, name, binding, true)?;
    let to = image(network, name, binding, false)?;
    let fits = from[1] == binding.height as usize
        && from[2] == binding.width as usize
        && to[1].is_multiple_of(from[1])
        && to[1] / from[1] * from[2] == to[2];
    if !fits {
        return Err(PackingError::Fit {
            network: name,
            problem: format!(
                "it makes {} x {} of {} x {} where {} x {} come in",
                to[2], to[1], from[2], from[1], binding.width, binding.height
            ),
        });
    }
    Ok((to[1] / from[1]) as u32)
}
