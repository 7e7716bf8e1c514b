//! Packs that must be refused: each with one clear sentence, none with a panic.

use half::f16;
use plantain::graph::Graph;
use plantain::pack::{
    HEADER_BYTES_MAX, Layout, Metadata, Pack, PackBuilder, PackFault, PublicKey, panel,
};
use serde_json::{Value, json};

/// A matmul of 5 inputs and 3 outputs over `[b, 5]`, then a SiLU.
fn tiny() -> PackBuilder {
    let graph: Graph = serde_json::from_value(json!({
        "name": "denoiser",
        "values": [{"name": "x", "shape": [{"b": 1}, 5], "dtype": "f32"},
                   {"name": "y", "shape": [{"b": 1}, 3], "dtype": "f16"},
                   {"name": "z", "shape": [{"b": 1}, 3], "dtype": "f32"}],
        "nodes": [{"name": "in", "op": "matmul_i8", "k": 5, "n": 3, "inputs": [0], "output": 1,
                   "weight": {"panels": "in.w", "scale": "in.s", "sums": "in.q"}},
                  {"name": "act", "op": "unary", "function": "silu", "inputs": [1], "output": 2}],
        "inputs": [0], "outputs": [2]}))
    .unwrap();
    let shape = panel::PanelShape::matmul(3, 5);
    let panels = shape.pack_i8(&(1..16).collect::<Vec<i8>>());
    PackBuilder::new(Metadata { graphs: vec![graph], ..Metadata::default() })
        .i8("in.w", &[1, 2, 16, 4], &panels)
        .f32("in.s", &[3], &[0.5, 0.25, 0.125])
        .i32("in.q", &[1, 16], &shape.sums(&panels))
        .f16("half", &[3, 7], &[f16::from_f32(1.5); 21])
}

fn refusal(bytes: &[u8]) -> String {
    Pack::from_bytes(bytes).expect_err("it must be refused").to_string()
}

/// The tiny pack with a header that was changed and sealed again.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let bytes = tiny().to_bytes();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    change(&mut header);
    with_header(&header.to_string(), &bytes[end..])
}

/// The tiny pack with one key's JSON changed.
fn changed_key(key: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    changed(|header| {
        let text = &mut header["__metadata__"][key];
        let mut value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        change(&mut value);
        *text = Value::String(value.to_string());
    })
}

fn with_header(json: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(64), b' ');
    let length = bytes.len() as u64 - 8;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    Layout::seal(&mut bytes);
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn the_unchanged_pack_opens() {
    Pack::from_bytes(&changed(|_| ())).unwrap().verify_all().unwrap();
}

