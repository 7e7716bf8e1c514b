//! Products of `1 - beta`, from which variance-preserving schedulers take all their numbers.

use super::super::spec::{BetaSchedule, Prediction};
use super::SchedulerError;

/// More timesteps of training than any model has.
const TIMESTEPS_MAX: u32 = 100_000;

/// `alpha_bar` by timestep of training.
///
/// # Errors
/// [`SchedulerError::Number`] if a beta is not between 0 and 1 or there are no timesteps.
///
/// # Source
/// Ho et al. 2020; diffusers' `scaled_linear` is linear in the root of beta
pub fn alphas_cumulative(
    num_train_timesteps: u32,
    beta_start: f32,
    beta_end: f32,
    schedule: BetaSchedule,
) -> Result<Vec<f64>, SchedulerError> {
    check(
        "num_train_timesteps",
        f64::from(num_train_timesteps),
        1.0,
        TIMESTEPS_MAX.into(),
        "1 to 100000",
    )?;
    check("beta_start", f64::from(beta_start), 1e-9, 0.999, "between 0 and 1")?;
    check("beta_end", f64::from(beta_end), 1e-9, 0.999, "between 0 and 1")?;
    let (start, end) = match schedule {
        BetaSchedule::Linear => (f64::from(beta_start), f64::from(beta_end)),
        BetaSchedule::ScaledLinear => (f64::from(beta_start).sqrt(), f64::from(beta_end).sqrt()),
    };
    let last = f64::from(num_train_timesteps.max(2) - 1);
    let alphas = (0..num_train_timesteps).scan(1.0f64, |product, index| {
        let value = start + (end - start) * (f64::from(index) / last);
        let beta = match schedule {
            BetaSchedule::Linear => value,
            BetaSchedule::ScaledLinear => value * value,
        };
        *product *= 1.0 - beta;
        Some(*product)
    });
    Ok(alphas.collect())
}

/// Refuses numbers outside `min..=max`, NaN among them.
pub fn check(
    name: &'static str,
    value: f64,
    min: f64,
    max: f64,
    range: &'static str,
) -> Result<(), SchedulerError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(SchedulerError::Number { name, value, range })
}

/// How the clean latent follows from the noisy one and the denoiser's output: `sample * latent + output *
/// output`.
#[derive(Clone, Copy, Debug)]
pub struct ToSample {
    latent: f32,
    output: f32,
}

impl ToSample {
    /// At a timestep whose cumulative alpha is given.
    ///
    /// # Errors
    /// [`SchedulerError::Prediction`] for rectified flow.
    pub fn new(
        alpha: f64,
        prediction: Prediction,
        scheduler: &'static str,
    ) -> Result<Self, SchedulerError> {
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (latent, output) = match prediction {
            Prediction::Epsilon => (1.0 / signal, -noise / signal),
            Prediction::Sample => (0.0, 1.0),
            Prediction::VPrediction => (signal, -noise),
            Prediction::Flow => return Err(SchedulerError::Prediction { scheduler, prediction }),
        };
        Ok(ToSample { latent: latent as f32, output: output as f32 })
    }

    /// The clean latent.
    pub fn apply(&self, latent: f32, output: f32) -> f32 {
        self.latent.mul_add(latent, self.output * output)
    }
}
