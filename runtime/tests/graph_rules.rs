//! Shapes of every op: against plain counting, and never a panic whatever the operands.

use plantain::graph::{
    Binary, Binding, Dim, Epilogue, Fault, InputScale, Op, PoolKind, ResizeMode, ShuffleOrder,
    Unary, Weight, Window, output_shape,
};
use proptest::prelude::*;

const ONE: Binding = Binding { batch: 1, height: 1, width: 1 };

fn weight() -> Weight {
    Weight { panels: "w".into(), scale: None, sums: None, bias: None }
}

fn conv(c: u32, n: u32, window: Window) -> Op {
    let (weight, input_scale, epilogue) = (weight(), InputScale::Row, Epilogue::default());
    Op::ConvI8 { weight, c, n, window, input_scale, epilogue }
}

fn shape(op: &Op, inputs: &[&[usize]], stated: &[usize]) -> Result<Vec<usize>, Fault> {
    output_shape(op, inputs, stated, ONE)
}

#[test]
fn known_shapes() {
    let three = Window { kernel: [3, 3], stride: [2, 2], pad: [1, 1, 1, 1] };
    let x: &[usize] = &[2, 9, 8, 4];
    let order = ShuffleOrder::BlockFirst;
    type Case<'a> = (Op, Vec<&'a [usize]>, &'a [usize], Vec<usize>);
    let table: Vec<Case<'_>> = vec![
        (conv(4, 7, three), vec![x], &[], vec![2, 5, 4, 7]),
        (Op::Pool { kind: PoolKind::Max, window: three }, vec![x], &[], vec![2, 5, 4, 4]),
        (
            Op::Resize { factor: [2, 3], mode: ResizeMode::Nearest },
            vec![x],
            &[],
            vec![2, 18, 24, 4],
        ),
        (Op::PixelShuffle { factor: 2, order }, vec![x], &[], vec![2, 18, 16, 1]),
        (Op::PixelUnshuffle { factor: 2, order }, vec![&[2, 8, 8, 3]], &[], vec![2, 4, 4, 12]),
        (Op::Pad { pad: [1, 2, 3, 4], value: 0.0 }, vec![x], &[], vec![2, 13, 14, 4]),
        (Op::Concat { axis: 3 }, vec![x, x, x], &[], vec![2, 9, 8, 12]),
        (Op::Slice { axis: 1, start: Dim::fixed(4) }, vec![x], &[2, 5, 8, 4], vec![2, 5, 8, 4]),
        (Op::Transpose { permutation: vec![0, 3, 1, 2] }, vec![x], &[], vec![2, 4, 9, 8]),
        (Op::Reshape, vec![x], &[2, 72, 4], vec![2, 72, 4]),
        (Op::Expand, vec![&[2, 1, 4]], &[2, 5, 4], vec![2, 5, 4]),
        (Op::Binary { function: Binary::Mul }, vec![&[2, 1, 4], &[1, 5, 4]], &[], vec![2, 5, 4]),
        (Op::Modulate, vec![&[2, 5, 4], &[2, 1, 4], &[1, 1, 4]], &[], vec![2, 5, 4]),
        (Op::Gated { function: Unary::Silu }, vec![&[2, 5, 4]], &[], vec![2, 5, 2]),
        (Op::BatchMatmul { transpose_b: true }, vec![&[2, 5, 4], &[2, 6, 4]], &[], vec![2, 5, 6]),
        (Op::ReduceMean { axes: vec![1, 2] }, vec![x], &[], vec![2, 1, 1, 4]),
        (Op::Softmax, vec![x], &[], x.to_vec()),
        (
            Op::Attention { heads: 2, scale: 1.0, causal: false },
            vec![&[2, 5, 4], &[2, 6, 4], &[2, 6, 4], &[1, 1, 6]],
            &[],
            vec![2, 5, 4],
        ),
        (
            Op::AttentionI8 { heads: 2, scale: 1.0, causal: false },
            vec![&[2, 5, 4], &[2, 6, 4], &[2, 6, 4], &[1, 1, 6]],
            &[],
            vec![2, 5, 4],
        ),
        (
            Op::Gather { table: "t".into(), scale: None, rows: 9 },
            vec![&[2, 7]],
            &[2, 7, 3],
            vec![2, 7, 3],
        ),
    ];
    for (op, inputs, stated, expected) in table {
        assert_eq!(shape(&op, &inputs, stated), Ok(expected), "{op:?}");
    }
}

