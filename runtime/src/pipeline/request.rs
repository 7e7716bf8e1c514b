//! What a user asks for, and how far it is.

use super::error::PipelineError;
use super::spec::{PipelineSpec, SizeSpec};
use super::step_cache::StepCache;
use crate::image::{Channels, Pixels};

/// How a pipeline is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes that the whole process may take; as many as are fast if `None`.
    pub budget_bytes: Option<u64>,
    /// Threads that compute, the caller counted; one for each CPU if `None`.
    pub threads: Option<usize>,
    /// Picture size to prepare: width, height; the pack's default if `None`. Requests may name others, which are
    /// prepared when they come.
    pub size: Option<[u32; 2]>,
    /// Guidance scale to prepare for; the pack's default if `None`.
    pub guidance_scale: Option<f32>,
    /// Run the denoiser at every so many steps only, beside the first two and the last, and expect its answers between; see
    /// [`StepCache`](super::StepCache). Pictures differ from those without it, and say so.
    pub step_cache: Option<u32>,
    /// Cores that the threads are kept on, one each, the calling thread's first; where the system puts them if empty.
    pub cores: Vec<usize>,
}

/// One picture that is wanted. What is `None` is the pack's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// What to draw.
    pub prompt: String,
    /// What to keep out; has an effect only where guidance is not 1.
    pub negative: Option<String>,
    /// Name of one of the pack's styles, or `none`.
    pub style: Option<String>,
    /// Same seed, same picture.
    pub seed: u64,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// How much the prompt weighs: 1 takes the denoiser's answer as it is, more costs a second pass a step.
    pub guidance_scale: Option<f32>,
    /// Pixels: width, height.
    pub size: Option<[u32; 2]>,
    /// Show the picture after each denoising step but the last, for the price of the decoder and the refiner. The
    /// finished picture is the same.
    pub preview: bool,
}

impl Request {
    /// A picture of this, with the pack's defaults.
    pub fn new(prompt: impl Into<String>) -> Self {
        Request { prompt: prompt.into(), ..Request::default() }
    }

    /// The same with another seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// What is being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Prompt to text states.
    TextEncoder,
    /// Noise to latent.
    Denoise,
    /// Latent to image.
    Decode,
    /// Image to better image.
    Refine,
    /// Image to larger image.
    Enlarge,
}

impl Stage {
    /// As reports name it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::TextEncoder => "text_encoder",
            Stage::Denoise => "denoise",
            Stage::Decode => "decode",
            Stage::Refine => "refine",
            Stage::Enlarge => "enlarge",
        }
    }
}

/// The picture as it stands after a step, in the size of the finished one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preview<'p> {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Of a pixel.
    pub channels: Channels,
    /// `[height, width, channels]`
    pub bytes: &'p [u8],
}

impl Preview<'_> {
    /// A copy that can be encoded.
    pub fn to_pixels(&self) -> Pixels {
        Pixels::new(self.width, self.height, self.channels, self.bytes.to_vec())
            .expect("a preview has the picture's bytes")
    }
}

/// How far a picture is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'p> {
    /// What is being run.
    pub stage: Stage,
    /// Denoising steps that are done.
    pub step: u32,
    /// Denoising steps in all.
    pub steps: u32,
    /// Share of the picture's arithmetic that is done, 0 to 1; never falls.
    pub fraction: f32,
    /// After a step, if the request asks for it.
    pub preview: Option<Preview<'p>>,
}

/// What a request comes to with the pack's defaults filled in, every number checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub prompt: String,
    pub negative: String,
    /// By the user, not by the style.
    pub negative_given: bool,
    pub style: Option<String>,
    pub steps: u32,
    pub guidance_scale: f32,
    pub size: [u32; 2],
}

/// The largest guidance scale.
const GUIDANCE_SCALE_MAX: f32 = 100.0;
/// The style that is none.
const NO_STYLE: &str = "none";

