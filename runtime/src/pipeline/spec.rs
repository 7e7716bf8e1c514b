//! What a pack says about its pipeline: the JSON under `plantain.pipeline`.

use serde::{Deserialize, Serialize};

/// Everything between a prompt and a picture that is not a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Text to ids.
    pub tokenizer: TokenizerSpec,
    /// Latent and picture sizes.
    pub size: SizeSpec,
    /// The noise scheduler and its numbers.
    pub scheduler: SchedulerSpec,
    /// What the denoiser predicts.
    pub prediction: Prediction,
    /// How the networks are fed.
    pub wiring: Wiring,
    /// Denoising steps if the user names none.
    pub steps_default: u32,
    /// Guidance if the user names none; 1 runs no unconditional pass.
    pub guidance_scale_default: f32,
    /// Named styles; the first is used if the user names none and `style_default` is set.
    #[serde(default)]
    pub styles: Vec<Style>,
    /// Style used if the user names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style_default: Option<String>,
    /// What the model knows, if its vocabulary is closed: words that a user may look up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// Other names of the words: known too, but not listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synonyms: Vec<String>,
}

/// How a prompt becomes token ids. Tables are u8 tensors of the pack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSpec {
    /// Which algorithm.
    pub kind: TokenizerKind,
    /// Ids of one prompt, with the special ones: longer prompts are cut and said to be.
    pub tokens_max: u32,
    /// Lower-case, strip accents, split CJK: BERT's uncased normaliser.
    pub uncased: bool,
    /// Put before the prompt: `[CLS]`, `<|startoftext|>`.
    pub start_id: u32,
    /// Put after it: `[SEP]`, `<|endoftext|>`.
    pub end_id: u32,
    /// Fills up to `tokens_max`.
    pub pad_id: u32,
    /// For what the vocabulary lacks (WordPiece).
    pub unknown_id: u32,
    /// Vocabulary: entries sorted by their bytes, see `pipeline::tokenizer`.
    pub vocabulary: String,
    /// Merge ranks, BPE only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merges: Option<String>,
}

/// Tokenizer algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// BERT's greedy longest match (Wu et al. 2016).
    WordPiece,
    /// CLIP's byte-pair encoding with `</w>` (Sennrich et al. 2016; Radford et al. 2021).
    ClipBpe,
}

/// Sizes. One latent cell is `cell_pixels` square pixels of the final picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeSpec {
    /// Channels of the latent `[b, h, w, channels]`.
    pub latent_channels: u32,
    /// Side of one latent cell in pixels of the final picture (after the refiner).
    pub cell_pixels: u32,
    /// Default picture size: width, height.
    pub default: [u32; 2],
    /// Smallest picture: width, height.
    pub min: [u32; 2],
    /// Largest picture: width, height. Equal to `min` where the networks allow one size only.
    pub max: [u32; 2],
    /// Width and height must divide by this.
    pub multiple: u32,
    /// The decoder's (or refiner's) values that become black and white.
    pub range: [f32; 2],
    /// The latent is divided by this before decoding (diffusers' scaling_factor), after which
    /// `latent_shift` is added.
    pub latent_scale: f32,
    /// See `latent_scale`.
    pub latent_shift: f32,
    /// The enlarger draws pictures this much larger than the sizes above, on both sides; only with an enlarger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enlarge: Option<u32>,
}

impl SizeSpec {
    /// The size up to the refiner of a picture of this size, and whether the enlarger is needed for it. `None` if there is no such picture.
    pub fn base(&self, size: [u32; 2]) -> Option<([u32; 2], bool)> {
        let plain = |size: [u32; 2]| {
            (0..2).all(|axis| {
                (self.min[axis]..=self.max[axis]).contains(&size[axis])
                    && size[axis].is_multiple_of(self.multiple.max(1))
            })
        };
        if plain(size) {
            return Some((size, false));
        }
        let factor = self.enlarge.filter(|&factor| factor > 1)?;
        let base = size.map(|side| side / factor);
        (base.map(|side| side * factor) == size && plain(base)).then_some((base, true))
    }
}

/// Noise schedulers. Names and numbers as in diffusers' scheduler_config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SchedulerSpec {
    /// Rectified flow, Euler steps (Liu et al. 2022; Esser et al. 2024). sigma runs from 1 (noise) to 0.
    FlowMatchEuler {
        /// Timesteps of training; the denoiser is told `sigma * num_train_timesteps`, or, with
        /// `timestep_is_data_fraction`, `1 - sigma`.
        num_train_timesteps: u32,
        /// Timestep shift: `shift * s / (1 + (shift - 1) * s)`.
        shift: f32,
        /// The denoiser is told the fraction of data, `1 - sigma`, instead, and steps are even in it:
        /// `sigma = 1 - i / steps`. Otherwise sigmas run from 1 to the smallest of training, then to 0,
        /// as in diffusers.
        timestep_is_data_fraction: bool,
    },
    /// DDIM (Song et al. 2020), eta 0, timesteps with spacing "leading".
    Ddim {
        /// Timesteps of training.
        num_train_timesteps: u32,
        /// First beta.
        beta_start: f32,
        /// Last beta.
        beta_end: f32,
        /// How betas run between them.
        beta_schedule: BetaSchedule,
        /// Added to every timestep.
        steps_offset: u32,
        /// The last step goes to alpha 1 instead of the first alpha.
        set_alpha_to_one: bool,
        /// Clip predicted samples to `[-1, 1]`.
        clip_sample: bool,
    },
    /// Latent consistency models (Luo et al. 2023).
    Lcm {
        /// Timesteps of training.
        num_train_timesteps: u32,
        /// First beta.
        beta_start: f32,
        /// Last beta.
        beta_end: f32,
        /// How betas run between them.
        beta_schedule: BetaSchedule,
        /// Steps of the solver that was distilled.
        original_inference_steps: u32,
        /// Timestep scaling of the boundary condition.
        timestep_scaling: f32,
        /// The last step goes to alpha 1 instead of the first alpha.
        set_alpha_to_one: bool,
    },
}

/// Noise variance between the first and the last timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Linear in beta.
    Linear,
    /// Linear in the root of beta.
    ScaledLinear,
}

/// What the denoiser's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The clean latent.
    Sample,
    /// `alpha * noise - sigma * sample` (Salimans and Ho 2022).
    VPrediction,
    /// `noise - sample`, rectified flow's velocity.
    Flow,
}

/// Names of the networks' inputs and outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wiring {
    /// i32 `[b, tokens]`.
    pub text_ids: String,
    /// f32 `[b, tokens]`, 1 for real tokens; absent where the encoder has no mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_mask: Option<String>,
    /// The text encoder's output that the denoiser reads.
    pub text_states: String,
    /// Noisy latent `[b, h, w, c]`.
    pub denoiser_sample: String,
    /// f32 `[b]`.
    pub denoiser_timestep: String,
    /// Text states.
    pub denoiser_states: String,
    /// f32 `[b, tokens]`; absent where the denoiser attends to padding too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denoiser_mask: Option<String>,
    /// Latent `[1, h, w, c]`.
    pub decoder_latent: String,
    /// Picture `[1, h, w, 3]`; only with a refiner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refiner_image: Option<String>,
    /// Picture `[1, h, w, 3]`; only with an enlarger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enlarger_image: Option<String>,
}

/// A look that a prompt can name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Style {
    /// As the user writes it.
    pub name: String,
    /// The prompt that is encoded; `{prompt}` stands for the user's.
    pub prompt: String,
    /// Negative prompt if the user gives none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub negative: String,
}
