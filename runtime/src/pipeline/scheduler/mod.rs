//! Noise schedulers: which timesteps the denoiser sees, and what its answer does to the latent.
//!
//! Enters: the pack's [`SchedulerSpec`], a number of steps, a latent with what the denoiser said about it. Leaves:
//! the latent of the next step. Never: the denoiser, guidance, randomness of its own (noise is handed in).
//!
//! Tables are made in f64 with add, multiply, divide and square root alone, and rounded to f32; a step is one
//! pass over f32 values in one order of operations. Both are the same on every CPU.

mod alphas;
mod ddim;
mod flow_match_euler;
mod lcm;

use super::spec::{Prediction, SchedulerSpec};

pub use ddim::Ddim;
pub use flow_match_euler::FlowMatchEuler;
pub use lcm::Lcm;

/// The most denoising steps of a picture.
pub const STEPS_MAX: u32 = 1000;

/// A request or a pack whose numbers no schedule fits.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SchedulerError {
    /// None at all.
    #[error("0 denoising steps make no picture; ask for 1 or more")]
    NoSteps,
    /// More than there are timesteps.
    #[error(
        "{steps} denoising steps were asked for but this pack allows at most {max}; ask for fewer"
    )]
    TooManySteps {
        /// As asked.
        steps: u32,
        /// Of this scheduler.
        max: u32,
    },
    /// A scheduler whose mathematics lacks this prediction.
    #[error(
        "the pack's scheduler {scheduler} cannot use a denoiser that predicts {prediction:?}; pack it again"
    )]
    Prediction {
        /// Which.
        scheduler: &'static str,
        /// As the pack says.
        prediction: Prediction,
    },
    /// A number that is out of range.
    #[error("the pack's scheduler has {name} = {value}; it must be {range}; pack it again")]
    Number {
        /// As in the pack.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
}

/// A schedule of one picture.
pub trait Scheduler {
    /// Denoising steps.
    fn steps(&self) -> usize;

    /// What the denoiser is told at a step.
    ///
    /// # Panics
    /// If `step` is not below [`Scheduler::steps`].
    fn timestep(&self, step: usize) -> f32;

    /// Whether [`Scheduler::step`] reads its noise.
    fn adds_noise(&self, _step: usize) -> bool {
        false
    }

    /// Replaces the latent of `step` by the next one.
    ///
    /// # Shape    `latent`, `output`, `noise`: equally long; `noise` may be empty if `adds_noise` says no
    /// # Panics   if `step` is not below [`Scheduler::steps`] or lengths differ
    fn step(&self, step: usize, latent: &mut [f32], output: &[f32], noise: &[f32]);
}