#[test]
fn each_bad_header_has_its_sentence() {
    let bytes = tiny().to_bytes();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut long = bytes.clone();
    long[..8].copy_from_slice(&(HEADER_BYTES_MAX + 1).to_le_bytes());
    let mut flipped = bytes.clone();
    flipped[end - 5] ^= 1;
    let foreign = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut foreign_file = (foreign.len() as u64).to_le_bytes().to_vec();
    foreign_file.extend_from_slice(foreign);
    foreign_file.extend_from_slice(&[0; 4]);
    let rewritten = br#"{"__metadata__":{"plantain.version":"1"}}"#;
    let mut rewritten_file = (rewritten.len() as u64).to_le_bytes().to_vec();
    rewritten_file.extend_from_slice(rewritten);
    let twice = String::from_utf8(bytes[8..end].to_vec()).unwrap().replacen(
        "\"in.s\":{\"dtype\"",
        "\"in.w\":{\"dtype\"",
        1,
    );
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "not a safetensors file (it has 0 bytes)"),
        ("seven bytes", vec![1; 7], "it has 7 bytes"),
        (
            "text",
            b"hello, this is text".to_vec(),
            "not a safetensors file (it does not begin with a header)",
        ),
        (
            "small length",
            [&100u64.to_le_bytes()[..], b"xx"].concat(),
            "states a header of 100 bytes but has 10",
        ),
        ("no JSON", [&8u64.to_le_bytes()[..], b"[1, 2, 3"].concat(), "its header is no such JSON"),
        (
            "deep JSON",
            [&400u64.to_le_bytes()[..], &[b'['; 400]].concat(),
            "its header is no such JSON",
        ),
        (
            "not UTF-8",
            [&4u64.to_le_bytes()[..], b"{\"\xff\""].concat(),
            "its header is no such JSON",
        ),
        (
            "oversized header",
            long,
            "the header is 16777217 bytes long but at most 16777216 are read",
        ),
        ("foreign", foreign_file, "a safetensors file, but not a pack"),
        ("rewritten", rewritten_file, "another program rewrote this pack"),
        ("cut in the header", bytes[..end - 9].to_vec(), "it was cut short"),
        ("cut in the data", bytes[..bytes.len() - 1].to_vec(), "it was cut short"),
        ("a byte too many", [&bytes[..], b"x"].concat(), "its tensors end at"),
        ("flipped in the header", flipped, "the header is damaged: its SHA-256 begins"),
        ("a name twice", with_header(&twice, &bytes[end..]), "the name \"in.w\" stands twice"),
        (
            "newer",
            changed(|h| h["__metadata__"]["plantain.version"] = json!("3")),
            "format version 3 but this plantain reads up to 2",
        ),
        (
            "version zero",
            changed(|h| h["__metadata__"]["plantain.version"] = json!("0")),
            "format version 0",
        ),
        (
            "version is text",
            changed(|h| h["__metadata__"]["plantain.version"] = json!("one")),
            "format version one",
        ),
        (
            "no graphs",
            changed(|h| drop(h["__metadata__"].as_object_mut().unwrap().remove("plantain.graphs"))),
            "the metadata has no plantain.graphs",
        ),
        (
            "type",
            changed(|h| h["half"]["dtype"] = json!("BF16")),
            "tensor \"half\" has type \"BF16\"",
        ),
        ("unknown key", changed(|h| h["half"]["colour"] = json!(1)), "unknown field `colour`"),
        (
            "rank",
            changed(|h| h["half"]["shape"] = json!([1, 1, 1, 1, 1, 1, 1, 1, 32])),
            "has 9 dimensions but at most 8",
        ),
        (
            "shape",
            changed(|h| h["half"]["shape"] = json!([33])),
            "has a shape of 66 bytes but a range of 64",
        ),
        (
            "huge shape",
            changed(|h| h["half"]["shape"] = json!([u64::MAX, u64::MAX])),
            "has a shape of 18446744073709551615 bytes",
        ),
        (
            "negative",
            changed(|h| h["half"]["shape"] = json!([-1])),
            "the header cannot be read: invalid value",
        ),
        (
            "backwards",
            changed(|h| h["half"]["data_offsets"] = json!([320, 256])),
            "ends at 256 before it begins at 320",
        ),
        (
            "overlap",
            changed(|h| {
                h["half"] = json!({"dtype": "F16", "shape": [64], "data_offsets": [192, 320]})
            }),
            "they overlap",
        ),
        (
            "hole",
            changed(|h| {
                h["half"] = json!({"dtype": "F16", "shape": [32], "data_offsets": [320, 384]})
            }),
            "belong to none",
        ),
        (
            "beyond the end",
            changed(|h| {
                h["half"] = json!({"dtype": "F16", "shape": [64], "data_offsets": [256, 384]})
            }),
            "it was cut short",
        ),
        (
            "unaligned",
            changed(|h| {
                h["half"] = json!({"dtype": "F16", "shape": [31], "data_offsets": [256, 318]})
            }),
            "both must be multiples of 64",
        ),
        (
            "unlisted",
            changed(|h| drop(h.as_object_mut().unwrap().remove("half"))),
            "stands in only one of",
        ),
        (
            "listed in vain",
            changed_key("plantain.tensors", |t| t["ghost"] = t["half"].clone()),
            "\"ghost\" stands in only one of",
        ),
        (
            "hash form",
            changed_key("plantain.tensors", |t| t["half"]["sha256"] = json!("AB")),
            "not 64 lower-case hexadecimal",
        ),
        (
            "meant shape",
            changed_key("plantain.tensors", |t| t["half"]["shape"] = json!([3, 77])),
            "has a shape of 462 bytes but a range of 64",
        ),
        (
            "zero shape",
            changed_key("plantain.tensors", |t| t["half"]["shape"] = json!([0])),
            "has a shape of 0 bytes",
        ),
    ];
    for (name, bytes, sentence) in table {
        let actual = refusal(&bytes);
        assert!(actual.contains(sentence), "{name}: {actual:?} lacks {sentence:?}");
        assert!(
            !actual.contains('\n') && actual.len() < 600,
            "{name}: {actual:?} is not a sentence"
        );
    }
}

