//! What padding alone needs: not computed, and the same bytes as computed.

use std::sync::Arc;

use proptest::prelude::*;

use super::net::Net;
use super::{BINDING, resident};
use crate::engine::{Engine, EngineOptions, MemoryReport, NetworkIndex, Weights};
use crate::graph::{Binary, DType, Op, Unary, ValueId};
use crate::plan::{Padding, PaddingMask, Plan, PlanOptions, PlanRecipe};

const SAMPLES: usize = 2;
const TOKENS: usize = 9;
const CHANNELS: usize = 8;
/// Places of the inputs.
const X: usize = 0;
const MASK: usize = 1;

/// A net over tokens `x` and their mask, with the scores of hidden keys moved down by `hidden`.
struct Masked {
    net: Net,
    /// `[samples, 1, tokens]`
    bias: ValueId,
    /// `[samples, tokens, 1]`
    column: ValueId,
}

fn masked(seed: u64, hidden: f32) -> Masked {
    let mut net = Net::new(seed);
    net.input(&[SAMPLES, TOKENS, CHANNELS], DType::F16);
    let mask = net.input(&[SAMPLES, TOKENS], DType::F32);
    let row = net.plain_to(Op::Reshape, &[mask], Some(&[SAMPLES, 1, TOKENS]));
    let column = net.plain_to(Op::Reshape, &[mask], Some(&[SAMPLES, TOKENS, 1]));
    net.dtype = DType::F32;
    let bias = net.unary(Unary::Affine { scale: hidden, shift: -hidden }, row);
    net.dtype = DType::F16;
    Masked { net, bias, column }
}

fn engine(net: &Net, padding: Option<PaddingMask>, threads: usize, recipe: PlanRecipe) -> Engine {
    let options = PlanOptions { padding, ..PlanOptions::new(BINDING, threads) };
    engine_of(net, Plan::of_recipe(&net.graph, &options, recipe).unwrap(), threads)
}

fn engine_of(net: &Net, plan: Plan, threads: usize) -> Engine {
    let planned = resident(&net.graph, plan);
    let weights: Arc<dyn Weights> = Arc::new(net.weights.clone());
    let (memory, options) = (MemoryReport::default(), EngineOptions::new(threads));
    Engine::of_planned(weights, vec![planned], memory, &options).unwrap()
}

fn run(engine: &mut Engine, net: &Net, inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let network = NetworkIndex(0);
    for (&id, values) in net.graph.inputs.iter().zip(inputs) {
        engine.set_input(network, &net.graph.value(id).name, values).unwrap();
    }
    engine.run(network).unwrap();
    let outputs = 0..net.graph.outputs.len();
    let read = |index| {
        let mut out = vec![f32::NAN; engine.output_len(network, index)];
        engine.read_output(network, index, &mut out).unwrap();
        out
    };
    outputs.map(read).collect()
}

fn mask(counts: [usize; SAMPLES]) -> Vec<f32> {
    counts.iter().flat_map(|&n| (0..TOKENS).map(move |t| f32::from(u8::from(t < n)))).collect()
}

/// Whether values of the first `counting` tokens are the same numbers.
fn agree(a: &[f32], b: &[f32], counting: usize) -> bool {
    let row = a.len() / SAMPLES / TOKENS;
    a.iter().zip(b).enumerate().all(|(at, (a, b))| at / row % TOKENS >= counting || a == b)
}

