//! The artist that draws with plantain's own pipeline.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plantain::image::{self, Marking};
use plantain::pipeline::{Picture, Pipeline, Preview, Request};
use serde_json::{Map, Value, json};

use super::config::Config;
use super::drawer::{Artist, DrawError, Drawn, Step};
use super::sensors::Sensors;
use crate::encode::Encoding;
use crate::job::{Format, Job};
use crate::report;

/// A pipeline with the operator's last word.
pub struct PipelineArtist {
    pipeline: Pipeline,
    include_prompt: bool,
    deny_command: String,
    deny_limit: Duration,
    sensors: Sensors,
}

impl PipelineArtist {
    /// Draws with this pipeline.
    pub fn new(pipeline: Pipeline, config: &Config, sensors: Sensors) -> Self {
        PipelineArtist {
            pipeline,
            sensors,
            include_prompt: config.include_prompt,
            deny_command: config.deny_command.clone(),
            deny_limit: Duration::from_secs(u64::from(config.deny_seconds_max)),
        }
    }
}

impl Artist for PipelineArtist {
    fn draw(
        &mut self,
        job: &Job,
        image_bytes_max: usize,
        progress: &mut dyn FnMut(Option<Step>) -> bool,
    ) -> Result<Drawn, DrawError> {
        let drawing = &job.drawing;
        if !self.deny_command.is_empty() {
            allowed(&self.deny_command, &drawing.prompt, self.deny_limit)
                .map_err(DrawError::Failed)?;
        }
        let encoding = Encoding::of(drawing, self.include_prompt);
        let meter = self.sensors.meter();
        let mut images = Vec::new();
        let mut facts = Map::new();
        let mut listed = Vec::new();
        for index in 0..drawing.count {
            let request = Request {
                prompt: drawing.prompt.clone(),
                negative: (!drawing.negative.is_empty()).then(|| drawing.negative.clone()),
                style: drawing.style.clone(),
                seed: drawing.seed.wrapping_add(u64::from(index)),
                steps: drawing.steps,
                guidance_scale: drawing.guidance,
                size: drawing.size,
                preview: drawing.preview,
            };
            let mut said = 0;
            let mut observe = |now: plantain::pipeline::Progress| {
                // With previews a step is told with its picture, but for the last, which has none.
                let is_due = !drawing.preview || now.preview.is_some() || now.step == now.steps;
                let step = (now.step > said && is_due).then(|| Step {
                    done: index * now.steps + now.step,
                    all: drawing.count * now.steps,
                    preview: now.preview.and_then(|preview| encoded(preview, request.seed)),
                });
                said = if step.is_some() { now.step } else { said };
                if progress(step) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let picture = self.pipeline.generate(&request, &mut observe).map_err(|error| {
                if error.is_cancelled() {
                    DrawError::Cancelled
                } else {
                    DrawError::Failed(error.to_string())
                }
            })?;
            let encode = Instant::now();
            let (format, image) =
                fitting(&encoding, &picture, image_bytes_max).map_err(DrawError::Failed)?;
            let encode = encode.elapsed().as_secs_f64();
            listed.push(json!({
                "seed": request.seed, "format": format, "bytes": image.len(), "sha256": plantain::hash::sha256(&image),
            }));
            let mut these = report::facts(&picture);
            these["seconds"]["encode"] = json!((encode * 1e6).round() / 1e6);
            add(&mut facts, these);
            images.push((format, image));
        }
        if let Some(joules) = meter.and_then(|meter| meter.joules()) {
            facts.insert("joules".into(), json!((joules * 1e3).round() / 1e3));
        }
        facts.remove("threads");
        facts.insert("count".into(), drawing.count.into());
        facts.insert("format".into(), json!(drawing.format));
        facts.insert("images".into(), Value::Array(listed));
        Ok(Drawn { images, facts })
    }
}

/// JPEG quality of previews.
const PREVIEW_QUALITY: u8 = 50;

/// A preview as a small JPEG file that says that it is generated; `None` if it cannot be encoded.
fn encoded(preview: Preview<'_>, seed: u64) -> Option<Vec<u8>> {
    let size = [preview.width, preview.height];
    let marking = Marking { seed, size, ..Marking::default() };
    preview.to_pixels().encode(image::Format::Jpeg { quality: PREVIEW_QUALITY }, &marking).ok()
}

/// JPEG qualities that are tried where a picture is larger than may be sent.
const SMALLER_QUALITIES: [u8; 4] = [90, 75, 50, 25];

/// Encodes a picture as asked for or, if that is too large, as a JPEG that is not.
///
/// # Errors
/// One sentence with both numbers if none is small enough.
fn fitting(
    encoding: &Encoding,
    picture: &Picture,
    bytes_max: usize,
) -> Result<(Format, Vec<u8>), String> {
    let image = encoding.encode(picture).map_err(|error| error.to_string())?;
    if image.len() <= bytes_max {
        return Ok((encoding.format, image));
    }
    let asked_bytes = image.len();
    if matches!(encoding.format, Format::Png | Format::Jpeg | Format::Webp) {
        for quality in SMALLER_QUALITIES {
            let smaller = Encoding { format: Format::Jpeg, quality, ..encoding.clone() };
            let image = smaller.encode(picture).map_err(|error| error.to_string())?;
            if image.len() <= bytes_max {
                return Ok((Format::Jpeg, image));
            }
        }
    }
    Err(format!(
        "the picture has {asked_bytes} bytes but the broker takes {bytes_max}, and no JPEG of it is small enough; \
         choose a smaller size or raise the broker's limit"
    ))
}

/// Joins the facts of several pictures: the first one's, with times added up and the largest peak.
fn add(sum: &mut Map<String, Value>, facts: Map<String, Value>) {
    if sum.is_empty() {
        *sum = facts;
        return;
    }
    if let (Some(Value::Object(total)), Some(Value::Object(seconds))) =
        (sum.get_mut("seconds"), facts.get("seconds"))
    {
        for (stage, value) in seconds {
            let added = total.get(stage).and_then(Value::as_f64).unwrap_or(0.0)
                + value.as_f64().unwrap_or(0.0);
            total.insert(stage.clone(), json!(added));
        }
    }
    let both = |key: &str| Some((sum.get(key)?.as_f64()?, facts.get(key)?.as_f64()?));
    let cpu_seconds = both("cpu_seconds").map(|(a, b)| a + b);
    if let Some(cpu_seconds) = cpu_seconds {
        sum.insert("cpu_seconds".into(), json!(cpu_seconds));
    }
    if let Some(peak) = facts.get("peak_rss_bytes") {
        sum.insert("peak_rss_bytes".into(), peak.clone());
    }
}

/// Asks the operator's command about a prompt: exit 0 allows it.
///
/// # Errors
/// One sentence if it does not, or does not answer in time.
fn allowed(command: &str, prompt: &str, limit: Duration) -> Result<(), String> {
    let refused = || "the operator of this device does not allow this prompt".to_owned();
    let failed = |error: std::io::Error| {
        log::error!("deny_command {command:?} cannot be run: {error}");
        "the operator's check of prompts does not work; tell the operator".to_owned()
    };
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // On a thread of its own, because a command may not read. One that decides without reading closes its end.
        let text = prompt.to_owned();
        std::thread::spawn(move || {
            let _ = stdin.write_all(text.as_bytes());
        });
    }
    let start = Instant::now();
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => return if status.success() { Ok(()) } else { Err(refused()) },
            None if start.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                log::error!("deny_command {command:?} took more than {} s", limit.as_secs());
                return Err(refused());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_command_decides() {
        let limit = Duration::from_secs(10);
        assert_eq!(allowed("! grep -qi dragon", "a cat", limit), Ok(()));
        assert!(allowed("! grep -qi dragon", "a Dragon", limit).unwrap_err().contains("not allow"));
        let start = Instant::now();
        assert!(allowed("exec sleep 9", &"x".repeat(1 << 20), Duration::from_millis(20)).is_err());
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(allowed("exit 0", &"x".repeat(1 << 20), limit), Ok(()));
    }

    #[test]
    fn several_pictures_cost_their_sum() {
        let facts = |seconds: f64, peak: u64| match json!({"seconds": {"total": seconds}, "cpu_seconds": 1.0, "peak_rss_bytes": peak})
        {
            Value::Object(facts) => facts,
            _ => Map::new(),
        };
        let mut sum = Map::new();
        add(&mut sum, facts(1.5, 10));
        add(&mut sum, facts(2.0, 20));
        assert_eq!(sum["seconds"]["total"], 3.5);
        assert_eq!(sum["cpu_seconds"], 2.0);
        assert_eq!(sum["peak_rss_bytes"], 20);
    }
}
