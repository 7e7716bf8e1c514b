//! One picture, from token ids to pixels: what runs without allocating, and what counts it.

use std::ops::ControlFlow;

use super::cost::{Clock, CostReport, peak_rss_bytes};
use super::denoise::denoise;
use super::error::PipelineError;
use super::networks::Loaded;
use super::render::{Source, render};
use super::request::{Preview, Progress, Stage};
use super::scheduler::Scheduler;
use super::spec::PipelineSpec;
use super::step_cache::StepCache;
use super::text::{TextStates, fill_mask};
use super::tokenizer::TokenCount;
use crate::engine::{Engine, NetworkIndex};
use crate::image::Pixels;

/// What a picture is drawn with.
pub struct Canvas<'p> {
    pub spec: &'p PipelineSpec,
    pub scheduler: &'p dyn Scheduler,
    pub loaded: &'p mut Loaded,
    pub texts: &'p mut TextStates,
}

/// What is drawn.
pub struct Drawing<'p> {
    /// Token ids of the prompt and, with guidance, of the negative prompt.
    pub ids: &'p [Vec<i32>],
    pub counts: [TokenCount; 2],
    pub guidance_scale: f32,
    pub seed: u64,
    pub preview: bool,
    pub budget_bytes: Option<u64>,
}

/// What came out.
pub struct Drawn {
    pub pixels: Pixels,
    pub cost: CostReport,
    /// Where the prompt's states are kept.
    pub prompt_place: usize,
}

impl Canvas<'_> {
    pub fn draw(
        self,
        drawing: &Drawing<'_>,
        clock: Clock,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Drawn, PipelineError> {
        let Canvas { spec, scheduler, loaded, texts } = self;
        let (wiring, rows) = (&spec.wiring, loaded.rows);
        let unknown = |id: &&i32| u32::try_from(**id).map_or(true, |id| id >= rows);
        if let Some(&id) = drawing.ids.iter().flatten().find(unknown) {
            return Err(PipelineError::TokenId { id, rows });
        }
        let mut pixels = vec![0; loaded.pixel_bytes()];
        let missing = drawing.ids.iter().filter(|ids| !texts.has(ids)).count() as u64;
        let steps = scheduler.steps() as u32;
        let previews = if drawing.preview { u64::from(steps.saturating_sub(1)) } else { 0 };
        let computed = match &loaded.step_cache {
            Some(cache) => cache.computed_of(scheduler.steps()) as u32,
            None => steps,
        };
        let runs = [missing, u64::from(computed), 1 + previews];
        let mut meter = Meter::new(progress, clock, loaded, steps, runs);
        let first = if missing > 0 { Stage::TextEncoder } else { Stage::Denoise };
        meter.tell(first, 0.0)?;

        let mut prompt_place = 0;
        let mut same = true;
        for (sample, (ids, count)) in drawing.ids.iter().zip(drawing.counts).enumerate().rev() {
            let used = count.used as usize;
            prompt_place = texts.encode(loaded, wiring, ids, used, &mut meter)?;
            let (states_len, tokens) = (loaded.states_len, ids.len());
            let (states, mask) = (sample * states_len, sample * tokens);
            let held = &mut loaded.buffers.states[states..states + states_len];
            same &= bits_equal(held, texts.states(prompt_place));
            held.copy_from_slice(texts.states(prompt_place));
            let held = &mut loaded.buffers.mask[mask..mask + tokens];
            same &= held.iter().filter(|&&value| value == 1.0).count() == used;
            fill_mask(held, used);
        }
        if !same {
            loaded.engine.forget(loaded.denoiser);
        }
        let (guidance, seed) = (drawing.guidance_scale, drawing.seed);
        let preview = drawing.preview.then_some(&mut pixels[..]);
        denoise(loaded, spec, scheduler, guidance, seed, preview, &mut meter)?;
        let last = render(loaded, spec, Source::Latent, &mut pixels, &mut meter)?;
        meter.tell(last, 1.0)?;

        let (seconds, cpu_seconds) = meter.clock.stop();
        let cached = loaded.step_cache.as_ref();
        let cache_bytes = cached.map_or(0, |_| StepCache::bytes_of(loaded.buffers.latent.len()));
        let cost = CostReport {
            tokens: drawing.counts[0].used,
            steps,
            denoiser_samples: computed * drawing.ids.len() as u32,
            seconds,
            cpu_seconds,
            threads: loaded.engine.threads() as u32,
            arena_bytes: loaded.engine.arena_bytes() as u64,
            buffer_bytes: (loaded.buffers.bytes() + texts.bytes() + cache_bytes) as u64,
            budget_bytes: drawing.budget_bytes,
            peak_rss_bytes: peak_rss_bytes(),
        };
        let [width, height] = loaded.shape.size;
        let pixels = Pixels::new(width, height, loaded.channels, pixels)
            .expect("pixel_bytes is width * height * channels");
        Ok(Drawn { pixels, cost, prompt_place })
    }
}

