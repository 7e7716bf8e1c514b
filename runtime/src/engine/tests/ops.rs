//! Every op, alone and in a small UNet.

use super::check;
use super::functions;
use super::naive::Full;
use super::net::{Net, window};
use crate::graph::{
    Binary, DType, Dim, InputScale, Op, PoolKind, ResizeMode, ShuffleOrder, Unary, ValueId, Window,
};

/// An int8 UNet with attention, a skip, a timestep and text states.
pub fn unet(seed: u64) -> Net {
    let mut net = Net::new(seed);
    let (row, fixed) = (InputScale::Row, InputScale::Static(3.0 / 127.0));
    let sample = net.input(&[2, 8, 6, 4], DType::F32);
    let states = net.input(&[2, 5, 24], DType::F16);
    let time = net.input(&[2, 1, 1, 32], DType::F16);
    let shift = net.matmul_i8(time, 32, (Some(Unary::Silu), None));
    let first = net.conv_i8(sample, 32, window(3, 1, 1), row, (None, None));
    let normed = net.group_norm(first, 4, Some(Unary::Silu));
    let hidden = net.conv_i8(normed, 32, window(3, 1, 1), fixed, (None, None));
    let hidden = net.plain(Op::Binary { function: Binary::Add }, &[hidden, shift]);
    let normed = net.group_norm(hidden, 8, Some(Unary::Silu));
    let block = net.conv_i8(normed, 32, window(3, 1, 1), row, (None, Some(first)));
    let down = net.conv_i8(block, 48, window(3, 2, 1), row, (Some(Unary::Silu), None));
    let shape = net.shape(down);
    let tokens = net.plain_to(Op::Reshape, &[down], Some(&[2, shape[1] * shape[2], 48]));
    let normed = net.layer_norm(tokens);
    let q = net.matmul_i8(normed, 48, (None, None));
    let k = net.matmul_i8(states, 48, (None, None));
    let v = net.matmul_f16(states, 48, (None, None));
    let attended = net.attention(&[q, k, v], 3, false);
    let tokens = net.matmul_i8(attended, 48, (None, Some(tokens)));
    let normed = net.layer_norm(tokens);
    let [q, k, v] = [0, 1, 2].map(|_| net.matmul_i8(normed, 48, (None, None)));
    let attended = net.attention_i8(&[q, k, v], 3, false);
    let tokens = net.matmul_i8(attended, 48, (None, Some(tokens)));
    let wide = net.matmul_i8(tokens, 96, (None, None));
    let gated = net.plain(Op::Gated { function: Unary::Gelu }, &[wide]);
    let tokens = net.matmul_i8(gated, 48, (None, Some(tokens)));
    let image = net.plain_to(Op::Reshape, &[tokens], Some(&shape));
    let up = Op::Resize { factor: [2, 2], mode: ResizeMode::Nearest };
    let image = net.plain(up, &[image]);
    let both = net.plain(Op::Concat { axis: 3 }, &[image, block]);
    let image = net.conv_i8(both, 32, window(3, 1, 1), row, (Some(Unary::Silu), None));
    net.dtype = DType::F32;
    let out = net.conv_f16(image, 4, window(3, 1, 1), (None, None));
    net.output(out);
    net
}

fn image(net: &mut Net) -> ValueId {
    net.input(&[2, 6, 8, 12], DType::F16)
}

/// One op on its own, checked.
fn alone(build: impl FnOnce(&mut Net) -> ValueId) {
    let mut net = Net::new(11);
    let out = build(&mut net);
    net.output(out);
    check(&net, 0.01);
}

#[test]
fn convolutions_of_odd_sizes() {
    let windows = [
        window(1, 1, 0),
        window(3, 1, 1),
        window(3, 2, 1),
        window(1, 2, 0),
        Window { kernel: [2, 3], stride: [2, 1], pad: [0, 1, 1, 2] },
        window(5, 1, 2),
    ];
    for window in windows {
        for c in [3, 8, 13] {
            for n in [5, 16, 40] {
                for scale in [InputScale::Row, InputScale::Static(1.0 / 127.0)] {
                    alone(|net| {
                        let x = net.input(&[2, 6, 7, c], DType::F16);
                        net.conv_i8(x, n, window, scale, (Some(Unary::LeakyRelu(0.1)), None))
                    });
                }
                alone(|net| {
                    let x = net.input(&[2, 6, 7, c], DType::F32);
                    net.conv_f16(x, n, window, (Some(Unary::Silu), None))
                });
            }
        }
    }
}

#[test]
fn residuals_are_added_last() {
    alone(|net| {
        let x = image(net);
        let y = net.unary(Unary::Tanh, x);
        net.conv_i8(y, 12, window(3, 1, 1), InputScale::Row, (Some(Unary::Relu), Some(x)))
    });
    alone(|net| {
        let x = image(net);
        net.conv_f16(x, 12, window(1, 1, 0), (Some(Unary::Relu), Some(x)))
    });
    alone(|net| {
        let x = net.input(&[1, 9, 32], DType::F16);
        net.matmul_i8(x, 32, (Some(Unary::Gelu), Some(x)))
    });
    alone(|net| {
        let x = image(net);
        net.depthwise(x, window(3, 1, 1), (Some(Unary::Silu), Some(x)))
    });
}

