use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::{Binary, Dim, Epilogue, Op, Unary, ValueId, Weight, Window, validate_bound};

use super::apply::{cut, mask};
use super::channels::Channels;
use super::eliminate::eliminate;
use super::groups::{Group, groups, macs};
use super::measure::verdict;
use super::normal::{Normal, inputs, pick};
use super::*;
use crate::evaluate::{Evaluator, Precision, Values};
use crate::quantise::tests::{Builder, ONE, block, samples};
use crate::quantise::{Inputs, Layer, Samples};

const SIDE: Window = Window { kernel: [3, 3], stride: [1, 1], pad: [1, 1, 1, 1] };

fn weight(b: &mut Builder, name: &str, shape: &[usize]) -> Weight {
    let k: usize = shape[1..].iter().product();
    let panels = b.tensor(&format!("{name}.w"), shape, (k as f32).powf(-0.5));
    let bias = Some(b.tensor(&format!("{name}.b"), &shape[..1], 0.1));
    Weight { panels, scale: None, sums: None, bias }
}

/// `x [1, 12, 64]`, a feed-forward 96 wide behind it, added to it.
fn feed_forward() -> FloatNetwork {
    let mut b = Builder::new("feed", &[1, 12, 64]);
    let up = weight(&mut b, "up", &[96, 64]);
    let epilogue = Epilogue { activation: Some(Unary::Relu), residual: false };
    let op = Op::MatmulF16 { weight: up, k: 64, n: 96, epilogue };
    let hidden = b.node("up", op, &[0], &[1, 12, 96]);
    let down = weight(&mut b, "down", &[64, 96]);
    let epilogue = Epilogue { activation: None, residual: true };
    let op = Op::MatmulF16 { weight: down, k: 96, n: 64, epilogue };
    b.node("down", op, &[hidden, 0], &[1, 12, 64]);
    b.network
}

/// The residual block of the bundled generator: between its convolutions stand a norm, a scale and a shift that a product
/// makes of something else.
fn residual_block() -> FloatNetwork {
    let mut b = Builder::new("block", &[1, 4, 4, 32]);
    let epilogue = Epilogue::default();
    let first = weight(&mut b, "conv1", &[32, 3, 3, 32]);
    let op = Op::ConvF16 { weight: first, c: 32, n: 32, window: SIDE, epilogue };
    let x = b.node("conv1", op, &[0], &[1, 4, 4, 32]);
    let gamma = b.tensor("norm.g", &[32], 1.0);
    let op = Op::RmsNorm { eps: 1e-3, size: 32, gamma };
    let x = b.node("norm", op, &[x], &[1, 4, 4, 32]);
    let mean = b.node("mean", Op::ReduceMean { axes: vec![1, 2] }, &[0], &[1, 1, 1, 32]);
    let both = weight(&mut b, "modulate", &[64, 32]);
    let op = Op::MatmulF16 { weight: both, k: 32, n: 64, epilogue };
    let both = b.node("modulate", op, &[mean], &[1, 1, 1, 64]);
    let slice = |start| Op::Slice { axis: 3, start: Dim::fixed(start) };
    let scale = b.node("scale", slice(0), &[both], &[1, 1, 1, 32]);
    let shift = b.node("shift", slice(32), &[both], &[1, 1, 1, 32]);
    let op = |function| Op::Binary { function };
    let x = b.node("scaled", op(Binary::Mul), &[x, scale], &[1, 4, 4, 32]);
    let x = b.node("shifted", op(Binary::Add), &[x, shift], &[1, 4, 4, 32]);
    let x = b.node("silu", Op::Unary { function: Unary::Silu }, &[x], &[1, 4, 4, 32]);
    let second = weight(&mut b, "conv2", &[32, 3, 3, 32]);
    let op = Op::ConvF16 { weight: second, c: 32, n: 32, window: SIDE, epilogue };
    let x = b.node("conv2", op, &[x], &[1, 4, 4, 32]);
    b.node("sum", op_add(), &[0, x], &[1, 4, 4, 32]);
    b.network
}

fn op_add() -> Op {
    Op::Binary { function: Binary::Add }
}

fn run(network: &FloatNetwork, inputs: &Inputs) -> Values {
    let evaluator = Evaluator::new(&network.graph, &network.weights, ONE);
    evaluator.run(inputs, Precision::default()).unwrap()
}