fn bits_equal(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Runs networks, takes their time and tells the caller how far the picture is.
pub struct Meter<'p> {
    progress: &'p mut dyn FnMut(Progress) -> ControlFlow<()>,
    clock: Clock,
    step: u32,
    steps: u32,
    /// Multiply-adds of one run by network.
    macs: [u64; 5],
    done: u64,
    total: u64,
}

impl<'p> Meter<'p> {
    fn new(
        progress: &'p mut dyn FnMut(Progress) -> ControlFlow<()>,
        mut clock: Clock,
        loaded: &Loaded,
        steps: u32,
        [texts, computed, renderings]: [u64; 3],
    ) -> Self {
        let mut macs = [0; 5];
        let networks = [loaded.text_encoder, loaded.denoiser, loaded.decoder];
        for network in networks.into_iter().chain(loaded.refiner).chain(loaded.enlarger) {
            macs[network.0] = loaded.macs(network).max(1);
        }
        let runs = computed * loaded.runs_per_step as u64;
        let total = texts * macs[0] + runs * macs[1] + renderings * (macs[2] + macs[3] + macs[4]);
        clock.lap_prepare();
        Meter { progress, clock, step: 0, steps, macs, done: 0, total }
    }

    /// Tells the caller, who may stop the picture.
    fn tell(&mut self, stage: Stage, fraction: f32) -> Result<(), PipelineError> {
        let (step, steps) = (self.step, self.steps);
        match (self.progress)(Progress { stage, step, steps, fraction, preview: None }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(PipelineError::Cancelled),
        }
    }

    /// Shows the caller the picture as it stands.
    pub fn tell_preview(
        &mut self,
        stage: Stage,
        loaded: &Loaded,
        bytes: &[u8],
    ) -> Result<(), PipelineError> {
        let [width, height] = loaded.shape.size;
        let preview = Some(Preview { width, height, channels: loaded.channels, bytes });
        let (step, steps) = (self.step, self.steps);
        let fraction = (self.done as f64 / self.total as f64).min(1.0) as f32;
        match (self.progress)(Progress { stage, step, steps, fraction, preview }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(PipelineError::Cancelled),
        }
    }

    /// Runs a network on the inputs that were set.
    pub fn run(
        &mut self,
        engine: &mut Engine,
        network: NetworkIndex,
        stage: Stage,
    ) -> Result<(), PipelineError> {
        let Meter { progress, step, steps, macs, done, total, .. } = self;
        let run = macs[network.0] as f64;
        engine.run_observed(network, &mut |engine| {
            let share = engine.done as f64 / engine.steps.max(1) as f64;
            let fraction = ((*done as f64 + run * share) / *total as f64).min(1.0) as f32;
            let (step, steps) = (*step, *steps);
            progress(Progress { stage, step, steps, fraction, preview: None })
        })?;
        self.done += macs[network.0];
        self.lap(stage);
        Ok(())
    }

    /// Counts a denoising step.
    pub fn step_done(&mut self) {
        self.step += 1;
        self.lap(Stage::Denoise);
    }

    /// Books the time since the last lap on a stage.
    pub fn lap(&mut self, stage: Stage) {
        self.clock.lap_stage(stage);
    }
}
