//! `plantain-pack` on the committed test pipelines, as a user runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plantain::graph::{Node, Op};
use plantain::pack::Pack;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn plantain_pack(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plantain-pack"));
    arguments.iter().for_each(|argument| {
        command.arg(argument);
    });
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Packs a pipeline on two prompts and compares it with its ONNX files.
fn pack_and_verify(name: &str, recipe: &str) -> (Pack, Value, Value) {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file);
    fs::write(at("recipe.toml"), recipe).unwrap();
    fs::write(at("prompts.txt"), "a red apple\n\na photo of a cat\n").unwrap();
    let (pack, report) = (at("pack.safetensors"), at("report.json"));
    let output = plantain_pack(&[
        &fixture(name),
        &"-o",
        &pack,
        &"--report",
        &report,
        &"--calibrate-prompts",
        &at("prompts.txt"),
        &"--recipe",
        &at("recipe.toml"),
        &"--board",
        &"rpi-zero2w",
        &"-q",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("rpi-zero2w: ") && said.contains("of a budget of 128.00 MiB"), "{said}");
    let report = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let output = plantain_pack(&[
        &"verify",
        &pack,
        &"--against",
        &fixture(name),
        &"--pictures",
        &"3",
        &"--json",
        &"-q",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let verification = serde_json::from_slice(&output.stdout).unwrap();
    second_opinion(&pack, &fixture(name));
    (Pack::open(pack).unwrap(), report, verification)
}

/// ONNX Runtime on the pack's golden inputs.
fn second_opinion(pack: &Path, folder: &Path) {
    let Some(python) = std::env::var_os("PLANTAIN_PYTHON") else {
        println!("left out: PLANTAIN_PYTHON names no Python (cargo xtask test sets it)");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/second_opinion.py");
    let output = Command::new(python).arg(script).arg(pack).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let cosines: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cosines = cosines.as_object().unwrap();
    assert_eq!(cosines.len(), 3);
    assert!(cosines.values().all(|cosine| cosine.as_f64().unwrap() >= 0.995), "{cosines:?}");
}

fn check_quality(verification: &Value) {
    let networks = verification["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 3);
    for network in networks {
        assert!(network["outputs"]["cosine"].as_f64().unwrap() >= 0.995, "{network}");
        let layers = network["layers"].as_array().unwrap();
        assert!(layers.len() > 8, "{network}");
        for layer in layers {
            assert!(layer["output"]["cosine"].as_f64().unwrap() >= 0.98, "{layer}");
        }
    }
    assert!(verification["psnr_db_median"].as_f64().unwrap() >= 28.0, "{verification}");
}

#[test]
fn a_stable_diffusion_shaped_pipeline_packs_and_verifies() {
    let (pack, report, verification) = pack_and_verify("sd_small", "");
    check_quality(&verification);
    let names: Vec<&str> = pack.graphs().iter().map(|graph| graph.name.as_str()).collect();
    assert_eq!(names, ["text_encoder", "denoiser", "decoder"]);
    let spec = pack.pipeline().unwrap();
    assert_eq!((spec.size.default, spec.size.max), ([64, 64], [96, 64]));
    assert_eq!((spec.steps_default, spec.guidance_scale_default), (4, 3.0));
    assert_eq!(spec.tokenizer.tokens_max, 16);
    assert_eq!(pack.golden().len(), 3);
    assert!(pack.provenance().sources.iter().any(|s| s.path == "unet/model.onnx"));
    assert_eq!(report["pack_bytes"].as_u64(), Some(pack.bytes()));
    let layers = |network: usize| report["networks"][network]["layers"].as_array().unwrap();
    assert!(layers(1).iter().any(|layer| layer["precision"] == "int8, input by row"));
}

#[test]
fn outliers_cost_no_direction() {
    let (_, report, verification) = pack_and_verify("sd_outlier", "");
    check_quality(&verification);
    for network in [0, 1] {
        let equalised = report["networks"][network]["equalised"].as_array().unwrap();
        assert!(!equalised.is_empty());
    }
}

#[test]
fn attention_over_many_keys_is_int8_and_outliers_cost_it_no_direction() {
    let recipe = "size_default = [128, 128]\nsize_max = [128, 128]\n";
    let (pack, report, verification) = pack_and_verify("sd_outlier", recipe);
    check_quality(&verification);
    let attentions = report["networks"][1]["attentions"].as_array().unwrap();
    assert!(!attentions.is_empty());
    for attention in attentions {
        assert_eq!((&attention["keys"], &attention["precision"]), (&256.into(), &"int8".into()));
        assert!(attention["inside"]["cosine"].as_f64().unwrap() >= 0.995, "{attention}");
    }
    let int8 = |node: &&Node| matches!(node.op, Op::AttentionI8 { .. });
    let nodes = &pack.graph("denoiser").unwrap().nodes;
    assert_eq!(nodes.iter().filter(int8).count(), attentions.len());
    assert_eq!(pack.version(), 2);
    assert!(pack.report().unwrap().unwrap().layers.iter().any(|l| l.node == attentions[0]["node"]));
}

#[test]
fn a_lone_network_packs_and_verifies_on_random_input() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("decoder.safetensors");
    let onnx = fixture("sd_small/vae_decoder/model.onnx");
    let report = folder.path().join("report.txt");
    let output = plantain_pack(&[&onnx, &"-o", &pack, &"--report", &report, &"--keep-f16", &"*"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = fs::read_to_string(report).unwrap();
    assert!(text.contains("named by --keep-f16 *") && text.contains("0 layers in int8"), "{text}");
    let output = plantain_pack(&[&"verify", &pack, &"--against", &onnx, &"--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["networks"][0]["outputs"]["snr_db"].as_f64().unwrap() > 40.0, "{found}");
    assert!(Pack::open(pack).unwrap().pipeline().is_err());
}

#[test]
fn a_pruned_pack_says_what_was_saved_and_what_it_cost() {
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file);
    fs::write(at("recipe.toml"), "[prune]\nshare = 0.9\ndb_min = 0.0\n").unwrap();
    let onnx = fixture("sd_small/vae_decoder/model.onnx");
    let pack = |share: &[&dyn AsRef<std::ffi::OsStr>]| {
        let (out, recipe) = (at("pack.safetensors"), at("recipe.toml"));
        let rest: [&dyn AsRef<std::ffi::OsStr>; 6] =
            [&onnx, &"-o", &out, &"--recipe", &recipe, &"-q"];
        plantain_pack(&[&rest, share].concat())
    };
    let output = pack(&[]);
    assert!(!output.status.success() && !at("pack.safetensors").exists());
    let text = stderr(&output);
    assert!(text.contains("0.900 of the multiply-adds are to be pruned but"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let output = pack(&[&"--prune", &"0.3"]);
    if stderr(&output).contains("which saves nothing worth the loss") {
        println!("left out: the machine is too busy to see a third less work");
        return;
    }
    assert!(output.status.success(), "{}", stderr(&output));
    let pack = Pack::open(at("pack.safetensors")).unwrap();
    let pruning = pack.report().unwrap().unwrap().pruning.unwrap();
    let [before, after] = pruning.macs;
    assert!(after as f64 <= 0.7 * before as f64 && pruning.bytes[1] < pruning.bytes[0]);
    assert!(pruning.db_min <= pruning.db_median && pruning.db_median > 5.0, "{pruning:?}");
    assert!(pruning.parts.iter().all(|part| part.kept < part.of), "{pruning:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("pruned: {pruning}")), "{said}");
}

#[test]
fn an_unknown_board_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack.safetensors");
    let output = plantain_pack(&[&fixture("sd_small"), &"-o", &pack, &"--board", &"toaster"]);
    assert!(!output.status.success() && !pack.exists());
    let text = stderr(&output);
    assert!(text.contains("toaster") && text.lines().count() == 1, "{text}");
}

/// A copy of a fixture in which one file is changed.
fn changed(file: &str, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&fixture("sd_small"), copy.path());
    let path = copy.path().join(file);
    match change(fs::read(&path).unwrap()) {
        Some(bytes) => fs::write(path, bytes).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The one sentence that packing a folder ends with.
fn refusal(source: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pack.safetensors");
    let output = plantain_pack(&[&source, &"-o", &out, &"-q"]);
    assert!(!output.status.success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a pack is half-written");
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn what_cannot_be_packed_is_said_in_one_sentence() {
    assert!(refusal(Path::new("/nowhere/at/all")).contains("/nowhere/at/all is not there"));
    assert!(refusal(Path::new("/nowhere/model.onnx")).contains("is not there"));
    let gone = |file: &str| changed(file, |_| None);
    assert!(refusal(gone("model_index.json").path()).contains("model_index.json is not there"));
    assert!(refusal(gone("unet/model.onnx").path()).contains("model.onnx is not there"));
    assert!(refusal(gone("tokenizer/merges.txt").path()).contains("vocab"));
    let heun = changed("scheduler/scheduler_config.json", |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        Some(text.replace("DDIMScheduler", "HeunDiscreteScheduler").into_bytes())
    });
    let text = refusal(heun.path());
    assert!(text.contains("HeunDiscreteScheduler") && text.contains("LCMScheduler"), "{text}");
}

#[test]
fn an_unknown_op_names_itself_and_its_node() {
    // The same length, so that the file stays well-formed.
    let strange = changed("text_encoder/model.onnx", |mut bytes| {
        while let Some(at) = bytes.windows(7).position(|run| run == b"Softmax") {
            bytes[at..at + 7].copy_from_slice(b"Hardmay");
        }
        Some(bytes)
    });
    let text = refusal(strange.path());
    assert!(text.contains("Hardmay"), "{text}");
    let cut = changed("unet/model.onnx", |bytes| Some(bytes[..bytes.len() / 2].to_vec()));
    assert!(refusal(cut.path()).contains("model.onnx"));
}

#[test]
fn verify_refuses_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("decoder.safetensors");
    let onnx = fixture("sd_small/vae_decoder/model.onnx");
    assert!(plantain_pack(&[&onnx, &"-o", &pack, &"-q"]).status.success());
    let output = plantain_pack(&[&"verify", &pack, &"--against", &fixture("sd_small"), &"-q"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("name the folder that the pack was made from"));
    let output = plantain_pack(&[&"verify", &"/nowhere", &"--against", &onnx]);
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}
