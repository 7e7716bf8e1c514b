use std::fs;

use plantain::graph::{Binding, DType, Dim, Graph, Value, ValueId};
use plantain::pipeline::tokenizer::Tokenizer;
use plantain::pipeline::{BetaSchedule, Prediction, SchedulerSpec, TokenizerKind};
use serde_json::json;

use super::scheduler::read_scheduler;
use super::*;

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn scheduler(config: serde_json::Value) -> Result<(SchedulerSpec, Prediction), String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "scheduler/scheduler_config.json", &config.to_string());
    read_scheduler(folder.path()).map_err(|error| error.to_string())
}

#[test]
fn schedulers_take_diffusers_names_and_defaults() {
    let (flow, prediction) = scheduler(json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_karras_sigmas": false
    }))
    .unwrap();
    assert_eq!(prediction, Prediction::Flow);
    let expected = SchedulerSpec::FlowMatchEuler {
        num_train_timesteps: 1000,
        shift: 3.0,
        timestep_is_data_fraction: false,
    };
    assert_eq!(flow, expected);
    let (ddim, prediction) = scheduler(json!({
        "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "steps_offset": 1, "set_alpha_to_one": false, "clip_sample": false,
        "trained_betas": null
    }))
    .unwrap();
    assert_eq!(prediction, Prediction::Epsilon);
    assert!(matches!(
        ddim,
        SchedulerSpec::Ddim { beta_schedule: BetaSchedule::ScaledLinear, steps_offset: 1, .. }
    ));
    let (lcm, _) = scheduler(json!({"_class_name": "LCMScheduler"})).unwrap();
    assert!(matches!(lcm, SchedulerSpec::Lcm { original_inference_steps: 50, .. }));
}

#[test]
fn what_a_scheduler_asks_and_plantain_lacks_is_said() {
    let unknown = scheduler(json!({"_class_name": "HeunDiscreteScheduler"})).unwrap_err();
    assert!(unknown.contains("HeunDiscreteScheduler") && unknown.contains("DDIMScheduler"));
    let karras = scheduler(json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "use_karras_sigmas": true
    }));
    assert!(karras.unwrap_err().contains("use_karras_sigmas"));
    let text = scheduler(json!({"_class_name": "DDIMScheduler", "beta_start": "low"}));
    assert!(text.unwrap_err().contains("beta_start is \"low\"; it should be a number"));
    let folder = tempfile::tempdir().unwrap();
    let missing = read_scheduler(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("scheduler_config.json is not there"));
}

#[test]
fn a_word_piece_vocabulary_reads_from_either_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tokenizer/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\napple\n##s\n");
    let lines = read_tokenizer(folder.path(), 6).unwrap();
    assert_eq!(lines.spec.kind, TokenizerKind::WordPiece);
    let mut ids = [9; 6];
    let tokenizer = Tokenizer::new(&lines.spec, &lines.vocabulary, None).unwrap();
    tokenizer.encode("Red apples", &mut ids).unwrap();
    assert_eq!(ids, [2, 4, 5, 6, 3, 0]);

    let other = tempfile::tempdir().unwrap();
    let model = json!({"model": {"type": "WordPiece", "vocab": {
        "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "red": 4, "apple": 5, "##s": 6
    }}});
    write(other.path(), "tokenizer/tokenizer.json", &model.to_string());
    assert_eq!(read_tokenizer(other.path(), 6).unwrap(), lines);
}

#[test]
fn byte_pairs_read_from_clips_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = json!({"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4,
        "<|startoftext|>": 5, "<|endoftext|>": 6});
    write(folder.path(), "tokenizer/vocab.json", &vocabulary.to_string());
    write(folder.path(), "tokenizer/merges.txt", "#version: 0.2\na b</w>\n");
    let config = json!({"pad_token": {"content": "<|endoftext|>"}, "unk_token": "<|endoftext|>"});
    write(folder.path(), "tokenizer/tokenizer_config.json", &config.to_string());
    let tables = read_tokenizer(folder.path(), 5).unwrap();
    let tokenizer =
        Tokenizer::new(&tables.spec, &tables.vocabulary, tables.merges.as_deref()).unwrap();
    let mut ids = [9; 5];
    tokenizer.encode("ab a", &mut ids).unwrap();
    assert_eq!(ids, [5, 4, 2, 6, 6]);
    write(folder.path(), "tokenizer/merges.txt", "a z\n");
    let error = read_tokenizer(folder.path(), 5).unwrap_err().to_string();
    assert!(error.contains("merges.txt"), "{error}");
}