fn output(network: &FloatNetwork, inputs: &Inputs) -> Vec<f32> {
    let mut values = run(network, inputs);
    values[network.graph.outputs[0].index()].take().unwrap().values
}

/// The classes that go first, down to one of the group's levels.
fn first_to_go(
    network: &FloatNetwork,
    group: &Group,
    samples: &Samples,
    level: usize,
) -> BTreeSet<usize> {
    let mut sums = Vec::new();
    for &node in &group.consumers {
        let layer = Layer::at(&network.graph, node).unwrap();
        let out = network.shape(network.graph.nodes[node].output, ONE).unwrap();
        let rows = out.iter().product::<usize>() / layer.n;
        let mut normal = Normal::new(layer.products() + 1, 0);
        for sample in &samples.inputs {
            let values = run(network, sample);
            let x = values[network.graph.nodes[node].inputs[0].index()].as_ref().unwrap();
            let read = inputs(&layer, x, &out, &pick(rows, usize::MAX, None));
            normal.add(&read, &ndarray::Array2::zeros((rows, 0)));
        }
        normal.flush();
        sums.push(normal);
    }
    let levels = eliminate(network, group, &sums.iter().collect::<Vec<_>>());
    levels[level].removed.iter().map(|&unit| group.units[unit].class).collect()
}

#[test]
fn channels_that_do_nothing_go_first_and_leave_the_bits_as_they_were() {
    let mut network = feed_forward();
    let idle: Vec<usize> = (0..96).filter(|channel| channel % 3 == 1).collect();
    for &channel in &idle {
        let down = network.weights.get_mut("down.w").unwrap();
        down.data.iter_mut().skip(channel).step_by(96).for_each(|w| *w = 0.0);
    }
    let channels = Channels::of(&network.graph);
    let groups = groups(&network.graph, &channels);
    assert_eq!((groups.len(), groups[0].units.len()), (1, 96));
    let level = groups[0].kept.iter().position(|&kept| kept == 64).unwrap();
    let samples = samples(&[1, 12, 64], 40);
    let gone = first_to_go(&network, &groups[0], &samples, level);
    let expected: BTreeSet<usize> =
        idle.iter().filter_map(|&channel| channels.class(ValueId(1), channel)).collect();
    assert_eq!(gone, expected);
    let small = cut(&network, &channels, &gone);
    validate_bound(&small.graph, ONE).unwrap();
    assert_eq!(small.weight("up.w").shape, [64, 64]);
    for sample in &samples.inputs[..4] {
        assert_eq!(output(&network, sample), output(&small, sample));
    }
}

