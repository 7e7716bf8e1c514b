//! Row tiling: the same bytes at any height of strip.

use proptest::prelude::*;

use super::net::{Net, window};
use super::{BINDING, bits, ops, plan, run};
use crate::graph::{
    Binary, DType, InputScale, Op, PoolKind, ResizeMode, ShuffleOrder, Unary, ValueId,
};
use crate::kernel::Kernels;
use crate::plan::{Plan, PlanOptions, PlanRecipe, Strips};

/// A random graph of ops that work row by row, with residuals and joins between branches.
fn rolling(seed: u64) -> Net {
    let mut net = Net::new(seed);
    let (height, width) = (4 + net.below(9), 2 + net.below(6));
    let channels = 4 * (1 + net.below(4));
    let samples = 1 + net.below(2);
    let mut x = net.input(&[samples, height, width, channels], DType::F16);
    let mut earlier: Vec<ValueId> = vec![x];
    for _ in 0..3 + net.below(8) {
        let shape = net.shape(x);
        let alike: Vec<ValueId> =
            earlier.iter().copied().filter(|&id| net.shape(id) == shape).collect();
        let other = alike[net.below(alike.len())];
        let n = 4 * (1 + net.below(8));
        let scale = if net.below(2) == 0 { InputScale::Row } else { InputScale::Static(0.02) };
        x = match net.below(12) {
            0 => net.conv_i8(x, n, window(3, 1, 1), scale, (Some(Unary::Silu), None)),
            1 => net.conv_i8(x, shape[3], window(3, 1, 1), scale, (None, Some(other))),
            2 if shape[1] > 5 => net.conv_i8(x, n, window(3, 2, 1), scale, (None, None)),
            3 => net.conv_f16(x, n, window(1, 1, 0), (Some(Unary::Tanh), None)),
            4 => net.depthwise(x, window(5, 1, 2), (None, Some(other))),
            5 => net.plain(Op::Binary { function: Binary::Add }, &[x, other]),
            6 => net.plain(Op::Concat { axis: 3 }, &[x, other]),
            7 if shape[1] < 20 => {
                let mode =
                    if n.is_multiple_of(8) { ResizeMode::Nearest } else { ResizeMode::Bilinear };
                net.plain(Op::Resize { factor: [2, 1], mode }, &[x])
            }
            8 if shape[1].is_multiple_of(2) && shape[2].is_multiple_of(2) && shape[3] < 40 => {
                let order = ShuffleOrder::ChannelFirst;
                net.plain(Op::PixelUnshuffle { factor: 2, order }, &[x])
            }
            9 if shape[3] >= 16 && shape[3].is_multiple_of(4) && shape[1] < 20 => {
                let order = ShuffleOrder::BlockFirst;
                net.plain(Op::PixelShuffle { factor: 2, order }, &[x])
            }
            10 if shape[3].is_multiple_of(2) => net.group_norm(x, 2, Some(Unary::Silu)),
            11 => {
                let kind = PoolKind::Max;
                net.plain(Op::Pool { kind, window: window(3, 1, 1) }, &[x])
            }
            _ => net.layer_norm(x),
        };
        earlier.push(x);
    }
    net.output(x);
    // Sometimes a value inside the run is read as well.
    if net.below(3) == 0 {
        let index = 1 + net.below(earlier.len() - 1);
        net.output(earlier[index]);
    }
    net
}

fn strips(net: &Net, threads: usize, height: usize, scratch_bytes: usize) -> Plan {
    let recipe = PlanRecipe { strips: Strips::Height(height), scratch_bytes, quantised: true };
    Plan::of_recipe(&net.graph, &PlanOptions::new(BINDING, threads), recipe).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn strips_change_no_byte(
        seed in 0u64..1 << 40,
        height in 1usize..9,
        threads in 1usize..4,
        scratch_bytes in prop::sample::select(vec![0usize, 2000, 1 << 18]),
    ) {
        let net = rolling(seed);
        let kernels = Kernels::available()[0];
        let whole = bits(&run(&net, plan(&net, 1), kernels));
        let tiled = strips(&net, threads, height, scratch_bytes);
        prop_assert_eq!(bits(&run(&net, tiled, kernels)), whole);
    }
}

