//! A prompt to a picture with any backend: what calibration runs on and what `verify` compares with.
//!
//! Enters: a pipeline's description, networks behind [`NetworkRun`], prompts and seeds. Leaves: the picture and
//! every network's inputs on the way. Never: budgets, files. Tokenizer, schedule and noise are the runtime's own,
//! so that all backends start from the same numbers.

mod backends;
mod random;

use std::collections::BTreeMap;

use plantain::graph::Binding;
use plantain::pipeline::scheduler::{SchedulerError, schedule};
use plantain::pipeline::tokenizer::{PromptError, Tokenizer, TokenizerError};
use plantain::pipeline::{PipelineSpec, SizeSpec};
use plantain::rng::{Stream, fill_normal};

pub use backends::{BackendError, EngineRun, EvaluatorRun};
pub use random::random_inputs;

use crate::evaluate::Array;
use crate::quantise::Inputs;

/// Runs networks by name: in float, or with the engine.
pub trait NetworkRun {
    /// One run of a network by its name in the pack; outputs in the graph's order.
    ///
    /// # Errors
    /// What the backend says.
    fn run(
        &self,
        network: &str,
        binding: Binding,
        inputs: &Inputs,
    ) -> Result<Vec<Array>, Box<dyn std::error::Error + Send + Sync>>;

    /// Whether there is a network of this name.
    fn has(&self, network: &str) -> bool;
}

/// Why a chain drew nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The tokenizer's tables.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The schedule.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// A network.
    #[error("the run of the {network} failed: {source}")]
    Network {
        /// Which.
        network: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A network without outputs.
    #[error("the {network} has no output; a pipeline needs one of each network")]
    NoOutput {
        /// Which.
        network: String,
    },
}

/// What to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// As it is encoded: with its style.
    pub prompt: String,
    /// As it is encoded; used with guidance only.
    pub negative: String,
    /// Of the noise.
    pub seed: u64,
    /// Denoising steps.
    pub steps: u32,
    /// 1 runs no unconditional pass.
    pub guidance_scale: f32,
    /// Width, height in pixels.
    pub size: [u32; 2],
}

impl Request {
    /// With the pipeline's defaults.
    pub fn new(spec: &PipelineSpec, prompt: &str, style: Option<&str>, seed: u64) -> Self {
        let style = spec.styles.iter().find(|s| Some(s.name.as_str()) == style);
        Request {
            prompt: style
                .map_or_else(|| prompt.to_owned(), |s| s.prompt.replace("{prompt}", prompt)),
            negative: style.map(|s| s.negative.clone()).unwrap_or_default(),
            seed,
            steps: spec.steps_default,
            guidance_scale: spec.guidance_scale_default,
            size: spec.size.default,
        }
    }
}

/// Inputs of every run on the way to one picture, batch 1 each, by network, with the picture.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// By network: inputs of each run.
    pub inputs: BTreeMap<&'static str, Vec<Inputs>>,
    /// `[h, w, 3]`, bytes.
    pub picture: Vec<u8>,
    /// Width, height.
    pub size: [u32; 2],
}

/// The chain of one pipeline.
pub struct Chain<'a> {
    spec: &'a PipelineSpec,
    tokenizer: Tokenizer<'a>,
    networks: &'a dyn NetworkRun,
}

impl<'a> Chain<'a> {
    /// A chain over a pipeline's tokenizer tables and networks.
    ///
    /// # Errors
    /// [`ChainError::Tokenizer`]
    pub fn new(
        spec: &'a PipelineSpec,
        vocabulary: &'a [u8],
        merges: Option<&'a [u8]>,
        networks: &'a dyn NetworkRun,
    ) -> Result<Self, ChainError> {
        Ok(Chain {
            spec,
            tokenizer: Tokenizer::new(&spec.tokenizer, vocabulary, merges)?,
            networks,
        })
    }

    /// The sizes that a network of a drawn picture ran at, batch 1: latent cells, or, for the refiner and the enlarger,
    /// pixels of the picture that they are given.
    pub fn binding_of(&self, network: &str, size: [u32; 2], trace: &Trace) -> Binding {
        let wiring = &self.spec.wiring;
        let name = match network {
            "refiner" => wiring.refiner_image.as_ref(),
            "enlarger" => wiring.enlarger_image.as_ref(),
            _ => None,
        };
        match name.and_then(|name| trace.inputs.get(network)?.first()?.get(name)) {
            Some(image) => pixel_binding(image),
            None => latent_binding(&self.spec.size, size),
        }
    }