#[test]
fn matmuls_of_odd_sizes() {
    for (shape, n) in [(vec![1, 1, 5], 3), (vec![2, 33, 64], 70), (vec![1, 130, 36], 16)] {
        for dtype in [DType::F16, DType::F32] {
            alone(|net| {
                let x = net.input(&shape, dtype);
                net.matmul_i8(x, n, (Some(Unary::QuickGelu), None))
            });
            alone(|net| {
                let x = net.input(&shape, dtype);
                net.matmul_f16(x, n, (None, None))
            });
        }
    }
    for transpose_b in [false, true] {
        for lead in [vec![2], vec![2, 3]] {
            alone(|net| {
                let shape = |tail: [usize; 2]| [&lead[..], &tail].concat();
                let a = net.input(&shape([7, 10]), DType::F16);
                let b = if transpose_b { [9, 10] } else { [10, 9] };
                let b = net.input(&shape(b), DType::F16);
                net.plain(Op::BatchMatmul { transpose_b }, &[a, b])
            });
        }
    }
}

#[test]
fn attention_with_and_without_mask() {
    for causal in [false, true] {
        for mask in [None, Some([1, 1, 70]), Some([2, 1, 70]), Some([1, 70, 70]), Some([2, 70, 70])]
        {
            alone(|net| {
                let shape = [2, 70, 24];
                let mut inputs: Vec<ValueId> =
                    (0..3).map(|_| net.input(&shape, DType::F16)).collect();
                inputs.extend(mask.map(|shape| net.input(&shape, DType::F32)));
                net.attention(&inputs, 3, causal)
            });
        }
    }
}

#[test]
fn attention_in_int8_with_and_without_mask() {
    for causal in [false, true] {
        for mask in [None, Some([1, 1, 70]), Some([2, 1, 70]), Some([1, 70, 70]), Some([2, 70, 70])]
        {
            let mut net = Net::new(11);
            let shape = [2, 70, 24];
            let mut inputs: Vec<ValueId> = (0..3).map(|_| net.input(&shape, DType::F16)).collect();
            inputs.extend(mask.map(|shape| net.input(&shape, DType::F32)));
            let out = net.attention_i8(&inputs, 3, causal);
            net.output(out);
            check(&net, 0.03);
        }
    }
}

#[test]
fn attention_in_int8_of_odd_sizes() {
    for (queries, keys, heads, head) in
        [(1, 1, 1, 1), (3, 200, 2, 5), (130, 65, 5, 17), (50, 9, 1, 64)]
    {
        let mut net = Net::new(12);
        let q = net.input(&[2, queries, heads * head], DType::F16);
        let [k, v] = [0, 1].map(|_| net.input(&[2, keys, heads * head], DType::F32));
        let out = net.attention_i8(&[q, k, v], heads, false);
        net.output(out);
        check(&net, 0.03);
    }
}

#[test]
fn norms() {
    alone(|net| {
        let x = image(net);
        net.group_norm(x, 3, Some(Unary::Silu))
    });
    alone(|net| {
        let x = net.input(&[2, 9, 12], DType::F16);
        net.group_norm(x, 4, None)
    });
    alone(|net| {
        let x = image(net);
        net.layer_norm(x)
    });
    alone(|net| {
        let x = net.input(&[1, 7, 24], DType::F32);
        net.rms_norm(x, 8)
    });
    alone(|net| {
        let x = image(net);
        net.plain(Op::Softmax, &[x])
    });
}

#[test]
fn values_one_by_one() {
    for function in [Unary::Silu, Unary::Gelu, Unary::Exp, Unary::Affine { scale: 2.0, shift: 1.0 }]
    {
        alone(|net| {
            let x = image(net);
            net.unary(function, x)
        });
    }
    for (a, b) in [
        (vec![2, 6, 8, 12], vec![2, 6, 8, 12]),
        (vec![2, 6, 8, 12], vec![2, 1, 1, 12]),
        (vec![2, 6, 8, 12], vec![1, 6, 1, 1]),
        (vec![2, 1, 8, 1], vec![2, 6, 8, 12]),
        (vec![1, 1, 12], vec![2, 5, 12]),
        (vec![2, 5, 12], vec![2, 5, 1]),
    ] {
        for function in [Binary::Sub, Binary::Mul, Binary::Max] {
            alone(|net| {
                let inputs = [net.input(&a, DType::F16), net.input(&b, DType::F32)];
                net.plain(Op::Binary { function }, &inputs)
            });
        }
    }
    alone(|net| {
        let inputs = [[2, 5, 12], [2, 1, 12], [2, 1, 12]].map(|s| net.input(&s, DType::F16));
        net.plain(Op::Modulate, &inputs)
    });
    alone(|net| {
        let x = image(net);
        net.plain(Op::Gated { function: Unary::GeluTanh }, &[x])
    });
    alone(|net| {
        let x = image(net);
        net.dtype = DType::F32;
        net.plain(Op::Cast, &[x])
    });
}

