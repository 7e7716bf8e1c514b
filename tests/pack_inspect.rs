//! `plantain inspect`, as a person and a script see it.

use std::path::Path;

use plantain_tests::command::{Ended, bundled_pack, run};
use serde_json::Value;

fn inspect(path: &Path, rest: &[&str]) -> Ended {
    run(["inspect", path.to_str().unwrap()].iter().chain(rest))
}

#[test]
fn shows_what_a_pack_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    plantain_tests::packs::every_op().write(&path).unwrap();
    let text = inspect(&path, &[]).out;
    for part in [
        "MIT OR Apache-2.0",
        "network denoiser",
        "in         sample f32 [b, h, w, 4]; timestep f32 [b]; states f32 [b, 7, 16]",
        "conv_i8    int8 [16, 3, 3, 4], ",
        "matmul_f16 f16  [16, 16], ",
        "attention  1 with int8 products, 1 in float",
        "attention  int8  2 heads, error 0.0200",
        "kept f16: its error of 0.2 in int8 is above 0.05",
        "16x16, from 8x8 to 32x32 in steps of 4",
        "FlowMatchEuler",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let json = inspect(&path, &["--json", "--verify"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["verified"], true);
    assert_eq!(json["networks"][1]["ops"]["conv_i8"], 2);
    assert_eq!(json["networks"][0]["precision"][0]["name"], "int8");
    assert_eq!(json["networks"][0]["attentions"][1]["precision"], "int8");
    assert_eq!(json["version"], 2);
    let layers = json["networks"][0]["layers"].as_array().unwrap();
    assert_eq!(layers.iter().find(|layer| layer["name"] == "q").unwrap()["parameters"], 256);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(json["bytes"], bytes.len());
    assert_eq!(json["sha256"], plantain::hash::sha256(&bytes));
}

#[test]
fn every_byte_of_the_bundled_pack_has_its_hash() {
    let ended = inspect(&bundled_pack(), &["--verify"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("every byte"), "{}", ended.out);
}

#[test]
fn refuses_a_damaged_pack_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let mut bytes = plantain_tests::packs::every_op().to_bytes();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(inspect(&path, &[]).code, Some(0), "only --verify reads the data");
    for (path, rest, sentence) in [
        (path.clone(), &["--verify"][..], "tensor \"golden.rgb\" is damaged"),
        (folder.path().join("none"), &[], "there is no such file"),
        (folder.path().to_owned(), &[], "this is not a regular file"),
        (path.clone(), &["--key", "/none.pub"], "cannot read the key /none.pub"),
    ] {
        let ended = inspect(&path, rest);
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains(sentence) && ended.err.lines().count() == 1, "{}", ended.err);
    }
}

#[test]
fn ends_quietly_when_nobody_reads_on() {
    let mut child = std::process::Command::new(plantain_tests::command::plantain())
        .args(["inspect".as_ref(), bundled_pack().as_os_str()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
