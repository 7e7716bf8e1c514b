//! The pipeline's description from the folder, the recipe and the networks' inputs.

use plantain::graph::{DType, Graph, ValueId};
use plantain::pipeline::{PipelineSpec, Style, TokenizerSpec, Wiring};
use serde_json::Value;

use super::scheduler::read_scheduler;
use super::size::{SizeFacts, build_size};
use super::{Folder, Recipe, RecipeError};

/// The lowered networks of a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct NetworkPorts<'a> {
    /// Ids to states.
    pub text_encoder: &'a Graph,
    /// Latent, timestep and states to a prediction.
    pub denoiser: &'a Graph,
    /// Latent to picture.
    pub decoder: &'a Graph,
    /// Picture to picture.
    pub refiner: Option<&'a Graph>,
    /// Picture to larger picture.
    pub enlarger: Option<&'a Graph>,
}

/// Builds the description.
///
/// # Errors
/// [`RecipeError`] if the folder, the recipe or a network does not say what is needed.
pub fn build_spec(
    folder: &Folder,
    recipe: &Recipe,
    networks: &NetworkPorts,
    tokenizer: TokenizerSpec,
    sizes: &SizeFacts,
) -> Result<PipelineSpec, RecipeError> {
    let (scheduler, prediction) = read_scheduler(&folder.path)?;
    let whole = |key: &str| folder.plantain(key).and_then(Value::as_u64).map(|v| v as u32);
    let number = |key: &str| folder.plantain(key).and_then(Value::as_f64).map(|v| v as f32);
    let styles =
        if recipe.styles.is_empty() { index_styles(folder)? } else { recipe.styles.clone() };
    let style_default = match &recipe.style_default {
        Some(name) => Some(name.clone()),
        None => index_style_default(folder, &styles),
    };
    if let Some(name) = &style_default
        && !styles.iter().any(|style| style.name == *name)
    {
        let known: Vec<&str> = styles.iter().map(|style| style.name.as_str()).collect();
        return Err(RecipeError::Malformed {
            path: folder.path.join("model_index.json"),
            problem: format!("the default style {name:?} is none of {known:?}"),
        });
    }
    let words =
        if recipe.words.is_empty() { index_words(folder, "words") } else { recipe.words.clone() };
    Ok(PipelineSpec {
        tokenizer,
        size: build_size(folder, recipe, sizes)?,
        scheduler,
        prediction,
        wiring: wiring(networks)?,
        steps_default: recipe.steps_default.or(whole("default_steps")).unwrap_or(20),
        guidance_scale_default: recipe
            .guidance_scale_default
            .or(number("default_guidance_scale"))
            .unwrap_or(7.5),
        styles,
        style_default,
        words,
        synonyms: index_words(folder, "synonyms"),
    })
}

/// `plantain.styles`: name to phrase, put into `plantain.style_template`.
fn index_styles(folder: &Folder) -> Result<Vec<Style>, RecipeError> {
    let template =
        folder.plantain("style_template").and_then(Value::as_str).unwrap_or("{prompt}, {style}");
    let Some(styles) = folder.plantain("styles") else { return Ok(Vec::new()) };
    let malformed = || RecipeError::Malformed {
        path: folder.path.join("model_index.json"),
        problem: format!("plantain.styles is {styles}; it should map names to phrases"),
    };
    let map = styles.as_object().ok_or_else(malformed)?;
    map.iter()
        .map(|(name, phrase)| {
            let phrase = phrase.as_str().ok_or_else(malformed)?;
            let prompt = template.replace("{style}", phrase);
            Ok(Style { name: name.clone(), prompt, negative: String::new() })
        })
        .collect()
}

/// `plantain.default_style`: a style's name or its phrase.
fn index_style_default(folder: &Folder, styles: &[Style]) -> Option<String> {
    let named = folder.plantain("default_style")?.as_str()?;
    let phrases = folder.plantain("styles").and_then(Value::as_object);
    let by_phrase = phrases
        .into_iter()
        .flatten()
        .find(|(_, phrase)| phrase.as_str() == Some(named))
        .map(|(name, _)| name.clone());
    match styles.iter().any(|style| style.name == named) {
        true => Some(named.to_owned()),
        false => Some(by_phrase.unwrap_or_else(|| named.to_owned())),
    }
}