fn graph(name: &str, inputs: &[(&str, usize)], output: (&str, usize)) -> Graph {
    let value = |&(name, rank): &(&str, usize)| Value {
        name: name.to_owned(),
        shape: vec![Dim::fixed(4); rank],
        dtype: if rank == 2 && name.contains("ids") { DType::I32 } else { DType::F32 },
    };
    let mut values: Vec<Value> = inputs.iter().map(value).collect();
    values.push(value(&output));
    Graph {
        name: name.to_owned(),
        inputs: (0..inputs.len() as u32).map(ValueId).collect(),
        outputs: vec![ValueId(inputs.len() as u32)],
        values,
        nodes: Vec::new(),
    }
}

#[test]
fn a_whole_description_comes_from_index_scheduler_and_graphs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for network in ["text_encoder", "unet", "vae_decoder"] {
        write(path, &format!("{network}/model.onnx"), "");
    }
    write(path, "vae_decoder/config.json", r#"{"scaling_factor": 0.5}"#);
    write(path, "scheduler/scheduler_config.json", r#"{"_class_name": "LCMScheduler"}"#);
    write(path, "tokenizer/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n");
    let index = json!({"plantain": {
        "styles": {"3d": "3d render", "flat": "flat"}, "default_style": "3d render",
        "style_template": "{prompt} as {style}", "words": ["cat"], "default_steps": 4,
        "sizes": [[64, 64], [128, 64]], "default_guidance_scale": 2.0
    }});
    write(path, "model_index.json", &index.to_string());
    let opened = Folder::open(path).unwrap();
    let text = graph("text_encoder", &[("input_ids", 2), ("attention_mask", 2)], ("states", 3));
    let denoiser = graph(
        "denoiser",
        &[("sample", 4), ("timestep", 1), ("encoder_hidden_states", 3)],
        ("out", 4),
    );
    let decoder = graph("decoder", &[("z", 4)], ("image", 4));
    let networks = NetworkPorts {
        text_encoder: &text,
        denoiser: &denoiser,
        decoder: &decoder,
        refiner: None,
        enlarger: None,
    };
    let sizes = SizeFacts {
        latent_channels: 4,
        cell_pixels: 8,
        imported: Binding { batch: 1, height: 8, width: 8 },
        free: true,
        unit: 4,
        enlarge: None,
    };
    let tokenizer = read_tokenizer(path, 77).unwrap().spec;
    let recipe = Recipe { steps_default: Some(6), ..Recipe::default() };
    let spec = build_spec(&opened, &recipe, &networks, tokenizer.clone(), &sizes).unwrap();
    assert_eq!(spec.styles[0].prompt, "{prompt} as 3d render");
    assert_eq!(spec.style_default.as_deref(), Some("3d"));
    assert_eq!((spec.steps_default, spec.guidance_scale_default), (6, 2.0));
    assert_eq!((spec.size.default, spec.size.min, spec.size.max), ([64, 64], [64, 64], [128, 64]));
    assert_eq!((spec.size.multiple, spec.size.latent_scale), (32, 0.5));
    assert_eq!(spec.wiring.text_mask.as_deref(), Some("attention_mask"));
    assert_eq!(spec.wiring.decoder_latent, "z");
    assert_eq!(spec.wiring.denoiser_mask, None);

    let odd = Recipe { size_default: Some([72, 64]), ..Recipe::default() };
    let error = build_spec(&opened, &odd, &networks, tokenizer.clone(), &sizes).unwrap_err();
    assert!(error.to_string().contains("72 x 64"), "{error}");
    let blind = graph("denoiser", &[("sample", 4), ("encoder_hidden_states", 3)], ("out", 4));
    let networks = NetworkPorts { denoiser: &blind, ..networks };
    let error = build_spec(&opened, &recipe, &networks, tokenizer, &sizes).unwrap_err();
    assert!(error.to_string().contains("no timestep input"), "{error}");
}

#[test]
fn missing_parts_of_a_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = |path: &Path| Folder::open(path).unwrap_err().to_string();
    assert!(message(&folder.path().join("nowhere")).contains("nowhere is not there"));
    assert!(message(folder.path()).contains("model_index.json is not there"));
    write(folder.path(), "model_index.json", "{");
    assert!(message(folder.path()).contains("not JSON"));
    write(folder.path(), "model_index.json", "{}");
    assert!(message(folder.path()).contains("text_encoder is not there"));
    write(folder.path(), "text_encoder/config.json", "{}");
    assert!(message(folder.path()).contains("model.onnx is not there"));
    let recipe = folder.path().join("recipe.toml");
    write(folder.path(), "recipe.toml", "colour = 1");
    assert!(Recipe::read(&recipe).unwrap_err().to_string().contains("colour"));
}
