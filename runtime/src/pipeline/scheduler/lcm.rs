//! Latent consistency models: every step jumps to the sample, then noises it for the next one.

use super::super::spec::{Prediction, SchedulerSpec};
use super::alphas::{ToSample, alphas_cumulative, check};
use super::{Scheduler, SchedulerError};

/// Deviation of the data that the boundary condition assumes.
const SIGMA_DATA: f64 = 0.5;

/// Multistep sampling of a latent consistency model.
#[derive(Clone, Debug)]
pub struct Lcm {
    steps: Vec<LcmStep>,
}

#[derive(Clone, Copy, Debug)]
struct LcmStep {
    timestep: u32,
    to_sample: ToSample,
    /// Boundary condition: how much of the latent stays, how much of the sample counts.
    skip: f32,
    out: f32,
    /// Roots of the cumulative alpha after the step, and of what is left of 1.
    signal_next: f32,
    noise_next: f32,
}

impl Lcm {
    /// A schedule of `steps` steps.
    ///
    /// # Errors
    /// [`SchedulerError`] if the numbers fit none.
    ///
    /// # Panics
    /// If `spec` is another scheduler's.
    ///
    /// # Source
    /// Luo et al. 2023, algorithm 3; timesteps as diffusers' `LCMScheduler` picks them
    pub fn new(
        spec: &SchedulerSpec,
        prediction: Prediction,
        steps: u32,
    ) -> Result<Self, SchedulerError> {
        let &SchedulerSpec::Lcm {
            num_train_timesteps: train,
            beta_start,
            beta_end,
            beta_schedule,
            original_inference_steps: original,
            timestep_scaling,
            set_alpha_to_one: _,
        } = spec
        else {
            panic!("{spec:?} is not LCM");
        };
        let alphas = alphas_cumulative(train, beta_start, beta_end, beta_schedule)?;
        check("timestep_scaling", f64::from(timestep_scaling), 0.0, 1e6, "0 to 1000000")?;
        check(
            "original_inference_steps",
            f64::from(original),
            1.0,
            f64::from(train),
            "1 to num_train_timesteps",
        )?;
        if steps > original {
            return Err(SchedulerError::TooManySteps { steps, max: original });
        }
        let stride = train / original;
        let timestep = |step: u32| {
            let skipped = u64::from(step) * u64::from(original) / u64::from(steps);
            (original - skipped as u32) * stride - 1
        };
        let steps = (0..steps)
            .map(|step| {
                let now = timestep(step);
                let scaled = f64::from(now) * f64::from(timestep_scaling);
                let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
                let next = if step + 1 < steps { alphas[timestep(step + 1) as usize] } else { 1.0 };
                Ok(LcmStep {
                    timestep: now,
                    to_sample: ToSample::new(alphas[now as usize], prediction, "lcm")?,
                    skip: (SIGMA_DATA * SIGMA_DATA / variance) as f32,
                    out: (scaled / variance.sqrt()) as f32,
                    signal_next: next.sqrt() as f32,
                    noise_next: (1.0 - next).sqrt() as f32,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Lcm { steps })
    }
}

impl Scheduler for Lcm {
    fn steps(&self) -> usize {
        self.steps.len()
    }

    fn timestep(&self, step: usize) -> f32 {
        self.steps[step].timestep as f32
    }

    fn adds_noise(&self, step: usize) -> bool {
        step + 1 < self.steps.len()
    }

    fn step(&self, step: usize, latent: &mut [f32], output: &[f32], noise: &[f32]) {
        assert_eq!(latent.len(), output.len(), "latent and output differ in length");
        let s = self.steps[step];
        let denoised =
            |x: f32, output: f32| s.out.mul_add(s.to_sample.apply(x, output), s.skip * x);
        if self.adds_noise(step) {
            assert_eq!(latent.len(), noise.len(), "latent and noise differ in length");
            for ((x, &output), &noise) in latent.iter_mut().zip(output).zip(noise) {
                *x = s.signal_next.mul_add(denoised(*x, output), s.noise_next * noise);
            }
        } else {
            for (x, &output) in latent.iter_mut().zip(output) {
                *x = denoised(*x, output);
            }
        }
    }
}