#[test]
fn moves() {
    for order in [ShuffleOrder::ChannelFirst, ShuffleOrder::BlockFirst] {
        alone(|net| {
            let x = image(net);
            net.plain(Op::PixelShuffle { factor: 2, order }, &[x])
        });
        alone(|net| {
            let x = image(net);
            net.plain(Op::PixelUnshuffle { factor: 2, order }, &[x])
        });
    }
    for axis in 0..4 {
        alone(|net| {
            let mut shape = [2, 6, 8, 12];
            let a = net.input(&shape, DType::F16);
            shape[axis] += 1;
            let b = net.input(&shape, DType::F16);
            net.plain(Op::Concat { axis: axis as u32 }, &[a, b, a])
        });
        alone(|net| {
            let x = image(net);
            let mut shape = [2, 6, 8, 12];
            shape[axis] = 1;
            let op = Op::Slice { axis: axis as u32, start: Dim::fixed(1) };
            net.plain_to(op, &[x], Some(&shape))
        });
    }
    for permutation in [vec![0, 3, 1, 2], vec![3, 2, 1, 0], vec![0, 2, 1, 3]] {
        alone(|net| {
            let x = image(net);
            net.plain(Op::Transpose { permutation }, &[x])
        });
    }
    alone(|net| {
        let x = net.input(&[2, 1, 8, 1], DType::F16);
        net.plain_to(Op::Expand, &[x], Some(&[2, 6, 8, 3]))
    });
    alone(|net| {
        let x = image(net);
        net.plain(Op::Pad { pad: [1, 2, 3, 0], value: 0.5 }, &[x])
    });
    alone(|net| {
        let c = net.constant(&[1, 4, 6]);
        net.plain_to(Op::Reshape, &[c], Some(&[1, 24]))
    });
}

#[test]
fn windows_and_reductions() {
    for kind in [PoolKind::Average, PoolKind::Max] {
        for window in [window(2, 2, 0), window(3, 1, 1)] {
            alone(|net| {
                let x = image(net);
                net.plain(Op::Pool { kind, window }, &[x])
            });
        }
    }
    alone(|net| {
        let x = image(net);
        net.depthwise(x, window(3, 2, 1), (None, None))
    });
    for mode in [ResizeMode::Nearest, ResizeMode::Bilinear] {
        alone(|net| {
            let x = image(net);
            net.plain(Op::Resize { factor: [2, 3], mode }, &[x])
        });
    }
    for axes in [vec![1, 2], vec![3], vec![0, 1, 2, 3], vec![1, 3]] {
        alone(|net| {
            let x = image(net);
            net.plain(Op::ReduceMean { axes: axes.clone() }, &[x])
        });
        alone(|net| {
            let x = image(net);
            net.plain(Op::ReduceSum { axes }, &[x])
        });
    }
}

#[test]
fn embeddings() {
    alone(|net| {
        let ids = net.ids(&[2, 5], 9);
        let (table, values) = net.halves(9 * 10);
        let data = net.full(ids).data.iter().flat_map(|&id| {
            let at = id as usize * 10;
            values[at..at + 10].to_vec()
        });
        let result = Full::new(&[2, 5, 10], data.collect());
        net.push(Op::Gather { table, scale: None, rows: 9 }, &[ids], result)
    });
    alone(|net| {
        let ids = net.ids(&[1, 5], 9);
        let raw: Vec<i8> = (0..90).map(|i| (i * 37 % 255 - 127) as i8).collect();
        let table = net.tensor(&raw);
        let (scale, scales) = net.floats(9);
        let data = net.full(ids).data.iter().flat_map(|&id| {
            let row = id as usize;
            let (raw, scale) = (&raw[row * 10..row * 10 + 10], scales[row]);
            raw.iter().map(|&x| f32::from(x) * scale).collect::<Vec<_>>()
        });
        let result = Full::new(&[1, 5, 10], data.collect());
        net.push(Op::Gather { table, scale: Some(scale), rows: 9 }, &[ids], result)
    });
    for sin_first in [false, true] {
        alone(|net| {
            let t = net.input(&[3], DType::F32);
            let (frequencies, values) = net.floats(6);
            let (a, b) =
                if sin_first { (Unary::Sin, Unary::Cos) } else { (Unary::Cos, Unary::Sin) };
            let data = net.full(t).data.iter().flat_map(|&t| {
                [a, b]
                    .map(|f| values.iter().map(|x| functions::unary(f, t * x)).collect::<Vec<_>>())
            });
            let result = Full::new(&[3, 12], data.flatten().collect());
            net.push(Op::TimestepEmbedding { frequencies, sin_first }, &[t], result)
        });
    }
}
