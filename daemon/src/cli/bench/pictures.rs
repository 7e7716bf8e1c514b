//! Whole pictures: the pack's own size, then enlarged ones, then, if asked for, those of a step cache.

use std::ops::ControlFlow;
use std::sync::Arc;

use plantain::pack::Pack;
use plantain::pipeline::{CostReport, Options, Pipeline, Request, StageSeconds};
use serde_json::{Value, json};

use super::profile::{OpTimes, Peak};
use super::{Args, median, refuse, round};

/// In the order of their stages.
const NETWORKS: [&str; 5] = ["text_encoder", "denoiser", "decoder", "refiner", ENLARGER];
/// The one that only large pictures pass.
const ENLARGER: &str = "enlarger";

/// Decibels of pictures that are equal.
const PSNR_DB_MAX: f64 = 99.0;

/// Medians of some pictures.
struct Medians {
    /// Text encoder, denoiser, decoder, refiner, enlarger.
    stages: [f64; 5],
    seconds: f64,
    cpu_seconds: f64,
    last: CostReport,
    /// Of text encoder, denoiser, decoder, refiner, enlarger.
    ops: [OpTimes; 5],
    /// Of each picture.
    pixels: Vec<Vec<u8>>,
}

/// Draws and describes; enlarged pictures only where the pack can.
pub(super) fn measure(
    pack: &Arc<Pack>,
    options: &Options,
    args: &Args,
    peak: &Peak,
) -> anyhow::Result<Value> {
    let open = |options: &Options| Pipeline::new(pack.clone(), options.clone()).map_err(refuse);
    let mut pipeline = open(options)?;
    let mut plain = draw(&mut pipeline, args, None, peak)?;
    let mut networks = networks(&pipeline, &mut plain, false)?;
    let threads = pipeline.engine().map_or(0, |engine| engine.threads());
    let size = &pipeline.spec().size;
    let large = size.enlarge.map(|factor| size.default.map(|side| side * factor));
    let mut enlarged_seconds = None;
    if let Some(size) = large.filter(|&large| size.base(large).is_some_and(|(_, enlarge)| enlarge))
    {
        let mut enlarged = draw(&mut pipeline, args, Some(size), peak)?;
        networks.extend(self::networks(&pipeline, &mut enlarged, true)?);
        enlarged_seconds = Some(round(enlarged.seconds));
    }
    drop(pipeline);
    let mut value = json!({
        "picture_seconds_median": round(plain.seconds),
        "picture_cpu_seconds_median": round(plain.cpu_seconds),
        "enlarged_picture_seconds_median": enlarged_seconds,
        "steps": plain.last.steps,
        "threads": threads,
        "arena_bytes": plain.last.arena_bytes,
        "peak_rss_bytes": plain.last.peak_rss_bytes,
        "networks": networks,
    });
    if let Some(every) = args.step_cache {
        let options = Options { step_cache: Some(every), ..options.clone() };
        let cached = draw(&mut open(&options)?, args, None, peak)?;
        let pairs = plain.pixels.drain(..).zip(&cached.pixels);
        let mut likeness: Vec<f64> = pairs.map(|(a, b)| psnr_db(&a, b)).collect();
        value["step_cache"] = json!({
            "every": every,
            "denoiser_samples": cached.last.denoiser_samples,
            "denoiser_samples_without": plain.last.denoiser_samples,
            "picture_seconds_median": round(cached.seconds),
            "psnr_db_median": round(median(&mut likeness)),
            "psnr_db_min": round(likeness.first().copied().unwrap_or(PSNR_DB_MAX)),
        });
    }
    Ok(value)
}

/// Draws pictures, each with a prompt of its own, so that no text is taken from the cache; the first one is not counted.
fn draw(
    pipeline: &mut Pipeline,
    args: &Args,
    size: Option<[u32; 2]>,
    peak: &Peak,
) -> anyhow::Result<Medians> {
    let words: Vec<String> = pipeline.spec().words.clone();
    let prompt = |run: u32| match words.len() {
        0 => format!("a picture of number {run}"),
        count => format!("{} {run}", words[run as usize % count]),
    };
    let (mut stages, mut cpu_seconds): ([Vec<f64>; 6], Vec<f64>) = Default::default();
    let (mut last, mut pixels) = (CostReport::default(), Vec::new());
    let mut ops: [OpTimes; 5] = Default::default();
    for run in 0..=args.runs {
        let request = Request {
            steps: args.steps,
            size,
            ..Request::new(prompt(run)).with_seed(u64::from(run))
        };
        let picture =
            pipeline.generate(&request, &mut |_| ControlFlow::Continue(())).map_err(refuse)?;
        let StageSeconds { text_encoder, denoise, decode, refine, enlarge, total, .. } =
            picture.cost.seconds;
        if run > 0 {
            let now = [text_encoder, denoise, decode, refine, enlarge, total];
            stages.iter_mut().zip(now).for_each(|(all, value)| all.push(value));
            cpu_seconds.extend(picture.cost.cpu_seconds);
        }
        if args.step_cache.is_some() {
            pixels.push(picture.pixels.bytes().to_vec());
        }
        last = picture.cost;
        for (name, ops) in NETWORKS.into_iter().zip(&mut ops) {
            if let Some(engine) = pipeline.engine()
                && let Ok(network) = engine.network(name)
            {
                ops.take(engine, network, run > 0);
            }
        }
    }
    peak.measure();
    let [text_encoder, denoise, decode, refine, enlarge, seconds] =
        stages.map(|mut all| median(&mut all));
    Ok(Medians {
        stages: [text_encoder, denoise, decode, refine, enlarge],
        seconds,
        cpu_seconds: median(&mut cpu_seconds),
        last,
        ops,
        pixels,
    })
}

/// The enlarger, or each other network that is loaded.
fn networks(
    pipeline: &Pipeline,
    medians: &mut Medians,
    enlarger: bool,
) -> anyhow::Result<Vec<Value>> {
    let engine = pipeline.engine().ok_or_else(|| anyhow::anyhow!("the networks are not loaded"))?;
    let mut networks = Vec::new();
    for ((name, seconds), ops) in NETWORKS.into_iter().zip(medians.stages).zip(&mut medians.ops) {
        if enlarger != (name == ENLARGER) {
            continue;
        }
        if let Ok(network) = engine.network(name) {
            let mut value = ops.value(engine, network);
            value["seconds_median"] = json!(round(seconds));
            networks.push(value);
        }
    }
    Ok(networks)
}

/// Peak signal-to-noise ratio of two pictures, in decibels.
fn psnr_db(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
    let mean = squares / a.len().max(1) as f64;
    if mean > 0.0 {
        (10.0 * (255.0f64.powi(2) / mean).log10()).min(PSNR_DB_MAX)
    } else {
        PSNR_DB_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pictures_are_as_like_as_can_be_and_one_level_is_48_decibels() {
        assert!((psnr_db(&[10; 99], &[11; 99]) - 48.13).abs() < 0.01);
        assert_eq!(psnr_db(&[3, 4], &[3, 4]), PSNR_DB_MAX);
    }
}
