//! Budgets: weights that stay, that are kept for a network, that are streamed.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::net::{Net, window};
use super::{BINDING, ops};
use crate::engine::{Engine, EngineError, EngineOptions, Holding, SteadyInputs, Weights};
use crate::graph::{DType, Graph, InputScale, Unary, tensor_needs};
use crate::pack::{Metadata, Pack, PackBuilder};

/// A pack file of several nets.
pub(super) fn pack(nets: &[(&str, &Net)]) -> (tempfile::TempDir, Arc<Pack>) {
    let rename = |name: &str, tensor: &str| format!("{name}.{tensor}");
    let mut graphs: Vec<Graph> = Vec::new();
    let mut tensors = Vec::new();
    for &(name, net) in nets {
        let mut json = serde_json::to_value(&net.graph).unwrap();
        json["name"] = name.into();
        let mut text = json.to_string();
        for node in &net.graph.nodes {
            for need in tensor_needs(&net.graph, node).unwrap() {
                let full = rename(name, need.name);
                text = text.replace(&format!("\"{}\"", need.name), &format!("\"{full}\""));
                let range = net.weights.find(need.name).unwrap();
                let bytes = net.weights.bytes()[range].to_vec();
                tensors.push((full, need.dtype, need.elements as usize, bytes));
            }
        }
        graphs.push(serde_json::from_str(&text).unwrap());
    }
    let mut builder = PackBuilder::new(Metadata { graphs, ..Metadata::default() });
    for (name, dtype, elements, bytes) in tensors {
        builder = builder.tensor(&name, dtype, &[elements], &bytes);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nets.safetensors");
    builder.write(&path).unwrap();
    (folder, Arc::new(Pack::open(&path).unwrap()))
}

/// Weights of half a MiB and small values.
fn heavy(seed: u64) -> Net {
    wide(seed, 96)
}

/// As [`heavy`], with so many channels.
pub(super) fn wide(seed: u64, channels: usize) -> Net {
    let mut net = Net::new(seed);
    let mut x = net.input(&[1, 4, 4, channels], DType::F16);
    for _ in 0..6 {
        x = net.conv_i8(x, channels, window(3, 1, 1), InputScale::Row, (Some(Unary::Silu), None));
    }
    net.output(x);
    net
}

pub(super) fn options(budget_bytes: u64) -> EngineOptions {
    EngineOptions {
        budget_bytes: Some(budget_bytes),
        process_bytes: Some(1 << 20),
        reserve_bytes: 1000,
        ..EngineOptions::new(2)
    }
}

fn load(pack: &Arc<Pack>, budget_bytes: u64) -> Result<Engine, EngineError> {
    let networks: Vec<_> = pack.graphs().iter().map(|graph| (graph, BINDING)).collect();
    Engine::load(pack.clone(), &networks, &options(budget_bytes))
}

/// Runs all networks in turn, twice, and returns the bits of all outputs.
pub(super) fn draw(engine: &mut Engine, nets: &[(&str, &Net)]) -> Vec<u32> {
    let mut bits = Vec::new();
    for _ in 0..2 {
        bits.clear();
        for &(name, net) in nets {
            let network = engine.network(name).unwrap();
            for &id in &net.graph.inputs {
                let (name, data) = (&net.graph.value(id).name, &net.full(id).data);
                engine.set_input(network, name, data).unwrap();
            }
            engine.run(network).unwrap();
            let mut out = vec![0.0; engine.output_len(network, 0)];
            engine.read_output(network, 0, &mut out).unwrap();
            bits.extend(out.iter().map(|x| x.to_bits()));
        }
    }
    bits
}

#[test]
fn every_budget_gives_the_same_bytes_and_the_smallest_is_named() {
    let (heavy, unet) = (heavy(1), ops::unet(2));
    let nets = [("text_encoder", &heavy), ("denoiser", &unet)];
    let (_folder, pack) = pack(&nets);
    let mut ample = load(&pack, 1 << 30).unwrap();
    assert!(ample.memory().networks.iter().all(|n| n.holding == Holding::Resident));
    let expected = draw(&mut ample, &nets);
    let total = ample.memory().total_bytes();
    drop(ample);

    let Err(refused @ EngineError::Budget { needed_bytes, .. }) = load(&pack, 1 << 10) else {
        panic!("a KiB is enough")
    };
    let sentence = refused.to_string();
    assert!(sentence.contains("1.00 KiB") && sentence.contains("--budget 2M"), "{sentence}");
    assert!(needed_bytes < total);
    assert!(load(&pack, needed_bytes - 1).is_err(), "{needed_bytes} is not the smallest");

    let mut seen = std::collections::HashSet::new();
    for step in 0..=8 {
        let budget = needed_bytes + (total - needed_bytes) * step / 8;
        let mut engine = load(&pack, budget).unwrap();
        let memory = engine.memory().clone();
        assert!(memory.total_bytes() <= budget, "{memory:?} above {budget}");
        seen.extend(memory.networks.iter().map(|n| format!("{:?}", n.holding)));
        assert_eq!(draw(&mut engine, &nets), expected, "with {budget}");
    }
    for holding in ["Resident", "Kept", "Streamed"] {
        assert!(seen.contains(holding), "{seen:?}");
    }
}

#[test]
fn of_a_streamed_network_that_runs_again_what_fits_stays() {
    let (heavy, wide) = (heavy(1), wide(2, 384));
    let nets = [("text_encoder", &heavy), ("denoiser", &wide)];
    let (_folder, pack) = pack(&nets);
    let mut ample = load(&pack, 1 << 30).unwrap();
    let expected = draw(&mut ample, &nets);
    let needed = load(&pack, 1).map(|_| ()).unwrap_err();
    let EngineError::Budget { needed_bytes, .. } = needed else { panic!("{needed}") };
    let mut read = Vec::new();
    for more in [0, 9 << 19, 11 << 19] {
        let mut engine = load(&pack, needed_bytes + more).unwrap();
        let memory = engine.memory().clone();
        assert!(memory.total_bytes() <= needed_bytes + more, "{memory:?}");
        assert_eq!(draw(&mut engine, &nets), expected, "with {more} bytes more");
        let denoiser = &memory.networks[1];
        assert_eq!(denoiser.holding, Holding::Streamed);
        // Blocks that two tensors share are read for each.
        let again = denoiser.read_bytes - denoiser.weight_bytes;
        assert!(again < 64 << 10, "{denoiser:?}");
        read.push(denoiser.later_read_bytes);
    }
    assert!(read[0] >= read[1] + (1 << 19) && read[1] >= read[2] + (1 << 19), "{read:?}");
}

#[test]
fn a_damaged_weight_stops_the_run_with_its_name() {
    let net = heavy(4);
    let (folder, whole) = pack(&[("denoiser", &net)]);
    let name = whole.graphs()[0].nodes[3].clone();
    let tensor = tensor_needs(&whole.graphs()[0], &name).unwrap()[0].name.to_owned();
    let at = whole.tensor(&tensor).unwrap().file_range().start as usize + 100;
    let path = folder.path().join("damaged.safetensors");
    let mut bytes = whole.file_bytes().to_vec();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = Arc::new(Pack::open(&path).unwrap());
    for budget in [1 << 30, 1 << 21] {
        let mut engine = load(&damaged, budget).unwrap();
        let network = engine.network("denoiser").unwrap();
        engine.set_input(network, "v0", &net.full(net.graph.inputs[0]).data).unwrap();
        let error = engine.run(network).unwrap_err().to_string();
        assert!(error.contains(&tensor) && error.contains("damaged"), "{error}");
        assert!(engine.run(network).is_err(), "a second run forgets the damage");
        // With an observer the workers part and meet after every step: none may wait for one that has left.
        for _ in 0..200 {
            let run = engine.run_observed(network, &mut |_| ControlFlow::Continue(()));
            assert!(run.unwrap_err().to_string().contains("damaged"));
        }
    }
}

#[test]
fn what_is_kept_gives_way_to_the_budget() {
    let unet = ops::unet(2);
    let nets = [("denoiser", &unet)];
    let (_folder, pack) = pack(&nets);
    let expected = draw(&mut load(&pack, 1 << 30).unwrap(), &nets);
    let Err(EngineError::Budget { needed_bytes, .. }) = load(&pack, 1) else {
        panic!("a byte is enough")
    };
    let networks: Vec<_> = pack.graphs().iter().map(|graph| (graph, BINDING)).collect();
    let keeping = |budget| {
        let steady = Some(SteadyInputs { network: "denoiser".into(), inputs: vec!["v1".into()] });
        Engine::load(pack.clone(), &networks, &EngineOptions { steady, ..options(budget) })
    };
    let Err(EngineError::Budget { needed_bytes: needed, .. }) = keeping(1) else {
        panic!("a byte is enough")
    };
    assert_eq!(needed, needed_bytes, "keeping is no reason to refuse");
    let total = keeping(1 << 30).unwrap().memory().total_bytes();
    let mut seen = std::collections::HashSet::new();
    for step in 0..=24 {
        let budget = needed + (total - needed) * step / 24;
        let mut engine = keeping(budget).unwrap();
        let memory = engine.memory().clone();
        assert!(memory.total_bytes() <= budget, "{memory:?} above {budget}");
        assert!(engine.arena_bytes() as u64 <= memory.arena_bytes);
        assert_eq!(draw(&mut engine, &nets), expected, "with {budget}");
        let network = engine.network("denoiser").unwrap();
        let denoiser = &memory.networks[network.0];
        assert_eq!(engine.remembers(network), denoiser.kept_bytes > 0);
        // The second run reads no weights of what is kept.
        if denoiser.holding == Holding::Streamed && denoiser.kept_bytes > 0 {
            assert!(denoiser.later_read_bytes <= denoiser.read_bytes, "{denoiser:?}");
        }
        seen.insert((denoiser.holding == Holding::Streamed, denoiser.kept_bytes > 0));
    }
    assert!(seen.contains(&(false, true)) && seen.contains(&(true, true)), "{seen:?}");
    assert!(seen.iter().any(|&(_, keeps)| !keeps), "{seen:?}");
}
