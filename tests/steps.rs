//! Pictures of several denoising steps: the small Stable Diffusion of `fixtures/sd_small`, with guidance.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use plantain::engine::{Engine, EngineError, NetworkIndex};
use plantain::pack::Pack;
use plantain::pipeline::{Options, Picture, Pipeline, PipelineError, Request};
use plantain::plan::PlanReport;
use plantain_tests::command::{plantain_pack, root, run};

/// Packs the fixture.
fn pack(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("sd_small.safetensors");
    let words = folder.join("prompts.txt");
    std::fs::write(&words, "a red apple\n").unwrap();
    let ended = Command::new(plantain_pack())
        .arg(root().join("tests/fixtures/sd_small"))
        .arg("-o")
        .arg(&path)
        .arg("--calibrate-prompts")
        .arg(&words)
        .arg("-q")
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    path
}

fn request() -> Request {
    let guidance_scale = Some(5.0);
    Request { seed: 3, steps: Some(4), guidance_scale, ..Request::new("a red apple") }
}

/// A picture, and how many steps of plans ran for it.
fn draw(pipeline: &mut Pipeline, request: &Request) -> (Picture, usize) {
    let mut calls = 0;
    let picture = pipeline.generate(request, &mut |_| {
        calls += 1;
        ControlFlow::Continue(())
    });
    (picture.unwrap(), calls)
}

fn denoiser(engine: &Engine) -> PlanReport {
    let network = engine.network("denoiser").unwrap();
    PlanReport::new(engine.graph(network), engine.plan(network), engine.residency(network))
}

#[test]
fn what_depends_on_the_prompt_is_computed_once_and_changes_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let pack = Arc::new(Pack::open(pack(folder.path())).unwrap());
    let open = |threads, budget_bytes| {
        let guidance_scale = Some(5.0);
        let options =
            Options { threads: Some(threads), budget_bytes, guidance_scale, ..Options::default() };
        Pipeline::new(pack.clone(), options)
    };
    let mut expected: Option<Picture> = None;
    let mut kept = std::collections::BTreeSet::new();
    for threads in 1..=3 {
        // The refusal of a small budget names the smallest one, which moves a little with the heap; above it there is room
        // to keep more and more.
        let tight = |above: u64| {
            let mut budget = 1 << 20;
            loop {
                match open(threads, Some(budget)) {
                    Ok(pipeline) => return pipeline,
                    Err(PipelineError::Engine(EngineError::Budget { needed_bytes, .. })) => {
                        assert!(needed_bytes + above > budget, "{needed_bytes} is not enough");
                        budget = needed_bytes + above;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        for above in [Some(0), Some(32 << 10), Some(256 << 10), None] {
            let mut pipeline = above.map_or_else(|| open(threads, None).unwrap(), tight);
            let (picture, first) = draw(&mut pipeline, &request());
            let report = denoiser(pipeline.engine().unwrap());
            kept.insert(report.kept_bytes > 0);
            assert!(report.steady_macs > 0, "the text's keys and values were not found");
            assert_eq!(report.later_macs() < report.macs, report.kept_bytes > 0);
            let whole = expected.get_or_insert(picture.clone());
            assert_eq!(
                picture.pixels, whole.pixels,
                "{threads} threads, {above:?} bytes above the least"
            );
            // The same prompt with another seed, then another prompt between.
            let (again, second) = draw(&mut pipeline, &request());
            assert_eq!(again.pixels, whole.pixels);
            assert!(second < first, "the text was encoded again");
            let engine = pipeline.engine().unwrap();
            assert_eq!(engine.remembers(NetworkIndex(1)), report.kept_bytes > 0);
            let other = Request { prompt: "a photo of a cat".into(), ..request() };
            assert_ne!(draw(&mut pipeline, &other).0.pixels, whole.pixels);
            assert_eq!(draw(&mut pipeline, &request()).0.pixels, whole.pixels);
        }
    }
    assert_eq!(kept.len(), 2, "budgets that keep and such that do not: {kept:?}");
}

#[test]
fn a_plan_says_what_is_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = pack(folder.path());
    let ended = run(["plan".as_ref(), path.as_os_str()]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let line = ended.out.lines().find(|line| line.contains("once a prompt"));
    println!("{}", line.expect("the plan names what runs once a prompt"));
}

#[test]
fn a_step_cache_runs_the_denoiser_less_and_says_so_in_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let pack = Arc::new(Pack::open(pack(folder.path())).unwrap());
    let open = |threads, step_cache| {
        let options = Options { threads: Some(threads), step_cache, ..Options::default() };
        Pipeline::new(pack.clone(), options).unwrap()
    };
    let request = Request { steps: Some(8), ..request() };
    let (plain, _) = draw(&mut open(1, None), &request);
    let (cached, _) = draw(&mut open(1, Some(3)), &request);
    // Steps 0, 1, 3, 6 and 7 of 8, two samples each.
    assert_eq!((plain.cost.denoiser_samples, cached.cost.denoiser_samples), (16, 10));
    assert_ne!(plain.pixels, cached.pixels);
    let difference = |a: &Picture, b: &Picture| {
        let pairs = a.pixels.bytes().iter().zip(b.pixels.bytes());
        pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
    };
    let (other, _) = draw(&mut open(1, None), &Request { seed: 4, ..request.clone() });
    assert!(difference(&plain, &cached) * 4 < difference(&plain, &other), "it is another picture");
    let mut two = open(2, Some(3));
    for _ in 0..2 {
        assert_eq!(draw(&mut two, &request).0.pixels, cached.pixels);
    }
    let says = |picture: &Picture| {
        let file = picture.encode(plantain::image::Format::Png).unwrap();
        plantain::image::find_xmp(&file).unwrap().contains("plantain:StepCache=\"3\"")
    };
    assert!(says(&cached) && !says(&plain));
    let options = Options { step_cache: Some(1), ..Options::default() };
    let refused = Pipeline::new(pack.clone(), options).err().unwrap().to_string();
    assert!(refused.contains("step cache is 1"), "{refused}");
}

#[test]
fn bench_tells_what_a_step_cache_costs() {
    let folder = tempfile::tempdir().unwrap();
    let path = pack(folder.path());
    let args = ["--json", "--runs", "2", "--steps", "8", "--step-cache", "3", "--threads", "1"];
    let ended =
        run(["bench".as_ref(), path.as_os_str()].into_iter().chain(args.map(AsRef::as_ref)));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(value["steps"], 8);
    assert_eq!(value["step_cache"]["denoiser_samples"], 10);
    let likeness = value["step_cache"]["psnr_db_median"].as_f64().unwrap();
    println!("step cache 3 of 8 steps: {likeness:.1} dB");
    assert!(likeness > 10.0 && likeness < 99.0, "{likeness}");
}
