//! What a model's folder says about itself, and what a recipe adds.
//!
//! Enters: a folder in diffusers' layout (`model_index.json`, `scheduler/`, `tokenizer/`, networks), a recipe.
//! Leaves: where the networks lie, the pipeline's description, the tokenizer's tables. Never: ONNX, weights.

mod folder;
mod scheduler;
mod size;
mod spec;
mod tokenizer;

use std::path::{Path, PathBuf};

use plantain::pipeline::Style;
use serde::Deserialize;

pub use folder::{Component, Folder};
pub use size::SizeFacts;
pub use spec::{NetworkPorts, build_spec};
pub use tokenizer::{TokenizerTables, read_tokenizer};

/// A file or folder that says too little, or something that plantain does not do.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Not there.
    #[error("{path} is not there; {advice}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// Cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON, or not of the form that is needed.
    #[error("{path} is not what it should be: {problem}")]
    Malformed {
        /// File.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A scheduler that plantain does not have.
    #[error(
        "{path} names the scheduler {name:?}, which plantain does not have; FlowMatchEulerDiscreteScheduler, DDIMScheduler and LCMScheduler work"
    )]
    UnknownScheduler {
        /// File.
        path: PathBuf,
        /// Class.
        name: String,
    },
    /// A setting of a known part that plantain does not do.
    #[error("{path} sets {key} to {value}, which plantain does not do; {advice}")]
    Unsupported {
        /// File.
        path: PathBuf,
        /// Setting.
        key: String,
        /// What it is set to.
        value: String,
        /// What works.
        advice: String,
    },
    /// A network without the input or output that the pipeline needs.
    #[error("the {network} has no {what}; it has {found}")]
    Port {
        /// Network.
        network: String,
        /// What is needed.
        what: String,
        /// What there is.
        found: String,
    },
}

/// What a recipe adds to a folder; whatever it says wins.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// What people call the model.
    pub title: Option<String>,
    /// SPDX expression.
    pub licence: Option<String>,
    /// Who made it and from what.
    pub origin: Option<String>,
    /// Denoising steps if the user names none.
    pub steps_default: Option<u32>,
    /// Guidance if the user names none.
    pub guidance_scale_default: Option<f32>,
    /// Picture sizes in pixels: width, height.
    pub size_default: Option<[u32; 2]>,
    /// See `size_default`.
    pub size_min: Option<[u32; 2]>,
    /// See `size_default`.
    pub size_max: Option<[u32; 2]>,
    /// Values of the last network that become black and white.
    pub image_range: Option<[f32; 2]>,
    /// Style if the user names none.
    pub style_default: Option<String>,
    /// Looks.
    pub styles: Vec<Style>,
    /// What the model knows.
    pub words: Vec<String>,
    /// Prompts to calibrate on.
    pub calibrate_prompts: Vec<String>,
    /// How to quantise.
    pub quantise: QuantiseRecipe,
    /// How to prune; nothing is pruned unless a share is given.
    pub prune: PruneRecipe,
}

/// The recipe's table `[quantise]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantiseRecipe {
    /// Layers that stay f16, `network/node` with `*`.
    pub keep_f16: Vec<String>,
    /// How good each network's outputs must be.
    pub snr_db_min: Option<f64>,
    /// How much of a network may stay f16 for that.
    pub f16_share_max: Option<f64>,
}

/// The recipe's table `[prune]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PruneRecipe {
    /// Share of a picture's multiply-adds to remove, above 0 and below 1.
    pub share: Option<f64>,
    /// How close pruned pictures must be to the others, in decibels at the median.
    pub db_min: Option<f64>,
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`RecipeError`] if it is missing, not TOML, or has unknown keys.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let text = read_text(path, "name a TOML file such as models/recipes/plantain-icons.toml")?;
        toml::from_str(&text).map_err(|error| RecipeError::Malformed {
            path: path.to_owned(),
            problem: error.to_string().replace('\n', " "),
        })
    }
}

/// A text file.
fn read_text(path: &Path, advice: &'static str) -> Result<String, RecipeError> {
    std::fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => RecipeError::Missing { path: path.to_owned(), advice },
        _ => RecipeError::Read { path: path.to_owned(), source },
    })
}

/// A JSON file.
fn read_json(path: &Path, advice: &'static str) -> Result<serde_json::Value, RecipeError> {
    serde_json::from_str(&read_text(path, advice)?).map_err(|error| RecipeError::Malformed {
        path: path.to_owned(),
        problem: format!("not JSON: {error}"),
    })
}

#[cfg(test)]
mod tests;
