//! Picture sizes: from what the networks leave open and what the folder and the recipe say.

use plantain::graph::Binding;
use plantain::pipeline::SizeSpec;
use serde_json::Value;

use super::{Folder, Recipe, RecipeError};

/// The largest side that is offered where nobody names one.
const SIDE_MAX: u32 = 1024;

/// What the networks say about sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeFacts {
    /// Channels of the latent.
    pub latent_channels: u32,
    /// Pixels of the picture on one side of a latent cell.
    pub cell_pixels: u32,
    /// The sizes that the denoiser was imported at, in latent cells.
    pub imported: Binding,
    /// Whether every network takes other heights and widths.
    pub free: bool,
    /// Heights and widths in latent cells must divide by this.
    pub unit: u32,
    /// How much larger the enlarger makes a picture.
    pub enlarge: Option<u32>,
}

pub(super) fn build_size(
    folder: &Folder,
    recipe: &Recipe,
    facts: &SizeFacts,
) -> Result<SizeSpec, RecipeError> {
    let index_path = folder.path.join("model_index.json");
    let pair = |key: &str| -> Result<Option<[u32; 2]>, RecipeError> {
        let Some(value) = folder.plantain(key) else { return Ok(None) };
        serde_json::from_value(value.clone()).map(Some).map_err(|_| RecipeError::Malformed {
            path: index_path.clone(),
            problem: format!("plantain.{key} is {value}; it should be [width, height]"),
        })
    };
    let listed: Vec<[u32; 2]> = match folder.plantain("sizes") {
        None => Vec::new(),
        Some(value) => serde_json::from_value(value.clone()).map_err(|_| {
            let problem = format!("plantain.sizes is {value}; it should list [width, height]");
            RecipeError::Malformed { path: index_path.clone(), problem }
        })?,
    };
    let imported = [facts.imported.width, facts.imported.height].map(|n| n * facts.cell_pixels);
    let multiple = facts.unit * facts.cell_pixels;
    let config = folder.component("denoiser").and_then(|c| c.config.as_ref());
    let sample_size = config.and_then(|c| c.get("sample_size")?.as_u64()).map(|cells| {
        let side = cells as u32 * facts.cell_pixels;
        [side, side]
    });
    let (default, min, max) = if facts.free {
        let default = recipe
            .size_default
            .or(pair("size_default")?)
            .or(listed.first().copied())
            .or(sample_size)
            .unwrap_or(imported);
        let both = |pick: fn(u32, u32) -> u32| {
            listed.iter().copied().reduce(|a, b| [pick(a[0], b[0]), pick(a[1], b[1])])
        };
        let min = recipe
            .size_min
            .or(pair("size_min")?)
            .or(both(u32::min))
            .unwrap_or([multiple, multiple]);
        let max = recipe
            .size_max
            .or(pair("size_max")?)
            .or(both(u32::max))
            .unwrap_or(default.map(|side| side.max(SIDE_MAX)));
        (default, min, max)
    } else {
        (imported, imported, imported)
    };
    for (what, size) in [("default", default), ("smallest", min), ("largest", max)] {
        let fits = size.iter().all(|side| *side > 0 && side.is_multiple_of(multiple));
        let ordered = (0..2).all(|i| min[i] <= size[i] && size[i] <= max[i]);
        if !fits || !ordered {
            return Err(RecipeError::Malformed {
                path: index_path,
                problem: format!(
                    "the {what} size is {} x {}; sides must be multiples of {multiple} from {} x {} to {} x {}",
                    size[0], size[1], min[0], min[1], max[0], max[1]
                ),
            });
        }
    }
    let range = match (recipe.image_range, folder.plantain("image_range")) {
        (Some(range), _) => range,
        (None, None) => [-1.0, 1.0],
        (None, Some(value)) => serde_json::from_value(value.clone()).map_err(|_| {
            let problem = format!("plantain.image_range is {value}; it should be [black, white]");
            RecipeError::Malformed { path: index_path.clone(), problem }
        })?,
    };
    let decoder = folder.component("decoder").and_then(|c| c.config.as_ref());
    let number = |key: &str| decoder.and_then(|config| config.get(key)).and_then(Value::as_f64);
    let scale = number("scaling_factor")
        .or_else(|| folder.plantain("latent_scaling_factor").and_then(Value::as_f64))
        .unwrap_or(1.0);
    Ok(SizeSpec {
        latent_channels: facts.latent_channels,
        cell_pixels: facts.cell_pixels,
        default,
        min,
        max,
        multiple,
        range,
        latent_scale: scale as f32,
        latent_shift: number("shift_factor").unwrap_or(0.0) as f32,
        enlarge: facts.enlarge,
    })
}
