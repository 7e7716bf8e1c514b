//! Packs, mutated at random for a bounded time: whatever the bytes, the reader answers and never panics.
//!
//! `PLANTAIN_FUZZ_SECONDS` (default 5) bounds it; `PLANTAIN_FUZZ_SEED` repeats a run that failed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plantain::graph::{Binding, validate_bound};
use plantain::pack::{Layout, Metadata, Pack, PackBuilder};
use serde_json::{Value, json};

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Says how to repeat the run if a test panics.
struct Repeat(u64, u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with PLANTAIN_FUZZ_SEED={} (mutation {})", self.0, self.1);
        }
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn header_end(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    (length.saturating_add(8)).min(bytes.len() as u64) as usize
}

/// Changes bytes anywhere from `from` to `to`.
fn mutate_bytes(random: &mut Random, bytes: &mut Vec<u8>, from: usize, to: usize) {
    for _ in 0..=random.below(4) {
        let to = to.min(bytes.len());
        let at = from + random.below(to.saturating_sub(from));
        if at >= bytes.len() {
            continue;
        }
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, b"\"{}[],:0-\\u"[random.below(11)]),
            4 => {
                let end = (at + random.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let target = from + random.below(to.saturating_sub(from));
                bytes.splice(target..target, copy);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

fn interesting(random: &mut Random) -> Value {
    let values = [
        json!(0),
        json!(1),
        json!(-1),
        json!(63),
        json!(64),
        json!(255),
        json!(65537),
        json!(u32::MAX),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e38),
        json!(1e300),
        json!(0.5),
        json!(null),
        json!(true),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!([0, 0]),
        json!([1, 2, 3, 4, 5, 6, 7]),
        json!({"b": 1}),
        json!({"h": 1, "div": 3}),
        json!({"bhw": i64::MAX}),
        json!({"hw": i64::MIN, "div": u32::MAX}),
        json!("f16"),
        json!("f32"),
        json!("i32"),
        json!("row"),
        json!({"static": 1e-40}),
        json!("F32"),
        json!("text_encoder"),
        json!("denoiser"),
        json!("sample"),
        json!("x".repeat(300)),
        json!([[[[]]]]),
        json!("matmul_i8"),
        json!("conv_i8"),
        json!("attention"),
        json!("reshape"),
        json!("concat"),
        json!("gather"),
    ];
    values[random.below(values.len())].clone()
}

/// Changes one place of a JSON tree; strings that hold JSON are part of the tree.
fn mutate_json(random: &mut Random, value: &mut Value, depth: usize) {
    let stop = depth > 2 && random.below(5) == 0;
    match value {
        Value::Object(map) if !map.is_empty() && !stop => {
            let index = random.below(map.len());
            let key = map.keys().nth(index).cloned().unwrap_or_default();
            match random.below(40) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}x"), interesting(random))),
                2 => {
                    let other = map.values().nth(random.below(map.len())).cloned();
                    map.insert(key, other.unwrap_or_default());
                }
                _ => {
                    if let Some(inner) = map.get_mut(&key) {
                        mutate_json(random, inner, depth + 1);
                    }
                }
            }
        }
        Value::Array(list) if !list.is_empty() && !stop => {
            let index = random.below(list.len());
            match random.below(40) {
                0 => drop(list.remove(index)),
                1 => list.push(list[index].clone()),
                2 => {
                    let other = random.below(list.len());
                    list.swap(index, other);
                }
                _ => mutate_json(random, &mut list[index], depth + 1),
            }
        }
        Value::String(text) if !stop => match serde_json::from_str::<Value>(text) {
            Ok(mut inner @ (Value::Object(_) | Value::Array(_))) => {
                mutate_json(random, &mut inner, depth + 1);
                *text = inner.to_string();
            }
            _ => *value = interesting(random),
        },
        Value::Number(number) if random.below(2) == 0 => {
            let near = number.as_i64().unwrap_or(0).wrapping_add(random.below(5) as i64 - 2);
            *value = json!(near);
        }
        _ => *value = interesting(random),
    }
}