/// Random graphs over tokens, of ops that keep rows apart and, if `mixing`, of some that do not, with cells that attend to
/// the tokens. Outputs are the tokens and the cells.
fn mixed(seed: u64, mixing: bool) -> Net {
    let Masked { mut net, bias, column } = masked(seed, 1e4);
    let cells = net.input(&[SAMPLES, 5, CHANNELS], DType::F16);
    let mut tokens = vec![net.graph.inputs[X]];
    let mut cells = vec![cells];
    for _ in 0..3 + net.below(9) {
        let pick = |net: &mut Net, from: &[ValueId]| from[net.below(from.len())];
        let [x, y, z] = [(); 3].map(|()| pick(&mut net, &tokens));
        let cell = pick(&mut net, &cells);
        let turn = Op::Transpose { permutation: vec![0, 2, 1] };
        tokens.push(match net.below(if mixing { 13 } else { 10 }) {
            0 => net.layer_norm(x),
            1 => net.matmul_i8(x, CHANNELS, (None, Some(y))),
            2 => net.matmul_f16(x, CHANNELS, (Some(Unary::Gelu), None)),
            3 => net.unary(Unary::Silu, x),
            4 => net.plain(Op::Binary { function: Binary::Add }, &[x, y]),
            5 => net.attention(&[x, y, z, bias], 2, false),
            6 => net.plain(Op::Binary { function: Binary::Mul }, &[x, column]),
            7 => {
                cells.push(net.attention(&[cell, y, z, bias], 2, false));
                continue;
            }
            8 => {
                let shown =
                    net.plain(Op::Binary { function: Binary::Mul }, &[net.graph.inputs[X], column]);
                let sum = net.plain(Op::ReduceSum { axes: vec![1] }, &[shown]);
                cells.push(net.plain(Op::Binary { function: Binary::Add }, &[cell, sum]));
                continue;
            }
            9 => {
                let normed = net.layer_norm(x);
                let [a, b] = [(); 2].map(|()| net.matmul_i8(normed, CHANNELS, (None, None)));
                net.plain(Op::Binary { function: Binary::Add }, &[a, b])
            }
            10 => {
                let turned = net.plain(turn.clone(), &[x]);
                let softened = net.unary(Unary::Tanh, turned);
                net.plain(turn, &[softened])
            }
            11 => net.attention(&[x, y, z], 2, true),
            _ => net.attention_i8(&[x, y, z, bias], 2, false),
        });
    }
    net.output(*tokens.last().unwrap());
    net.output(*cells.last().unwrap());
    net
}

fn known(net: &Net) -> PaddingMask {
    PaddingMask { mask: net.graph.inputs[MASK], outputs: vec![net.graph.outputs[0]] }
}

fn compare(net: &Net, recipe: PlanRecipe, threads: usize, counts: [usize; SAMPLES]) -> Padding {
    let mut plain = engine(net, None, threads, recipe);
    let mut sparing = engine(net, Some(known(net)), threads, recipe);
    let plan = sparing.plan(NetworkIndex(0));
    let padding = plan.padding.clone().unwrap();
    let spares = |id: ValueId| padding.spares(&plan.tasks, id.index());
    let (spares_x, spares_output) = (spares(net.graph.inputs[X]), spares(net.graph.outputs[0]));
    let mut inputs: Vec<Vec<f32>> =
        net.graph.inputs.iter().map(|&id| net.full(id).data.clone()).collect();
    // What an earlier run leaves behind must not matter.
    let mut spoiled = inputs.clone();
    spoiled[X].fill(f32::NAN);
    spoiled[MASK].fill(1.0);
    run(&mut sparing, net, &spoiled);

    inputs[MASK] = mask(counts);
    let most = counts[0].max(counts[1]);
    let expected = run(&mut plain, net, &inputs);
    let outputs = run(&mut sparing, net, &inputs);
    assert!(agree(&outputs[0], &expected[0], most), "tokens");
    assert!(outputs[1] == expected[1], "cells");
    if spares_output {
        let row = outputs[0].len() / SAMPLES / TOKENS;
        let padding = outputs[0].chunks(row).enumerate().filter(|(at, _)| at % TOKENS >= most);
        assert!(padding.flat_map(|(_, row)| row).all(|&value| value == 0.0));
    }
    if spares_x {
        let row = CHANNELS;
        for (at, values) in inputs[X].chunks_mut(row).enumerate() {
            if at % TOKENS >= most {
                values.fill(-3.0);
            }
        }
        let outputs = run(&mut sparing, net, &inputs);
        assert!(agree(&outputs[0], &expected[0], most) && outputs[1] == expected[1], "ignored");
    }
    padding
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_graph_gives_the_same_numbers(
        seed in 0u64..1 << 40,
        mixing: bool,
        recipe in 0..PlanRecipe::ALL.len(),
        threads in 1usize..4,
        counts in prop::array::uniform2(1..=TOKENS),
    ) {
        compare(&mixed(seed, mixing), PlanRecipe::ALL[recipe], threads, counts);
    }
}

/// Self-attention over normed tokens, and a product that adds them.
fn encoder(hidden: f32) -> Net {
    let Masked { mut net, bias, .. } = masked(3, hidden);
    let x = net.layer_norm(net.graph.inputs[X]);
    let [q, k, v] = [(); 3].map(|()| net.matmul_i8(x, CHANNELS, (None, None)));
    let attended = net.attention(&[q, k, v, bias], 2, false);
    let out = net.matmul_i8(attended, CHANNELS, (None, Some(x)));
    net.output(out);
    net
}