#[test]
fn each_bad_graph_has_its_sentence() {
    type Change = fn(&mut Value);
    let table: &[(&str, Change)] = &[
        ("network \"denoiser\": it refers to value 9 but there are 3", |g| {
            g["outputs"][0] = json!(9)
        }),
        ("it has no output", |g| g["outputs"] = json!([])),
        ("value \"z\" is given twice", |g| g["outputs"] = json!([2, 2])),
        ("node \"in\" (matmul_i8): value \"x\" is given twice", |g| {
            g["nodes"][0]["output"] = json!(0)
        }),
        ("node \"in\" (matmul_i8): value \"y\" is read before it is computed", |g| {
            g["nodes"][0]["inputs"] = json!([1])
        }),
        ("value \"z\" is never computed", |g| drop(g["nodes"].as_array_mut().unwrap().pop())),
        ("two values are called \"x\"", |g| g["values"][1]["name"] = json!("x")),
        ("two nodes are called \"in\"", |g| g["nodes"][1]["name"] = json!("in")),
        ("one of its nodes has no name", |g| g["nodes"][1]["name"] = json!("")),
        ("its number of bytes in a name is 300 but at most 256", |g| {
            g["values"][0]["name"] = json!("x".repeat(300))
        }),
        ("its number of dimensions in a value is 7 but at most 6", |g| {
            g["values"][0]["shape"] = json!([1, 1, 1, 1, 1, 1, 5])
        }),
        ("unknown variant `matmul_i4`", |g| g["nodes"][0]["op"] = json!("matmul_i4")),
        ("its number of inputs is 2 but must be 1", |g| g["nodes"][0]["inputs"] = json!([0, 0])),
        ("its number of inputs is 1 but must be 2", |g| g["nodes"][0]["residual"] = json!(true)),
        (
            "its input 0 is F16 but must be I32",
            |g| g["nodes"][1] = json!({"name": "g", "op": "gather", "table": "half", "rows": 3, "inputs": [1], "output": 2}),
        ),
        ("its output is I32 but must be F16 or F32", |g| g["values"][1]["dtype"] = json!("i32")),
        ("it needs tensor \"ghost\", which the pack lacks", |g| {
            g["nodes"][0]["weight"]["panels"] = json!("ghost")
        }),
        ("tensor \"half\" is F16 but must be I8", |g| {
            g["nodes"][0]["weight"]["panels"] = json!("half")
        }),
        ("tensor \"in.w\" has 128 values but needs 192", |g| g["nodes"][0]["k"] = json!(9)),
        ("it sums over 65540 products but int8 weights allow 65536", |g| {
            g["nodes"][0]["k"] = json!(65537)
        }),
        ("its k is 0 but must be 1 or more", |g| g["nodes"][0]["k"] = json!(0)),
        ("its weight is int8 but names no scale", |g| {
            drop(g["nodes"][0]["weight"].as_object_mut().unwrap().remove("scale"))
        }),
        ("its upper bound is inf but must be finite", |g| {
            g["nodes"][1]["function"] = json!({"clamp": {"min": 0.0, "max": 1e300}})
        }),
        ("its lower bound is 2 but must be at most the upper bound", |g| {
            g["nodes"][1]["function"] = json!({"clamp": {"min": 2.0, "max": 1.0}})
        }),
        ("a dimension's divisor is 0", |g| g["values"][0]["shape"][0] = json!({"b": 1, "div": 0})),
        ("its axis is 2 but must be below the number of dimensions", |g| {
            g["nodes"][1] =
                json!({"name": "s", "op": "concat", "axis": 2, "inputs": [1], "output": 2})
        }),
    ];
    for (sentence, change) in table {
        let bytes = changed_key("plantain.graphs", |graphs| change(&mut graphs[0]));
        let actual = refusal(&bytes);
        assert!(actual.contains(sentence), "{actual:?} lacks {sentence:?}");
    }
    let twice = changed_key("plantain.graphs", |graphs| *graphs = json!([graphs[0], graphs[0]]));
    assert!(refusal(&twice).contains("two networks are called \"denoiser\""));
}

#[test]
fn files_that_are_no_packs_have_their_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let refusal = || Pack::open(&path).unwrap_err().to_string();
    assert!(refusal().ends_with("there is no such file; name another with --pack"));
    std::fs::write(&path, "").unwrap();
    assert!(refusal().contains("it has 0 bytes"));
    let error = Pack::open(folder.path()).unwrap_err();
    assert!(matches!(*error.fault, PackFault::NotAFile), "{error}");
    let nowhere = Pack::open(path.join("below a file")).unwrap_err();
    assert!(nowhere.to_string().contains("cannot read it"), "{nowhere}");
}

#[test]
fn finds_every_flipped_bit() {
    let bytes = tiny().to_bytes();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = bytes.iter().rposition(|&byte| byte == b'}').unwrap().min(data) + 2;
    // Every bit of the header's text and of the data, and some of the spaces between.
    for at in (0..text).chain((text..data).step_by(511)).chain(data..bytes.len()) {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let found = Pack::from_bytes(&damaged).and_then(|pack| pack.verify_all());
            assert!(found.is_err(), "bit {bit} of byte {at} was flipped and nobody saw it");
        }
    }
}

#[test]
fn a_weight_of_minus_128_is_refused_when_it_is_used() {
    let pack = PackBuilder::new(Metadata::default()).i8("w", &[2], &[-127, -128]).open().unwrap();
    let error = pack.tensor("w").unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("tensor \"w\" holds a -128"), "{error}");
}

#[test]
fn keys_that_are_none_have_their_sentence() {
    for text in ["", "RWQ", "untrusted comment: x\nRWQ", "one\ntwo\nthree"] {
        let error = PublicKey::parse(text).unwrap_err();
        assert!(error.to_string().starts_with("the public key cannot be read"), "{error}");
    }
}