fn index_words(folder: &Folder, key: &str) -> Vec<String> {
    let words = folder.plantain(key).and_then(Value::as_array);
    words.into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn wiring(networks: &NetworkPorts) -> Result<Wiring, RecipeError> {
    let text = Ports(networks.text_encoder);
    let denoiser = Ports(networks.denoiser);
    let decoder = Ports(networks.decoder);
    let is = |rank: usize| move |graph: &Graph, id: ValueId| graph.value(id).shape.len() == rank;
    Ok(Wiring {
        text_ids: text
            .input("ids input", &["input_ids"], |graph, id| graph.value(id).dtype == DType::I32)?,
        text_mask: text.optional(&["attention_mask"]),
        text_states: text.output(&["last_hidden_state", "encoder_hidden_states"])?,
        denoiser_sample: denoiser.input(
            "latent input [b, h, w, c]",
            &["sample", "hidden_states", "latent"],
            is(4),
        )?,
        denoiser_timestep: denoiser.input("timestep input [b]", &["timestep", "t"], is(1))?,
        denoiser_states: denoiser.input(
            "text input [b, tokens, c]",
            &["encoder_hidden_states"],
            is(3),
        )?,
        denoiser_mask: denoiser.optional(&["encoder_attention_mask", "attention_mask"]),
        decoder_latent: decoder.input(
            "latent input [1, h, w, c]",
            &["latent_sample", "latent"],
            is(4),
        )?,
        refiner_image: networks.refiner.map(picture_input).transpose()?,
        enlarger_image: networks.enlarger.map(picture_input).transpose()?,
    })
}

fn picture_input(graph: &Graph) -> Result<String, RecipeError> {
    let is_picture = |graph: &Graph, id: ValueId| graph.value(id).shape.len() == 4;
    Ports(graph).input("picture input [1, h, w, 3]", &["sample"], is_picture)
}

struct Ports<'a>(&'a Graph);

impl Ports<'_> {
    /// An input by one of its usual names, else the only one of the right kind.
    fn input(
        &self,
        what: &str,
        names: &[&str],
        fits: impl Fn(&Graph, ValueId) -> bool,
    ) -> Result<String, RecipeError> {
        let graph = self.0;
        let fitting: Vec<ValueId> =
            graph.inputs.iter().copied().filter(|&id| fits(graph, id)).collect();
        let named = fitting.iter().find(|&&id| names.contains(&graph.value(id).name.as_str()));
        match (named, fitting.as_slice()) {
            (Some(&id), _) | (None, &[id]) => Ok(graph.value(id).name.clone()),
            _ => Err(self.missing(what, &graph.inputs)),
        }
    }

    fn optional(&self, names: &[&str]) -> Option<String> {
        names.iter().find(|name| self.0.input(name).is_some()).map(|&name| name.to_owned())
    }

    /// An output by one of its usual names, else the first with three dimensions.
    fn output(&self, names: &[&str]) -> Result<String, RecipeError> {
        let graph = self.0;
        let name = |id: &ValueId| graph.value(*id).name.as_str();
        let named = graph.outputs.iter().find(|id| names.contains(&name(id)));
        let states = || graph.outputs.iter().find(|id| graph.value(**id).shape.len() == 3);
        named
            .or_else(states)
            .map(|id| name(id).to_owned())
            .ok_or_else(|| self.missing("output [b, tokens, c]", &graph.outputs))
    }

    fn missing(&self, what: &str, ids: &[ValueId]) -> RecipeError {
        let names: Vec<&str> = ids.iter().map(|&id| self.0.value(id).name.as_str()).collect();
        RecipeError::Port {
            network: self.0.name.clone(),
            what: what.to_owned(),
            found: names.join(", "),
        }
    }
}
