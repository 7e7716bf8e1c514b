//! A whole pipeline over a pack so small that plain Rust can say what its picture must be.

use std::ops::ControlFlow;
use std::sync::Arc;

use half::f16;
use serde_json::{Value, json};

use super::tokenizer::build_vocabulary;
use super::*;
use crate::image::{Channels, Format, find_xmp};
use crate::pack::{Metadata, Pack, PackBuilder};
use crate::rng::{Stream, fill_normal};

/// Ids 0 to 3 are special.
const TOKENS: [&str; 7] = ["[P]", "[S]", "[E]", "[U]", "red", "apple", "cat"];
const STATES: usize = 4;
const LATENT: usize = 2;
const FREQUENCY: f32 = 0.01;

fn table() -> Vec<f16> {
    (0..TOKENS.len() * STATES).map(|i| f16::from_f32((i as f32 * 0.7).sin())).collect()
}

/// The networks and the pipeline of `small_pipeline.json`.
fn part(name: &str) -> Value {
    let whole: Value =
        serde_json::from_str(include_str!("../../../tests/data/small_pipeline.json")).unwrap();
    whole[name].clone()
}

fn graphs() -> Value {
    part("graphs")
}

fn spec() -> Value {
    part("pipeline")
}

fn pack(graphs: Value, spec: Value, tokens: &[&str]) -> Result<Arc<Pack>, PipelineError> {
    let metadata = Metadata {
        graphs: serde_json::from_value(graphs).unwrap(),
        pipeline: Some(serde_json::from_value(spec).unwrap()),
        ..Metadata::default()
    };
    let vocabulary = build_vocabulary(tokens);
    let pack = PackBuilder::new(metadata)
        .u8("vocabulary", &[vocabulary.len()], &vocabulary)
        .f16("table", &[TOKENS.len(), STATES], &table())
        .f32("frequencies", &[1], &[FREQUENCY])
        .open()?;
    Ok(Arc::new(pack))
}

fn open(options: Options) -> Pipeline {
    Pipeline::new(pack(graphs(), spec(), &TOKENS).unwrap(), options).unwrap()
}

fn draw(pipeline: &mut Pipeline, request: &Request) -> Picture {
    pipeline.generate(request, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn request() -> Request {
    Request { style: Some("red".to_owned()), ..Request::new("Apple").with_seed(5) }
}

/// The picture of `ids` against `negative`, written without any part of the runtime but noise and scheduler.
fn expected(
    ids: &[usize],
    negative: &[usize],
    guidance: f32,
    seed: u64,
    size: [usize; 2],
) -> Vec<u8> {
    let text = |ids: &[usize]| -> [f32; LATENT] {
        std::array::from_fn(|c| ids.iter().map(|&id| table()[id * STATES + c].to_f32()).sum())
    };
    let (positive, negative) = (text(ids), text(negative));
    let spec: PipelineSpec = serde_json::from_value(spec()).unwrap();
    let scheduler = scheduler::schedule(&spec.scheduler, spec.prediction, 3).unwrap();
    let (columns, rows) = (size[0] / 4, size[1] / 4);
    let mut latent = vec![0.0; columns * rows * LATENT];
    let mut noise = latent.clone();
    fill_normal(seed, Stream::Latent, &mut latent);
    for step in 0..3 {
        let angle = scheduler.timestep(step) * FREQUENCY;
        let time = [angle.sin(), angle.cos()];
        let output: Vec<f32> = latent
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let c = i % LATENT;
                let predict = |text: [f32; LATENT]| 0.5 * (x + text[c] + time[c]) + 0.1;
                let (positive, negative) = (predict(positive), predict(negative));
                negative + guidance * (positive - negative)
            })
            .collect();
        fill_normal(seed, Stream::Step(step as u32), &mut noise);
        scheduler.step(step, &mut latent, &output, &noise);
    }
    let mut bytes = Vec::new();
    for y in 0..size[1] {
        for x in 0..size[0] {
            for c in [0, 1, 0] {
                let value = latent[(y / 4 * columns + x / 4) * LATENT + c] / 0.5 + 0.25;
                bytes.push(((1.0 - value.tanh()) * 127.5).round() as u8);
            }
        }
    }
    bytes
}