impl Resolved {
    pub fn new(request: &Request, spec: &PipelineSpec) -> Result<Self, PipelineError> {
        let prompt = super::tokenizer::check_prompt(request.prompt.as_bytes())?;
        let style = find_style(spec, request.style.as_deref())?;
        let negative = match (&request.negative, style) {
            (Some(negative), _) => negative.as_str(),
            (None, Some(style)) => &style.negative,
            (None, None) => "",
        };
        Ok(Resolved {
            prompt: match style {
                Some(style) => style.prompt.replace("{prompt}", prompt),
                None => prompt.to_owned(),
            },
            negative: negative.to_owned(),
            negative_given: request.negative.as_ref().is_some_and(|text| !text.is_empty()),
            style: style.map(|style| style.name.clone()),
            steps: request.steps.unwrap_or(spec.steps_default),
            guidance_scale: check_guidance(request.guidance_scale, spec)?,
            size: check_size(request.size, &spec.size)?,
        })
    }
}

fn find_style<'s>(
    spec: &'s PipelineSpec,
    name: Option<&str>,
) -> Result<Option<&'s super::Style>, PipelineError> {
    let Some(name) = name.or(spec.style_default.as_deref()) else { return Ok(None) };
    let found = spec.styles.iter().find(|style| style.name.eq_ignore_ascii_case(name));
    match found {
        Some(style) => Ok(Some(style)),
        None if name == NO_STYLE => Ok(None),
        None => {
            let names: Vec<&str> = spec.styles.iter().map(|style| &*style.name).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(PipelineError::Style { name: name.to_owned(), has })
        }
    }
}

/// The guidance scale that holds.
pub fn check_guidance(scale: Option<f32>, spec: &PipelineSpec) -> Result<f32, PipelineError> {
    let scale = scale.unwrap_or(spec.guidance_scale_default);
    if (0.0..=GUIDANCE_SCALE_MAX).contains(&scale) {
        Ok(scale)
    } else {
        Err(PipelineError::Guidance { scale, max: GUIDANCE_SCALE_MAX })
    }
}

/// Refuses a distance between computed steps that is none, or so large that no picture is left.
pub fn check_step_cache(every: Option<u32>) -> Result<(), PipelineError> {
    let [min, max] = StepCache::EVERY;
    match every {
        Some(every) if !(min..=max).contains(&every) => {
            Err(PipelineError::StepCache { every, min, max })
        }
        _ => Ok(()),
    }
}

