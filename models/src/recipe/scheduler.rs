//! `scheduler/scheduler_config.json`, in diffusers' names and with diffusers' defaults.

use std::path::Path;

use plantain::pipeline::{BetaSchedule, Prediction, SchedulerSpec};
use serde_json::Value;

use super::{RecipeError, read_json};

/// Reads the scheduler and what the denoiser predicts.
///
/// # Errors
/// [`RecipeError`] if there is none, or it is of a kind or has settings that plantain does not do.
pub fn read_scheduler(folder: &Path) -> Result<(SchedulerSpec, Prediction), RecipeError> {
    let path = folder.join("scheduler").join("scheduler_config.json");
    let config = read_json(&path, "a pipeline needs its scheduler's configuration")?;
    let reader = Reader { path: &path, config: &config };
    let class = reader.text("_class_name", "")?;
    let num_train_timesteps = reader.whole("num_train_timesteps", 1000)?;
    let scheduler = match class {
        "FlowMatchEulerDiscreteScheduler" => {
            for key in [
                "use_karras_sigmas",
                "use_exponential_sigmas",
                "use_beta_sigmas",
                "use_dynamic_shifting",
                "invert_sigmas",
            ] {
                reader.off(key)?;
            }
            let input = reader.text("plantain_timestep_input", "timestep")?;
            let timestep_is_data_fraction = match input {
                "time" => true,
                "timestep" => false,
                other => {
                    return Err(reader.unsupported(
                        "plantain_timestep_input",
                        other,
                        "use \"timestep\" or \"time\"",
                    ));
                }
            };
            SchedulerSpec::FlowMatchEuler {
                num_train_timesteps,
                shift: reader.number("shift", 1.0)?,
                timestep_is_data_fraction,
            }
        }
        "DDIMScheduler" => {
            reader.off("thresholding")?;
            reader.off("rescale_betas_zero_snr")?;
            reader.spacing("leading")?;
            SchedulerSpec::Ddim {
                num_train_timesteps,
                beta_start: reader.number("beta_start", 0.0001)?,
                beta_end: reader.number("beta_end", 0.02)?,
                beta_schedule: reader.beta_schedule("linear")?,
                steps_offset: reader.whole("steps_offset", 0)?,
                set_alpha_to_one: reader.flag("set_alpha_to_one", true)?,
                clip_sample: reader.flag("clip_sample", true)?,
            }
        }
        "LCMScheduler" => {
            reader.off("thresholding")?;
            reader.off("rescale_betas_zero_snr")?;
            reader.off("clip_sample")?;
            reader.spacing("leading")?;
            SchedulerSpec::Lcm {
                num_train_timesteps,
                beta_start: reader.number("beta_start", 0.00085)?,
                beta_end: reader.number("beta_end", 0.012)?,
                beta_schedule: reader.beta_schedule("scaled_linear")?,
                original_inference_steps: reader.whole("original_inference_steps", 50)?,
                timestep_scaling: reader.number("timestep_scaling", 10.0)?,
                set_alpha_to_one: reader.flag("set_alpha_to_one", true)?,
            }
        }
        other => {
            return Err(RecipeError::UnknownScheduler {
                path: path.clone(),
                name: other.to_owned(),
            });
        }
    };
    let natural = match scheduler {
        SchedulerSpec::FlowMatchEuler { .. } => "flow_prediction",
        _ => "epsilon",
    };
    let prediction = match reader.text("prediction_type", natural)? {
        "epsilon" => Prediction::Epsilon,
        "sample" => Prediction::Sample,
        "v_prediction" => Prediction::VPrediction,
        "flow_prediction" | "flow" => Prediction::Flow,
        other => {
            let advice = "epsilon, sample, v_prediction and flow_prediction work";
            return Err(reader.unsupported("prediction_type", other, advice));
        }
    };
    Ok((scheduler, prediction))
}

struct Reader<'a> {
    path: &'a Path,
    config: &'a Value,
}

impl<'a> Reader<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, needed: &str) -> RecipeError {
        let value = self.get(key).map(Value::to_string).unwrap_or_default();
        RecipeError::Malformed {
            path: self.path.to_owned(),
            problem: format!("{key} is {value}; it should be {needed}"),
        }
    }

    fn unsupported(&self, key: &str, value: &str, advice: &str) -> RecipeError {
        RecipeError::Unsupported {
            path: self.path.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            advice: advice.to_owned(),
        }
    }

    fn text(&self, key: &str, otherwise: &'a str) -> Result<&'a str, RecipeError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => value.as_str().ok_or_else(|| self.wrong(key, "text")),
        }
    }

    fn number(&self, key: &str, otherwise: f32) -> Result<f32, RecipeError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => value
                .as_f64()
                .map(|value| value as f32)
                .filter(|value| value.is_finite())
                .ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    fn whole(&self, key: &str, otherwise: u32) -> Result<u32, RecipeError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => value
                .as_u64()
                .and_then(|value| u32::try_from(value).ok())
                .ok_or_else(|| self.wrong(key, "a whole number")),
        }
    }

    fn flag(&self, key: &str, otherwise: bool) -> Result<bool, RecipeError> {
        match self.get(key) {
            None => Ok(otherwise),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    fn off(&self, key: &str) -> Result<(), RecipeError> {
        match self.flag(key, false)? {
            false => Ok(()),
            true => Err(self.unsupported(key, "true", "set it to false or use another scheduler")),
        }
    }

    fn spacing(&self, known: &'static str) -> Result<(), RecipeError> {
        match self.text("timestep_spacing", known)? {
            found if found == known => Ok(()),
            other => Err(self.unsupported("timestep_spacing", other, "\"leading\" works")),
        }
    }

    fn beta_schedule(&self, otherwise: &'static str) -> Result<BetaSchedule, RecipeError> {
        match self.text("beta_schedule", otherwise)? {
            "linear" => Ok(BetaSchedule::Linear),
            "scaled_linear" => Ok(BetaSchedule::ScaledLinear),
            other => Err(self.unsupported("beta_schedule", other, "linear and scaled_linear work")),
        }
    }
}