fn assert_near(actual: &[u8], expected: &[u8]) {
    assert_eq!(actual.len(), expected.len());
    let worst = actual.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(1), "differs by {worst:?} of 255");
}

#[test]
fn a_picture_is_what_its_parts_say() {
    let mut pipeline = open(Options::default());
    let picture = draw(&mut pipeline, &request());
    assert_eq!((picture.pixels.width(), picture.pixels.height()), (24, 16));
    assert_eq!(picture.pixels.channels(), Channels::Rgb);
    // [S] red apple [E] against [S] cat [E].
    let expected = expected(&[1, 4, 5, 2], &[1, 6, 2], 2.5, 5, [24, 16]);
    assert_near(picture.pixels.bytes(), &expected);
    let spread = |bytes: &[u8]| bytes.iter().max().unwrap() - bytes.iter().min().unwrap();
    assert!(spread(&expected) > 100, "the test's picture is grey");

    let cost = picture.cost;
    assert_eq!((cost.tokens, cost.steps, cost.denoiser_samples), (4, 3, 6));
    assert!(cost.arena_bytes > 0 && cost.buffer_bytes > 0 && cost.seconds.total > 0.0);
    assert_eq!(picture.marking.style.as_deref(), Some("red"));
    assert!(picture.warnings.is_empty(), "{:?}", picture.warnings);
    let file = picture.encode(Format::Png).unwrap();
    assert!(find_xmp(&file).unwrap().contains("AIPromptInformation=\"Apple\""));
}

/// The test's enlarger is its refiner under another name: it doubles and turns the colours round.
#[test]
fn an_enlarger_draws_larger_pictures_and_leaves_others_alone() {
    let (mut graphs, mut spec) = (graphs(), spec());
    let mut enlarger = graphs[3].clone();
    enlarger["name"] = json!("enlarger");
    graphs.as_array_mut().unwrap().push(enlarger);
    spec["size"]["max"] = json!([24, 16]);
    spec["size"]["enlarge"] = json!(2);
    spec["wiring"]["enlarger_image"] = json!("image");
    let pack = pack(graphs, spec, &TOKENS).unwrap();
    let mut pipeline = Pipeline::new(pack, Options::default()).unwrap();
    let plain = draw(&mut pipeline, &request()).pixels;
    assert_eq!(plain, draw(&mut open(Options::default()), &request()).pixels);
    let large = draw(&mut pipeline, &Request { size: Some([48, 32]), ..request() }).pixels;
    assert_eq!((large.width(), large.height()), (48, 32));
    let expected: Vec<u8> = (0..32 * 48 * 3)
        .map(|i| (i / 3 / 48 / 2 * 24 + i / 3 % 48 / 2) * 3 + i % 3)
        .map(|place| 255 - plain.bytes()[place])
        .collect();
    assert_near(large.bytes(), &expected);
    assert_eq!(draw(&mut pipeline, &request()).pixels, plain, "after a large one");
}

#[test]
fn guidance_1_runs_one_sample_and_says_that_the_negative_prompt_is_unused() {
    let mut pipeline = open(Options::default());
    let request = Request {
        guidance_scale: Some(1.0),
        negative: Some("cat".to_owned()),
        size: Some([8, 64]),
        ..Request::new("apple")
    };
    let picture = draw(&mut pipeline, &request);
    assert_near(picture.pixels.bytes(), &expected(&[1, 5, 2], &[1], 1.0, 0, [8, 64]));
    assert_eq!(picture.cost.denoiser_samples, 3);
    assert_eq!(picture.warnings, [Warning::NegativeUnused]);
}