#[test]
fn an_encoder_makes_rows_that_count_only() {
    let net = encoder(1e4);
    let mut engine = engine(&net, Some(known(&net)), 2, PlanRecipe::ALL[1]);
    let network = NetworkIndex(0);
    let plan = engine.plan(network);
    let padding = plan.padding.clone().unwrap();
    let by_token = |id: &ValueId| plan.tasks.layouts[id.index()].rows == SAMPLES * TOKENS;
    let nodes = net.graph.nodes.iter().filter(|node| node.op != Op::Reshape);
    let made: Vec<ValueId> = nodes.map(|node| node.output).collect();
    assert!(made.iter().filter(|id| by_token(id)).count() == 6);
    assert!(
        made.iter().filter(|id| by_token(id)).all(|id| padding.spares(&plan.tasks, id.index()))
    );

    let mut inputs: Vec<Vec<f32>> =
        net.graph.inputs.iter().map(|&id| net.full(id).data.clone()).collect();
    let mut macs = |mask: Vec<f32>| {
        let before: u64 = engine.profile(network).iter().map(|op| op.macs).sum();
        inputs[MASK] = mask;
        run(&mut engine, &net, &inputs);
        engine.profile(network).iter().map(|op| op.macs).sum::<u64>() - before
    };
    let of = |tokens: u64| SAMPLES as u64 * tokens * CHANNELS as u64 * (4 * 8 + 2 * tokens);
    assert_eq!(macs(mask([9, 4])), of(9));
    assert_eq!(macs(mask([2, 4])), of(4));
    assert_eq!(macs(mask([1, 1])), of(1));
    // Neither says which tokens are padding.
    assert_eq!(macs(mask([0, 4])), of(9));
    assert_eq!(macs(vec![0.5; SAMPLES * TOKENS]), of(9));
}

#[test]
fn a_mask_that_leaves_hidden_keys_some_weight_spares_nothing() {
    let net = encoder(50.0);
    let engine = engine(&net, Some(known(&net)), 1, PlanRecipe::ALL[0]);
    let plan = engine.plan(NetworkIndex(0));
    let padding = plan.padding.as_ref().unwrap();
    let nodes = &net.graph.nodes;
    let keys = nodes.iter().find(|node| matches!(node.op, Op::Attention { .. })).unwrap();
    assert!(!padding.spares(&plan.tasks, keys.inputs[1].index()));
    assert!(!padding.spares(&plan.tasks, net.graph.inputs[X].index()));
}

#[test]
fn what_is_kept_for_fewer_tokens_is_made_anew_for_more() {
    let net = mixed_cells();
    let steady = vec![net.graph.inputs[X], net.graph.inputs[MASK]];
    let options =
        PlanOptions { steady, padding: Some(known(&net)), ..PlanOptions::new(BINDING, 1) };
    let mut keeping = engine_of(&net, Plan::new(&net.graph, &options).unwrap(), 1);
    let mut plain = engine(&net, None, 1, PlanRecipe::ALL[0]);
    let network = NetworkIndex(0);
    assert!(keeping.plan(network).kept_bytes > 0);
    let mut inputs: Vec<Vec<f32>> =
        net.graph.inputs.iter().map(|&id| net.full(id).data.clone()).collect();
    for (counts, remembers) in [([3, 2], false), ([3, 2], true), ([4, 3], false), ([2, 2], false)] {
        inputs[MASK] = mask(counts);
        keeping.set_input(network, "v1", &inputs[MASK]).unwrap();
        assert_eq!(keeping.remembers(network), remembers, "{counts:?}");
        assert!(run(&mut keeping, &net, &inputs)[1] == run(&mut plain, &net, &inputs)[1]);
    }
}

/// Cells that attend to tokens.
fn mixed_cells() -> Net {
    let Masked { mut net, bias, .. } = masked(5, 1e4);
    let q = net.input(&[SAMPLES, 5, CHANNELS], DType::F16);
    let x = net.graph.inputs[X];
    let [k, v] = [(); 2].map(|()| net.matmul_i8(x, CHANNELS, (None, None)));
    let cells = net.attention(&[q, k, v, bias], 2, false);
    let tokens = net.unary(Unary::Tanh, x);
    net.output(tokens);
    net.output(cells);
    net
}
