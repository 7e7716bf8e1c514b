//! tract's side of `cargo xtask bench-peers`: `tract_float RUNS MODEL.onnx...` prints seconds of each f32 run, on one
//! thread, as JSON. All models are loaded together; a run is one of each.

use std::time::Instant;

use anyhow::{Context, Result};
use plantain::pipeline::peak_rss_bytes;
use serde_json::json;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::knobs::KnobScope;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let runs: usize = arguments.next().context("say how many runs, then the models")?.parse()?;
    let models: Vec<_> = arguments.map(|path| load(&path)).collect::<Result<_>>()?;
    let (mut cpu, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..=runs {
        let start = (cpu_seconds(), Instant::now());
        for (model, inputs) in &models {
            model.run(inputs.clone())?;
        }
        cpu.push(cpu_seconds() - start.0);
        wall.push(start.1.elapsed().as_secs_f64());
    }
    // The first run is not measured.
    let value = json!({
        "cpu_seconds": cpu[1..],
        "wall_seconds": wall[1..],
        "peak_rss_bytes": peak_rss_bytes(),
    });
    println!("{value}");
    Ok(())
}

/// An optimised model and inputs for it: ones; a dimension that is free is 1.
fn load(path: &str) -> Result<(std::sync::Arc<TypedRunnableModel>, TVec<TValue>)> {
    let mut model = tract_onnx::onnx().model_for_path(path)?;
    let mut inputs = tvec![];
    for index in 0..model.input_outlets()?.len() {
        let fact = model.input_fact(index)?;
        let datum_type = fact.datum_type.concretize().context("an input has no type")?;
        let rank = fact.shape.rank().concretize().context("an input has no rank")?;
        let dims = fact.shape.dims().take(rank as usize);
        let shape: Vec<usize> = dims
            .map(|dim| dim.concretize().and_then(|dim| dim.to_usize().ok()).unwrap_or(1))
            .collect();
        model.set_input_fact(index, InferenceFact::dt_shape(datum_type, &shape))?;
        let ones = Tensor::from_shape(&shape, &vec![1f32; shape.iter().product()])?;
        inputs.push(ones.cast_to_dt(datum_type)?.into_owned().into_tvalue());
    }
    // Its direct convolution is many times slower than its matmul form.
    let scope = KnobScope::new([("TRACT_DISABLE_DIRECT_SPATIAL", "true")])?;
    let model = scope.enter(|| model.into_optimized()?.into_runnable())?;
    Ok((model, inputs))
}

/// Seconds that this process has computed.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
