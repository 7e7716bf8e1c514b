//! The pipeline itself: opens a pack, answers requests.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::cost::Clock;
use super::draw::{Canvas, Drawing};
use super::error::PipelineError;
use super::networks::{Loaded, Shape};
use super::picture::{Picture, Warning};
use super::request::{
    Options, Progress, Request, Resolved, check_guidance, check_size, check_step_cache,
};
use super::scheduler::schedule;
use super::spec::PipelineSpec;
use super::text::TextStates;
use super::tokenizer::{TokenCount, Tokenizer};
use super::vocabulary;
use crate::engine::{Engine, EngineOptions};
use crate::image::Marking;
use crate::pack::Pack;

/// A pack that is ready to draw.
pub struct Pipeline {
    pack: Arc<Pack>,
    spec: PipelineSpec,
    options: Options,
    /// `None` only if a size could not be prepared, nor the one before it again.
    loaded: Option<Loaded>,
    texts: TextStates,
    /// Token ids of the prompt and the negative prompt: `[tokens_max]` each.
    ids: [Vec<i32>; 2],
}

impl Pipeline {
    /// Opens a pack and prepares its networks.
    ///
    /// # Errors
    /// [`PipelineError`] if the pack is damaged or not a pipeline, or does not fit the budget.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, PipelineError> {
        Self::new(Arc::new(Pack::open(path)?), options)
    }

    /// As [`Pipeline::open`], with a pack that is open already.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn new(pack: Arc<Pack>, options: Options) -> Result<Self, PipelineError> {
        let spec = pack.pipeline()?.clone();
        let guidance_scale = check_guidance(options.guidance_scale, &spec)?;
        let size = check_size(options.size, &spec.size)?;
        let shape =
            Shape { size, batch: batch(guidance_scale), many_steps: spec.steps_default > 1 };
        schedule(&spec.scheduler, spec.prediction, spec.steps_default)?;
        check_step_cache(options.step_cache)?;
        let loaded =
            Loaded::new(&pack, &spec, shape, options.step_cache, &engine_options(&options))?;
        let tokens = spec.tokenizer.tokens_max as usize;
        let texts = TextStates::new(tokens, loaded.states_len);
        let ids = [vec![0; tokens], vec![0; tokens]];
        let pipeline = Pipeline { pack, spec, options, loaded: Some(loaded), texts, ids };
        pipeline.tokenizer()?;
        pipeline.release_tables()?;
        Ok(pipeline)
    }

    /// The open pack.
    pub fn pack(&self) -> &Pack {
        &self.pack
    }

    /// What the pack says about its pipeline.
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// The engine with the networks in the order text encoder, denoiser, decoder, refiner, as it is planned now.
    ///
    /// `None` only after a size was refused and there was no memory for the one before it either.
    pub fn engine(&self) -> Option<&Engine> {
        self.loaded.as_ref().map(|loaded| &loaded.engine)
    }

    /// Draws a picture.
    ///
    /// `progress` is called from the calling thread: just before the first network runs, after each step of the plan,
    /// and when the pixels are finished; nothing is allocated between the first and the last call. If it breaks,
    /// drawing stops. The same pack and request give the same pixels on every CPU, with any number of threads and
    /// any budget.
    ///
    /// # Errors
    /// [`PipelineError`] if the request cannot be drawn; [`PipelineError::is_cancelled`] says whether `progress`
    /// broke.
    pub fn generate(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Picture, PipelineError> {
        let clock = Clock::start();
        let resolved = Resolved::new(request, &self.spec)?;
        let scheduler = schedule(&self.spec.scheduler, self.spec.prediction, resolved.steps)?;
        let batch = batch(resolved.guidance_scale);
        let counts = self.tokenise(&resolved, batch)?;
        self.prepare(Shape { size: resolved.size, batch, many_steps: resolved.steps > 1 })?;
        let mut warnings = warnings(&resolved, batch, counts);
        let marking = self.marking(request, &resolved);
        let Pipeline { spec, options, loaded, texts, ids, .. } = self;
        let loaded = loaded.as_mut().expect("prepare has loaded the networks");
        let canvas = Canvas { spec, scheduler: &*scheduler, loaded, texts };
        let drawing = Drawing {
            ids: &ids[..batch as usize],
            counts,
            guidance_scale: resolved.guidance_scale,
            seed: request.seed,
            preview: request.preview,
            budget_bytes: options.budget_bytes,
        };
        let drawn = canvas.draw(&drawing, clock, progress)?;
        warnings.extend(self.unknown_words(&request.prompt, drawn.prompt_place, counts[0]));
        Ok(Picture { pixels: drawn.pixels, marking, cost: drawn.cost, warnings })
    }

    /// Plans and loads anew if size, batch or the need to keep something are others than now.
    fn prepare(&mut self, shape: Shape) -> Result<(), PipelineError> {
        let before = self.loaded.as_ref().map(|loaded| loaded.shape);
        if before == Some(shape) {
            return Ok(());
        }
        // Two arenas at once could be over the budget.
        self.loaded = None;
        let options = engine_options(&self.options);
        let cache = self.options.step_cache;
        let load = |shape| Loaded::new(&self.pack, &self.spec, shape, cache, &options);
        match load(shape) {
            Ok(loaded) => self.loaded = Some(loaded),
            Err(error) => {
                self.loaded = before.and_then(|shape| load(shape).ok());
                return Err(error);
            }
        }
        Ok(())
    }

    fn tokenizer(&self) -> Result<Tokenizer<'_>, PipelineError> {
        let table = |name: &str| -> Result<&[u8], PipelineError> {
            let tensor = self.pack.tensor(name)?;
            tensor.verify()?;
            Ok(tensor.as_u8()?)
        };
        let spec = &self.spec.tokenizer;
        let merges = spec.merges.as_deref().map(table).transpose()?;
        Ok(Tokenizer::new(spec, table(&spec.vocabulary)?, merges)?)
    }

    /// Fills `ids`; the tables are let go afterwards.
    fn tokenise(
        &mut self,
        resolved: &Resolved,
        batch: u32,
    ) -> Result<[TokenCount; 2], PipelineError> {
        let mut ids = std::mem::take(&mut self.ids);
        let counts = self.tokenizer().and_then(|tokenizer| {
            let prompt = tokenizer.encode(&resolved.prompt, &mut ids[0])?;
            let negative = match batch {
                1 => TokenCount::default(),
                _ => tokenizer.encode(&resolved.negative, &mut ids[1])?,
            };
            Ok([prompt, negative])
        });
        self.ids = ids;
        self.release_tables()?;
        counts
    }

    /// Lets go of the tokenizer's tables.
    fn release_tables(&self) -> Result<(), PipelineError> {
        let tables = &self.spec.tokenizer;
        for name in [Some(&tables.vocabulary), tables.merges.as_ref()].into_iter().flatten() {
            self.pack.release(self.pack.tensor(name)?.file_range())?;
        }
        Ok(())
    }

    fn unknown_words(&self, prompt: &str, place: usize, count: TokenCount) -> Option<Warning> {
        let words = &self.spec.words;
        let known = |words: &[String]| vocabulary::knows_a_word(words, prompt);
        if words.is_empty() || known(words) || known(&self.spec.synonyms) {
            return None;
        }
        let tokens = self.spec.tokenizer.tokens_max as usize;
        let (states, used) = (self.texts.states(place), count.used as usize);
        let closest = vocabulary::closest_by_meaning(&self.pack, words, states, tokens, used)
            .unwrap_or_else(|| vocabulary::closest_by_spelling(words, prompt));
        Some(Warning::UnknownWords { closest })
    }

    fn marking(&self, request: &Request, resolved: &Resolved) -> Marking {
        let negative = request.negative.as_ref().filter(|negative| !negative.is_empty());
        Marking {
            prompt: Some(request.prompt.clone()),
            negative: negative.cloned(),
            style: resolved.style.clone(),
            seed: request.seed,
            steps: resolved.steps,
            step_cache: self.options.step_cache,
            guidance_scale: resolved.guidance_scale,
            size: resolved.size,
            pack_sha256: self.pack.hash(),
        }
    }
}

fn warnings(resolved: &Resolved, batch: u32, counts: [TokenCount; 2]) -> Vec<Warning> {
    let [prompt, negative] = counts;
    let mut warnings = Vec::new();
    if prompt.whole > prompt.used {
        warnings.push(Warning::PromptCut { whole: prompt.whole, used: prompt.used });
    }
    if negative.whole > negative.used {
        warnings.push(Warning::NegativeCut { whole: negative.whole, used: negative.used });
    }
    if batch == 1 && resolved.negative_given {
        warnings.push(Warning::NegativeUnused);
    }
    warnings
}

/// Samples of the denoiser: guidance 1 needs no unconditional one.
fn batch(guidance_scale: f32) -> u32 {
    if guidance_scale == 1.0 { 1 } else { 2 }
}

fn engine_options(options: &Options) -> EngineOptions {
    let threads = options.threads.unwrap_or_else(|| match options.cores.len() {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        cores => cores,
    });
    let cores = options.cores.clone();
    EngineOptions { budget_bytes: options.budget_bytes, cores, ..EngineOptions::new(threads) }
}