/// A file with this header text, sealed, and this data.
fn assemble(text: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(text);
    bytes.resize(bytes.len().next_multiple_of(64), b' ');
    let length = bytes.len() as u64 - 8;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    Layout::seal(&mut bytes);
    bytes.extend_from_slice(data);
    bytes
}

fn mutate(random: &mut Random, original: &[u8]) -> Vec<u8> {
    let end = header_end(original);
    match random.below(8) {
        // Anything, anywhere; mostly found by a hash.
        0 => {
            let mut bytes = original.to_vec();
            mutate_bytes(random, &mut bytes, 0, original.len());
            bytes
        }
        // The header's text, sealed again.
        1 => {
            let mut text = original[8..end].trim_ascii_end().to_vec();
            let length = text.len();
            mutate_bytes(random, &mut text, 30, length);
            assemble(&text, &original[end..])
        }
        // One or a few places of the header's tree, sealed again.
        _ => {
            let Ok(mut header) = serde_json::from_slice::<Value>(&original[8..end]) else {
                return original.to_vec();
            };
            for _ in 0..=random.below(3) {
                mutate_json(random, &mut header, 0);
            }
            assemble(header.to_string().as_bytes(), &original[end..])
        }
    }
}

/// Everything that a pack which opened must bear.
fn use_pack(pack: &Pack) {
    let _ = pack.verify_all();
    let _ = (pack.report().is_ok(), pack.hash().len());
    for tensor in pack.tensors() {
        let _ = (tensor.as_i8().is_ok(), tensor.as_f16().is_ok(), tensor.as_f32().is_ok());
        assert!(tensor.bytes().len() <= tensor.bytes_padded().len());
    }
    for graph in pack.graphs() {
        for (batch, height, width) in
            [(1, 4, 4), (2, 8, 6), (3, 7, 1), (u32::MAX, u32::MAX, u32::MAX)]
        {
            let _ = validate_bound(graph, Binding { batch, height, width });
        }
    }
}

/// The name of a fault, two levels deep.
fn kind(error: &plantain::pack::PackError) -> String {
    let word = |text: String| {
        text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
    };
    match &*error.fault {
        plantain::pack::PackFault::Graph(graph) => {
            format!("Graph/{}", word(format!("{:?}", graph.fault)))
        }
        fault => word(format!("{fault:?}")),
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let seconds = variable("PLANTAIN_FUZZ_SECONDS", 5);
    let seed = variable("PLANTAIN_FUZZ_SEED", 20261124);
    let corpus = [
        plantain_tests::packs::every_op().to_bytes(),
        PackBuilder::new(Metadata::default()).f32("x", &[3], &[1.0; 3]).to_bytes(),
    ];
    for bytes in &corpus {
        use_pack(&Pack::from_bytes(bytes).expect("the corpus is valid"));
    }
    let mut random = Random(seed);
    let mut repeat = Repeat(seed, 0);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut slowest = Duration::ZERO;
    // So many at least, however slow the machine: what is reached then depends on the seed alone.
    while Instant::now() < end || repeat.1 < 60_000 {
        let original = &corpus[usize::from(random.below(10) == 0)];
        let bytes = mutate(&mut random, original);
        let start = Instant::now();
        let kind = match Pack::from_bytes(&bytes) {
            Ok(pack) => {
                use_pack(&pack);
                "opened".to_owned()
            }
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains('\n') && text.len() < 3000, "not a sentence: {text:?}");
                kind(&error)
            }
        };
        slowest = slowest.max(start.elapsed());
        *kinds.entry(kind).or_default() += 1;
        repeat.1 += 1;
    }
    println!("{} mutations, seed {seed}, slowest {slowest:?}: {kinds:?}", repeat.1);
    // It reached every layer: bytes, JSON, tensors, graphs, and packs that still open.
    for reached in ["opened", "HeaderDamaged", "Header", "Json", "Size", "Truncated"] {
        assert!(kinds.contains_key(reached), "no mutation led to {reached}: {kinds:?}");
    }
    let graph_kinds = kinds.keys().filter(|kind| kind.starts_with("Graph/")).count();
    assert!(
        graph_kinds >= 8,
        "mutations led to only {graph_kinds} kinds of graph faults: {kinds:?}"
    );
    assert!(slowest < Duration::from_secs(5), "one mutation took {slowest:?}");
}
