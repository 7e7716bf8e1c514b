//! Denoising diffusion implicit models with eta 0: no noise is added on the way.

use super::super::spec::{Prediction, SchedulerSpec};
use super::alphas::{ToSample, alphas_cumulative};
use super::{Scheduler, SchedulerError};

/// DDIM on timesteps with diffusers' spacing "leading".
#[derive(Clone, Debug)]
pub struct Ddim {
    steps: Vec<DdimStep>,
    clip_sample: bool,
    prediction: Prediction,
}

#[derive(Clone, Copy, Debug)]
struct DdimStep {
    timestep: u32,
    to_sample: ToSample,
    /// Roots of the cumulative alpha, and of what is left of 1: now and after the step.
    signal: f32,
    noise: f32,
    signal_next: f32,
    noise_next: f32,
}

impl Ddim {
    /// A schedule of `steps` steps.
    ///
    /// # Errors
    /// [`SchedulerError`] if the numbers fit none.
    ///
    /// # Panics
    /// If `spec` is another scheduler's.
    ///
    /// # Source
    /// Song et al. 2020, equation 12
    pub fn new(
        spec: &SchedulerSpec,
        prediction: Prediction,
        steps: u32,
    ) -> Result<Self, SchedulerError> {
        let &SchedulerSpec::Ddim {
            num_train_timesteps: train,
            beta_start,
            beta_end,
            beta_schedule,
            steps_offset,
            set_alpha_to_one,
            clip_sample,
        } = spec
        else {
            panic!("{spec:?} is not DDIM");
        };
        let alphas = alphas_cumulative(train, beta_start, beta_end, beta_schedule)?;
        if steps > train {
            return Err(SchedulerError::TooManySteps { steps, max: train });
        }
        let stride = train / steps;
        let last = if set_alpha_to_one { 1.0 } else { alphas[0] };
        let steps = (0..steps)
            .rev()
            .map(|index| {
                let timestep = (index * stride).saturating_add(steps_offset).min(train - 1);
                let alpha = alphas[timestep as usize];
                let next = timestep.checked_sub(stride).map_or(last, |t| alphas[t as usize]);
                Ok(DdimStep {
                    timestep,
                    to_sample: ToSample::new(alpha, prediction, "ddim")?,
                    signal: alpha.sqrt() as f32,
                    noise: (1.0 - alpha).sqrt() as f32,
                    signal_next: next.sqrt() as f32,
                    noise_next: (1.0 - next).sqrt() as f32,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Ddim { steps, clip_sample, prediction })
    }
}

impl Scheduler for Ddim {
    fn steps(&self) -> usize {
        self.steps.len()
    }

    fn timestep(&self, step: usize) -> f32 {
        self.steps[step].timestep as f32
    }

    fn step(&self, step: usize, latent: &mut [f32], output: &[f32], _noise: &[f32]) {
        assert_eq!(latent.len(), output.len(), "latent and output differ in length");
        let s = self.steps[step];
        for (x, &output) in latent.iter_mut().zip(output) {
            let sample = s.to_sample.apply(*x, output);
            // As in diffusers, clipping leaves the noise as it was predicted.
            let noise = match self.prediction {
                Prediction::Epsilon => output,
                Prediction::VPrediction => s.signal.mul_add(output, s.noise * *x),
                _ => s.signal.mul_add(-sample, *x) / s.noise,
            };
            let sample = if self.clip_sample { sample.clamp(-1.0, 1.0) } else { sample };
            *x = s.signal_next.mul_add(sample, s.noise_next * noise);
        }
    }
}