    /// Draws one picture.
    ///
    /// # Errors
    /// [`ChainError`]
    pub fn draw(&self, request: &Request) -> Result<Trace, ChainError> {
        let mut trace = Trace { size: request.size, ..Trace::default() };
        let states = self.encode(&request.prompt, request.size, &mut trace)?;
        let guided = request.guidance_scale != 1.0;
        let unconditional =
            guided.then(|| self.encode(&request.negative, request.size, &mut trace)).transpose()?;
        let binding = latent_binding(&self.spec.size, request.size);
        let channels = self.spec.size.latent_channels as usize;
        let mut latent =
            Array::zeros(&[1, binding.height as usize, binding.width as usize, channels]);
        fill_normal(request.seed, Stream::Latent, &mut latent.values);
        let steps = schedule(&self.spec.scheduler, self.spec.prediction, request.steps)?;
        let mut noise = vec![0.0; latent.values.len()];
        for step in 0..steps.steps() {
            let timestep = steps.timestep(step);
            let mut output = self.denoise(&latent, timestep, &states, request, &mut trace)?;
            if let Some(unconditional) = &unconditional {
                let base = self.denoise(&latent, timestep, unconditional, request, &mut trace)?;
                for (conditional, base) in output.values.iter_mut().zip(&base.values) {
                    *conditional = base + request.guidance_scale * (*conditional - base);
                }
            }
            if steps.adds_noise(step) {
                fill_normal(request.seed, Stream::Step(step as u32), &mut noise);
            }
            steps.step(step, &mut latent.values, &output.values, &noise);
        }
        let size = &self.spec.size;
        latent.values.iter_mut().for_each(|x| *x = *x / size.latent_scale + size.latent_shift);
        let wiring = &self.spec.wiring;
        let inputs = Inputs::from([(wiring.decoder_latent.clone(), latent)]);
        let mut image = self.first("decoder", binding, inputs, &mut trace)?;
        if let Some(name) = wiring.refiner_image.as_ref().filter(|_| self.networks.has("refiner")) {
            let binding = pixel_binding(&image);
            let inputs = Inputs::from([(name.clone(), image)]);
            image = self.first("refiner", binding, inputs, &mut trace)?;
        }
        trace.picture = to_bytes(&image, size.range);
        // The picture stays as it is: the run is for those who look at the networks' inputs.
        if let Some(name) = wiring.enlarger_image.as_ref().filter(|_| self.networks.has("enlarger"))
        {
            let binding = pixel_binding(&image);
            let inputs = Inputs::from([(name.clone(), image)]);
            self.first("enlarger", binding, inputs, &mut trace)?;
        }
        Ok(trace)
    }

    /// The mean of a text's states over its tokens, the special ones among them, scaled to length 1.
    ///
    /// # Errors
    /// [`ChainError`]
    pub fn mean_state(&self, text: &str) -> Result<Vec<f32>, ChainError> {
        let mut trace = Trace::default();
        let (states, mask) = self.encode(text, self.spec.size.default, &mut trace)?;
        let channels = states.channels();
        let mut mean = vec![0.0f32; channels];
        for (state, _) in
            states.values.chunks(channels).zip(&mask.values).filter(|(_, used)| **used > 0.0)
        {
            mean.iter_mut().zip(state).for_each(|(m, s)| *m += s);
        }
        let length = mean.iter().map(|m| m * m).sum::<f32>().sqrt();
        mean.iter_mut().for_each(|m| *m /= length.max(f32::MIN_POSITIVE));
        Ok(mean)
    }

    /// Text states and mask.
    fn encode(
        &self,
        text: &str,
        size: [u32; 2],
        trace: &mut Trace,
    ) -> Result<(Array, Array), ChainError> {
        let tokens = self.spec.tokenizer.tokens_max as usize;
        let mut ids = vec![0; tokens];
        let used = self.tokenizer.encode(text, &mut ids)?.used as usize;
        let row = |values| Array { shape: vec![1, tokens], values };
        let mask = row((0..tokens).map(|i| f32::from(u8::from(i < used))).collect());
        let ids = row(ids.into_iter().map(|id| id as f32).collect());
        let mut inputs = Inputs::from([(self.spec.wiring.text_ids.clone(), ids)]);
        if let Some(name) = &self.spec.wiring.text_mask {
            inputs.insert(name.clone(), mask.clone());
        }
        let binding = latent_binding(&self.spec.size, size);
        Ok((self.first("text_encoder", binding, inputs, trace)?, mask))
    }

    fn denoise(
        &self,
        latent: &Array,
        timestep: f32,
        (states, mask): &(Array, Array),
        request: &Request,
        trace: &mut Trace,
    ) -> Result<Array, ChainError> {
        let wiring = &self.spec.wiring;
        let mut inputs = Inputs::from([
            (wiring.denoiser_sample.clone(), latent.clone()),
            (wiring.denoiser_timestep.clone(), Array { shape: vec![1], values: vec![timestep] }),
            (wiring.denoiser_states.clone(), states.clone()),
        ]);
        if let Some(name) = &wiring.denoiser_mask {
            inputs.insert(name.clone(), mask.clone());
        }
        self.first("denoiser", latent_binding(&self.spec.size, request.size), inputs, trace)
    }

    fn first(
        &self,
        network: &'static str,
        binding: Binding,
        inputs: Inputs,
        trace: &mut Trace,
    ) -> Result<Array, ChainError> {
        let outputs = self
            .networks
            .run(network, binding, &inputs)
            .map_err(|source| ChainError::Network { network: network.to_owned(), source })?;
        trace.inputs.entry(network).or_default().push(inputs);
        outputs
            .into_iter()
            .next()
            .ok_or_else(|| ChainError::NoOutput { network: network.to_owned() })
    }
}

/// Latent cells of a picture size, batch 1.
pub fn latent_binding(size: &SizeSpec, pixels: [u32; 2]) -> Binding {
    Binding { batch: 1, height: pixels[1] / size.cell_pixels, width: pixels[0] / size.cell_pixels }
}

/// Pixels of a decoded picture, batch 1.
fn pixel_binding(image: &Array) -> Binding {
    Binding { batch: 1, height: image.shape[1] as u32, width: image.shape[2] as u32 }
}

/// Values of the last network to bytes, half to even.
pub fn to_bytes(image: &Array, [black, white]: [f32; 2]) -> Vec<u8> {
    let level =
        |x: f32| ((x.clamp(black, white) - black) / (white - black) * 255.0).round_ties_even();
    image.values.iter().map(|&x| level(x) as u8).collect()
}
