//! Networks of a pack on their golden inputs, and whole pictures.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use plantain::engine::{Engine, EngineOptions, NetworkIndex};
use plantain::graph::DType;
use plantain::pack::{Golden, Pack};
use plantain::pipeline::{Options, Pipeline, Request};

use super::{Work, line, mark};

/// Counts one run of each network, then one picture with its text.
///
/// # Errors
/// If the pack cannot be read or run.
pub fn count_all(path: &Path) -> Result<(), Box<dyn Error>> {
    let pack = Arc::new(Pack::open(path)?);
    for golden in pack.golden() {
        count_network(&pack, golden)?;
    }
    if pack.pipeline().is_ok() {
        count_picture(pack)?;
    }
    Ok(())
}

fn macs(engine: &Engine, network: NetworkIndex) -> usize {
    engine.profile(network).iter().map(|op| op.macs).sum::<u64>() as usize
}

fn count_network(pack: &Arc<Pack>, golden: &Golden) -> Result<(), Box<dyn Error>> {
    let graphs = pack.graphs();
    let graph = graphs
        .iter()
        .find(|graph| graph.name == golden.network)
        .ok_or_else(|| format!("there is no network {:?}", golden.network))?;
    let networks = [(graph, golden.binding.into())];
    let mut engine = Engine::load(pack.clone(), &networks, &EngineOptions::new(1))?;
    let network = engine.network(&graph.name)?;
    let feed = |engine: &mut Engine| {
        for (input, tensor) in &golden.inputs {
            let tensor = pack.tensor(tensor)?;
            let id = graph.input(input).ok_or_else(|| format!("there is no input {input:?}"))?;
            match graph.value(id).dtype {
                DType::I32 => engine.set_ids(network, input, tensor.as_i32()?)?,
                DType::F16 | DType::F32 => engine.set_input(network, input, tensor.as_f32()?)?,
            }
        }
        Ok::<(), Box<dyn Error>>(())
    };
    feed(&mut engine)?;
    engine.run(network)?;
    let work = Work::Macs(macs(&engine, network));
    let line = line(&format!("network {}", graph.name), work);
    feed(&mut engine)?;
    mark("");
    engine.run(network)?;
    mark(&line);
    Ok(())
}

fn count_picture(pack: Arc<Pack>) -> Result<(), Box<dyn Error>> {
    let options = Options { threads: Some(1), ..Options::default() };
    let mut pipeline = Pipeline::new(pack, options)?;
    let mut draw = |prompt: &str| {
        let request = Request::new(prompt).with_seed(7);
        pipeline.generate(&request, &mut |_| ControlFlow::Continue(()))?;
        let engine = pipeline.engine().ok_or("the networks are not loaded")?;
        Ok::<usize, Box<dyn Error>>(
            (0..engine.networks()).map(|index| macs(engine, NetworkIndex(index))).sum(),
        )
    };
    let line = line("picture", Work::Macs(draw("a green tree")?));
    mark("");
    // Another prompt: the text of the one before is kept.
    draw("a red apple")?;
    mark(&line);
    Ok(())
}