/// Many exports fix the batch at 1: guidance then runs the denoiser twice a step.
#[test]
fn a_denoiser_of_one_sample_draws_the_same() {
    let mut one = graphs();
    let text = one[1].to_string().replace(r#"{"b":1}"#, "1");
    one[1] = serde_json::from_str(&text).unwrap();
    let mut pipeline =
        Pipeline::new(pack(one, spec(), &TOKENS).unwrap(), Options::default()).unwrap();
    let mut last = 0.0;
    let picture = pipeline.generate(&request(), &mut |progress| {
        assert!(progress.fraction >= last);
        last = progress.fraction;
        ControlFlow::Continue(())
    });
    let picture = picture.unwrap();
    assert_eq!(picture.pixels, draw(&mut open(Options::default()), &request()).pixels);
    assert_eq!((picture.cost.denoiser_samples, last), (6, 1.0));
}

#[test]
fn previews_show_each_step_and_change_nothing() {
    let plain = draw(&mut open(Options::default()), &request());
    let mut pipeline = open(Options::default());
    let (mut seen, mut last) = (Vec::new(), 0.0);
    let request = Request { preview: true, ..request() };
    let picture = pipeline.generate(&request, &mut |progress| {
        assert!(progress.fraction >= last);
        last = progress.fraction;
        seen.extend(progress.preview.map(|preview| (progress.step, preview.to_pixels())));
        ControlFlow::Continue(())
    });
    assert_eq!((picture.unwrap().pixels, last), (plain.pixels.clone(), 1.0));
    assert_eq!(seen.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2]);
    assert!(seen.iter().all(|(_, pixels)| pixels.bytes().len() == plain.pixels.bytes().len()));
    assert!(seen[0].1 != seen[1].1 && seen[1].1 != plain.pixels);
}

#[test]
fn bytes_depend_on_nothing_but_pack_and_request() {
    let first = draw(&mut open(Options { threads: Some(1), ..Options::default() }), &request());
    for threads in [2, 3] {
        let options = Options { threads: Some(threads), ..Options::default() };
        let mut pipeline = open(options);
        for other in [
            Request { size: Some([64, 32]), ..request() },
            Request { guidance_scale: Some(1.0), ..request() },
            Request { seed: 6, ..request() },
            Request { prompt: "cat".to_owned(), ..request() },
        ] {
            assert_ne!(draw(&mut pipeline, &other).pixels, first.pixels);
            assert_eq!(draw(&mut pipeline, &request()).pixels, first.pixels);
        }
    }
}

