//! What depends on steady inputs alone: computed once, kept, and the same bytes as computed every time.

use std::sync::Arc;

use proptest::prelude::*;

use super::net::{Net, window};
use super::{BINDING, ops, resident};
use crate::engine::{Engine, EngineOptions, MemoryReport, NetworkIndex, Weights};
use crate::graph::{Binary, DType, Graph, InputScale, Op, Unary, ValueId};
use crate::plan::{Plan, PlanOptions, PlanRecipe};

fn planned(graph: &Graph, steady: &[ValueId], threads: usize, recipe: PlanRecipe) -> Plan {
    let options = PlanOptions { steady: steady.to_vec(), ..PlanOptions::new(BINDING, threads) };
    Plan::of_recipe(graph, &options, recipe).unwrap()
}

/// The net under a plan, and beside it a net that writes over the whole of the arena that both share.
fn engine(net: &Net, mut plan: Plan, threads: usize) -> Engine {
    let mut eraser = Net::new(3);
    let len = plan.arena_bytes / 4 + 16;
    let x = eraser.input(&[1, 1, len], DType::F32);
    eraser.dtype = DType::F32;
    let y = eraser.unary(Unary::Tanh, x);
    eraser.output(y);
    let erasing = Plan::new(&eraser.graph, &PlanOptions::new(BINDING, threads)).unwrap();
    plan.move_kept(erasing.arena_bytes.max(plan.arena_bytes));
    let planned =
        [(&net.graph, plan), (&eraser.graph, erasing)].map(|(graph, plan)| resident(graph, plan));
    let weights: Arc<dyn Weights> = Arc::new(net.weights.clone());
    let options = EngineOptions::new(threads);
    Engine::of_planned(weights, planned.into(), MemoryReport::default(), &options).unwrap()
}

/// Inputs of a run: those of the net, moved by a number each.
fn run(engine: &mut Engine, net: &Net, moves: &[f32]) -> Vec<u32> {
    let network = NetworkIndex(0);
    for (&id, by) in net.graph.inputs.iter().zip(moves) {
        let values: Vec<f32> = net.full(id).data.iter().map(|x| x + by).collect();
        engine.set_input(network, &net.graph.value(id).name, &values).unwrap();
    }
    engine.run(network).unwrap();
    let mut out = vec![0.0; engine.output_len(network, 0)];
    engine.read_output(network, 0, &mut out).unwrap();
    let eraser = NetworkIndex(1);
    let len = engine.output_len(eraser, 0);
    engine.set_input(eraser, "v0", &vec![9.0; len]).unwrap();
    engine.run(eraser).unwrap();
    out.iter().map(|x| x.to_bits()).collect()
}

/// Runs of one prompt, then of another; `moves` of the steady input come first.
pub(super) fn both(net: &Net, steady: ValueId, threads: usize, recipe: PlanRecipe) -> usize {
    let mut plain = engine(net, planned(&net.graph, &[], threads, recipe), threads);
    let plan = planned(&net.graph, &[steady], threads, recipe);
    let prologue = plan.prologue_steps;
    let keeps = plan.kept_bytes > 0;
    let mut keeping = engine(net, plan, threads);
    let place = net.graph.inputs.iter().position(|&id| id == steady).unwrap();
    for (prompt, others) in [(0.0, [0.1, 0.2, 0.0]), (0.3, [0.0, -0.5, 0.25])] {
        keeping.forget(NetworkIndex(0));
        for (turn, other) in others.into_iter().enumerate() {
            let mut moves = vec![other; net.graph.inputs.len()];
            moves[place] = prompt;
            assert_eq!(keeping.remembers(NetworkIndex(0)), keeps && turn > 0);
            let expected = run(&mut plain, net, &moves);
            assert!(run(&mut keeping, net, &moves) == expected, "prompt {prompt}, run {turn}");
        }
    }
    prologue
}

