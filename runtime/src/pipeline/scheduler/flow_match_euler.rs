//! Rectified flow by Euler's method: the latent is `(1 - sigma) sample + sigma noise`, sigma falls to 0.

use super::super::spec::{Prediction, SchedulerSpec};
use super::alphas::check;
use super::{Scheduler, SchedulerError};

/// Euler's method along rectified flow.
///
/// A pack whose denoiser is told the fraction of data takes even steps, `sigma = 1 - i / steps`; another one
/// takes those of diffusers' `FlowMatchEulerDiscreteScheduler`, which end at the smallest sigma of training
/// before 0. `shift` bends either.
#[derive(Clone, Debug)]
pub struct FlowMatchEuler {
    /// `[steps + 1]`, the last is 0.
    sigmas: Vec<f64>,
    prediction: Prediction,
    timestep_factor: Option<f64>,
}

impl FlowMatchEuler {
    /// A schedule of `steps` steps.
    ///
    /// # Errors
    /// [`SchedulerError`] if the numbers fit none.
    ///
    /// # Panics
    /// If `spec` is another scheduler's or `steps` is 0.
    ///
    /// # Source
    /// Liu et al. 2022; Esser et al. 2024
    pub fn new(
        spec: &SchedulerSpec,
        prediction: Prediction,
        steps: u32,
    ) -> Result<Self, SchedulerError> {
        let &SchedulerSpec::FlowMatchEuler {
            num_train_timesteps,
            shift,
            timestep_is_data_fraction: even,
        } = spec
        else {
            panic!("{spec:?} is not flow matching");
        };
        if !matches!(prediction, Prediction::Flow | Prediction::Sample) {
            return Err(SchedulerError::Prediction { scheduler: "flow_match_euler", prediction });
        }
        let train = f64::from(num_train_timesteps);
        check("num_train_timesteps", train, 1.0, 1e5, "1 to 100000")?;
        check("shift", f64::from(shift), 1e-3, 1e3, "between 0.001 and 1000")?;
        let shift = f64::from(shift);
        let bend = |sigma: f64| shift * sigma / (1.0 + (shift - 1.0) * sigma);
        let count = f64::from(steps);
        let sigma_min = bend(1.0 / train);
        let mut sigmas: Vec<f64> = (0..steps)
            .map(|step| {
                let step = f64::from(step);
                bend(if even {
                    1.0 - step / count
                } else {
                    1.0 + (sigma_min - 1.0) * (step / (count - 1.0).max(1.0))
                })
            })
            .collect();
        sigmas.push(0.0);
        Ok(FlowMatchEuler { sigmas, prediction, timestep_factor: (!even).then_some(train) })
    }
}

impl Scheduler for FlowMatchEuler {
    fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    fn timestep(&self, step: usize) -> f32 {
        let sigma = self.sigmas[step];
        self.timestep_factor.map_or(1.0 - sigma, |factor| sigma * factor) as f32
    }

    fn step(&self, step: usize, latent: &mut [f32], output: &[f32], _noise: &[f32]) {
        assert_eq!(latent.len(), output.len(), "latent and output differ in length");
        let (sigma, next) = (self.sigmas[step], self.sigmas[step + 1]);
        // With velocity v: x + (next - sigma) v. With the sample s, v = (x - s) / sigma, which makes the
        // step a blend of x and s that lands on s itself where next is 0.
        let (keep, take) = match self.prediction {
            Prediction::Sample => ((next / sigma) as f32, (1.0 - next / sigma) as f32),
            _ => (1.0, (next - sigma) as f32),
        };
        for (x, &output) in latent.iter_mut().zip(output) {
            *x = keep.mul_add(*x, take * output);
        }
    }
}