#[test]
fn progress_rises_to_1_and_can_stop_the_picture() {
    let mut pipeline = open(Options::default());
    let mut seen: Vec<Progress<'static>> = Vec::new();
    let mut note = |progress: Progress<'_>| {
        seen.push(Progress { preview: None, ..progress });
        ControlFlow::Continue(())
    };
    let whole = pipeline.generate(&request(), &mut note).unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].fraction <= pair[1].fraction));
    assert_eq!(seen.last().unwrap().fraction, 1.0);
    for stage in [Stage::TextEncoder, Stage::Denoise, Stage::Decode, Stage::Refine] {
        assert!(seen.iter().any(|progress| progress.stage == stage), "{stage:?}");
    }
    assert!(seen.iter().any(|progress| progress.step == 2 && progress.steps == 3));
    for stop_at in 0..seen.len() {
        let mut pipeline = open(Options::default());
        let mut calls = 0;
        let stopped = pipeline.generate(&request(), &mut |_| {
            calls += 1;
            if calls > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(stopped.unwrap_err().is_cancelled());
        assert_eq!(draw(&mut pipeline, &request()).pixels, whole.pixels, "after stop {stop_at}");
    }
}

#[test]
fn a_text_is_encoded_once() {
    let mut pipeline = open(Options::default());
    draw(&mut pipeline, &request());
    let mut encoded = 0;
    let mut count = |progress: Progress| {
        encoded += u32::from(progress.stage == Stage::TextEncoder);
        ControlFlow::Continue(())
    };
    let other = Request { size: Some([8, 8]), seed: 9, ..request() };
    pipeline.generate(&other, &mut count).unwrap();
    assert_eq!(encoded, 0);
    for index in 0..2 * TEXTS_KEPT {
        let prompt = "cat ".repeat(index % 3) + ["red", "apple", "cat"][index % 3];
        let kept = draw(&mut pipeline, &Request::new(&*prompt)).pixels;
        assert_eq!(kept, draw(&mut open(Options::default()), &Request::new(&*prompt)).pixels);
    }
}

#[test]
fn what_may_disappoint_is_said() {
    let mut pipeline = open(Options::default());
    let warnings = draw(&mut pipeline, &Request::new("red red cat red")).warnings;
    assert_eq!(warnings, [Warning::PromptCut { whole: 6, used: 5 }]);
    let warnings = draw(&mut pipeline, &Request::new("red aple")).warnings;
    let closest = vec!["apple".to_owned(), "cat".to_owned()];
    assert_eq!(warnings, [Warning::UnknownWords { closest }]);
    let mut spec = spec();
    spec["synonyms"] = json!(["red fruit"]);
    let mut pipeline =
        Pipeline::new(pack(graphs(), spec, &TOKENS).unwrap(), Options::default()).unwrap();
    assert!(draw(&mut pipeline, &Request::new("red fruit")).warnings.is_empty());
    assert_eq!(draw(&mut pipeline, &Request::new("red aple")).warnings.len(), 1);
}

#[test]
fn a_pack_whose_parts_do_not_fit_is_refused() {
    let refuse = |graphs: Value, spec: Value, words: &str| {
        let opened =
            pack(graphs, spec, &TOKENS).and_then(|pack| Pipeline::new(pack, Options::default()));
        let error = opened.err().unwrap();
        let sentence = error.to_string();
        assert!(sentence.contains(words), "{sentence}");
    };
    let change = |key: &str, value: Value| {
        let mut spec = spec();
        *spec.pointer_mut(key).unwrap() = value;
        spec
    };
    refuse(graphs(), change("/wiring/text_ids", json!("input_ids")), "input_ids");
    refuse(graphs(), change("/wiring/text_states", json!("hidden")), "hidden");
    refuse(graphs(), change("/wiring/denoiser_mask", Value::Null), "feeds no such input");
    refuse(graphs(), change("/size/latent_channels", json!(3)), "sample");
    refuse(graphs(), change("/size/cell_pixels", json!(2)), "begin with");
    refuse(graphs(), change("/tokenizer/tokens_max", json!(6)), "ids");
    refuse(graphs(), change("/tokenizer/vocabulary", json!("words")), "words");
    refuse(graphs(), change("/tokenizer/vocabulary", json!("frequencies")), "frequencies");
    refuse(graphs(), change("/prediction", json!("flow")), "Flow");
    refuse(graphs(), change("/steps_default", json!(0)), "0 denoising steps");
    refuse(graphs(), change("/size/default", json!([20, 16])), "20 but must be a multiple of 8");
    let mut without = graphs();
    without.as_array_mut().unwrap().remove(2);
    refuse(without, spec(), "decoder");
}

#[test]
fn an_id_that_the_encoder_lacks_is_refused() {
    let mut tokens = TOKENS.to_vec();
    tokens.push("dog");
    let mut pipeline =
        Pipeline::new(pack(graphs(), spec(), &tokens).unwrap(), Options::default()).unwrap();
    let refused = pipeline.generate(&Request::new("dog"), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(PipelineError::TokenId { id: 7, rows: 7 })));
    draw(&mut pipeline, &Request::new("cat"));
}

#[test]
fn a_refused_request_leaves_the_pipeline_as_it_was() {
    let mut pipeline = open(Options::default());
    let before = draw(&mut pipeline, &request());
    for wrong in [
        Request { steps: Some(0), ..request() },
        Request { steps: Some(51), ..request() },
        Request { size: Some([12, 8]), ..request() },
        Request { size: Some([72, 8]), ..request() },
        Request { guidance_scale: Some(f32::NAN), ..request() },
        Request { style: Some("blue".to_owned()), ..request() },
        Request { prompt: String::new(), ..request() },
        Request { negative: Some("x".repeat(10 << 20)), ..request() },
    ] {
        assert!(pipeline.generate(&wrong, &mut |_| ControlFlow::Continue(())).is_err());
    }
    assert_eq!(draw(&mut pipeline, &request()).pixels, before.pixels);
}