#[test]
fn a_norm_and_a_shared_product_between_convolutions_lose_the_same_channels() {
    let network = residual_block();
    let channels = Channels::of(&network.graph);
    let groups = groups(&network.graph, &channels);
    assert_eq!((groups.len(), groups[0].kept.as_slice()), (1, &[16][..]));
    let samples = samples(&[1, 4, 4, 32], 12);
    let gone = first_to_go(&network, &groups[0], &samples, 0);
    let mut masked = network.clone();
    mask(&mut masked, &channels, &gone);
    let small = cut(&network, &channels, &gone);
    validate_bound(&small.graph, ONE).unwrap();
    assert_eq!(small.weight("conv2.w").shape, [32, 3, 3, 16]);
    assert_eq!(small.weight("modulate.w").shape, [32, 32]);
    for sample in &samples.inputs[..2] {
        for (a, b) in output(&masked, sample).iter().zip(output(&small, sample)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
    let counted = macs(&network.graph, ONE, &channels, &gone).unwrap();
    let own = macs(&small.graph, ONE, &Channels::of(&small.graph), &BTreeSet::new()).unwrap();
    assert_eq!(counted, own);
}

#[test]
fn heads_and_gated_channels_go_whole() {
    let network = block();
    let channels = Channels::of(&network.graph);
    let groups = groups(&network.graph, &channels);
    let sizes: Vec<usize> = groups.iter().map(|group| group.units.len()).collect();
    assert_eq!(sizes, [4, 128]);
    let samples = samples(&[1, 12, 64], 20);
    let mut gone = first_to_go(&network, &groups[0], &samples, 0);
    gone.extend(first_to_go(&network, &groups[1], &samples, 2));
    let mut masked = network.clone();
    mask(&mut masked, &channels, &gone);
    let small = cut(&network, &channels, &gone);
    validate_bound(&small.graph, ONE).unwrap();
    let heads = small.graph.nodes.iter().find_map(|node| match node.op {
        Op::Attention { heads, .. } => Some(heads as usize),
        _ => None,
    });
    assert_eq!(heads, Some(groups[0].kept[0]));
    assert_eq!(small.weight("up.w").shape, [2 * groups[1].kept[2], 64]);
    let sample = &samples.inputs[0];
    for (a, b) in output(&masked, sample).iter().zip(output(&small, sample)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn a_branch_without_channels_becomes_what_it_adds_everywhere() {
    let network = feed_forward();
    let channels = Channels::of(&network.graph);
    let groups = groups(&network.graph, &channels);
    assert_eq!(groups[0].kept.last(), Some(&0));
    let gone: BTreeSet<usize> = groups[0].units.iter().map(|unit| unit.class).collect();
    let mut masked = network.clone();
    mask(&mut masked, &channels, &gone);
    let small = cut(&network, &channels, &gone);
    validate_bound(&small.graph, ONE).unwrap();
    assert_eq!(small.graph.nodes.len(), 2);
    assert_eq!(macs(&small.graph, ONE, &Channels::of(&small.graph), &BTreeSet::new()), Ok(0));
    let sample = &samples(&[1, 12, 64], 1).inputs[0];
    assert_eq!(output(&masked, sample), output(&small, sample));
}

fn model(network: FloatNetwork) -> Model {
    Model { networks: vec![network], imported: Vec::new(), pipeline: None, sources: Vec::new() }
}

#[test]
fn the_share_is_met_and_the_rest_is_fitted_to_what_was() {
    let options = Options { share: 0.25, db_min: 0.0 };
    let mut pruned = model(block());
    let found = prune(&mut pruned, &[], &options, &BTreeMap::new(), &mut |_| {}).unwrap();
    let network = &pruned.networks[0];
    validate_bound(&network.graph, ONE).unwrap();
    let own = macs(&network.graph, ONE, &Channels::of(&network.graph), &BTreeSet::new()).unwrap();
    assert_eq!(own, found.macs[1]);
    let share = 1.0 - found.macs[1] as f64 / found.macs[0] as f64;
    assert!((0.25..0.4).contains(&share), "{share}");
    assert!(!found.parts.is_empty() && found.parts.iter().all(|part| part.kept < part.of));
    let Task::Network(_, inputs) = &found.held[0] else { panic!("a lone network has no pictures") };
    let (was, is) = (output(&block(), inputs), output(network, inputs));
    let noise: f32 = was.iter().zip(&is).map(|(a, b)| (a - b).powi(2)).sum();
    let signal: f32 = was.iter().map(|a| a * a).sum();
    assert!(noise < 0.1 * signal, "{noise} of {signal}");
}

#[test]
fn useless_shares_are_refused_with_both_numbers() {
    let refusal = |network: FloatNetwork, share: f64| {
        let options = Options { share, db_min: 0.0 };
        let text = check(&model(network), &[], &options).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 1);
        text
    };
    assert!(refusal(block(), 0.0).contains("is 0 but must be above 0"));
    assert!(refusal(block(), 1.5).contains("is 1.5 but"));
    assert!(refusal(block(), 0.99).starts_with("0.990 of the multiply-adds are to be pruned but"));
    let mut b = Builder::new("one", &[1, 12, 64]);
    b.matmul("only", 0, 32, 64);
    assert!(refusal(b.network, 0.1).contains("0.000 of them"));
    let slow = verdict([10e-3, 9.9e-3], 40.0, 0.01, 24.0).unwrap_err().to_string();
    assert!(slow.contains("9.90 ms where it took 10.00 ms"), "{slow}");
    let bad = verdict([10e-3, 7e-3], 19.0, 0.5, 24.0).unwrap_err().to_string();
    assert!(bad.contains("19.0 dB") && bad.contains("below 24.0 dB"), "{bad}");
    assert!(verdict([10e-3, 7e-3], 30.0, 0.3, 24.0).is_ok());
}
