//! What is said about a picture: the same facts in `generate --json` and in result messages.

use plantain::pipeline::Picture;
use serde_json::{Map, Value, json};

/// Seed, steps, size, tokens, seconds by stage, memory, processor time, pack.
pub fn facts(picture: &Picture) -> Map<String, Value> {
    let (marking, cost) = (&picture.marking, &picture.cost);
    let seconds = &cost.seconds;
    let mut facts = Map::new();
    let mut put = |key: &str, value: Value| drop(facts.insert(key.to_owned(), value));
    put("seed", json!(marking.seed));
    put("steps", json!(cost.steps));
    if let Some(every) = marking.step_cache {
        put("step_cache", json!(every));
        put("denoiser_samples", json!(cost.denoiser_samples));
    }
    put("guidance", json!(marking.guidance_scale));
    put("style", json!(marking.style));
    put("size", json!([picture.pixels.width(), picture.pixels.height()]));
    put("tokens", json!(cost.tokens));
    let rounded = |value: f64| (value * 1e6).round() / 1e6;
    put(
        "seconds",
        json!({
            "prepare": rounded(seconds.prepare),
            "text_encoder": rounded(seconds.text_encoder),
            "denoise": rounded(seconds.denoise),
            "decode": rounded(seconds.decode),
            "refine": rounded(seconds.refine),
            "enlarge": rounded(seconds.enlarge),
            "total": rounded(seconds.total),
        }),
    );
    put("cpu_seconds", json!(cost.cpu_seconds.map(rounded)));
    put("threads", json!(cost.threads));
    put("peak_rss_bytes", json!(cost.peak_rss_bytes));
    put("arena_bytes", json!(cost.arena_bytes));
    put("budget_bytes", json!(cost.budget_bytes));
    put("pack_sha256", json!(marking.pack_sha256));
    if !picture.warnings.is_empty() {
        let warnings: Vec<String> = picture.warnings.iter().map(ToString::to_string).collect();
        put("warning", json!(warnings.join("; ")));
    }
    facts
}