#[test]
fn misfits_name_both_numbers() {
    let sentence = |op: &Op, inputs: &[&[usize]], stated: &[usize]| {
        shape(op, inputs, stated).unwrap_err().to_string()
    };
    let one = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
    let channels = sentence(&conv(4, 7, one), &[&[1, 2, 2, 5]], &[]);
    assert_eq!(channels, "its number of channels is 5 but must be 4");
    let halves = sentence(&Op::Gated { function: Unary::Silu }, &[&[1, 5]], &[]);
    assert_eq!(halves, "its last dimension is 5, which does not divide by 2");
    let reshape = sentence(&Op::Reshape, &[&[2, 3]], &[7]);
    assert_eq!(reshape, "its inputs have shapes [2, 3] and [7], which do not fit each other");
    let slice = sentence(&Op::Slice { axis: 0, start: Dim::fixed(3) }, &[&[4]], &[2]);
    assert_eq!(slice, "its end of the slice is 5 but must be at most the input's dimension");
    let add = sentence(&Op::Binary { function: Binary::Add }, &[&[4], &[4, 1]], &[]);
    assert_eq!(add, "its input 1 has 2 dimensions but needs 1");
    let axis = sentence(&Op::Concat { axis: 1 }, &[&[4]], &[]);
    assert_eq!(axis, "its axis is 1 but must be below the number of dimensions");
}

prop_compose! {
    fn any_window()(kernel in any::<[u8; 2]>(), stride in any::<[u8; 2]>(), pad in any::<[u8; 4]>()) -> Window {
        Window { kernel: kernel.map(u32::from), stride: stride.map(u32::from), pad: pad.map(u32::from) }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let number = prop_oneof![0..6u32, any::<u32>()];
    let axes = proptest::collection::vec(0..8u32, 0..8);
    let order = ShuffleOrder::ChannelFirst;
    prop_oneof![
        (number.clone(), number.clone()).prop_map(|(k, n)| Op::MatmulF16 {
            weight: weight(),
            k,
            n,
            epilogue: Epilogue::default()
        }),
        (number.clone(), number.clone(), any_window())
            .prop_map(|(c, n, window)| conv(c, n, window)),
        any_window().prop_map(|window| Op::Pool { kind: PoolKind::Average, window }),
        any::<bool>().prop_map(|transpose_b| Op::BatchMatmul { transpose_b }),
        number.clone().prop_map(|heads| Op::Attention { heads, scale: 1.0, causal: true }),
        number.clone().prop_map(|heads| Op::AttentionI8 { heads, scale: 1.0, causal: true }),
        number.clone().prop_map(|size| Op::RmsNorm { eps: 0.0, size, gamma: "g".into() }),
        number.clone().prop_map(|groups| Op::GroupNorm {
            groups,
            eps: 0.0,
            gamma: "g".into(),
            beta: "b".into(),
            activation: None
        }),
        Just(Op::Binary { function: Binary::Add }),
        Just(Op::Modulate),
        Just(Op::Gated { function: Unary::Silu }),
        any::<[u32; 2]>().prop_map(|factor| Op::Resize { factor, mode: ResizeMode::Nearest }),
        number.clone().prop_map(move |factor| Op::PixelShuffle { factor, order }),
        number.clone().prop_map(move |factor| Op::PixelUnshuffle { factor, order }),
        number.clone().prop_map(|axis| Op::Concat { axis }),
        (number.clone(), any::<i64>(), any::<u32>()).prop_map(|(axis, start, divisor)| Op::Slice {
            axis,
            start: Dim::from_coefficients([start, start, 0, 0, 0, 0, 0, start], divisor)
                .unwrap_or(Dim::fixed(0)),
        }),
        axes.clone().prop_map(|permutation| Op::Transpose { permutation }),
        Just(Op::Reshape),
        Just(Op::Expand),
        any::<[u32; 4]>().prop_map(|pad| Op::Pad { pad, value: 0.0 }),
        number.prop_map(|rows| Op::Gather { table: "t".into(), scale: None, rows }),
        Just(Op::TimestepEmbedding { frequencies: "f".into(), sin_first: false }),
        axes.prop_map(|axes| Op::ReduceSum { axes }),
    ]
}

fn any_shape() -> impl Strategy<Value = Vec<usize>> {
    let dim = prop_oneof![1..5usize, 1..=1usize << 28];
    proptest::collection::vec(dim, 0..8)
}

proptest! {
    #[test]
    fn no_operands_make_it_panic(
        op in any_op(),
        inputs in proptest::collection::vec(any_shape(), 0..5),
        stated in any_shape(),
        same in any::<bool>(),
    ) {
        let inputs: Vec<&[usize]> =
            inputs.iter().map(|shape| if same { &*inputs[0] } else { &**shape }).collect();
        if let Ok(output) = shape(&op, &inputs, &stated) {
            prop_assert!(output.iter().all(|&dim| dim <= 1 << 28), "{:?}", output);
        }
    }

    #[test]
    fn windows_are_as_many_as_fit(size in 1..40usize, kernel in 1..6u32, stride in 1..4u32, before in 0..3u32, after in 0..3u32) {
        let window = Window { kernel: [kernel, 1], stride: [stride, 1], pad: [before, 0, after, 0] };
        let padded = size + (before + after) as usize;
        // Counted, window by window.
        let count = (0..padded).step_by(stride as usize).filter(|at| at + kernel as usize <= padded).count();
        match shape(&conv(3, 2, window), &[&[1, size, 1, 3]], &[]) {
            Ok(output) => prop_assert_eq!(output, vec![1, count, 1, 2]),
            Err(_) => prop_assert_eq!(count, 0),
        }
    }
}