/// The picture size that holds: width, height.
pub fn check_size(size: Option<[u32; 2]>, spec: &SizeSpec) -> Result<[u32; 2], PipelineError> {
    let size = size.unwrap_or(spec.default);
    let [width, height] = size;
    if spec.base(size).is_some() {
        return Ok(size);
    }
    let multiple = spec.multiple.max(1);
    if width % multiple != 0 || height % multiple != 0 {
        let round = |side: u32, min: u32, max: u32| {
            (side.saturating_add(multiple / 2) / multiple * multiple).clamp(min, max)
        };
        return Err(PipelineError::SizeMultiple {
            width,
            height,
            multiple,
            nearest_width: round(width, spec.min[0], spec.max[0]),
            nearest_height: round(height, spec.min[1], spec.max[1]),
        });
    }
    let (min, max, enlarge) = (spec.min, spec.max, spec.enlarge.unwrap_or(1));
    Err(PipelineError::SizeRange { width, height, min, max, enlarge })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PipelineSpec {
        serde_json::from_value(serde_json::json!({
            "tokenizer": {"kind": "word_piece", "tokens_max": 7, "uncased": true, "start_id": 1,
                          "end_id": 2, "pad_id": 0, "unknown_id": 3, "vocabulary": "v"},
            "size": {"latent_channels": 4, "cell_pixels": 8, "default": [128, 64], "min": [64, 64],
                     "max": [256, 128], "multiple": 32, "range": [-1.0, 1.0], "latent_scale": 1.0,
                     "latent_shift": 0.0},
            "scheduler": {"kind": "flow_match_euler", "num_train_timesteps": 1000, "shift": 1.0,
                          "timestep_is_data_fraction": false},
            "prediction": "flow",
            "wiring": {"text_ids": "i", "text_states": "s", "denoiser_sample": "x",
                       "denoiser_timestep": "t", "denoiser_states": "s", "decoder_latent": "l"},
            "steps_default": 2, "guidance_scale_default": 3.5,
            "styles": [{"name": "3d render", "prompt": "{prompt}, 3d render", "negative": "flat"},
                       {"name": "flat", "prompt": "flat {prompt}"}],
            "style_default": "3d render"
        }))
        .unwrap()
    }

    #[test]
    fn defaults_are_the_packs() {
        let resolved = Resolved::new(&Request::new("a cat"), &spec()).unwrap();
        let expected = Resolved {
            prompt: "a cat, 3d render".to_owned(),
            negative: "flat".to_owned(),
            negative_given: false,
            style: Some("3d render".to_owned()),
            steps: 2,
            guidance_scale: 3.5,
            size: [128, 64],
        };
        assert_eq!(resolved, expected);
        let request = Request {
            style: Some("none".to_owned()),
            negative: Some("dog".to_owned()),
            ..Request::new("a cat")
        };
        let resolved = Resolved::new(&request, &spec()).unwrap();
        assert_eq!((&*resolved.prompt, &*resolved.negative), ("a cat", "dog"));
        let request = Request { style: Some("Flat".to_owned()), ..Request::new("a cat") };
        assert_eq!(Resolved::new(&request, &spec()).unwrap().prompt, "flat a cat");
    }

    #[test]
    fn an_enlarger_adds_larger_sizes_only() {
        let plain = spec().size;
        let enlarging = SizeSpec { enlarge: Some(2), ..plain.clone() };
        assert_eq!(plain.base([128, 64]), Some(([128, 64], false)));
        assert_eq!(plain.base([512, 256]), None);
        assert_eq!(enlarging.base([256, 128]), Some(([256, 128], false)), "no need to enlarge");
        assert_eq!(enlarging.base([512, 256]), Some(([256, 128], true)));
        for size in [[1024, 256], [513, 256], [32, 32], [0, 0]] {
            assert_eq!(enlarging.base(size), None, "{size:?}");
            let sentence = check_size(Some(size), &enlarging).unwrap_err().to_string();
            assert!(sentence.contains("nearest") || sentence.contains("2 times"), "{sentence}");
        }
        assert_eq!(check_size(Some([320, 256]), &enlarging).unwrap(), [320, 256]);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_in_one_sentence() {
        let refuse = |request: Request| Resolved::new(&request, &spec()).unwrap_err().to_string();
        let cat = || Request::new("a cat");
        let sizes = [
            ([100, 64], "100x64 is not a multiple of 32 on both sides; the nearest is 96x64"),
            ([0, 64], "0x64 is outside 64x64 to 256x128"),
            ([512, 64], "512x64 is outside 64x64 to 256x128"),
            ([u32::MAX, 65], "the nearest is 256x64"),
        ];
        for (size, words) in sizes {
            let sentence = refuse(Request { size: Some(size), ..cat() });
            assert!(sentence.contains(words), "{sentence}");
        }
        for scale in [f32::NAN, -1.0, f32::INFINITY, 1e9] {
            refuse(Request { guidance_scale: Some(scale), ..cat() });
        }
        let sentence = refuse(Request { style: Some("baroque".to_owned()), ..cat() });
        assert!(sentence.contains("baroque") && sentence.contains("3d render, flat"), "{sentence}");
        refuse(Request::new("  "));
        refuse(Request::new("x".repeat(10 << 20)));
    }
}