/// The schedule that a pack names, for a number of steps.
///
/// # Errors
/// [`SchedulerError`] if `steps` is 0 or too large, or the pack's numbers fit no schedule.
pub fn schedule(
    spec: &SchedulerSpec,
    prediction: Prediction,
    steps: u32,
) -> Result<Box<dyn Scheduler>, SchedulerError> {
    if steps == 0 {
        return Err(SchedulerError::NoSteps);
    }
    if steps > STEPS_MAX {
        return Err(SchedulerError::TooManySteps { steps, max: STEPS_MAX });
    }
    Ok(match spec {
        SchedulerSpec::FlowMatchEuler { .. } => {
            Box::new(FlowMatchEuler::new(spec, prediction, steps)?)
        }
        SchedulerSpec::Ddim { .. } => Box::new(Ddim::new(spec, prediction, steps)?),
        SchedulerSpec::Lcm { .. } => Box::new(Lcm::new(spec, prediction, steps)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::BetaSchedule;

    #[derive(serde::Deserialize)]
    struct Case {
        spec: SchedulerSpec,
        prediction: Prediction,
        steps: u32,
        timesteps: Vec<f32>,
        samples: Vec<Vec<f32>>,
    }

    /// golden.json holds what diffusers computed; golden.py made it.
    #[test]
    fn schedules_are_those_of_diffusers() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("golden.json")).unwrap();
        assert_eq!(cases.len(), 15);
        for case in cases {
            let scheduler = schedule(&case.spec, case.prediction, case.steps).unwrap();
            assert_eq!(scheduler.steps(), case.timesteps.len(), "{:?}", case.spec);
            let mut latent = [1.5, -0.25, 0.75, -2.0];
            for (step, expected) in case.samples.iter().enumerate() {
                let timestep = scheduler.timestep(step);
                assert!((timestep - case.timesteps[step]).abs() < 1e-3, "{:?}", case.spec);
                let output = latent.map(|x| 0.375 * x + 0.0625 - 0.25 * (timestep / 1000.0));
                let n = step as f32;
                let noise = [0.5 + 0.25 * n, -1.0, 0.125 * n, 1.0];
                scheduler.step(step, &mut latent, &output, &noise);
                for (ours, theirs) in latent.iter().zip(expected) {
                    let near = (ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0);
                    assert!(
                        near,
                        "{:?} step {step}: {latent:?}, diffusers {expected:?}",
                        case.spec
                    );
                }
            }
        }
    }

    fn flow(shift: f32) -> SchedulerSpec {
        SchedulerSpec::FlowMatchEuler {
            num_train_timesteps: 1000,
            shift,
            timestep_is_data_fraction: true,
        }
    }

    /// The prototype of the bundled model counts t from 0 (noise) to 1 and writes a step as
    /// `x + (t1 - t0) (x0 - x) / (1 - t0)`: Euler on sigma = 1 - t with a denoiser that predicts the sample.
    #[test]
    fn the_prototypes_convention_is_flow_matching_with_predicted_samples() {
        for steps in [1, 2, 5] {
            let scheduler = schedule(&flow(1.0), Prediction::Sample, steps).unwrap();
            let mut latent = [1.5, -0.25, 0.75, -2.0f32];
            let mut prototype = latent;
            for step in 0..steps as usize {
                let (t0, t1) = (step as f32 / steps as f32, (step + 1) as f32 / steps as f32);
                assert!((scheduler.timestep(step) - t0).abs() < 1e-6);
                let denoise = |x: f32| (0.7 * x + 0.1) * (1.0 - 0.5 * t0);
                let output = latent.map(denoise);
                scheduler.step(step, &mut latent, &output, &[]);
                prototype = prototype.map(|x| x + (t1 - t0) * (denoise(x) - x) / (1.0 - t0));
            }
            for (ours, theirs) in latent.iter().zip(prototype) {
                assert!((ours - theirs).abs() < 1e-6, "{steps} steps: {latent:?} {prototype:?}");
            }
        }
    }

    #[test]
    fn the_last_step_lands_on_the_predicted_sample_exactly() {
        let scheduler = schedule(&flow(3.0), Prediction::Sample, 1).unwrap();
        let mut latent = [0.1, 1e8];
        scheduler.step(0, &mut latent, &[0.3, 0.2], &[]);
        assert_eq!(latent, [0.3, 0.2]);
    }

    #[test]
    fn impossible_numbers_are_refused_with_them() {
        let steps = |steps| schedule(&flow(1.0), Prediction::Flow, steps).err();
        assert_eq!(steps(0), Some(SchedulerError::NoSteps));
        assert_eq!(steps(1001), Some(SchedulerError::TooManySteps { steps: 1001, max: 1000 }));
        assert!(schedule(&flow(f32::NAN), Prediction::Flow, 1).is_err());
        assert!(schedule(&flow(1.0), Prediction::Epsilon, 1).is_err());
        let ddim = |num_train_timesteps, beta_end| SchedulerSpec::Ddim {
            num_train_timesteps,
            beta_start: 0.001,
            beta_end,
            beta_schedule: BetaSchedule::Linear,
            steps_offset: 1,
            set_alpha_to_one: true,
            clip_sample: false,
        };
        assert!(schedule(&ddim(10, 0.1), Prediction::Epsilon, 11).is_err());
        assert!(schedule(&ddim(0, 0.1), Prediction::Epsilon, 1).is_err());
        assert!(schedule(&ddim(u32::MAX, 0.1), Prediction::Epsilon, 1).is_err());
        assert!(schedule(&ddim(1000, 1.5), Prediction::Epsilon, 1).is_err());
        assert!(schedule(&ddim(1000, 0.1), Prediction::Flow, 1).is_err());
        assert!(schedule(&ddim(10, 0.1), Prediction::Epsilon, 10).is_ok());
        let lcm = |original_inference_steps| SchedulerSpec::Lcm {
            num_train_timesteps: 1000,
            beta_start: 0.001,
            beta_end: 0.01,
            beta_schedule: BetaSchedule::Linear,
            original_inference_steps,
            timestep_scaling: 10.0,
            set_alpha_to_one: true,
        };
        assert!(schedule(&lcm(50), Prediction::Epsilon, 51).is_err());
        assert!(schedule(&lcm(0), Prediction::Epsilon, 1).is_err());
        assert!(schedule(&lcm(1001), Prediction::Epsilon, 1).is_err());
        assert!(schedule(&lcm(50), Prediction::Epsilon, 50).is_ok());
    }
}
