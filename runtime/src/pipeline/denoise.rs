//! The denoise loop: noise to latent.

use super::draw::Meter;
use super::error::PipelineError;
use super::networks::{Buffers, Loaded};
use super::render::{Source, render};
use super::request::Stage;
use super::scheduler::Scheduler;
use super::spec::PipelineSpec;
use crate::rng::{Stream, fill_normal};

/// Runs all steps; the latent is left in the buffers. With `preview`, which has a place for the pixels, the picture as it
/// stands is told after each step but the last.
///
/// Expects the text states of every sample in the buffers: the prompt's, then, with guidance, the negative
/// prompt's.
pub fn denoise(
    loaded: &mut Loaded,
    spec: &PipelineSpec,
    scheduler: &dyn Scheduler,
    guidance_scale: f32,
    seed: u64,
    mut preview: Option<&mut [u8]>,
    meter: &mut Meter<'_>,
) -> Result<(), PipelineError> {
    let wiring = &spec.wiring;
    fill_normal(seed, Stream::Latent, &mut loaded.buffers.latent);
    if let Some(cache) = &mut loaded.step_cache {
        cache.reset();
    }
    for step in 0..scheduler.steps() {
        let Loaded { engine, denoiser, buffers, runs_per_step: runs, step_cache, .. } =
            &mut *loaded;
        let Buffers { latent, sample, output, noise, timestep, states, mask, .. } = buffers;
        let latent_len = latent.len();
        for copy in sample.chunks_exact_mut(latent_len) {
            copy.copy_from_slice(latent);
        }
        let now = scheduler.timestep(step);
        timestep.fill(now);
        let expected = step_cache.as_mut().filter(|cache| !cache.computes(step, scheduler.steps()));
        let computes = expected.is_none();
        if let Some(cache) = expected {
            cache.expect(now, &mut output[..latent_len]);
        }
        for run in 0..if computes { *runs } else { 0 } {
            engine.set_input(*denoiser, &wiring.denoiser_sample, part(sample, run, *runs))?;
            engine.set_input(*denoiser, &wiring.denoiser_timestep, part(timestep, run, *runs))?;
            engine.set_input(*denoiser, &wiring.denoiser_states, part(states, run, *runs))?;
            if let Some(name) = &wiring.denoiser_mask {
                engine.set_input(*denoiser, name, part(mask, run, *runs))?;
            }
            meter.run(engine, *denoiser, Stage::Denoise)?;
            let len = output.len() / *runs;
            engine.read_output(*denoiser, 0, &mut output[run * len..(run + 1) * len])?;
        }
        if computes {
            guide(output, latent_len, guidance_scale);
            if let Some(cache) = step_cache {
                cache.keep(now, &output[..latent_len]);
            }
        }
        if scheduler.adds_noise(step) {
            fill_normal(seed, Stream::Step(step as u32), noise);
        }
        scheduler.step(step, latent, &output[..latent_len], noise);
        meter.step_done();
        if let Some(pixels) = &mut preview
            && step + 1 < scheduler.steps()
        {
            let stage = render(loaded, spec, Source::preview(spec.prediction), pixels, meter)?;
            meter.tell_preview(stage, loaded, pixels)?;
        }
    }
    Ok(())
}

/// The values of one run.
fn part(values: &[f32], run: usize, runs: usize) -> &[f32] {
    let len = values.len() / runs;
    &values[run * len..(run + 1) * len]
}

/// Mixes the conditional answer (first) with the unconditional one (second, if there is one) into the first:
/// `unconditional + scale * (conditional - unconditional)`.
///
/// # Source
/// Ho and Salimans 2022
fn guide(output: &mut [f32], sample_len: usize, scale: f32) {
    let (conditional, unconditional) = output.split_at_mut(sample_len);
    for (c, &u) in conditional.iter_mut().zip(&*unconditional) {
        *c = scale.mul_add(*c - u, u);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_moves_away_from_the_unconditional_answer() {
        let mut output = [1.0, 2.0, 0.5, 4.0];
        guide(&mut output, 2, 3.0);
        assert_eq!(output, [2.0, -2.0, 0.5, 4.0]);
        let mut alone = [1.0, 2.0];
        guide(&mut alone, 2, 1.0);
        assert_eq!(alone, [1.0, 2.0]);
    }
}