#[test]
fn a_decoder_rolls_in_a_few_rows() {
    let mut net = Net::new(1);
    let mut x = net.input(&[1, 8, 8, 4], DType::F16);
    for level in 0..3 {
        x = net.conv_i8(x, 32, window(3, 1, 1), InputScale::Row, (Some(Unary::Relu), None));
        x = net.conv_i8(x, 32, window(3, 1, 1), InputScale::Row, (None, Some(x)));
        if level < 2 {
            x = net.plain(Op::Resize { factor: [2, 2], mode: ResizeMode::Nearest }, &[x]);
        }
    }
    let out = net.conv_i8(x, 3, window(3, 1, 1), InputScale::Row, (None, None));
    net.output(out);
    let (whole, tiled) = (plan(&net, 1), strips(&net, 1, 1, 0));
    // Two images of 32 x 32 x 32 halves against rings of some rows.
    assert!(whole.arena_bytes > 128 << 10, "{}", whole.arena_bytes);
    assert!(tiled.arena_bytes < 48 << 10, "{}", tiled.arena_bytes);
    let kernels = Kernels::available()[0];
    assert_eq!(bits(&run(&net, tiled, kernels)), bits(&run(&net, whole, kernels)));
}

#[test]
fn workers_with_many_rows_prepare_their_own_lines() {
    let mut net = Net::new(3);
    let mut x = net.input(&[2, 61, 50, 8], DType::F16);
    x = net.conv_i8(x, 20, window(3, 1, 1), InputScale::Row, (Some(Unary::Relu), None));
    x = net.conv_i8(x, 20, window(3, 1, 1), InputScale::Static(0.02), (None, Some(x)));
    x = net.conv_f16(x, 12, window(3, 1, 1), (None, None));
    let out = net.conv_i8(x, 8, window(3, 2, 1), InputScale::Row, (None, None));
    net.output(out);
    let kernels = Kernels::available()[0];
    let expected = bits(&run(&net, plan(&net, 1), kernels));
    for (threads, height, scratch_bytes) in
        [(2, 122, 1 << 18), (2, 40, 4000), (3, 61, 9000), (4, 33, 1 << 18)]
    {
        let tiled = strips(&net, threads, height, scratch_bytes);
        let run = bits(&run(&net, tiled, kernels));
        assert_eq!(run, expected, "{threads} threads, {height} rows, {scratch_bytes} bytes");
    }
}

#[test]
fn values_larger_than_a_cache_roll_by_themselves() {
    let mut net = Net::new(1);
    let input = net.input(&[1, 384, 384, 4], DType::F16);
    let mut x = net.conv_i8(input, 8, window(3, 1, 1), InputScale::Row, (Some(Unary::Relu), None));
    x = net.conv_i8(x, 8, window(3, 1, 1), InputScale::Static(0.02), (None, Some(x)));
    let out = net.conv_i8(x, 4, window(3, 1, 1), InputScale::Row, (None, None));
    net.output(out);
    let recipe = PlanRecipe { strips: Strips::None, ..PlanRecipe::ALL[0] };
    let whole = Plan::of_recipe(&net.graph, &PlanOptions::new(BINDING, 2), recipe).unwrap();
    let rolled = plan(&net, 2);
    assert_eq!((whole.strip_height, rolled.strip_height), (None, Some(160)));
    assert!(rolled.arena_bytes < whole.arena_bytes);
    let kernels = Kernels::available()[0];
    assert_eq!(bits(&run(&net, rolled, kernels)), bits(&run(&net, whole, kernels)));
}

#[test]
fn any_limit_gives_the_same_bytes_or_names_the_smallest() {
    let net = ops::unet(9);
    let kernels = Kernels::available()[0];
    let whole = plan(&net, 2);
    let expected = bits(&run(&net, whole.clone(), kernels));
    let mut options = PlanOptions::new(BINDING, 2);
    options.arena_bytes_max = 0;
    let refused = Plan::new(&net.graph, &options).unwrap_err();
    let crate::plan::PlanError::Arena { needed, allowed: 0, .. } = refused else {
        panic!("{refused}");
    };
    assert!(needed <= whole.arena_bytes, "{needed} {}", whole.arena_bytes);
    for limit in (needed..whole.arena_bytes + 1).step_by(4096) {
        options.arena_bytes_max = limit;
        let plan = Plan::new(&net.graph, &options).unwrap();
        assert!(plan.arena_bytes <= limit);
        assert_eq!(bits(&run(&net, plan, kernels)), expected, "at {limit}");
    }
}