#[test]
fn text_keys_and_values_are_made_once_a_prompt() {
    let net = ops::unet(5);
    let (sample, states) = (net.graph.inputs[0], net.graph.inputs[1]);
    for recipe in PlanRecipe::ALL {
        for threads in 1..=3 {
            assert!(both(&net, states, threads, recipe) >= 2);
        }
    }
    let plan = planned(&net.graph, &[states], 1, PlanRecipe::ALL[0]);
    // Keys and values of [2, 5, 48] from states of 24 channels, in halves.
    assert_eq!((plan.prologue_steps, plan.kept_bytes), (2, 2 * 960));
    assert_eq!(plan.steady_macs, 2 * 2 * 5 * 48 * 24);
    // The other way round: a sample that stays leaves the text to change.
    assert!(both(&net, sample, 2, PlanRecipe::ALL[0]) > 2);
    let options =
        PlanOptions { steady: vec![states], recompute: true, ..PlanOptions::new(BINDING, 1) };
    let plan = Plan::new(&net.graph, &options).unwrap();
    assert_eq!((plan.prologue_steps, plan.kept_bytes), (0, 0));
    assert_eq!(plan.steady_macs, 2 * 2 * 5 * 48 * 24);
}

#[test]
fn a_stopped_run_keeps_nothing_new() {
    let net = ops::unet(5);
    let states = net.graph.inputs[1];
    let plan = planned(&net.graph, &[states], 2, PlanRecipe::ALL[0]);
    let body = plan.steps.len() - plan.prologue_steps;
    let mut engine = engine(&net, plan, 2);
    let network = NetworkIndex(0);
    let expected = run(&mut engine, &net, &[0.0, 0.5, 0.0]);
    engine.forget(network);
    let stop = engine.run_observed(network, &mut |_| std::ops::ControlFlow::Break(()));
    assert!(stop.is_err() && !engine.remembers(network));
    assert_eq!(run(&mut engine, &net, &[0.0, 0.5, 0.0]), expected);
    let stop = engine.run_observed(network, &mut |progress| {
        assert_eq!(progress.steps, body);
        std::ops::ControlFlow::Break(())
    });
    assert!(stop.is_err() && engine.remembers(network));
    assert_eq!(run(&mut engine, &net, &[0.0, 0.5, 0.0]), expected);
}

/// Random graphs over two inputs, ops that may write in place among them.
fn mixed(seed: u64) -> Net {
    let mut net = Net::new(seed);
    let shape = [1 + net.below(2), 6, 5, 8];
    let mut values = vec![net.input(&shape, DType::F16), net.input(&shape, DType::F16)];
    for _ in 0..4 + net.below(12) {
        let pick = |net: &mut Net| values[net.below(values.len())];
        let (x, y) = (pick(&mut net), pick(&mut net));
        let next = match net.below(8) {
            0 => net.conv_i8(x, 8, window(3, 1, 1), InputScale::Row, (None, None)),
            1 => net.conv_i8(x, 8, window(1, 1, 0), InputScale::Row, (None, Some(y))),
            2 => net.unary(Unary::Silu, x),
            3 => net.plain(Op::Binary { function: Binary::Mul }, &[x, y]),
            4 => net.group_norm(x, 2, Some(Unary::Silu)),
            5 => {
                let normed = net.layer_norm(x);
                net.matmul_i8(normed, 8, (None, Some(y)))
            }
            6 => net.plain_to(Op::Reshape, &[x], Some(&shape)),
            _ => net.plain(Op::Binary { function: Binary::Add }, &[x, y]),
        };
        values.push(next);
    }
    let (last, other) = (values[values.len() - 1], values[net.below(values.len())]);
    let sum = net.plain(Op::Binary { function: Binary::Add }, &[last, other]);
    let sum = net.plain(Op::Binary { function: Binary::Add }, &[sum, values[1]]);
    net.output(sum);
    net
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn any_graph_gives_the_same_bytes(seed in 0u64..1 << 40, recipe in 0..PlanRecipe::ALL.len(), threads in 1usize..4) {
        let net = mixed(seed);
        both(&net, net.graph.inputs[0], threads, PlanRecipe::ALL[recipe]);
    }
}
