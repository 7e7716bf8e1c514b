//! The engine against plain loops, and against itself with other threads, kernels, segments and tiles.

mod budget;
mod functions;
mod naive;
mod net;
mod ops;
mod padding;
mod quantised;
mod steady;
mod stream;
mod tiles;

use std::sync::Arc;

use super::*;
use crate::plan::PlanOptions;
use net::Net;

const BINDING: Binding = Binding { batch: 1, height: 1, width: 1 };

/// A graph and its plan, with all weights in memory.
fn resident(graph: &Graph, plan: Plan) -> Planned {
    Planned {
        graph: Arc::new(graph.clone()),
        plan,
        holding: Holding::Resident,
        residency: None,
        ranges: Vec::new(),
    }
}

/// Runs a net under a plan and returns its outputs.
fn run(net: &Net, plan: Plan, kernels: &'static Kernels) -> Vec<Vec<f32>> {
    let options = EngineOptions { kernels: Some(kernels), ..EngineOptions::new(1) };
    let weights: Arc<dyn Weights> = Arc::new(net.weights.clone());
    let planned = resident(&net.graph, plan);
    let memory = MemoryReport::default();
    let mut engine = Engine::of_planned(weights, vec![planned], memory, &options).unwrap();
    let network = engine.network("net").unwrap();
    let mut results = Vec::new();
    // Twice: whatever the first run leaves in the arena must not matter.
    for _ in 0..2 {
        for &id in &net.graph.inputs {
            let name = &net.graph.value(id).name;
            let data = &net.full(id).data;
            if net.graph.value(id).dtype == DType::I32 {
                let ids: Vec<i32> = data.iter().map(|&x| x as i32).collect();
                engine.set_ids(network, name, &ids).unwrap();
            } else {
                engine.set_input(network, name, data).unwrap();
            }
        }
        engine.run(network).unwrap();
        results = (0..net.graph.outputs.len())
            .map(|index| {
                let mut out = vec![0.0; engine.output_len(network, index)];
                engine.read_output(network, index, &mut out).unwrap();
                out
            })
            .collect();
    }
    assert!(engine.high_water_bytes(network) <= engine.arena_bytes());
    results
}

fn plan(net: &Net, threads: usize) -> Plan {
    Plan::new(&net.graph, &PlanOptions::new(BINDING, threads)).unwrap()
}

fn bits(outputs: &[Vec<f32>]) -> Vec<u32> {
    outputs.iter().flatten().map(|x| x.to_bits()).collect()
}

/// Checks outputs against the plain loops and that threads and kernels change no bit.
fn check(net: &Net, tolerance: f32) {
    let outputs = run(net, plan(net, 1), &crate::kernel::reference::KERNELS);
    for (output, &id) in outputs.iter().zip(&net.graph.outputs) {
        let expected = &net.full(id).data;
        let most = expected.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
        for (index, (&actual, &expected)) in output.iter().zip(expected).enumerate() {
            assert!(
                (actual - expected).abs() <= tolerance * most,
                "{}[{index}] is {actual}, not {expected} (largest {most})",
                net.graph.value(id).name
            );
        }
    }
    for &kernels in Kernels::available() {
        for threads in 1..=3 {
            let other = run(net, plan(net, threads), kernels);
            assert!(
                bits(&other) == bits(&outputs),
                "{} with {threads} threads differs from the reference",
                kernels.name
            );
        }
    }
}

#[test]
fn a_small_unet_gives_the_same_bytes_with_any_threads_and_kernels() {
    check(&ops::unet(7), 0.03);
}

#[test]
fn products_of_the_same_rows_quantise_them_once() {
    let mut net = Net::new(5);
    let x = net.input(&[2, 7, 24], DType::F16);
    let y = net.layer_norm(x);
    let q = net.matmul_i8(y, 24, (None, None));
    let q = net.rms_norm(q, 8);
    let [k, v] = [(); 2].map(|()| net.matmul_i8(y, 24, (None, None)));
    let attended = net.attention(&[q, k, v], 3, false);
    let out = net.matmul_i8(attended, 24, (None, Some(y)));
    net.output(out);
    let plan = plan(&net, 2);
    let steps = plan.steps.iter().flat_map(Step::task_steps);
    assert_eq!(steps.filter(|step| step.prepared).count(), 2);
    check(&net, 0.03);
    let mut broken = plan;
    for step in &mut broken.steps {
        if let Step::Task(step) = step {
            step.prepared = step.scratch.is_some();
        }
    }
    assert!(crate::plan::check::check(&net.graph, &broken).is_err());
}

#[test]
fn a_segment_changes_nothing() {
    let net = ops::unet(3);
    let reference = &crate::kernel::reference::KERNELS;
    let whole = run(&net, plan(&net, 2), reference);
    for segment in [0..2, 3..9, 0..net.graph.nodes.len()] {
        let mut options = PlanOptions::new(BINDING, 2);
        options.segments = vec![segment];
        let plan = Plan::new(&net.graph, &options).unwrap();
        assert!(plan.steps.iter().any(|step| matches!(step, Step::Segment { .. })));
        assert_eq!(bits(&run(&net, plan, reference)), bits(&whole));
    }
}

#[test]
fn an_observer_sees_every_step_and_can_stop() {
    let net = ops::unet(5);
    let weights: Arc<dyn Weights> = Arc::new(net.weights.clone());
    let options = EngineOptions::new(2);
    let mut engine = Engine::load(weights, &[(&net.graph, BINDING)], &options).unwrap();
    let network = engine.network("net").unwrap();
    let steps = engine.plan(network).steps.len();
    let mut seen = Vec::new();
    engine
        .run_observed(network, &mut |progress| {
            seen.push(progress.done);
            assert_eq!(progress.steps, steps);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, (1..=steps).collect::<Vec<_>>());
    let stopped = engine.run_observed(network, &mut |progress| match progress.done {
        3 => ControlFlow::Break(()),
        done => {
            assert!(done < 3);
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(stopped, Err(EngineError::Cancelled)));
    assert!(engine.run(network).is_ok());
    let profile = engine.profile(network);
    assert!(profile.iter().any(|p| p.op == "conv_i8" && p.macs > 0 && p.seconds > 0.0));
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let net = ops::unet(5);
    let weights: Arc<dyn Weights> = Arc::new(net.weights.clone());
    let mut engine =
        Engine::load(weights, &[(&net.graph, BINDING)], &EngineOptions::new(1)).unwrap();
    let network = engine.network("net").unwrap();
    let unknown = engine.set_input(network, "latent", &[0.0]).unwrap_err().to_string();
    assert!(unknown.contains("\"latent\"") && unknown.contains("\"v0\""), "{unknown}");
    let short = engine.set_input(network, "v0", &[0.0; 3]).unwrap_err().to_string();
    assert!(short.contains(" 3 were given"), "{short}");
    assert!(engine.network("decoder").is_err());
    assert!(engine.read_output(network, 9, &mut [0.0]).is_err());
}
